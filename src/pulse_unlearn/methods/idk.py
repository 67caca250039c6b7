"""Learning a refusal, or another answer, in place of the forget answer (IDK, PO)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pulse_unlearn.config import Settings, Span
from pulse_unlearn.methods.base import METHODS, Needs, Term, Views, present
from pulse_unlearn.records import Alternative


@METHODS.register("idk")
class RefusalTuning(Settings):
    """Descent on "I don't know" answers (TOFU, arXiv 2401.06121; called PO by others).

    It teaches to refuse, which may spread to others: compare refusals on retain questions. TOFU
    averages over the tokens of the forget and the retain batch together, so that lengths decide
    the balance; here they are two terms.
    """

    alternative: Alternative = "refusal"
    """What is learned: a refusal, a wrong option, or any option."""
    forget_weight: Annotated[float, Field(gt=0)] = 1.0
    retain_weight: Annotated[float, Field(ge=0), Span(0.1, 10.0)] = 1.0
    """Weight of the retain examples' mean negative log-likelihood."""

    @property
    def needs(self) -> Needs:
        """Another answer to every forget question; a retain batch if it has a weight."""
        return Needs(retain=self.retain_weight > 0, alternative=self.alternative)

    def terms(self, views: Views) -> tuple[Term, ...]:
        """Return the NLL of the other answers and, if weighted, the retain term."""
        from pulse_unlearn.methods import losses

        values = losses.mean_nll(present(views.alternative, "alternative answers"))
        return (
            Term("alternative_nll", values, self.forget_weight),
            *losses.retain_terms(views, self.retain_weight),
        )
