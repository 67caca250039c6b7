"""ALKN: learn the forget set where it is cheap to learn, then take away what was learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from pulse_unlearn.config import Settings, Span, UnlearnSettings
from pulse_unlearn.config.base import Fraction
from pulse_unlearn.errors import Problem
from pulse_unlearn.methods.base import METHODS, Needs, Session, Term, Views, present
from pulse_unlearn.methods.task_vector import needs_a_difference, negate
from pulse_unlearn.methods.updates import Rewritten

if TYPE_CHECKING:
    from torch import Tensor

_KNOWN = 0.8
"""Initial probability at which half of the rest to certainty is learned."""
_HALVING = 5
"""Steps in which the share of open entries falls to a half."""


class SoftMemorise(Settings):
    """Cross-entropy to the answers, softened towards what the reference says."""

    sharpness: Annotated[float, Field(ge=0)] = 1.5

    @property
    def needs(self) -> Needs:
        """The reference's distributions on the forget batch."""
        return Needs(forget_reference="distribution")

    def terms(self, views: Views) -> tuple[Term, ...]:
        """Return the one term."""
        from pulse_unlearn.methods import losses

        reference = present(views.forget_reference, "the reference model's log-probs")
        values = losses.softened_nll(
            views.forget, reference, sharpness=self.sharpness, known=_KNOWN
        )
        return (Term("soft_nll", values),)


@METHODS.register("alkn")
class AdaptiveNegation(Settings):
    """ALKN (Wuerkaixi et al., ICML 2025): a task vector learned softly and locally, then negated.

    The target of each answer token lies between the reference's distribution and certainty. Of each
    tensor the entries with the largest gradients of the step are open and the others move slowly;
    what is open falls to a half of its share within five steps. Later requests are negated less.
    """

    scale: Annotated[float, Field(gt=0), Span(0.1, 3.0)] = 1.0
    """What the first request's task vector is negated with."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.9
    """What the scale is multiplied by from each request to the next."""
    sharpness: Annotated[float, Field(ge=0)] = 1.5
    """How fast a token's target goes from unknown to known with its initial probability."""
    open_share: Annotated[Fraction, Field(gt=0), Span(0.1, 1.0, log=False)] = 0.8
    """Share of a tensor's entries that are open in the first step."""
    slow: Fraction = 0.1
    """Share of their update that the other entries keep."""

    @property
    def needs(self) -> Needs:
        """The reference's distributions on the forget batch."""
        return self._loss().needs

    def problems(self, unlearn: UnlearnSettings) -> Iterator[Problem]:
        """Refuse a continued adapter, as of every task vector."""
        yield from needs_a_difference(unlearn)

    def run(self, session: Session) -> None:
        """Learn under the mask for all steps, then reverse and scale the change."""
        import torch

        step = 0
        opened: dict[str, Tensor] = {}

        def count(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, float]:
            nonlocal step
            step = len(rows)  # the log comes back with a resumed phase, and so does the step
            return {}

        def look(gradients: dict[str, Tensor]) -> None:
            share = open_share(self.open_share, step)
            opened.update({name: largest(one, share) for name, one in gradients.items()})
            masked.gradient(gradients)

        def change(name: str, before: Tensor, after: Tensor) -> Tensor:
            return torch.where(opened[name], after, before + self.slow * (after - before))

        masked = Rewritten(session, session.initial, change)
        session.train(
            self._loss(),
            stop=False,
            term_weights=count,
            gradient_hook=look,
            update_hook=masked.update,
        )
        negate(session, self.scale * self.decay ** len(session.history))

    def _loss(self) -> SoftMemorise:
        return SoftMemorise(sharpness=self.sharpness)


def open_share(first: float, step: int) -> float:
    """Return the share of entries that are open at a step, from 0: linear down to a half."""
    return first * (1.0 - min(step, _HALVING) / (2 * _HALVING))


def largest(gradient: Tensor, share: float) -> Tensor:
    """Return where a gradient is among its largest in absolute value, equal ones included."""
    sizes = gradient.abs().flatten()
    count = max(1, round(share * len(sizes)))
    least = sizes.kthvalue(len(sizes) - count + 1).values
    return gradient.abs() >= least
