"""Elastic weight consolidation: what matters to the retain set, or to earlier requests, stays."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pulse_unlearn.config import Span
from pulse_unlearn.methods.base import METHODS
from pulse_unlearn.methods.composed import OneLoss
from pulse_unlearn.methods.constraints import Constraint, Ewc


@METHODS.register("ewc")
class ElasticWeightConsolidation(OneLoss):
    """A loss under EWC (Kirkpatrick et al. 2017, arXiv 1612.00796): see `constraints.Ewc`."""

    weight: Annotated[float, Field(ge=0), Span(1.0, 1e4)] = 100.0
    protects: Literal["retain", "requests"] = "retain"
    """What the Fisher information is of: the retain batch, or what earlier requests did."""
    batches: Annotated[int, Field(ge=1)] = 8
    """Batches it is estimated on."""

    def _constraint(self) -> Constraint:
        return Ewc(weight=self.weight, protects=self.protects, batches=self.batches)
