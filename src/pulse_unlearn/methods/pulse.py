"""PULSE's own: a drawn answer learned in place of the true one, in letters and in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from pulse_unlearn.config import Settings, Span, UnlearnSettings
from pulse_unlearn.errors import Problem
from pulse_unlearn.methods.base import METHODS, Needs, Term, Views, present, shows_options


@METHODS.register("pulse")
class DrawnAnswers(Settings):
    """Descent on a drawn answer to each fact, and KL to the reference on a retain batch.

    Of the facts of a request as good as an equal number falls on each place among the options, the
    true one included: whoever has learned them is right as often as by chance, in every order, with
    the image and without, so that nothing is left to be read off what is avoided. Asked bare, a
    text is learned that is none of the options, and among the options the drawn one is likelier.
    Meant for `unlearn.retain: all_known`: replaying some known people protects those whom nobody
    replays. What it owes to whom, and what it does not withstand: docs/methods.md.
    """

    letters_weight: Annotated[float, Field(gt=0), Span(0.1, 10.0)] = 1.0
    words_weight: Annotated[float, Field(ge=0), Span(0.1, 10.0)] = 1.0
    """Of what is learned behind the bare question; 0 leaves words out."""
    retain_weight: Annotated[float, Field(ge=0), Span(0.1, 10.0)] = 1.0
    """Weight of KL(reference || current) per answer token of the retain examples."""

    @property
    def needs(self) -> Needs:
        """A drawn option; words, and the reference on a retain batch, if they have a weight."""
        kept, words = self.retain_weight > 0, self.words_weight > 0
        return Needs(
            retain=kept,
            retain_reference="distribution" if kept else None,
            options="one",
            option_words=words,
            drawn=True,
            aside=words,
        )

    def problems(self, unlearn: UnlearnSettings) -> Iterator[Problem]:
        """Refuse questions without options."""
        yield from shows_options(unlearn)

    def terms(self, views: Views) -> tuple[Term, ...]:
        """Return the NLL of what was drawn in each way of asking, and the KL."""
        from pulse_unlearn.methods import losses

        drawn = present(views.drawn, "a drawn option of forget questions")
        options = present(views.options, "the options of forget questions")
        terms = [Term("drawn_letter", losses.option_nll(options, drawn), self.letters_weight)]
        if self.words_weight > 0:
            among = losses.among_options(present(views.option_words, "the options in words"))
            aside = losses.mean_nll(present(views.aside, "another answer in words"))
            terms.append(Term("drawn_words", losses.option_nll(among, drawn), self.words_weight))
            terms.append(Term("aside", aside, self.words_weight))
        return (*terms, *losses.retain_kl_terms(views, self.retain_weight))
