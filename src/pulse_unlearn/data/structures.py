"""Nested cells of MLLMU-Bench: structs, or the same as JSON text in converted copies."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pulse_unlearn.data.checks import clean
from pulse_unlearn.data.naming import mentions
from pulse_unlearn.records import Modality


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
        shown = value if len(value) <= 60 else value[:57] + "..."
        raise Malformed(f"not JSON ({error}): {shown!r}") from error


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
