"""Jensen-Shannon divergence to a refusal on forget, to the reference on retain (JensUn)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pulse_unlearn.config import Settings, Span
from pulse_unlearn.methods.base import METHODS, Needs, Term, Views, present


@METHODS.register("jensun")
class JensenShannonUnlearning(Settings):
    """JensUn (Singh et al. 2025, arXiv 2509.02820): both terms lie between 0 and ln 2.

    The refusal is learned token by token, as an answer. Published code puts a probability of 1 on
    every token of its refusal at every position, prompt and padding too, so that for two tokens
    its target sums to 2.
    """

    retain_target: Literal["reference", "labels"] = "reference"
    """What retain answers are held to: the reference's distributions, as published, or the labels;
    these take no reference."""
    forget_weight: Annotated[float, Field(gt=0), Span(0.1, 10.0)] = 1.0
    retain_weight: Annotated[float, Field(gt=0)] = 1.0

    @property
    def needs(self) -> Needs:
        """Refusals, a retain batch, and the reference on it if that is the target."""
        towards = self.retain_target == "reference"
        return Needs(
            retain=True,
            retain_reference="distribution" if towards else None,
            alternative="refusal",
        )

    def terms(self, views: Views) -> tuple[Term, ...]:
        """Return the divergence from the refusal and the one on the retain batch."""
        from pulse_unlearn.methods import losses

        retain = present(views.retain, "a retain batch")
        if self.retain_target == "labels":
            kept = losses.js_to_labels(retain)
        else:
            reference = present(views.retain_reference, "the reference on retain answers")
            kept = losses.js_divergence(retain, reference)
        refusal = losses.js_to_labels(present(views.alternative, "alternative answers"))
        return (
            Term("refusal_js", refusal, self.forget_weight),
            Term("retain_js", kept, self.retain_weight, over="retain"),
        )
