"""Gradient ascent on the forget answers (PULSE, GA)."""

from __future__ import annotations

from pulse_unlearn.config import Settings
from pulse_unlearn.methods.base import METHODS, Needs, Term, Views


@METHODS.register("ga")
class GradientAscent(Settings):
    """Ascent on D_unlearn only; unbounded, so that a stop rule has to end it."""

    @property
    def needs(self) -> Needs:
        """Nothing beyond the forget batch."""
        return Needs()

    def terms(self, views: Views) -> tuple[Term, ...]:
        """Return the negated mean negative log-likelihood of the forget answers."""
        from pulse_unlearn.methods import losses

        return (Term("ascent", losses.gradient_ascent(views.forget)),)
