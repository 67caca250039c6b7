"""Ten small questions to a model: does it answer with a letter, does it talk, is it cut off?

What they are right in does not matter. The parser and the number of tokens that an experiment
should name depend on how a model answers, and a wrong choice makes a sound model look broken.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from pulse_unlearn.config import ModelSettings
from pulse_unlearn.data.examples import scored
from pulse_unlearn.data.images import picture_from_bytes
from pulse_unlearn.evaluation.parsers import parse
from pulse_unlearn.records import Example, Option, Question

ROOM = 64
"""Tokens that each answer may take."""
SHORT = 8
"""Tokens a letter needs at most, with marks around it."""
MOST = 6
"""Of ten: so many answers make a habit."""
_COLOURS = ("red", "green", "blue", "black", "white")
_FACTS = (
    ("How many days has a week?", ("five", "six", "seven", "eight")),
    ("What do bees make?", ("honey", "milk", "silk", "wool")),
    ("Which of these is a number?", ("chair", "nine", "river", "green")),
    ("Which animal barks?", ("cat", "horse", "dog", "fish")),
    ("What is frozen water?", ("sand", "ice", "steam", "oil")),
)
Habit = Literal["letter", "talks", "cut off", "unreadable"]


@dataclass(frozen=True, slots=True)
class Said:
    """One answer to one of the questions."""

    text: str
    options: tuple[Option, ...]
    tokens: int
    ended: bool


@dataclass(frozen=True, slots=True)
class Manner:
    """How a model answers, and the settings that fit."""

    habit: Habit
    said: str
    fix: str


def manner_of(answers: Sequence[Said]) -> Manner:
    """Tell from ten answers how a model answers."""
    strict = [parse(one.text, one.options).outcome == "answered" for one in answers]
    talk = [
        parse(one.text, one.options, parser="declared").outcome == "answered" for one in answers
    ]
    short = sum(read and one.tokens <= SHORT for read, one in zip(strict, answers, strict=True))
    cut = sum(not one.ended and not read for read, one in zip(talk, answers, strict=True))
    count, example = len(answers), f"for example {' '.join(answers[0].text.split())[:60]!r}"
    if short >= MOST:
        said = f"answers with a letter: {short} of {count} within {SHORT} tokens"
        return Manner("letter", said, "")
    if sum(talk) >= MOST:
        said = f"talks: {sum(talk)} of {count} name one option, {short} with a letter; {example}"
        longest = max(one.tokens for one in answers)
        fix = f"scoring.parser: declared, scoring.max_new_tokens: {max(SHORT, 2 * longest)}"
        return Manner("talks", said, fix)
    if cut > count // 2:
        said = f"is cut off: {cut} of {count} go on for more than {ROOM} tokens; {example}"
        return Manner("cut off", said, f"raise scoring.max_new_tokens above {ROOM}")
    said = f"names one option in {sum(talk)} of {count} answers; {example}"
    fix = "another prompt profile, or scoring.parser: likelihood, which reads no text"
    return Manner("unreadable", said, fix)


def ask(settings: ModelSettings, *, profile: str) -> Manner:
    """Load the model and ask it; raises ModelError as loading does."""
    from pulse_unlearn.models.encode import Encoder
    from pulse_unlearn.models.forward import Plain
    from pulse_unlearn.models.loading import load_model

    loaded = load_model(settings)
    encoder = Encoder(loaded.processor, loaded.family)
    backend, examples = Plain(loaded.model, encoder), questions(profile)
    answers = []
    for example in examples:
        (reply,) = backend.generate([example], max_new_tokens=ROOM)
        tokens = len(encoder.tokenizer(reply.text, add_special_tokens=False)["input_ids"])
        answers.append(Said(reply.text, example.options, tokens, not reply.cut_off))
    return manner_of(answers)


def questions(profile: str) -> list[Example]:
    """Return the ten: five on a picture of one colour, five in text alone."""
    names = list(_COLOURS)
    shown = [
        _question(number, "Which colour fills the picture?", [*names[number:], *names[:number]][:4])
        for number in range(5)
    ]
    told = [_question(5 + number, *fact) for number, fact in enumerate(_FACTS)]
    return scored([*shown, *told], profile=profile)


def _question(number: int, text: str, options: Sequence[str]) -> Question:
    shown = number < 5
    picture = None
    if shown:
        buffer = io.BytesIO()
        Image.new("RGB", (96, 96), options[0]).save(buffer, "PNG")
        picture = picture_from_bytes(buffer.getvalue(), f"question {number}")
    return Question(
        id=f"q{number}",
        modality="multimodal" if shown else "text_only",
        question=text,
        options=tuple(Option(*pair) for pair in zip("ABCD", options, strict=True)),
        answer="A",
        picture=picture,
    )
