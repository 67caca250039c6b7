"""Flattened options: every option as likely as each other, in all orders and in words (DF-MCQ)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from pulse_unlearn.config import Settings, Span, UnlearnSettings
from pulse_unlearn.errors import Problem
from pulse_unlearn.methods.base import (
    METHODS,
    Needs,
    Orders,
    Term,
    Views,
    present,
    shows_options,
)


@METHODS.register("df_mcq")
class FlattenedOptions(Settings):
    """KL(uniform || options) on forget questions (Sun et al. 2025, arXiv 2505.02884).

    The paper flattens the letters of questions that a language model wrote; here the options are
    the data set's. Letters in one order leave what the options' texts say to be read when orders
    are averaged, and leave the bare question alone: so by default every order is flattened, their
    average too, and the options' texts as answers to the bare question.
    """

    orders: Orders = "all"
    """`one` is the example's own order, as in the paper."""
    letters_weight: Annotated[float, Field(gt=0), Span(0.1, 10.0)] = 1.0
    """Of the mean over the orders."""
    average_weight: Annotated[float, Field(ge=0)] = 1.0
    """Of the average over all orders, which one preferred letter does not hide in."""
    words_weight: Annotated[float, Field(ge=0), Span(0.1, 10.0)] = 1.0
    """Of the options' texts behind the bare question; 0 leaves words out."""
    retain_weight: Annotated[float, Field(ge=0), Span(0.1, 10.0)] = 1.0
    """Weight of the retain examples' mean negative log-likelihood."""

    @property
    def _averages(self) -> bool:
        return self.orders == "all" and self.average_weight > 0

    @property
    def needs(self) -> Needs:
        """The options of forget questions; words and a retain batch if they have a weight."""
        return Needs(
            retain=self.retain_weight > 0,
            options=self.orders,
            option_words=self.words_weight > 0,
        )

    def problems(self, unlearn: UnlearnSettings) -> Iterator[Problem]:
        """Refuse questions without options."""
        yield from shows_options(unlearn)

    def terms(self, views: Views) -> tuple[Term, ...]:
        """Return how far the options are from flat in each way that has a weight."""
        from pulse_unlearn.methods import losses

        options = present(views.options, "the options of forget questions")
        asked = options.mask.any(-1).sum(-1)
        each = losses.flatness(options).sum(-1) / asked
        terms = [Term("flat_letters", each, self.letters_weight)]
        if self._averages:
            average = losses.flatness_of_average(options)
            terms.append(Term("flat_average", average, self.average_weight))
        if self.words_weight > 0:
            words = present(views.option_words, "the options in words")
            terms.append(Term("flat_words", losses.flatness(words).sum(-1), self.words_weight))
        return (*terms, *losses.retain_terms(views, self.retain_weight))
