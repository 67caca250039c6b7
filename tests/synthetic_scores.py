"""Scores and predictions made by hand, for the tests of the evaluation room."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import stats

from pulse_unlearn.evaluation.comparisons import (
    SeedGap,
    gaps_between,
    mean_gap,
    pair_by_question,
)
from pulse_unlearn.evaluation.scoring import by_question, score_all
from pulse_unlearn.records import Modality, Option, Prediction, QuestionScore, Verdict

LETTERS = "ABCDEFGH"


def options(*texts: str) -> tuple[Option, ...]:
    """Options under A, B, C, ..."""
    return tuple(Option(letter, text) for letter, text in zip(LETTERS, texts, strict=False))


TRADES = options("doctor", "teacher", "baker", "pilot")


def prediction(
    text: str,
    *,
    shown: tuple[Option, ...] = TRADES,
    answer: str = "B",
    log_probs: Sequence[float] | None = None,
    number: int = 1,
) -> Prediction:
    """A prediction with `text` as its answer; log-probabilities favour A unless given."""
    if log_probs is None:
        log_probs = [-1.0 - place for place in range(len(shown))]
    return Prediction(
        example_id=f"q{number}/scored",
        question_id=f"q{number}",
        individual="p1",
        modality="text_only",
        options=shown,
        answer=answer,
        text=text,
        option_log_probs=tuple(log_probs),
    )


def in_words(
    text: str,
    log_probs: Sequence[float],
    *,
    shown: tuple[Option, ...] = TRADES,
    answer: str = "B",
    tokens: Sequence[int] | None = None,
    ends: Sequence[float] | None = None,
    number: int = 1,
) -> Prediction:
    """The prediction for the bare question: each option's text was tried as the answer."""
    return replace(
        prediction(text, shown=shown, answer=answer, log_probs=log_probs, number=number),
        example_id=f"q{number}/words",
        asked_as="words",
        end_log_probs=tuple(ends or [-0.5] * len(shown)),
        option_tokens=tuple(tokens or [1] * len(shown)),
    )


def by_reading(predictions: Iterable[Prediction]) -> tuple[QuestionScore, ...]:
    """Judge predictions and bring them together by question."""
    predictions = tuple(predictions)
    return by_question(predictions, score_all(predictions))


def person_score(
    person: str,
    number: int,
    *,
    right: bool = True,
    letter_right: bool | None = None,
    modality: Modality = "multimodal",
    verdict: Verdict | None = None,
    chance: float = 0.25,
    probability: float = 0.5,
    rotated: float | None = None,
    words: float | None = None,
) -> QuestionScore:
    """What the file's order alone says of question `number` about `person`; the true letter is B.

    Other orders and words were not asked unless given.
    """
    verdict = verdict or ("correct" if right else "wrong")
    letter_right = right if letter_right is None else letter_right
    choice = {"correct": "B", "wrong": "A"}.get(verdict, "")
    return QuestionScore(
        question_id=f"{person}/{modality}/{number}",
        individual=person,
        modality=modality,
        category="",
        answer="B",
        chance=chance,
        verdict=verdict,
        choice=choice,
        letter=float(letter_right),
        letter_probability=probability,
        turned=(("B", choice, verdict),),
        rotated=rotated,
        rotated_probability=None if rotated is None else probability,
        circular=None,
        flipped=None,
        mentions=float(verdict == "correct"),
        mentions_others=float(verdict == "wrong") / (1 / chance - 1),
        words=words,
        words_per_token=words,
        words_probability=None if words is None else probability,
        words_named=words,
    )


def people_scores(
    multimodal: Sequence[int], text_only: Sequence[int], *, each: int = 5, prefix: str = "p"
) -> list[QuestionScore]:
    """Scores of as many people as numbers given; the numbers say how many of `each` are right."""
    rows = []
    modality: Modality
    for modality, rights in (("multimodal", multimodal), ("text_only", text_only)):
        for place, right in enumerate(rights):
            rows += [
                person_score(
                    f"{prefix}{place:03d}", number, right=number < right, modality=modality
                )
                for number in range(each)
            ]
    return rows


def spread(total: int, people: int) -> list[int]:
    """`total` right answers dealt out to `people`, as evenly as can be."""
    return [total // people + (place < total % people) for place in range(people)]


def general_answer(
    question: str,
    choice: str,
    *,
    answer: str = "A",
    rotation: int = 0,
    category: str = "",
    count: int = 4,
    direction: int = -1,
) -> Prediction:
    """One option order of a general question; an empty choice is unparsable.

    The option that stands at place i in the file stands at i + direction * rotation here. The
    letter chosen (A for none) has a probability of 0.7, the others share the rest.
    """
    places = [(place - direction * rotation) % count for place in range(count)]
    likeliest = LETTERS.index(choice or "A")
    rest = math.log(0.3 / (count - 1))
    return Prediction(
        example_id=f"{question}/r{rotation}",
        question_id=question,
        individual="",
        modality="multimodal",
        category=category,
        rotation=rotation,
        options=options(*(f"option number {place}" for place in places)),
        answer=answer,
        text=choice or "?",
        option_log_probs=tuple(
            math.log(0.7) if place == likeliest else rest for place in range(count)
        ),
    )


def general_score(
    question: str, choice: str, *, answer: str = "A", category: str = "", count: int = 4
) -> QuestionScore:
    """A general question that was asked in the file's order alone."""
    asked = general_answer(question, choice, answer=answer, category=category, count=count)
    return by_reading([asked])[0]


def rotated(question: str, choices: str, *, truth: int = 0, category: str = "") -> list[Prediction]:
    """All rotations of a question with len(choices) options; `_` is an unparsable answer.

    Rotation k shows option i under letter (i - k) mod n, so the truth walks through all letters.
    """
    count = len(choices)
    return [
        general_answer(
            question,
            choice.strip("_"),
            answer=LETTERS[(truth - rotation) % count],
            rotation=rotation,
            category=category,
            count=count,
        )
        for rotation, choice in enumerate(choices)
    ]


def half_width(gaps: np.ndarray, *, level: float = 0.95) -> float:
    """Return the half width of the interval of mean paired gaps, by hand; people x kinds x each.

    t sqrt(variance): that of the person means, mixed with the one if a person's gaps were alike.
    """
    people, questions = len(gaps), gaps[0].size
    seen = gaps.mean(axis=(1, 2)).var(ddof=1) / people
    rest = (gaps - gaps.mean(axis=(0, 2), keepdims=True)).var() / (people * questions)
    changed = np.abs(gaps).mean()
    weight = min(changed, 1 - changed) * gaps.var() / rest
    mixed = (weight * seen + 1.0 * questions * rest) / (weight + 1.0)
    return float(stats.t.ppf((1 + level) / 2, people - 1) * np.sqrt(max(seen, mixed)))


def gaps_of(one: Sequence[QuestionScore], other: Sequence[QuestionScore], each: int) -> np.ndarray:
    """Return the differences of two such lists of scores, people x kinds x `each`."""
    right = [[score.verdict == "correct" for score in scores] for scores in (one, other)]
    return np.subtract(*np.array(right, float)).reshape(2, -1, each).swapaxes(0, 1)


def paired_difference(
    a: Sequence[QuestionScore], b: Sequence[QuestionScore], measure: str = "accuracy", **how: Any
) -> SeedGap:
    """How much higher `measure` is in `a` than in `b`, paired by question."""
    return mean_gap(gaps_between(pair_by_question(b, a), measure), **how)
