"""From a micro-batch to the terms of a loss: the only place where methods meet a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pulse_unlearn.methods import AnswerView, Method, Term, Views, losses
from pulse_unlearn.models.adapters import Prepared, reference_view
from pulse_unlearn.models.encode import AnswerTokens, Encoder
from pulse_unlearn.models.forward import answer_view
from pulse_unlearn.records import Example
from pulse_unlearn.training.steps import StepData


class Objective(Protocol):
    """What the loop minimises."""

    def terms(self, data: StepData) -> tuple[Term, ...]:
        """Return the loss terms of one micro-batch, a value per example each."""


@dataclass(frozen=True, slots=True)
class Learning:
    """Supervised fine-tuning on the answer tokens of the retain part."""

    prepared: Prepared
    encoder: Encoder

    def terms(self, data: StepData) -> tuple[Term, ...]:
        """Return the mean negative log-likelihood per answer token."""
        batch = self.encoder.answers(data.retain, tokens="with_end")
        view = answer_view(self.prepared.model, batch)
        return (Term("nll", losses.mean_nll(view), over="retain"),)


@dataclass(frozen=True, slots=True)
class Unlearning:
    """One unlearning method on a forget and, if needed, a retain batch."""

    prepared: Prepared
    encoder: Encoder
    method: Method
    answer_tokens: AnswerTokens

    def terms(self, data: StepData) -> tuple[Term, ...]:
        """Return the method's terms, and the forget answers' NLL at weight 0 for the record."""
        needs = self.method.needs
        views = Views(
            forget=self._current(data.forget),
            retain=self._current(data.retain) if needs.retain else None,
            forget_reference=self._frozen(data.forget) if needs.forget_reference else None,
            retain_reference=self._frozen(data.retain) if needs.retain_reference else None,
        )
        watched = losses.mean_nll(views.forget).detach()
        return (*self.method.terms(views), Term(FORGET_NLL, watched, 0.0))

    def _current(self, examples: Sequence[Example]) -> AnswerView:
        batch = self.encoder.answers(examples, tokens=self.answer_tokens)
        return answer_view(self.prepared.model, batch)

    def _frozen(self, examples: Sequence[Example]) -> AnswerView:
        with reference_view(self.prepared):
            return self._current(examples)


FORGET_NLL = "forget_nll"


def weighted_sum(terms: Sequence[Term], step: StepData) -> Tensor:
    """Return this micro-batch's share of the step's loss: weighted means over the whole step."""
    shares = [
        term.weight * term.values.sum() / step.count(term.over) for term in terms if term.weight
    ]
    return torch.stack(shares).sum()
