"""Any loss, and the same questions about other people answered as before (Prompt Decouple)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from pulse_unlearn.config import Settings, Span, UnlearnSettings
from pulse_unlearn.errors import Problem
from pulse_unlearn.methods.base import METHODS, Needs, Term, Views, present
from pulse_unlearn.methods.composed import LossChoice, WeightedSum


class Decoupled(Settings):
    """Descent on the forget questions asked about retained people."""

    @property
    def needs(self) -> Needs:
        """Decoupled questions."""
        return Needs(decoupled=True)

    def terms(self, views: Views) -> tuple[Term, ...]:
        """Return the mean negative log-likelihood of their true answers."""
        from pulse_unlearn.methods import losses

        values = losses.mean_nll(present(views.decoupled, "questions about retained people"))
        return (Term("decoupled_nll", values),)


@METHODS.register("safe_eraser")
class PromptDecoupling(Settings):
    """SafeEraser's Prompt Decouple loss (Chen et al. 2025, arXiv 2502.12520).

    A base loss plus `pd_weight` times the NLL of true answers to the forget questions asked about
    people who are retained, so that the person is forgotten and not the question. The paper pairs
    its prompts with harmless pictures once and for all; here each example draws a person anew.
    """

    loss: LossChoice = Field(default_factory=lambda: LossChoice(method="grad_diff"))
    """What forgets, by its registered name: the paper has GA, GA+descent, KL and PO."""
    pd_weight: Annotated[float, Field(gt=0), Span(0.05, 5.0)] = 0.5
    """As published with GA and GradDiff; with KL and PO it is 1."""

    @property
    def _loss(self) -> WeightedSum:
        return WeightedSum(
            ((self.loss.weight, self.loss.build()), (self.pd_weight, Decoupled())),
        )

    @property
    def needs(self) -> Needs:
        """What its loss needs, and decoupled questions."""
        return self._loss.needs

    def problems(self, unlearn: UnlearnSettings) -> Iterator[Problem]:
        """Yield what its loss says of the settings."""
        yield from self._loss.problems(unlearn)

    def terms(self, views: Views) -> tuple[Term, ...]:
        """Return the terms of the loss and the NLL of decoupled questions."""
        return self._loss.terms(views)
