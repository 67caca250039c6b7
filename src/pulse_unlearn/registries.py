"""What is registered, gathered for whoever reads an experiment; imports no torch."""

from __future__ import annotations

from pulse_unlearn.config import Schemas
from pulse_unlearn.evaluation.scoring import parser_descriptions
from pulse_unlearn.methods import METHODS
from pulse_unlearn.scenarios import EVALUATIONS, SCENARIOS


def schemas() -> Schemas:
    """Return the settings of every method, scenario and evaluation, and the names of parsers."""
    return Schemas(
        methods=dict(METHODS),
        scenarios={name: entry.settings for name, entry in SCENARIOS},
        evaluations=dict(EVALUATIONS),
        parsers=tuple(parser_descriptions()),
    )
