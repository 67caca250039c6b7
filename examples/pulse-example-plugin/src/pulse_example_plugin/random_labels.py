"""A procedure: learn wrong answers first, then repair what that cost, close to where it led."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from pulse_unlearn.config import Settings
from pulse_unlearn.methods import Needs, Session, Tensors, Term, Views
from pulse_unlearn.methods.base import present

if TYPE_CHECKING:
    from torch import Tensor


class WrongAnswers(Settings):
    """Descent on a wrong option for each forget question."""

    @property
    def needs(self) -> Needs:
        """Another option than the true one."""
        return Needs(alternative="option")

    def terms(self, views: Views) -> tuple[Term, ...]:
        """Return the mean negative log-likelihood of the wrong answers, [B]."""
        from pulse_unlearn.methods import losses

        return (Term("wrong_nll", losses.mean_nll(present(views.alternative, "wrong answers"))),)


class RetainAnswers(Settings):
    """Descent on the retain answers."""

    @property
    def needs(self) -> Needs:
        """A retain batch."""
        return Needs(retain=True)

    def terms(self, views: Views) -> tuple[Term, ...]:
        """Return the mean negative log-likelihood of the retain answers, [B]."""
        from pulse_unlearn.methods import losses

        return (
            Term(
                "retain_nll",
                losses.mean_nll(present(views.retain, "a retain batch")),
                over="retain",
            ),
        )


class RandomLabels(Settings):
    """Random labels, then a repair on D_retain with an L2 penalty towards the first phase's end."""

    repair_steps: Annotated[int, Field(ge=1)] = 4
    penalty: Annotated[float, Field(ge=0)] = 1.0

    @property
    def needs(self) -> Needs:
        """What both phases need together."""
        return Needs(retain=True, alternative="option")

    def run(self, session: Session) -> None:
        """Train in two phases; each one is checkpointed, and continues after an interruption."""
        session.train(WrongAnswers())
        reached = session.current

        def stay(tensors: Tensors) -> Tensor:
            parts = [(tensors[name] - value).square().sum() for name, value in reached.items()]
            return self.penalty * sum(parts[1:], start=parts[0])

        # The stop rule looks for forgetting, which is over: it must not end the repair.
        session.train(RetainAnswers(), steps=self.repair_steps, stop=False, penalty=stay)
