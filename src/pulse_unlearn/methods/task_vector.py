"""Task-vector negation: learn the forget answers better, then go the other way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from pulse_unlearn.config import Settings, Span, UnlearnSettings
from pulse_unlearn.errors import Problem
from pulse_unlearn.methods.base import METHODS, Needs, Session, Term, Views


class Memorise(Settings):
    """Descent on the forget answers: what the vector is the difference of."""

    @property
    def needs(self) -> Needs:
        """Nothing beyond the forget batch."""
        return Needs()

    def terms(self, views: Views) -> tuple[Term, ...]:
        """Return the mean negative log-likelihood of the forget answers."""
        from pulse_unlearn.methods import losses

        return (Term("nll", losses.mean_nll(views.forget)),)


@METHODS.register("task_vector")
class TaskVector(Settings):
    """Negated task vector (Ilharco et al. 2023, arXiv 2212.04089): W - scale (W_forget - W).

    Of a low-rank update B A, which begins at B = 0, that is the update with B times -scale.
    """

    scale: Annotated[float, Field(gt=0), Span(0.1, 5.0)] = 1.0

    @property
    def needs(self) -> Needs:
        """Nothing beyond the forget batch."""
        return Needs()

    def problems(self, unlearn: UnlearnSettings) -> Iterator[Problem]:
        """Refuse a continued adapter: its difference from where it began has twice the rank."""
        yield from needs_a_difference(unlearn)

    def run(self, session: Session) -> None:
        """Train on the forget answers for all steps, then reverse and scale the change."""
        session.train(Memorise(), stop=False)
        negate(session, self.scale)


def needs_a_difference(unlearn: UnlearnSettings) -> Iterator[Problem]:
    """Refuse an adapter that is trained further: no adapter of its rank is its change reversed."""
    if unlearn.update == "lora" and unlearn.adapter == "continued":
        yield Problem(
            "a task vector cannot be taken of an adapter that is trained further",
            "unlearn.adapter",
            got="continued",
            allowed="fresh, or unlearn.update: full",
        )


def negate(session: Session, scale: float) -> None:
    """Replace what was learned by `-scale` times it."""
    before = session.initial
    reversed_tensors = {}
    for name, learned in session.current.items():
        if ".lora_A." in name:
            continue  # the direction; B alone carries the sign
        reversed_tensors[name] = before[name] - scale * (learned - before[name])
    session.edit(reversed_tensors)
