"""Gradient ascent with weighted tokens: WGA and SatImp."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pulse_unlearn.config import Settings, Span
from pulse_unlearn.methods.base import METHODS, Needs, Term, Views


@METHODS.register("wga")
class WeightedGradientAscent(Settings):
    """WGA (Wang et al. 2025, arXiv 2502.19301): tokens weighted by their probability to a power.

    Ascent slows down on tokens that are already unlikely. The weights are held constant; the mean
    is taken over an answer's tokens, in published code over those of the whole batch.
    """

    beta: Annotated[float, Field(gt=0), Span(0.1, 5.0)] = 1.0
    forget_weight: Annotated[float, Field(gt=0)] = 1.0
    retain_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the retain examples' mean negative log-likelihood."""

    @property
    def needs(self) -> Needs:
        """A retain batch if it has a weight."""
        return Needs(retain=self.retain_weight > 0)

    def terms(self, views: Views) -> tuple[Term, ...]:
        """Return the weighted ascent and, if weighted, the retain term."""
        from pulse_unlearn.methods import losses

        values = losses.weighted_ascent(views.forget, confidence=self.beta)
        return (
            Term("weighted_ascent", values, self.forget_weight),
            *losses.retain_terms(views, self.retain_weight),
        )


@METHODS.register("sat_imp")
class SaturationImportance(Settings):
    """SatImp (Yang et al. 2025, arXiv 2505.11953): weights p^saturation (1 - p)^importance.

    Tokens that are certain and tokens that are forgotten both count little. Conventions as for WGA.
    """

    saturation: Annotated[float, Field(ge=0), Span(0.5, 10.0)] = 5.0
    """Called beta1 in published code."""
    importance: Annotated[float, Field(ge=0), Span(0.1, 5.0)] = 1.0
    """Called beta2 in published code."""
    forget_weight: Annotated[float, Field(gt=0)] = 0.1
    retain_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the retain examples' mean negative log-likelihood."""

    @property
    def needs(self) -> Needs:
        """A retain batch if it has a weight."""
        return Needs(retain=self.retain_weight > 0)

    def terms(self, views: Views) -> tuple[Term, ...]:
        """Return the weighted ascent and, if weighted, the retain term."""
        from pulse_unlearn.methods import losses

        values = losses.weighted_ascent(
            views.forget, confidence=self.saturation, doubt=self.importance
        )
        return (
            Term("weighted_ascent", values, self.forget_weight),
            *losses.retain_terms(views, self.retain_weight),
        )
