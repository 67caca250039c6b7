"""Self-distillation from the reference with the forget answer made less likely (UNDIAL)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pulse_unlearn.config import Settings, Span
from pulse_unlearn.methods.base import METHODS, Needs, Term, Views, present


@METHODS.register("undial")
class SelfDistillation(Settings):
    """UNDIAL (Dong et al. 2024, arXiv 2402.10052): a bounded target instead of ascent.

    Learns the reference's own distribution with the logit of each answer token lowered by beta.
    Published code averages over prompt and padding too, where it lowers the logit of token -100,
    that is of the vocabulary's hundredth from the end.
    """

    beta: Annotated[float, Field(gt=0), Span(1.0, 30.0)] = 10.0
    """By how much the answer's logits are lowered."""
    forget_weight: Annotated[float, Field(gt=0)] = 1.0
    retain_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the retain examples' mean negative log-likelihood."""

    @property
    def needs(self) -> Needs:
        """The reference's distributions on the forget batch; a retain batch if it has a weight."""
        return Needs(retain=self.retain_weight > 0, forget_reference="distribution")

    def terms(self, views: Views) -> tuple[Term, ...]:
        """Return the distillation term and, if weighted, the retain term."""
        from pulse_unlearn.methods import losses

        reference = present(views.forget_reference, "the reference on forget answers")
        values = losses.self_distillation(views.forget, reference, beta=self.beta)
        return (
            Term("distillation", values, self.forget_weight),
            *losses.retain_terms(views, self.retain_weight),
        )
