"""Scores and predictions made by hand, for the tests of the evaluation room."""

from __future__ import annotations

from collections.abc import Sequence

from pulse_unlearn.records import Modality, Option, Prediction, Score, Verdict

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
) -> Prediction:
    """A prediction with `text` as its answer; log-probabilities favour A unless given."""
    if log_probs is None:
        log_probs = [-1.0 - place for place in range(len(shown))]
    return Prediction(
        example_id="q1/scored",
        question_id="q1",
        individual="p1",
        modality="text_only",
        category="",
        rotation=0,
        options=shown,
        answer=answer,
        text=text,
        letter_log_probs=tuple(log_probs),
    )


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
) -> Score:
    """The score of question `number` about `person`; the true letter is B."""
    verdict = verdict or ("correct" if right else "wrong")
    letter_right = right if letter_right is None else letter_right
    return Score(
        example_id=f"{person}/{modality}/{number}",
        question_id=f"{person}/{modality}/{number}",
        individual=person,
        modality=modality,
        category="",
        rotation=0,
        answer="B",
        verdict=verdict,
        choice={"correct": "B", "wrong": "A"}.get(verdict, ""),
        letter_choice="B" if letter_right else "A",
        letter_correct=letter_right,
        letter_probability=probability,
        chance=chance,
    )


def people_scores(
    multimodal: Sequence[int], text_only: Sequence[int], *, each: int = 5, prefix: str = "p"
) -> list[Score]:
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


def general_score(
    question: str,
    choice: str,
    *,
    answer: str = "A",
    rotation: int = 0,
    category: str = "",
    count: int = 4,
) -> Score:
    """The score of one option order of a general question; an empty choice is unparsable."""
    verdict: Verdict = "unparsable" if not choice else "correct" if choice == answer else "wrong"
    return Score(
        example_id=f"{question}/r{rotation}",
        question_id=question,
        individual="",
        modality="multimodal",
        category=category,
        rotation=rotation,
        answer=answer,
        verdict=verdict,
        choice=choice,
        letter_choice=choice or "A",
        letter_correct=choice == answer,
        letter_probability=0.5,
        chance=1 / count,
    )


def rotated(question: str, choices: str, *, truth: int = 0, category: str = "") -> list[Score]:
    """All rotations of a question with len(choices) options; `_` is an unparsable answer.

    Rotation k shows option i under letter (i - k) mod n, so the truth walks through all letters.
    """
    count = len(choices)
    return [
        general_score(
            question,
            choice.strip("_"),
            answer=LETTERS[(truth - rotation) % count],
            rotation=rotation,
            category=category,
            count=count,
        )
        for rotation, choice in enumerate(choices)
    ]
