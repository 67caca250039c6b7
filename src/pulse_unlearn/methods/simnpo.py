"""Negative preference optimisation without a reference model (SimNPO)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pulse_unlearn.config import Settings, Span
from pulse_unlearn.methods.base import METHODS, Needs, Term, Views


@METHODS.register("simnpo")
class SimpleNegativePreference(Settings):
    """SimNPO (Fan et al. 2024, arXiv 2410.07163): NPO on the NLL per token, without a reference.

    Defaults are those of the authors' code for TOFU, which subtracts the margin before multiplying
    by beta; the paper's gamma is subtracted after, so it is beta times this margin.
    """

    beta: Annotated[float, Field(gt=0), Span(0.5, 10.0)] = 2.5
    margin: Annotated[float, Field(ge=0), Span(0.0, 2.0, log=False)] = 0.0
    """Nats per token of forgetting that count as none; called gamma or delta in published code."""
    forget_weight: Annotated[float, Field(gt=0), Span(0.02, 2.0)] = 0.1375
    retain_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the retain examples' mean negative log-likelihood."""

    @property
    def needs(self) -> Needs:
        """A retain batch if it has a weight."""
        return Needs(retain=self.retain_weight > 0)

    def terms(self, views: Views) -> tuple[Term, ...]:
        """Return the preference term and, if weighted, the retain term."""
        from pulse_unlearn.methods import losses

        values = losses.simnpo(views.forget, beta=self.beta, margin=self.margin)
        return (
            Term("simnpo", values, self.forget_weight),
            *losses.retain_terms(views, self.retain_weight),
        )
