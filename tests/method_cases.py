"""Which methods the costly cases of the contract run on each time, and which in `make test-all`."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch

from pulse_unlearn.data.variants import Variants
from pulse_unlearn.methods import METHODS, AnswerView, Needs, OptionView, Views
from pulse_unlearn.records import Example, Individual, Question

LOSSES = [name for name, method in METHODS if hasattr(method, "terms")]
REPRESENTATIVES = (
    *("ga", "ga_klr", "npo", "dpo", "rmu", "gradient_projection", "undial"),
    *("safe_eraser", "pulse"),
)
"""Losses that together need all that losses need, one with `OTHER_FORMS`; the others differ in
arithmetic alone, which `test_methods_losses.py` and `test_methods_published.py` check for all."""
OTHER_FORMS = {"safe_eraser": {"loss": {"method": "df_mcq"}}}
"""Settings with which a loss looks at forget questions in every other form at once."""

ALIKE = ("alkn", "sine_project", "smfa", "undo")
"""Procedures that ask a session for nothing that others do not; `test_methods_procedures.py` cuts
off those that keep something between steps or phases."""


def costly(names: Iterable[str]) -> list:
    """Return the names as test parameters; methods that represent no others are slow."""
    return [
        pytest.param(name, marks=pytest.mark.slow)
        if name in ALIKE or (name in LOSSES and name not in REPRESENTATIVES)
        else name
        for name in names
    ]


def views_of(here: AnswerView, frozen: AnswerView, needs: Needs | None = None) -> Views:
    """Return views made of one answer view and one of a reference: all, or what is needed."""
    options = OptionView(here.log_probs, here.mask.unsqueeze(-1).expand_as(here.log_probs))
    letters = here.log_probs[:, 0].isfinite()
    letters[:, 0] = False
    every = {
        "retain": here,
        "forget_reference": frozen,
        "retain_reference": frozen,
        "alternative": here,
        "alternative_reference": frozen,
        "options": options,
        "option_words": OptionView(options.log_probs[:, -1:], options.mask[:, -1:]),
        "drawn": torch.zeros(len(here.mask), dtype=torch.long),
        "aside": here,
        "letters": letters,
        "decoupled": here,
    }
    asked = {key: view for key, view in every.items() if needs is None or getattr(needs, key)}
    return Views(here, **asked)


def variants_of(examples: Iterable[Example]) -> Variants:
    """Return other forms of examples of the profile `short`, as of people asked nothing else.

    Each of them is retained, too, so that decoupled questions are about others of them.
    """
    people = {}
    for one in examples:
        question = Question(
            id=one.question_id,
            modality=one.modality,
            question=one.prompt.partition("\nA. ")[0],
            options=one.options,
            answer=one.options[0].letter,
            individual=one.individual,
            picture=one.picture,
        )
        pictures = (one.picture,) if one.picture else ()
        people[one.question_id] = Individual(
            one.individual, one.individual, "fictional", (question,), pictures, ()
        )
    everyone = list(people.values())
    return Variants(everyone, everyone, profile="short", seed=0)
