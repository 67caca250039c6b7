"""Ascent, other answers, and closeness to the reference together (LLMU)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pulse_unlearn.config import Settings, Span
from pulse_unlearn.methods.base import METHODS, Needs, Term, Views, present
from pulse_unlearn.records import Alternative


@METHODS.register("llmu")
class LargeModelUnlearning(Settings):
    """LLMU (Yao et al. 2023, arXiv 2310.10683), which PULSE cites for its KL regularisation.

    Published code draws random answers from other questions at every step; here the other answer
    is fixed for a question and seed. Its last term is a cross-entropy to the reference over all
    positions, which over the answer's has the gradient of KL(reference || current).
    """

    alternative: Alternative = "option"
    """The other answer: a wrong option, any option, or a refusal."""
    ascent_weight: Annotated[float, Field(gt=0), Span(0.05, 2.0)] = 0.5
    alternative_weight: Annotated[float, Field(gt=0), Span(0.1, 5.0)] = 1.0
    retain_weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight of KL(reference || current) per answer token of the retain examples."""

    @property
    def needs(self) -> Needs:
        """Another answer to every forget question; a retain batch and the reference on it."""
        return Needs(retain=True, retain_reference="distribution", alternative=self.alternative)

    def terms(self, views: Views) -> tuple[Term, ...]:
        """Return the ascent term, the NLL of the other answers, and the KL term."""
        from pulse_unlearn.methods import losses

        other = present(views.alternative, "alternative answers")
        return (
            Term("ascent", losses.gradient_ascent(views.forget), self.ascent_weight),
            Term("alternative_nll", losses.mean_nll(other), self.alternative_weight),
            *losses.retain_kl_terms(views, self.retain_weight),
        )
