"""Gradient projection: each request keeps out of the directions that earlier requests used."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pulse_unlearn.config import Span
from pulse_unlearn.methods.base import METHODS
from pulse_unlearn.methods.composed import LossChoice, OneLoss
from pulse_unlearn.methods.constraints import Constraint, Projection


@METHODS.register("gradient_projection")
class GradientProjection(OneLoss):
    """A loss whose steps are orthogonal to gradients remembered from earlier requests.

    With one direction a request it is orthogonal gradient descent (arXiv 1910.07104), with several
    ONPO's subspace: see `constraints.Projection`.
    """

    loss: LossChoice = Field(default_factory=lambda: LossChoice(method="npo"))
    """What is trained with, by its registered name."""
    batches: Annotated[int, Field(ge=1)] = 4
    """Batches whose gradients are looked at."""
    directions: Annotated[int, Field(ge=1), Span(1, 4)] = 1
    """Remembered of each request; at most `batches`."""

    def _constraint(self) -> Constraint:
        return Projection(batches=self.batches, directions=self.directions)
