"""Stay near the model before the request: the simplest guard of what earlier requests did."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pulse_unlearn.config import Span
from pulse_unlearn.methods.base import METHODS
from pulse_unlearn.methods.composed import OneLoss
from pulse_unlearn.methods.constraints import Constraint, L2Previous


@METHODS.register("l2_previous")
class NearPrevious(OneLoss):
    """A loss and `weight / 2` times the squared distance from where the request began."""

    weight: Annotated[float, Field(ge=0), Span(1e-3, 10.0)] = 0.1

    def _constraint(self) -> Constraint:
        return L2Previous(weight=self.weight)
