"""Nested cells of MLLMU-Bench: structs, or the same as JSON text in converted copies."""

from __future__ import annotations

import ast
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pulse_unlearn.data.checks import LETTERS, clean
from pulse_unlearn.data.naming import mentions
from pulse_unlearn.errors import Problem
from pulse_unlearn.records import Modality, Option

MAX_LITERAL = 200_000
"""Longest text taken for a literal: the parser's memory and depth grow with it."""


class Malformed(ValueError):
    """A cell that cannot be read; the message says what it holds."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A question answered in words, as `metadata` holds it."""

    modality: Modality
    question: str
    answer: str


def structure(value: Any) -> Any:
    """Return a cell as nested Python values; JSON text is parsed. Raises Malformed."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise Malformed(f"not JSON ({error}): {_short(value)}") from error


def literal(value: Any) -> Any:
    """Return a cell that may be a Python literal, or JSON, as text; nothing in it is evaluated.

    Raises Malformed for anything else, code included.
    """
    if not isinstance(value, str):
        return value
    if len(value) > MAX_LITERAL:
        raise Malformed(f"{len(value)} characters, more than {MAX_LITERAL}")
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(value.strip())
    # What the parser and the literal's own limits raise.
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise Malformed(f"neither JSON nor a Python literal: {_short(value)}") from error


def pairs_of(metadata: str, *, name: str) -> list[Pair]:
    """Read the question-answer pairs of a `metadata` cell; raises Malformed.

    A pair may say its `Type` (`Image_Textual` or `Pure_Text`). The public data set's pairs don't:
    then a question that names the person needs no picture and is text-only.
    """
    entries = structure(metadata)
    if not isinstance(entries, list):
        raise Malformed(f"a {type(entries).__name__}, not a list of Question and Answer")
    wrong: dict[str, list[int]] = defaultdict(list)
    pairs = []
    for number, entry in enumerate(entries):
        if not isinstance(entry, Mapping):
            wrong["is no Question with an Answer"].append(number)
            continue
        question, answer = clean(entry.get("Question")), clean(entry.get("Answer"))
        kind = entry.get("Type")
        if kind not in (None, "Image_Textual", "Pure_Text"):
            wrong[f"is of unknown Type {kind!r}"].append(number)
            continue
        text_only = kind == "Pure_Text" or (kind is None and mentions(question, name))
        pairs.append(Pair("text_only" if text_only else "multimodal", question, answer))
    if wrong:
        told = (f"pair {', '.join(map(str, places))} {what}" for what, places in wrong.items())
        raise Malformed("; ".join(told))
    return pairs


def options_of(value: Any) -> tuple[Option, ...]:
    """Return the options a question has; null or nothing under a letter means it has none there.

    Parquet unifies structs, so that every question carries every letter any question carries.
    """
    given = value if isinstance(value, Mapping) else {}
    texts = ((letter, clean(given.get(letter))) for letter in LETTERS)
    return tuple(Option(letter, text) for letter, text in texts if text)


def no_question(entry: Any) -> str:
    """Return what there is in place of a question; empty if it is one."""
    if not isinstance(entry, Mapping):
        return type(entry).__name__
    wrong = [
        f"{name} is a {type(entry[name]).__name__}"
        for name in ("Question", "Correct_Answer")
        if not isinstance(entry.get(name), str | None)
    ]
    return "; ".join(wrong)


def foreign_letters(value: Any, where: str) -> list[Problem]:
    """Return a problem if there are options under letters that would be left out."""
    given = value if isinstance(value, Mapping) else {}
    foreign = [str(key) for key, text in given.items() if key not in LETTERS and clean(text)]
    if not foreign:
        return []
    return [Problem("unknown option letter", where, ", ".join(foreign), ", ".join(LETTERS))]


def letter_of(value: Any) -> str:
    """Return the letter of answers written as `B`, ` b` or `B.`; anything else as it stands."""
    text = clean(value)
    bare = text.rstrip(".):").lstrip("(").upper()
    return bare if len(bare) == 1 else text


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
