"""Unlearning methods: one file each, found through one registry.

Importing this package imports no torch, so that a plan is printed quickly; the losses do.
"""

from pulse_unlearn.methods import (
    ce_u,
    dpo,
    ga,
    ga_klr,
    grad_diff,
    gradient_projection,
    idk,
    jensun,
    kl_min,
    llmu,
    npo,
    pruning,
    rmu,
    simnpo,
    task_vector,
    undial,
    weighted_ascent,
)
from pulse_unlearn.methods.base import (
    METHODS,
    AnswerView,
    Checked,
    Extent,
    GradientHook,
    Loss,
    Method,
    Needs,
    Part,
    Penalty,
    Procedure,
    Request,
    Session,
    Tensors,
    Term,
    Views,
)

__all__ = [
    "METHODS",
    "AnswerView",
    "Checked",
    "Extent",
    "GradientHook",
    "Loss",
    "Method",
    "Needs",
    "Part",
    "Penalty",
    "Procedure",
    "Request",
    "Session",
    "Tensors",
    "Term",
    "Views",
    "build_method",
    "ce_u",
    "dpo",
    "ga",
    "ga_klr",
    "grad_diff",
    "gradient_projection",
    "idk",
    "jensun",
    "kl_min",
    "llmu",
    "npo",
    "pruning",
    "rmu",
    "simnpo",
    "task_vector",
    "undial",
    "weighted_ascent",
]


def build_method(name: str, settings: dict[str, object]) -> Method:
    """Return the method with its settings; raises ConfigError for an unknown name."""
    method: Method = METHODS.get(name)(**settings)
    return method
