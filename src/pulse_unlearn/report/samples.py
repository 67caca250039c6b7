"""Sampled questions with their answers, made safe and small enough to show."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pulse_unlearn.evaluation.parsers import mentioned
from pulse_unlearn.records import PLAIN, VERDICTS, Option
from pulse_unlearn.report.asked import Kind, kinds_of, prompt_of
from pulse_unlearn.report.load import RunRecord
from pulse_unlearn.report.words import (
    MODALITY_TITLES,
    method_title,
    scenario_title,
    set_title,
)
from pulse_unlearn.texts import printable, printable_block

MOST_SAMPLES = 60
MOST_PICTURE_CHARACTERS = 120_000
MOST_PICTURES_CHARACTERS = 1_500_000
_TEXT, _PROMPT = 300, 1500
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
    kinds: tuple[Kind, ...] = ()
    """What a filter finds it by; empty for the answer before."""


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
    prompt: str
    """The text of the turns before the answer; empty where the prompt is not known."""

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Return what kinds of answers it has."""
        return tuple(dict.fromkeys(kind for answer in self.answers for kind in answer.kinds))


@dataclass(frozen=True, slots=True)
class SampleGroup:
    """The samples of one scenario."""

    title: str
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class _Run:
    """What a run says about all of its samples."""

    profiles: tuple[str, str]
    """Prompt profiles of people's questions and of general ones."""
    letters: Mapping[tuple[Any, ...], str]
    """(scenario, method, request) in the first seed, from which samples are -> its one letter."""


def sample_groups(record: RunRecord) -> list[SampleGroup]:
    """Return samples by scenario; pictures that are no small inline image are left out and said."""
    data = record.experiment.get("data")
    told = data if isinstance(data, dict) else {}
    people, general = (str(told.get(f"{part}_prompt", "")) for part in ("people", "general"))
    first = min(result.cell.seed for result in record.results)
    letters = {
        (scenario, method, request): letter
        for (scenario, method, _, seed, request, condition), letter in record.letters.items()
        if seed == first and condition == PLAIN
    }
    of_run = _Run((people, general), letters)
    groups: dict[str, list[Sample]] = {}
    spent = 0
    for entry in record.samples[:MOST_SAMPLES]:
        sample = _sample(entry, of_run, room=MOST_PICTURES_CHARACTERS - spent)
        spent += len(sample.picture)
        groups.setdefault(scenario_title(str(entry.get("scenario", ""))), []).append(sample)
    return [SampleGroup(title, tuple(samples)) for title, samples in groups.items()]


def _sample(entry: Mapping[str, Any], of_run: _Run, *, room: int) -> Sample:
    picture, note = _checked_picture(entry.get("picture"), room)
    truth = str(entry.get("answer", ""))
    options = tuple(
        Option(str(option.get("letter", "")), str(option.get("text", "")))
        for option in _mappings(entry.get("options"))
    )
    modality = str(entry.get("modality", ""))
    question, hint = str(entry.get("question", "")), str(entry.get("hint") or "")
    people, general = of_run.profiles
    prompt = prompt_of(people if entry.get("individual") else general, question, options, hint=hint)
    return Sample(
        id=printable(entry.get("id", ""), 80),
        name=printable(entry.get("name", ""), 80),
        of_set=set_title(str(entry.get("set", ""))),
        modality=MODALITY_TITLES.get(modality, printable(modality, 40)),
        question=printable(question, _TEXT),
        hint=printable(hint, _TEXT),
        options=tuple(
            (printable(one.letter, 8), printable(one.text, _TEXT), one.letter == truth)
            for one in options
        ),
        picture=picture,
        picture_note=note,
        answers=_answers(entry, options, of_run),
        prompt=printable_block("\n\n".join(filter(None, (prompt.system, prompt.user))), _PROMPT),
    )


def _answers(
    entry: Mapping[str, Any], options: tuple[Option, ...], of_run: _Run
) -> tuple[Answer, ...]:
    """Return the answers, the first of them before unlearning, with the kinds of those after."""
    scenario, truth = str(entry.get("scenario", "")), str(entry.get("answer", ""))
    answers = _mappings(entry.get("answers"))
    before = next((_is_right(one) for one in answers if one.get("request") == 0), None)
    found = []
    for one in answers:
        named = mentioned(str(one.get("text", "")), options)
        request = one.get("request")
        place = (scenario, str(one.get("label", "")), request if isinstance(request, int) else None)
        kinds = kinds_of(
            right=(before, _is_right(one)),
            verdict=str(one.get("verdict", "")),
            choice="".join(named) if len(named) == 1 else "",
            mentions=truth in named,
            letter=of_run.letters.get(place, ""),
        )
        found.append(_answer(one, () if one.get("request") == 0 else kinds))
    return tuple(found)


def _is_right(answer: Mapping[str, Any]) -> bool:
    return answer.get("verdict") == "correct"


def _answer(entry: Mapping[str, Any], kinds: tuple[Kind, ...]) -> Answer:
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
        kinds=kinds,
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
