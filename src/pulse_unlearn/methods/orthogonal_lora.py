"""An adapter a request, each reading other directions of the input than those before (O3)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pulse_unlearn.config import Span
from pulse_unlearn.methods.base import METHODS
from pulse_unlearn.methods.composed import OneLoss
from pulse_unlearn.methods.constraints import Constraint, OrthogonalLora


@METHODS.register("orthogonal_lora")
class OrthogonalUpdates(OneLoss):
    """A loss under O3's orthogonality (arXiv 2407.10223): see `constraints.OrthogonalLora`."""

    weight: Annotated[float, Field(ge=0), Span(0.01, 10.0)] = 0.1

    def _constraint(self) -> Constraint:
        return OrthogonalLora(weight=self.weight)
