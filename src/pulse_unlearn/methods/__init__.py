"""Unlearning methods: one file each, found through one registry.

Importing this package imports no torch, so that a plan is printed quickly; the losses do.
"""

from pydantic import BaseModel

from pulse_unlearn.methods import ga, ga_klr, npo
from pulse_unlearn.methods.base import METHODS, AnswerView, Extent, Method, Needs, Term, Views

__all__ = [
    "METHODS",
    "AnswerView",
    "Extent",
    "Method",
    "Needs",
    "Term",
    "Views",
    "build_method",
    "ga",
    "ga_klr",
    "npo",
    "schemas",
]


def schemas() -> dict[str, type[BaseModel]]:
    """Return each method's settings model by name, for checking an experiment file."""
    return dict(METHODS)


def build_method(name: str, settings: dict[str, object]) -> Method:
    """Return the method with its settings; raises ConfigError for an unknown name."""
    method: Method = METHODS.get(name)(**settings)
    return method
