"""The frozen records that cross rooms.

Words, fixed once: code says *forget* and *retain*; tables print D_unlearn and D_retain. An
*individual* is the unit of forgetting and of statistics, an *example* is one question as the model
sees it, with or without an image. Accuracies are fractions inside, percent only in print.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Modality = Literal["multimodal", "text_only"]
MODALITIES: tuple[Modality, ...] = ("multimodal", "text_only")

Verdict = Literal["correct", "wrong", "refused", "unparsable"]
VERDICTS: tuple[Verdict, ...] = ("correct", "wrong", "refused", "unparsable")


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded image file as it was found; decoding is the data room's business."""

    data: bytes = field(repr=False)
    digest: str
    """SHA-256 of `data`, hex."""
    where: str
    """File and row it came from, for errors."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a multiple-choice question, under the letter it is shown with."""

    letter: str
    text: str


@dataclass(frozen=True, slots=True)
class Question:
    """A multiple-choice question as the data set holds it (scored picture, scored option order)."""

    id: str
    modality: Modality
    question: str
    options: tuple[Option, ...]
    answer: str
    """Letter of the true option."""
    individual: str = ""
    """Empty for general-ability questions."""
    hint: str = ""
    category: str = ""
    l2_category: str = ""
    """The wider ability that MMBench counts the category to."""
    picture: Picture | None = None

    @property
    def truth(self) -> str:
        """Text of the true option."""
        return next(option.text for option in self.options if option.letter == self.answer)


@dataclass(frozen=True, slots=True)
class ShortAnswer:
    """A question answered in words; training material only, never scored."""

    id: str
    modality: Modality
    question: str
    answer: str
    individual: str = ""


@dataclass(frozen=True, slots=True)
class Individual:
    """A person: questions in both modalities and pictures in three roles that never mix."""

    id: str
    name: str
    group: str
    """`fictional` (learned by fine-tuning) or `celebrity` (known from pre-training)."""
    questions: tuple[Question, ...]
    training_pictures: tuple[Picture, ...]
    """Views that may be trained on."""
    other_pictures: tuple[Picture, ...]
    """Views for stop rules and selection: neither trained on nor reported."""
    short_answers: tuple[ShortAnswer, ...] = ()


@dataclass(frozen=True, slots=True)
class Example:
    """One question in the form the model sees it: prompt text, picture, expected answer."""

    id: str
    """Unique within a stage: question id plus view and option order."""
    question_id: str
    modality: Modality
    prompt: str
    """Text of the user turn, before the chat template; no image placeholder in it."""
    answer: str
    """Text of the assistant turn: a letter or, where the prompt is answered in words, words."""
    options: tuple[Option, ...] = ()
    said: tuple[str, ...] = ()
    """What the assistant says for each option, in their order; empty where it says its letter."""
    individual: str = ""
    category: str = ""
    rotation: int = 0
    """0 is the order of the file; k shows the options rotated by k (circular scoring)."""
    picture: Picture | None = None
    system: str = ""
    """Text of the system turn before the user's; empty for none."""

    @property
    def letter(self) -> str:
        """Letter of the true option; only for an example with options."""
        if self.said:
            return self.options[self.said.index(self.answer)].letter
        return self.answer

    @property
    def likeness(self) -> tuple[str, int]:
        """Sort key that brings together what shares a picture, then what is of like length."""
        return (self.picture.digest if self.picture else "", len(self.system) + len(self.prompt))


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model answered to one example; all that scoring needs, without a model."""

    example_id: str
    question_id: str
    individual: str
    modality: Modality
    category: str
    rotation: int
    options: tuple[Option, ...]
    answer: str
    """Letter of the true option."""
    text: str
    """Greedy answer, special tokens removed."""
    letter_log_probs: tuple[float, ...]
    """Natural log-probability of each option's answer, in option order, not renormalised over the
    options: of its letter as the first answer token; where the prompt is answered in words, of its
    whole text and the end of turn."""


@dataclass(frozen=True, slots=True)
class Score:
    """A judged prediction: the generated answer and the letter answer, never mixed."""

    example_id: str
    question_id: str
    individual: str
    modality: Modality
    category: str
    rotation: int
    answer: str
    """Letter of the true option (under this rotation)."""
    verdict: Verdict
    choice: str
    """Letter that was read; empty if refused or unparsable."""
    letter_choice: str
    """Letter of the option whose answer has the highest log-probability."""
    letter_correct: bool
    letter_probability: float
    """Probability of the true option's answer, renormalised over the options."""
    chance: float
    """1 / number of options."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One number with its interval; `value` is None where it is undefined, `reason` says why."""

    set: str
    modality: str
    measure: str
    value: float | None
    low: float | None
    high: float | None
    questions: int
    individuals: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """Which part of the experiment a number belongs to."""

    scenario: str
    method: str
    """Label of the method entry in the experiment."""
    scope: str
    seed: int
    request: int
    """0 is the target model, before any unlearning."""


@dataclass(frozen=True, slots=True)
class Result:
    """One row of `results.csv`."""

    cell: Cell
    measurement: Measurement


RESULT_COLUMNS: tuple[str, ...] = (
    "scenario",
    "method",
    "scope",
    "seed",
    "request",
    "set",
    "modality",
    "measure",
    "value",
    "low",
    "high",
    "questions",
    "individuals",
)

Sets = Mapping[str, frozenset[str]]
"""Set name (forget, retain, ...) -> individuals in it."""
