"""What is registered, gathered for whoever reads an experiment; imports no torch."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pulse_unlearn.config import Schemas
from pulse_unlearn.evaluation.parsers import PARSERS
from pulse_unlearn.evaluation.scoring import parser_descriptions
from pulse_unlearn.methods import METHODS
from pulse_unlearn.registry import Registry
from pulse_unlearn.scenarios import EVALUATIONS, SCENARIOS
from pulse_unlearn.trackers import TRACKERS

GROUPS = {
    "methods": "pulse_unlearn.methods:METHODS",
    "parsers": "pulse_unlearn.evaluation.parsers:PARSERS",
    "scenarios": "pulse_unlearn.scenarios:SCENARIOS",
    "evaluations": "pulse_unlearn.scenarios:EVALUATIONS",
    "measures": "pulse_unlearn.evaluation.measures:MEASURES",
    "families": "pulse_unlearn.models.families:FAMILIES",
    "datasets": "pulse_unlearn.data.datasets:DATASETS",
    "prompts": "pulse_unlearn.data.prompts:PROFILES",
    "runners": "pulse_unlearn.pipeline.runners:RUNNERS",
    "trackers": "pulse_unlearn.trackers:TRACKERS",
}
"""Entry-point group, without `pulse_unlearn.` -> its registry, imported when it is asked for."""


def registry(group: str) -> Registry[Any]:
    """Return the registry of a group; raises KeyError."""
    module, _, name = GROUPS[group].partition(":")
    found: Registry[Any] = getattr(import_module(module), name)
    return found


def schemas() -> Schemas:
    """Return the settings of every method, scenario and evaluation, and the names of parsers."""
    # A method that cannot be loaded fails its own cells, and so it is no failure here.
    named: dict[str, Registry[Any]] = {
        "scenario": SCENARIOS,
        "evaluation": EVALUATIONS,
        "parser": PARSERS,
        "tracker": TRACKERS,
    }
    return Schemas(
        methods=dict(METHODS),
        scenarios={name: entry.settings for name, entry in SCENARIOS},
        evaluations=dict(EVALUATIONS),
        parsers=tuple(parser_descriptions()),
        trackers=tuple(TRACKERS.names()),
        failures={
            f"{kind} {name}": problem
            for kind, entries in named.items()
            for name, problem in entries.failures().items()
        },
    )
