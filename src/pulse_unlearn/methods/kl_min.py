"""KL minimisation: ascent on the forget answers, close to the reference on the retain answers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pulse_unlearn.config import Settings, Span
from pulse_unlearn.methods.base import METHODS, Needs, Term, Views


@METHODS.register("kl_min")
class KlMinimisation(Settings):
    """KL minimisation as TOFU has it (Maini et al. 2024, arXiv 2401.06121).

    The same loss as `ga_klr` by default, under its own name so that tables can say which was meant.
    The penalty is KL(reference || current) per answer token; published code takes every position,
    those of the prompt and of padding too.
    """

    retain_weight: Annotated[float, Field(gt=0), Span(0.1, 10.0)] = 1.0

    @property
    def needs(self) -> Needs:
        """A retain batch and the reference's distributions on it."""
        return Needs(retain=True, retain_reference="distribution")

    def terms(self, views: Views) -> tuple[Term, ...]:
        """Return the ascent term and the weighted KL term."""
        from pulse_unlearn.methods import losses

        return (
            Term("ascent", losses.gradient_ascent(views.forget)),
            *losses.retain_kl_terms(views, self.retain_weight),
        )
