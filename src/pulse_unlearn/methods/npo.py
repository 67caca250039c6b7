"""Negative preference optimisation: forget answers as negatives without positives (PULSE, NPO)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pulse_unlearn.config import Settings, Span
from pulse_unlearn.methods.base import METHODS, Needs, Term, Views, present


@METHODS.register("npo")
class NegativePreference(Settings):
    """NPO (Zhang et al. 2024, arXiv 2404.05868), optionally with a retain term.

    Answers of one or two tokens hardly leave the linear regime at beta 0.1, where NPO is GA; the
    published values run from 0.1 to 5, and PULSE names none.
    """

    beta: Annotated[float, Field(gt=0), Span(0.01, 10.0)] = 0.1
    retain_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the retain examples' mean negative log-likelihood; PULSE describes none."""
    retain_kl_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of KL(reference || current) per answer token of the retain examples (NPO+KL)."""

    @property
    def needs(self) -> Needs:
        """The reference on the forget batch; what the retain terms that have a weight take."""
        return Needs(
            retain=self.retain_weight > 0 or self.retain_kl_weight > 0,
            forget_reference="answer",
            retain_reference="distribution" if self.retain_kl_weight > 0 else None,
        )

    def terms(self, views: Views) -> tuple[Term, ...]:
        """Return the preference term and the retain terms that have a weight."""
        from pulse_unlearn.methods import losses

        reference = present(views.forget_reference, "the reference model's log-probs")
        return (
            Term("npo", losses.npo(views.forget, reference, beta=self.beta)),
            *losses.retain_terms(views, self.retain_weight),
            *losses.retain_kl_terms(views, self.retain_kl_weight),
        )
