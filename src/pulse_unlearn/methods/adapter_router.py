"""One adapter a request, and a router that picks the one a question is about, or none (LUMoE)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

from pydantic import Field

from pulse_unlearn.config import UnlearnSettings
from pulse_unlearn.errors import Problem
from pulse_unlearn.methods.base import METHODS, Needs, Serves, Session
from pulse_unlearn.methods.composed import LossChoice
from pulse_unlearn.methods.served import Gated


@METHODS.register("adapter_router")
class AdapterRouter(Gated):
    """Each request's adapter is trained on the target model alone; a gate says when it is used.

    After LUMoE (2026), which trains refusals and routes by an embedding model of its own. A
    question that no gate takes is answered by the target model, so later requests cannot wear down
    earlier ones, nor anybody else. Stop rules ask the weights with the adapter on, not the router.
    """

    serves: ClassVar[Serves] = "adapter"

    loss: LossChoice = Field(default_factory=lambda: LossChoice(method="idk"))
    """What each adapter is trained with, by its registered name."""

    @property
    def needs(self) -> Needs:
        """What the loss needs, and retain batches, by whose views the threshold is set."""
        return replace(self.loss.build().needs, retain=True)

    def problems(self, unlearn: UnlearnSettings) -> Iterator[Problem]:
        """Refuse what cannot be switched by question: whole tensors, and one adapter for all."""
        if unlearn.update != "lora":
            problem = "a router switches adapters, and whole tensors are none"
            fix = "add unlearn: {update: lora}"
            yield Problem(problem, "unlearn.update", unlearn.update, "lora", fix)
        elif unlearn.adapter != "fresh":
            problem, fix = "a router needs an adapter a request", "add unlearn: {adapter: fresh}"
            yield Problem(problem, "unlearn.adapter", unlearn.adapter, "fresh", fix)
        yield from self.loss.weighted().problems(unlearn)

    def run(self, session: Session) -> None:
        """Fit the gate on the target model, train the adapter, and serve both from now on."""
        gates = self._gates(session)
        session.train(self.loss.weighted())
        session.serve(self.serves, gates, layer=self.layer)
