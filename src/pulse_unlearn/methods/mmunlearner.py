"""MMUnlearner: only what matters more to D_unlearn than to D_retain is changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from pulse_unlearn.config import Settings, Span, UnlearnSettings
from pulse_unlearn.errors import MethodError, Problem
from pulse_unlearn.methods.base import METHODS, Needs, Session, Tensors
from pulse_unlearn.methods.composed import LossChoice
from pulse_unlearn.methods.constraints import RetainNll
from pulse_unlearn.methods.task_vector import Memorise

if TYPE_CHECKING:
    from torch import Tensor

_NOTHING = 1e-15
"""Added to both Fisher informations, as published."""
_A, _B = ".lora_A.", ".lora_B."


@METHODS.register("mmunlearner")
class MMUnlearner(Settings):
    """A loss under a saliency mask (MMUnlearner, Huo et al. 2025, arXiv 2502.11051).

    A number is trained where `(Fisher_F + 1e-15) / (Fisher_R + 1e-15) >= threshold`, both of the
    model as the request finds it; every other one is put back after each update. Of LoRA it is rows
    of B that are trained or held: such a row is an output row of the weight.
    """

    by_steps: ClassVar[bool] = True

    loss: LossChoice = Field(default_factory=lambda: LossChoice(method="grad_diff"))
    """What is trained with, by its registered name."""
    threshold: Annotated[float, Field(gt=0), Span(0.1, 10.0)] = 1.0
    batches: Annotated[int, Field(ge=1)] = 8
    """Batches of either set that the Fisher information is estimated on."""

    @property
    def needs(self) -> Needs:
        """What the loss needs, and a retain batch."""
        return replace(self.loss.build().needs, retain=True)

    def problems(self, unlearn: UnlearnSettings) -> Iterator[Problem]:
        """Yield what the loss says of the settings."""
        yield from self.loss.weighted().problems(unlearn)

    def run(self, session: Session) -> None:
        """Take the mask of the tensors as they are, and train under it.

        Raises MethodError if it lets nothing change.
        """
        import torch

        forget = session.gradients(Memorise(), batches=self.batches, squared=True)
        retain = session.gradients(RetainNll(), batches=self.batches, squared=True)
        masks = saliency_masks(forget, retain, threshold=self.threshold)
        if not any(bool(mask.any()) for mask in masks.values()):
            problem = "nothing matters so much more to the forget than to the retain batch"
            fix = "lower settings.threshold"
            raise MethodError(Problem(problem, "settings.threshold", f"{self.threshold}", fix=fix))
        # A row of B A is where it was if A is, or if that row of B is 0. It is 0 in an adapter's
        # first request; in one that goes on A has to be held as well.
        before = session.initial
        begun = any(_B in name and bool(value.any()) for name, value in before.items())

        def hold(tensors: Tensors) -> None:
            for name, tensor in tensors.items():
                if name in masks:
                    tensor.copy_(torch.where(masks[name], tensor, before[name]))
                elif begun:
                    tensor.copy_(before[name])

        session.train(self.loss.weighted(), update_hook=hold)


def saliency_masks(forget: Tensors, retain: Tensors, *, threshold: float) -> dict[str, Tensor]:
    """Return what may change of each tensor: true entries, or of LoRA's B true rows [rows, 1].

    `forget` and `retain` are Fisher informations. A row's is the sum over it; of LoRA's A, which
    belongs to all rows, there is no mask.
    """
    masks: Mapping[str, Tensor] = {
        name: (_salience(name, forget[name]) + _NOTHING)
        / (_salience(name, retain[name]) + _NOTHING)
        >= threshold
        for name in forget
        if _A not in name
    }
    return dict(masks)


def _salience(name: str, fisher: Tensor) -> Tensor:
    wide = fisher.float()
    return wide.sum(1, keepdim=True) if _B in name else wide
