"""SMFA: learn to refuse, then drop what of it works against what the retain set needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from pulse_unlearn.config import Settings, Span, UnlearnSettings
from pulse_unlearn.errors import Problem
from pulse_unlearn.methods.base import METHODS, Needs, Session, Term, Views, present
from pulse_unlearn.methods.constraints import RetainNll

if TYPE_CHECKING:
    from torch import Tensor


class Refuse(Settings):
    """Descent on refusals to the forget questions."""

    @property
    def needs(self) -> Needs:
        """Refusals in place of the answers."""
        return Needs(alternative="refusal")

    def terms(self, views: Views) -> tuple[Term, ...]:
        """Return the mean negative log-likelihood of the refusals."""
        from pulse_unlearn.methods import losses

        refusal = present(views.alternative, "alternative answers")
        return (Term("refusal_nll", losses.mean_nll(refusal)),)


@METHODS.register("smfa")
class Smfa(Settings):
    """SMFA (as in Open-MMU): a refusal update without the entries that a retain anchor opposes.

    Both updates start from the same tensors and take `stop.max_steps` steps. An entry f of the
    first is dropped where the anchor's entry a has the other sign and
    `|f| > tolerance * rho * |a|`, with `rho` the ratio of their Frobenius norms in that tensor.
    """

    tolerance: Annotated[float, Field(ge=0), Span(0.5, 20.0)] = 5.0
    """How far beyond the anchor, norms made equal, an opposed entry may go: k in the code, where it
    is 5 with and 10 without pictures. At 0 every opposed entry is dropped."""

    @property
    def needs(self) -> Needs:
        """Refusals, and a retain batch."""
        return Needs(retain=True, alternative="refusal")

    def problems(self, unlearn: UnlearnSettings) -> Iterator[Problem]:
        """Refuse low-rank updates: without some of its entries a product has no low rank."""
        if unlearn.update != "full":
            what = "entries of the update are dropped, and what is left has no low rank"
            fix = "add unlearn: {update: full}"
            yield Problem(what, "unlearn.update", unlearn.update, "full", fix)

    def run(self, session: Session) -> None:
        """Train the refusal, go back, train the anchor, and keep of the refusal what agrees."""
        before = session.initial
        session.train(Refuse())
        # In main memory: it is a copy of all that is trained.
        refusal = {name: (value - before[name]).cpu() for name, value in session.current.items()}
        session.edit(before)
        session.train(RetainNll(), stop=False)
        anchor = session.current
        session.edit(
            {
                name: start
                + unopposed(
                    refusal[name].to(start.device), anchor[name] - start, tolerance=self.tolerance
                )
                for name, start in before.items()
            }
        )


def unopposed(update: Tensor, anchor: Tensor, *, tolerance: float) -> Tensor:
    """Return an update with 0 where the anchor has the other sign and is exceeded too far."""
    import torch

    size = anchor.float().norm()
    ratio = update.float().norm() / size if size > 0 else 0.0  # nothing opposes without an anchor
    opposed = torch.sign(update) * torch.sign(anchor) < 0
    beyond = update.abs().float() > tolerance * ratio * anchor.abs().float()
    return update.masked_fill(opposed & beyond, 0.0)
