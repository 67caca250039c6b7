"""A sparse update: any loss with an L1 penalty on what is trained (CLEAR's LoRA with L1)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pulse_unlearn.config import Span
from pulse_unlearn.methods.base import METHODS
from pulse_unlearn.methods.composed import OneLoss
from pulse_unlearn.methods.constraints import L1, Constraint


@METHODS.register("lora_l1")
class SparseUpdate(OneLoss):
    """A loss and `weight` times the L1 norm of the trained tensors (CLEAR, arXiv 2410.18057).

    CLEAR's code has 0 for the weight, its paper searches one; the norm is a sum over all entries.
    """

    weight: Annotated[float, Field(ge=0), Span(1e-6, 1e-2)] = 1e-4

    def _constraint(self) -> Constraint:
        return L1(weight=self.weight)
