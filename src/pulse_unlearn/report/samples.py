"""Sampled questions with their answers, made safe and small enough to show."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pulse_unlearn.records import VERDICTS
from pulse_unlearn.report.words import (
    MODALITY_TITLES,
    method_title,
    printable,
    scenario_title,
    set_title,
)

MOST_SAMPLES = 60
MOST_PICTURE_CHARACTERS = 120_000
MOST_PICTURES_CHARACTERS = 1_500_000
_TEXT = 300
_PICTURE = re.compile(r"data:image/(png|jpeg|webp|gif);base64,[A-Za-z0-9+/]+={0,2}")
_MARKS = {"correct": "✓", "wrong": "✗", "refused": "–", "unparsable": "?", "cut_off": "…"}


@dataclass(frozen=True, slots=True)
class Answer:
    """One model's answer to a sampled question."""

    label: str
    text: str
    verdict: str
    mark: str
    kind: str
    """One of the verdicts, or `other` for a word that is none of them."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampled question; `picture` is a checked data URI or empty."""

    id: str
    name: str
    of_set: str
    modality: str
    question: str
    hint: str
    options: tuple[tuple[str, str, bool], ...]
    """(letter, text, whether it is the true one)."""
    picture: str
    picture_note: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class SampleGroup:
    """The samples of one scenario."""

    title: str
    samples: tuple[Sample, ...]


def sample_groups(raw: Sequence[Mapping[str, Any]]) -> list[SampleGroup]:
    """Return samples by scenario; pictures that are no small inline image are left out and said."""
    groups: dict[str, list[Sample]] = {}
    spent = 0
    for entry in raw[:MOST_SAMPLES]:
        sample = _sample(entry, room=MOST_PICTURES_CHARACTERS - spent)
        spent += len(sample.picture)
        groups.setdefault(scenario_title(str(entry.get("scenario", ""))), []).append(sample)
    return [SampleGroup(title, tuple(samples)) for title, samples in groups.items()]


def _sample(entry: Mapping[str, Any], *, room: int) -> Sample:
    picture, note = _checked_picture(entry.get("picture"), room)
    truth = str(entry.get("answer", ""))
    options = tuple(
        (
            printable(option.get("letter", ""), 8),
            printable(option.get("text", ""), _TEXT),
            str(option.get("letter", "")) == truth,
        )
        for option in _mappings(entry.get("options"))
    )
    modality = str(entry.get("modality", ""))
    return Sample(
        id=printable(entry.get("id", ""), 80),
        name=printable(entry.get("name", ""), 80),
        of_set=set_title(str(entry.get("set", ""))),
        modality=MODALITY_TITLES.get(modality, printable(modality, 40)),
        question=printable(entry.get("question", ""), _TEXT),
        hint=printable(entry.get("hint") or "", _TEXT),
        options=options,
        picture=picture,
        picture_note=note,
        answers=tuple(_answer(answer) for answer in _mappings(entry.get("answers"))),
    )


def _answer(entry: Mapping[str, Any]) -> Answer:
    verdict = str(entry.get("verdict", ""))
    known = verdict in VERDICTS
    label = str(entry.get("label", ""))
    request = entry.get("request")
    several = isinstance(request, int) and request > 1
    return Answer(
        label=method_title(label) + (f", request {request}" if several else ""),
        text=printable(entry.get("text", ""), _TEXT),
        verdict=_VERDICT_WORDS.get(verdict, printable(verdict, 30)),
        mark=_MARKS.get(verdict, ""),
        kind=verdict if known else "other",
    )


_VERDICT_WORDS = {
    "correct": "correct",
    "wrong": "wrong",
    "refused": "refused",
    "unparsable": "unreadable",
    "cut_off": "cut off, unreadable",
}


def _checked_picture(value: object, room: int) -> tuple[str, str]:
    text = value if isinstance(value, str) else ""
    if not text:
        return "", ""
    if len(text) > min(room, MOST_PICTURE_CHARACTERS):
        return "", "picture left out: too large"
    if not _PICTURE.fullmatch(text):
        return "", "picture left out: not an inline image"
    return text, ""


def _mappings(value: object) -> list[Mapping[str, Any]]:
    entries = value if isinstance(value, list) else []
    return [entry for entry in entries if isinstance(entry, dict)]
