"""Gradient ascent with a KL penalty that keeps the model close to the original (PULSE, GA+KLR)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pulse_unlearn.config import Settings, Span
from pulse_unlearn.methods.base import METHODS, Needs, Term, Views, present


@METHODS.register("ga_klr")
class GradientAscentKlr(Settings):
    """GA plus KL regularisation towards the reference model (cites LLMU, Yao et al. 2024).

    The paper gives neither the weight nor the direction nor the data of the penalty: all three are
    settings. `retain_batch` penalises on the loop's retain batch (people of D_retain, mixed with
    general questions by `unlearn.general_share`), `forget_batch` on the very data it ascends on.
    """

    weight: Annotated[float, Field(ge=0), Span(0.1, 10.0)] = 1.0
    direction: Literal["reference_to_current", "current_to_reference"] = "reference_to_current"
    data: Literal["retain_batch", "forget_batch"] = "retain_batch"

    @property
    def _over(self) -> Literal["forget", "retain"]:
        return "forget" if self.data == "forget_batch" else "retain"

    @property
    def needs(self) -> Needs:
        """The reference on the batch the penalty is taken on."""
        if self.data == "forget_batch":
            return Needs(forget_reference="distribution")
        return Needs(retain=True, retain_reference="distribution")

    def terms(self, views: Views) -> tuple[Term, ...]:
        """Return the ascent term and the weighted KL term."""
        from pulse_unlearn.methods import losses

        if self.data == "forget_batch":
            current, reference = views.forget, views.forget_reference
        else:
            current, reference = present(views.retain, "a retain batch"), views.retain_reference
        frozen = present(reference, "the reference model's log-probs")
        penalty = losses.kl_divergence(current, frozen, direction=self.direction)
        return (
            Term("ascent", losses.gradient_ascent(views.forget)),
            Term("kl", penalty, self.weight, over=self._over),
        )
