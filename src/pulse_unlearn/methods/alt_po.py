"""Alternate preference optimisation: plausible other answers preferred to the forget answer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pulse_unlearn.config import Settings, Span
from pulse_unlearn.methods.base import METHODS, Needs, Term, Views
from pulse_unlearn.methods.dpo import DirectPreference


@METHODS.register("alt_po")
class AlternatePreference(Settings):
    """AltPO (Mekala et al. 2024, arXiv 2409.13474): `dpo` with plausible answers and a retain term.

    Its authors have the model itself write several answers to each question; here one of the
    question's other options is drawn.
    """

    beta: Annotated[float, Field(gt=0), Span(0.05, 5.0)] = 0.1
    alternative: Literal["option", "any_option"] = "option"
    """The preferred answer: a wrong option, or any, the true one as often as each other."""
    retain_weight: Annotated[float, Field(ge=0), Span(0.1, 10.0)] = 1.0
    """Weight of the retain examples' mean negative log-likelihood."""

    @property
    def _loss(self) -> DirectPreference:
        return DirectPreference(
            beta=self.beta, alternative=self.alternative, retain_weight=self.retain_weight
        )

    @property
    def needs(self) -> Needs:
        """What `dpo` needs with these settings."""
        return self._loss.needs

    def terms(self, views: Views) -> tuple[Term, ...]:
        """Return the terms of `dpo` with these settings."""
        return self._loss.terms(views)
