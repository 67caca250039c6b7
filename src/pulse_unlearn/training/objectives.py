"""From a micro-batch to the terms of a loss: the only place where methods meet a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from pulse_unlearn.data.alternatives import with_alternative
from pulse_unlearn.data.variants import Variants
from pulse_unlearn.errors import DataError, MethodError, Problem
from pulse_unlearn.methods import (
    AnswerView,
    Extent,
    Loss,
    OptionView,
    Orders,
    Term,
    Views,
    losses,
    present,
)
from pulse_unlearn.models.encode import AnswerTokens
from pulse_unlearn.models.forward import Backend
from pulse_unlearn.records import Example
from pulse_unlearn.training.options import letter_options, letters_of, word_options
from pulse_unlearn.training.references import References
from pulse_unlearn.training.steps import StepData


class Objective(Protocol):
    """What the loop minimises."""

    @property
    def kept(self) -> dict[str, Tensor]:
        """What later steps use again, by name; a checkpoint holds it."""

    def terms(self, data: StepData) -> tuple[Term, ...]:
        """Return the loss terms of one micro-batch, a value per example each."""


@dataclass(frozen=True, slots=True)
class Learning:
    """Supervised fine-tuning on the answer tokens of the retain part."""

    backend: Backend
    kept: dict[str, Tensor] = field(default_factory=dict)

    def terms(self, data: StepData) -> tuple[Term, ...]:
        """Return the mean negative log-likelihood per answer token."""
        view = self.backend.answer_log_probs(data.retain, tokens="with_end")
        return (Term("nll", losses.mean_nll(view), over="retain"),)


@dataclass(frozen=True, slots=True)
class Unlearning:
    """One loss on a forget and, if needed, a retain batch."""

    backend: Backend
    loss: Loss
    answer_tokens: AnswerTokens
    references: References
    seed: int
    """Draws alternative answers."""
    variants: Variants | None = None
    """Other forms of the forget questions, for losses that look at them."""

    @property
    def kept(self) -> dict[str, Tensor]:
        """What the reference said of examples that come again."""
        return self.references.kept

    def terms(self, data: StepData) -> tuple[Term, ...]:
        """Return the loss's terms, and at weight 0, for log and guards, the NLL of both sides.

        That of retained answers where the loss looks at them: nothing is asked for it. Raises
        MethodError for a term that has not one value an example.
        """
        needs = self.loss.needs
        forget = self._current(data.forget)
        retain = self._current(data.retain) if needs.retain else None
        kind = needs.alternative
        others = [with_alternative(e, kind, seed=self.seed) for e in data.forget] if kind else []
        alternative = self._current(others) if others else None
        decoupled = [self._forms.decoupled(e) for e in data.forget] if needs.decoupled else []
        asides = [self._forms.aside(example) for example in data.forget] if needs.aside else []
        views = Views(
            forget=forget,
            retain=retain,
            forget_reference=self._frozen(data.forget, forget, needs.forget_reference),
            retain_reference=self._frozen(data.retain, retain, needs.retain_reference),
            alternative=alternative,
            alternative_reference=self._frozen(others, alternative, needs.alternative_reference),
            options=self._options(data.forget, forget, needs.options) if needs.options else None,
            option_words=self._in_words(data.forget, forget) if needs.option_words else None,
            drawn=self._drawn(data.forget, forget) if needs.drawn else None,
            aside=self._current(asides) if asides else None,
            letters=self._letters(data.forget, forget) if needs.letters else None,
            decoupled=self._current(decoupled) if decoupled else None,
        )
        terms = self.loss.terms(views)
        self._check(terms, data)
        watched = [Term(FORGET_NLL, losses.mean_nll(forget).detach(), 0.0)]
        if retain is not None:
            watched.append(Term(RETAIN_NLL, losses.mean_nll(retain).detach(), 0.0, over="retain"))
        return (*terms, *watched)

    def _check(self, terms: Sequence[Term], data: StepData) -> None:
        known = "'forget' or 'retain'"
        problems = [
            Problem(
                f"the term '{term.name}' has not one value for each example",
                type(self.loss).__name__,
                got=f"shape {list(term.values.shape)}",
                allowed=f"[{data.count(term.over)}]",
            )
            for term in terms
            if term.values.shape != (data.count(term.over),)
        ]
        problems += [
            Problem(
                f"the term '{term.name}' belongs to no batch", got=repr(term.over), allowed=known
            )
            for term in terms
            if term.over not in ("forget", "retain")
        ]
        if problems:
            raise MethodError(problems)

    @property
    def _forms(self) -> Variants:
        return present(self.variants, "other forms of forget questions")

    def _options(self, examples: Sequence[Example], own: AnswerView, orders: Orders) -> OptionView:
        if examples[0].option_texts:  # as all are, of one prompt profile
            return word_options(self.backend, examples, own)
        turned = [self._forms.turned(example) for example in examples]
        asked = [of[:1] for of in turned] if orders == "one" else turned
        return letter_options(self.backend, own, asked)

    def _in_words(self, examples: Sequence[Example], own: AnswerView) -> OptionView:
        return word_options(self.backend, [self._forms.bare(one) for one in examples], own)

    def _drawn(self, examples: Sequence[Example], own: AnswerView) -> Tensor:
        places = [self._forms.drawn(example) for example in examples]
        return torch.tensor(places, device=own.mask.device)

    def _letters(self, examples: Sequence[Example], own: AnswerView) -> Tensor:
        problems = [
            Problem(
                "a question answered in words has no letters to be levelled",
                example.question_id,
                allowed="unlearn.forms: multiple_choice, and a prompt that shows the options",
            )
            for example in examples
            if not example.options or example.option_texts
        ]
        if problems:
            raise DataError(problems)
        return letters_of(self.backend, examples, own)

    def _current(self, examples: Sequence[Example]) -> AnswerView:
        return self.backend.answer_log_probs(
            examples, tokens=self.answer_tokens, hidden_layer=self.loss.needs.hidden_layer
        )

    def _frozen(
        self, examples: Sequence[Example], current: AnswerView | None, extent: Extent | None
    ) -> AnswerView | None:
        if extent is None or current is None:
            return None
        return self.references.view(
            examples,
            current,
            extent=extent,
            tokens=self.answer_tokens,
            hidden_layer=self.loss.needs.hidden_layer,
        )


FORGET_NLL = "forget_nll"
RETAIN_NLL = "retained_nll"
"""Not `retain_nll`: that is the term of losses that lower it."""


def weighted_sum(terms: Sequence[Term], step: StepData) -> Tensor:
    """Return this micro-batch's share of the step's loss: weighted means over the whole step."""
    shares = [
        term.weight * term.values.sum() / step.count(term.over) for term in terms if term.weight
    ]
    return torch.stack(shares).sum()
