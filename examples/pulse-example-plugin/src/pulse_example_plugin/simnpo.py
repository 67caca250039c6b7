"""A loss: NPO without a reference model, on the likelihood of an answer's average token."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pulse_unlearn.config import Settings
from pulse_unlearn.methods import Needs, Term, Views


class SimNpo(Settings):
    """SimNPO (Fan et al. 2024, arXiv 2410.07163), optionally with a retain term."""

    beta: Annotated[float, Field(gt=0)] = 2.5
    margin: Annotated[float, Field(ge=0)] = 0.0
    """Gamma in the paper, nats a token."""
    retain_weight: Annotated[float, Field(ge=0)] = 0.0

    @property
    def needs(self) -> Needs:
        """A retain batch if it has a weight; no reference."""
        return Needs(retain=self.retain_weight > 0)

    def terms(self, views: Views) -> tuple[Term, ...]:
        """Return `(2 / beta) * softplus(margin - beta * NLL per token)`, [B]."""
        # Here, not above: `pulse list` and `pulse plan` import this file and need no torch.
        from torch.nn.functional import softplus

        from pulse_unlearn.methods import losses

        nll = losses.mean_nll(views.forget)
        terms = [Term("simnpo", softplus(self.margin - self.beta * nll) * (2 / self.beta))]
        if views.retain is not None:
            retain = losses.mean_nll(views.retain)
            terms.append(Term("retain_nll", retain, self.retain_weight, over="retain"))
        return tuple(terms)
