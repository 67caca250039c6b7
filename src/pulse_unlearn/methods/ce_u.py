"""Cross-entropy to the model's own distribution without the forget answer (CE-U)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pulse_unlearn.config import Settings
from pulse_unlearn.methods.base import METHODS, Needs, Term, Views


@METHODS.register("ce_u")
class CrossEntropyUnlearning(Settings):
    """CE-U (Yang 2025, arXiv 2503.01224): ascent whose gradient vanishes when it is done.

    Published code skips the first answer token, which leaves nothing of a one-letter answer; here
    every answer token counts.
    """

    forget_weight: Annotated[float, Field(gt=0)] = 1.0
    retain_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the retain examples' mean negative log-likelihood; published: none."""

    @property
    def needs(self) -> Needs:
        """A retain batch if it has a weight."""
        return Needs(retain=self.retain_weight > 0)

    def terms(self, views: Views) -> tuple[Term, ...]:
        """Return the cross-entropy term and, if weighted, the retain term."""
        from pulse_unlearn.methods import losses

        values = losses.cross_entropy_unlearning(views.forget)
        return (
            Term("ce_u", values, self.forget_weight),
            *losses.retain_terms(views, self.retain_weight),
        )
