"""The frozen records that cross rooms.

Words, fixed once: code says *forget* and *retain*; tables print D_unlearn and D_retain. An
*individual* is the unit of forgetting and of statistics, an *example* is one question as the model
sees it, with or without an image. Accuracies are fractions inside, percent only in print.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

Modality = Literal["multimodal", "text_only"]
MODALITIES: tuple[Modality, ...] = ("multimodal", "text_only")

Verdict = Literal["correct", "wrong", "refused", "unparsable", "cut_off"]
VERDICTS: tuple[Verdict, ...] = ("correct", "wrong", "refused", "unparsable", "cut_off")
UNREADABLE: frozenset[Verdict] = frozenset({"unparsable", "cut_off"})
"""Answers in which no option is read: complete ones, and those that generation cut off."""

AskedAs = Literal["options", "words"]
"""How a question is put: with its options, or bare and answered in words."""


Alternative = Literal["option", "any_option", "refusal"]
"""Another answer to a question: a wrong option, any option (the true one included, so that what is
learned ends at chance and not below), or a refusal."""

Modalities = Literal["both", "multimodal", "text_only"]
"""In which modalities people are asked: both, or one alone."""

Prompting = Literal[
    "few_shot",
    "answer_begun",
    "paraphrase_memory",
    "paraphrase_quiz",
    "blank_picture",
    "swapped_picture",
]
"""How a question is asked that is meant to bring back what the plain one does not."""
PROMPTINGS: tuple[Prompting, ...] = get_args(Prompting)

Facts = Literal["all", "taught", "held_back"]
"""Which facts about a person: all, or one of the two halves that an attack divides them into."""


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
    orders: tuple[tuple[int, ...], ...] = ()
    """Every order in which the file itself shows the options, its own order first: the places of
    this question's options under A, B, ... Empty where the file has no circular copies."""

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
class NamedRequest:
    """People whom one request names, as a file of requests lists them."""

    name: str
    people: tuple[str, ...]
    date: str = ""
    """ISO date of the request; empty if the file gives none."""
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleKey:
    """Which question was asked and in which form: the same in example, prediction and score."""

    example_id: str
    """Unique within a stage: question id plus view and option order."""
    question_id: str
    modality: Modality
    individual: str = ""
    """Empty for general-ability questions."""
    category: str = ""
    rotation: int = 0
    """0 is the order of the file; k shows the options rotated by k (circular scoring)."""
    asked_as: AskedAs = "options"
    """`words` is the bare question beside the scored one, for the reading `words`."""


def key_of(record: ExampleKey) -> dict[str, Any]:
    """Return the key by field name, to make another record about the same example."""
    return {one.name: getattr(record, one.name) for one in fields(ExampleKey)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Example(ExampleKey):
    """One question in the form the model sees it: prompt text, picture, expected answer."""

    prompt: str
    """Text of the user turn, before the chat template; no image placeholder in it."""
    answer: str
    """Text of the assistant turn: a letter or, where the prompt is answered in words, words."""
    options: tuple[Option, ...] = ()
    option_texts: tuple[str, ...] = ()
    """The assistant's text for each option, in their order; empty where it answers by letter."""
    picture: Picture | None = None
    system: str = ""
    """Text of the system turn before the user's; empty for none."""
    begun: str = ""
    """How the assistant's turn begins before the answer; empty where it is all its own."""

    @property
    def letter(self) -> str:
        """Letter of the true option; only for an example with options."""
        if self.option_texts:
            return self.options[self.option_texts.index(self.answer)].letter
        return self.answer

    @property
    def likeness(self) -> tuple[str, int]:
        """Sort key that brings together what shares a picture, then what is of like length."""
        return (self.picture.digest if self.picture else "", len(self.system) + len(self.prompt))


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction(ExampleKey):
    """What the model answered to one example; all that scoring needs, without a model."""

    options: tuple[Option, ...]
    answer: str
    """Letter of the true option."""
    text: str
    """Greedy answer, special tokens removed."""
    option_log_probs: tuple[float, ...]
    """Natural log-probability of each option's answer, in option order, not renormalised over the
    options: of its letter as the first answer token; where it is answered in words, of the sum of
    its text's tokens, the end of turn apart."""
    end_log_probs: tuple[float, ...] = ()
    """Natural log-probability of the end of turn behind each option's text; empty for letters."""
    option_tokens: tuple[int, ...] = ()
    """Tokens of each option's text; empty for letters."""
    cut_off: bool = False
    """Whether the answer had not ended when as many tokens as may be were generated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score(ExampleKey):
    """A judged answer: what the text says and what the log-probabilities say, never mixed."""

    answer: str
    """Letter of the true option (under this rotation)."""
    verdict: Verdict
    choice: str
    """Letter that was read; empty if refused or unreadable."""
    likeliest: str
    """Letter of the option whose answer has the highest log-probability."""
    true_probability: float
    """Probability of the true option's answer, renormalised over the options."""
    mentioned: str
    """Letters of all options that the text names anywhere, in alphabetical order."""
    chance: float
    """Share of the options that are true: 1 / number of options, unless true ones are equal."""


@dataclass(frozen=True, slots=True)
class QuestionScore:
    """Everything the stored answers to one question say, by reading; None where it was not asked.

    A reading is 1 where it is right and 0 where it is wrong; of options that tie for the highest
    log-probability each counts its share.
    """

    question_id: str
    individual: str
    modality: Modality
    category: str
    answer: str
    """Letter of the true option in the file's order."""
    chance: float
    """Share of the options that are true: 1 / number of options, unless true ones are equal."""
    verdict: Verdict | None
    """On the greedy answer in the file's order: the paper's reading, `strict` by default."""
    choice: str
    """Letter read there; empty if refused or unreadable."""
    letter: float | None
    """The likeliest option in the file's order."""
    letter_probability: float | None
    """Probability of the true option in the file's order, renormalised over the options."""
    turned: tuple[tuple[str, str, Verdict], ...]
    """True letter, letter read, verdict: in every order that was asked."""
    rotated: float | None
    """The likeliest option by log-probabilities averaged over all cyclic orders."""
    rotated_probability: float | None
    """Probability of the true option by that average, renormalised over the options."""
    circular: float | None
    """1 if the greedy answer is right in every cyclic order."""
    flipped: float | None
    """1 if readable orders name different options; None with fewer than two readable, or if one is
    missing."""
    mentions: float | None
    """Share of the orders in which the greedy answer names the true option anywhere."""
    mentions_others: float | None
    """The same for the other options, averaged over them: what naming at random would score."""
    words: float | None
    """The likeliest option text behind the bare question, by the sum over its tokens, without the
    end of turn."""
    words_per_token: float | None
    """The same by the mean over its tokens."""
    words_probability: float | None
    """Probability of the true text by the sum, renormalised over the options."""
    words_named: float | None
    """1 if the greedy answer to the bare question names the true option and no other."""
    words_lettered: float | None = None
    """1 if the greedy answer to the bare question is an option's letter, which nobody asked for."""
    words_log_likelihood: float | None = None
    """Natural log-probability of the true text behind the bare question, mean over its tokens."""
    words_tokens: int | None = None
    """How many tokens these are."""


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


PLAIN = "plain"
"""The condition of the protocol itself: the model as it is, asked as it is."""


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
    condition: str = PLAIN
    """How the model came about or is asked: `plain`, `retain_model`, `relearned:20`, ..."""


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
    "condition",
    "set",
    "modality",
    "measure",
    "value",
    "low",
    "high",
    "questions",
    "individuals",
    "reason",
)

Sets = Mapping[str, frozenset[str]]
"""Set name (forget, retain, ...) -> individuals in it."""
