"""Answerers that behave in known ways, for the tests of readings, letters and verdicts.

A question has a strength for each of its options (nats), the same in every order: what is believed.
A letter has a bias (nats), the same in every question. Letters are as likely as softmax(strength +
bias + noise) over a vocabulary with mass elsewhere; the greedy text follows from that, unless the
answerer refuses or its output is broken. The bare question has strengths of its own, and texts of
different lengths, which is why the sum over tokens favours the short ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import Any

import numpy as np

from pulse_unlearn.evaluation.scoring import answer_log_probs, by_question, score
from pulse_unlearn.records import (
    AskedAs,
    Example,
    Modality,
    Option,
    Prediction,
    QuestionScore,
    Score,
    key_of,
)

LETTERS = "ABCD"
EVEN = (0.25, 0.25, 0.25, 0.25)
SURE = 7.0
"""Strength (nats) of what is believed."""
STUCK = 25.0
"""Bias (nats) of a letter that is said whatever is believed."""
JUNK = ("the the the the", "\ufffd\ufffd of of of", "))) 7 7 7 it", "zu zu za za zu")
REFUSAL = "I don't know."
TEXTS = (
    ("belwick", "corham", "danstead", "fermere"),
    ("golford", "hemwick", "junham", "kirstead"),
    ("lenmere", "morford", "norwick", "pelham"),
)
"""Options are drawn from one of these, in any order."""


@dataclass(frozen=True)
class Design:
    """Who is asked what, and how."""

    people: int = 50
    each: int = 5
    """Questions per person and modality."""
    modalities: tuple[Modality, ...] = ("multimodal", "text_only")
    truths: tuple[float, ...] = EVEN
    """How often each letter is true in the file's order."""
    counts: tuple[int, ...] = (4,)
    """Numbers of options, drawn from with equal chances."""
    orders: bool = True
    """Whether all cyclic orders are asked, or the file's alone."""
    words: bool = True
    """Whether the bare question is asked."""


@dataclass(frozen=True)
class Model:
    """How one answers; all chances are per question unless said otherwise."""

    knows: float = 0.0
    """Chance to believe the true option where options are shown."""
    knows_words: float | None = None
    """The same for the bare question; None for the same belief."""
    otherwise: str = "nothing"
    """What is believed where it does not know: `nothing`, `random` (one option, the true one
    included), `wrong` (one wrong option) or `not the true one`."""
    letter: int | None = None
    """Place of the letter it prefers."""
    how_often: float = 1.0
    """Share of the answers in which it does, whatever it believes."""
    says: str = "letter"
    """`letter`, `junk`, `refusal`, `mention` (of what it believes) or `all` (names every one)."""
    says_words: str = ""
    """The same for the bare question; empty for the same."""
    noise: float = 0.0
    """Share of the answers that have nothing to do with all this."""
    by_person: bool = False
    """Whether everything about a person is known, or nothing."""


PLAIN = Design()


def ask(
    model: Model, design: Design = PLAIN, *, seed: int, world: int | None = None
) -> tuple[QuestionScore, ...]:
    """Simulate all answers and bring them together; of one `world` the questions are the same."""
    predictions = predict(model, design, seed=seed, world=world)
    return by_question(predictions, judged(predictions))


def predict(
    model: Model, design: Design = PLAIN, *, seed: int, world: int | None = None
) -> list[Prediction]:
    """Simulate the answers to every question in every order asked, and to the bare question."""
    asked = _Questions.of(design, seed if world is None else world)
    generator = np.random.default_rng([seed, 1])
    total = len(asked.truth)
    knows, knows_words = _known(model, design, asked, generator)
    shown = _strengths(model, asked, knows, generator)
    bare = shown if model.knows_words is None else _strengths(model, asked, knows_words, generator)
    turns = len(LETTERS) if design.orders else 1
    # (question, order, place): what stands there, and how likely its letter is.
    stands = (np.arange(4)[None, None, :] + np.arange(turns)[None, :, None]) % asked.count[
        :, None, None
    ]
    logits = np.take_along_axis(shown[:, None, :].repeat(turns, 1), stands, 2)
    logits = logits + generator.normal(0, 0.5, logits.shape)
    stuck = generator.random((total, turns)) < model.how_often
    if model.letter is not None:
        logits[:, :, model.letter] += STUCK * stuck
    off = generator.random((total, turns)) < model.noise
    logits[off] = generator.normal(0, 3, (int(off.sum()), 4))
    logits[np.broadcast_to(np.arange(4) >= asked.count[:, None, None], logits.shape)] = -np.inf
    elsewhere = np.where(off, 0.0, {"junk": 20.0, "refusal": 12.0}.get(model.says, 0.0))
    log_probs = logits - np.logaddexp(np.logaddexp.reduce(logits, 2), elsewhere)[:, :, None]
    tokens = generator.integers(1, 6, (total, 4))
    sums = bare - 1.2 * tokens + generator.normal(0, 0.5, (total, 4)) - 3.0
    ends = generator.normal(-12.0 if "junk" in (model.says, model.says_words) else -0.5, 0.1, 4)
    off_words = generator.random(total) < model.noise
    sums[off_words] = generator.normal(-9, 3, (int(off_words.sum()), 4))
    junk = generator.integers(len(JUNK), size=(total, turns + 1))
    found = []
    for number in range(total):
        count = int(asked.count[number])
        texts = asked.texts[number]
        base = Prediction(
            example_id="",
            question_id=f"q{number:04d}",
            individual=asked.person[number],
            modality=asked.modality[number],
            options=(),
            answer="",
            text="",
            option_log_probs=(),
        )
        for turn in range(min(turns, count)):
            chances = log_probs[number, turn, :count].tolist()
            place = chances.index(max(chances))
            options = _options(texts[turn:] + texts[:turn])
            said = LETTERS[place]
            if model.letter is not None and model.letter >= count and stuck[number, turn]:
                said = LETTERS[model.letter]  # whether there is such an option or not
            if not off[number, turn]:
                said = _said(model.says, said, options[place].text, options, junk[number, turn])
            found.append(
                replace(
                    base,
                    example_id=f"{base.question_id}/{turn}",
                    rotation=turn,
                    options=options,
                    answer=LETTERS[(int(asked.truth[number]) - turn) % count],
                    text=said,
                    option_log_probs=tuple(chances),
                )
            )
        if design.words:
            chances = sums[number, :count].tolist()
            options = _options(texts)
            named = options[chances.index(max(chances))].text
            how = model.says_words or model.says
            said = _said(how, f"That would be {named}.", named, options, junk[number, turns])
            found.append(
                replace(
                    base,
                    example_id=f"{base.question_id}/words",
                    options=options,
                    answer=LETTERS[asked.truth[number]],
                    text=said,
                    option_log_probs=tuple(chances),
                    asked_as="words",
                    end_log_probs=tuple(ends[:count].tolist()),
                    option_tokens=tuple(tokens[number, :count].tolist()),
                )
            )
    return found


def answered(
    examples: Sequence[Example], knows: Callable[[Example], bool], *, seed: int
) -> list[Prediction]:
    """Simulate the answers to examples as they are asked: it knows what `knows` says it does.

    What it believes of a question is the same in every form of it, where it does not know.
    """
    found = []
    for one in examples:
        strengths = [
            Random(f"{seed}:{one.question_id}:{option.text}").gauss(0, 0.5)
            + Random(f"{seed}:{one.example_id}:{option.text}").gauss(0, 0.3)
            + SURE * (knows(one) and option.letter == one.letter)
            for option in one.options
        ]
        total = math.log(math.fsum(map(math.exp, strengths)))
        best = one.options[strengths.index(max(strengths))]
        words = bool(one.option_texts)
        count = len(one.options) if words else 0
        found.append(
            Prediction(
                **key_of(one),
                options=one.options,
                answer=one.letter,
                text=f"That would be {best.text}." if words else best.letter,
                option_log_probs=tuple(value - total for value in strengths),
                end_log_probs=(-0.5,) * count,
                option_tokens=(2,) * count,
            )
        )
    return found


def judged(predictions: Sequence[Prediction]) -> tuple[Score, ...]:
    """Score as `score_all` does, which a test holds it to; equal texts are read once."""
    found = []
    for one in predictions:
        read = _read(one.text, one.options, one.asked_as)
        chances = answer_log_probs(one.option_log_probs, one.end_log_probs)
        best = max(chances)
        shares = [math.exp(value - best) for value in chances]
        verdict = read.verdict
        if verdict in ("correct", "wrong"):
            verdict = "correct" if read.choice == one.answer else "wrong"
        found.append(
            Score(
                **key_of(one),
                answer=one.answer,
                verdict=verdict,
                choice=read.choice,
                likeliest=one.options[chances.index(best)].letter,
                true_probability=shares[LETTERS.index(one.answer)] / math.fsum(shares),
                mentioned=read.mentioned,
                chance=1.0 / len(one.options),
            )
        )
    return tuple(found)


@cache
def _read(text: str, options: tuple[Option, ...], asked_as: AskedAs) -> Score:
    level = tuple(-1.0 for _ in options)
    ones = tuple(1 for _ in options)
    stub = Prediction(
        example_id="",
        question_id="",
        modality="text_only",
        options=options,
        answer="A",
        text=text,
        option_log_probs=level,
        asked_as=asked_as,
        end_log_probs=level,
        option_tokens=ones,
    )
    return score(stub)


@cache
def _options(texts: tuple[str, ...]) -> tuple[Option, ...]:
    return tuple(Option(letter, text) for letter, text in zip(LETTERS, texts, strict=False))


def _said(how: str, letter: str, text: str, options: tuple[Option, ...], junk: int) -> str:
    if how == "junk":
        return JUNK[junk]
    if how == "refusal":
        return REFUSAL
    if how == "mention":
        return f"It was {text} that came up there, they said"
    if how == "all":
        return "It was " + " then ".join(sorted(option.text for option in options))
    return letter


@dataclass(frozen=True)
class _Questions:
    person: list[str]
    modality: list[Modality]
    texts: list[tuple[str, ...]]
    count: Any
    truth: Any
    """Place of the true option in the file's order."""

    @classmethod
    def of(cls, design: Design, world: int) -> _Questions:
        generator = np.random.default_rng([world, 0])
        places = [
            (f"p{person:03d}", modality)
            for person in range(design.people)
            for modality in design.modalities
            for _ in range(design.each)
        ]
        total = len(places)
        count = generator.choice(design.counts, total)
        weights = np.array(design.truths)[None, :] * (np.arange(4) < count[:, None])
        ends = np.cumsum(weights / weights.sum(1, keepdims=True), 1)
        truth = np.minimum((generator.random((total, 1)) > ends).sum(1), count - 1)
        sets = generator.integers(len(TEXTS), size=total)
        orders = generator.permuted(np.arange(4)[None, :].repeat(total, 0), axis=1)
        texts = [
            tuple(TEXTS[which][place] for place in order[:number])
            for which, order, number in zip(sets, orders, count, strict=True)
        ]
        return cls([p for p, _ in places], [m for _, m in places], texts, count, truth)


def _known(
    model: Model, design: Design, asked: _Questions, generator: np.random.Generator
) -> tuple[Any, Any]:
    """Draw which questions are known where options are shown, and where they are not."""
    total = len(asked.truth)
    if model.by_person:
        drawn = generator.random(design.people).repeat(total // design.people)
    else:
        drawn = generator.random(total)
    in_words = model.knows if model.knows_words is None else model.knows_words
    return drawn < model.knows, drawn < in_words


def _strengths(model: Model, asked: _Questions, knows: Any, generator: np.random.Generator) -> Any:
    total = len(asked.truth)
    strengths = generator.normal(0, 0.5, (total, 4))
    rows, some = np.arange(total), generator.random(total)
    believed = asked.truth.copy()
    if model.otherwise == "random":
        believed = np.where(knows, believed, (some * asked.count).astype(int))
    elif model.otherwise == "wrong":
        step = 1 + (some * (asked.count - 1)).astype(int)
        believed = np.where(knows, believed, (asked.truth + step) % asked.count)
    push = np.where(knows, SURE, SURE if model.otherwise in ("random", "wrong") else 0.0)
    if model.otherwise == "not the true one":
        push = np.where(knows, SURE, -SURE)
    strengths[rows, believed] += push
    return strengths
