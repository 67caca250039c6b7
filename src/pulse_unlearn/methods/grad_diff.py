"""Gradient difference: ascent on the forget answers, descent on the retain answers (GradDiff)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pulse_unlearn.config import Settings, Span
from pulse_unlearn.methods.base import METHODS, Needs, Term, Views


@METHODS.register("grad_diff")
class GradientDifference(Settings):
    """GradDiff (Liu et al. 2022, arXiv 2203.12817; TOFU, arXiv 2401.06121), also called GA+GDR.

    Unbounded like GA, so that a stop rule has to end it. Published code averages over the tokens of
    the whole batch, where long answers count more; here every example counts the same.
    """

    forget_weight: Annotated[float, Field(gt=0), Span(0.02, 2.0)] = 1.0
    retain_weight: Annotated[float, Field(gt=0)] = 1.0

    @property
    def needs(self) -> Needs:
        """A retain batch."""
        return Needs(retain=True)

    def terms(self, views: Views) -> tuple[Term, ...]:
        """Return the ascent term and the retain term."""
        from pulse_unlearn.methods import losses

        return (
            Term("ascent", losses.gradient_ascent(views.forget), self.forget_weight),
            *losses.retain_terms(views, self.retain_weight),
        )
