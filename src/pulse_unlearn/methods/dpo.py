"""Direct preference optimisation: another answer preferred to the forget answer (DPO)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pulse_unlearn.config import Settings, Span
from pulse_unlearn.methods.base import METHODS, Needs, Term, Views, present
from pulse_unlearn.records import Alternative


@METHODS.register("dpo")
class DirectPreference(Settings):
    """DPO (Rafailov et al. 2023, arXiv 2305.18290) with the forget answer as the rejected one.

    As NPO's authors use it for unlearning (arXiv 2404.05868, eq. 1), scaled like NPO by 2 / beta.
    With options and a retain weight of 1 it is AltPO (Mekala et al. 2024, arXiv 2409.13474), which
    prefers plausible other answers.
    """

    beta: Annotated[float, Field(gt=0), Span(0.01, 10.0)] = 0.1
    alternative: Alternative = "option"
    """The preferred answer: a wrong option, any option, or a refusal."""
    retain_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the retain examples' mean negative log-likelihood."""

    @property
    def needs(self) -> Needs:
        """Another answer to every forget question, and the reference on both answers."""
        return Needs(
            retain=self.retain_weight > 0,
            forget_reference="answer",
            alternative=self.alternative,
            alternative_reference="answer",
        )

    def terms(self, views: Views) -> tuple[Term, ...]:
        """Return the preference term and, if weighted, the retain term."""
        from pulse_unlearn.methods import losses

        values = losses.dpo(
            present(views.alternative, "alternative answers"),
            present(views.alternative_reference, "the reference on alternative answers"),
            views.forget,
            present(views.forget_reference, "the reference on forget answers"),
            beta=self.beta,
        )
        return (Term("dpo", values), *losses.retain_terms(views, self.retain_weight))
