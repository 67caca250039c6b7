"""What methods share that change what is served: a gate that tells whose question one is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from pulse_unlearn.config import Settings, Span
from pulse_unlearn.errors import MethodError, Problem
from pulse_unlearn.methods.base import Seen, Session

if TYPE_CHECKING:
    from pulse_unlearn.methods.gates import Fitted

PICTURED, NAMED = "pictured", "named"
"""Questions with a picture, known by it, and those without, known by their words."""


class Gated(Settings):
    """Settings of the gate: `gates.fit_gate` on embeddings of the frozen base model.

    An embedding is the mean output of a layer of the language model over the tokens of the picture
    or, without one, of the whole question: no other model is needed.
    """

    layer: int = 2
    """From 0 or, if negative, from the last. Early ones tell faces and names, late ones answers."""
    epochs: Annotated[int, Field(ge=1)] = 3
    """Epochs of training views, of pictures and option orders, that the gate is fitted on."""
    shrinkage: Annotated[float, Field(gt=0, lt=1), Span(0.001, 0.3)] = 0.01
    false_share: Annotated[float, Field(ge=0, lt=1), Span(0.001, 0.1)] = 0.01
    """Share of the views of others, set aside for this, that may be taken for the request's."""
    margin: Annotated[float, Field(ge=0, lt=1), Span(0.05, 0.75, log=False)] = 0.25
    """How far between those and the request's own views the threshold stands, where there is a
    gap: higher refuses fewer others, and more often misses a new picture of the forgotten."""

    def _gates(self, session: Session) -> Mapping[str, Fitted]:
        """Fit a gate for each kind of question that the request's people are asked."""
        from pulse_unlearn.methods.gates import fit_gate

        own = session.question_embeddings("forget", layer=self.layer, epochs=self.epochs)
        others = session.question_embeddings("retain", layer=self.layer, epochs=self.epochs)
        found = {}
        for kind in (PICTURED, NAMED):
            of_own, of_others = _of_kind(own, kind), _of_kind(others, kind)
            if of_own.individuals:
                found[kind] = fit_gate(
                    of_own.states,
                    of_own.individuals,
                    of_others.states,
                    of_others.individuals,
                    shrinkage=self.shrinkage,
                    false_share=self.false_share,
                    margin=self.margin,
                )
        if not found:
            raise MethodError(Problem("the request has no question to be known by"))
        return found


def _of_kind(seen: Seen, kind: str) -> Seen:
    chosen = [n for n, pictured in enumerate(seen.pictured) if pictured is (kind == PICTURED)]
    return Seen(
        seen.states[chosen],
        tuple(seen.individuals[n] for n in chosen),
        tuple(seen.pictured[n] for n in chosen),
    )
