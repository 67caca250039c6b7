"""Rows of a file of people to drafts and questions; every unknown or contradictory field told."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pulse_unlearn.data.checks import LETTERS, check_text, clean
from pulse_unlearn.data.parquet import Row
from pulse_unlearn.data.structures import Pair
from pulse_unlearn.errors import Problem
from pulse_unlearn.records import MODALITIES, Modality, Option
from pulse_unlearn.registry import did_you_mean

GROUPS = ("fictional", "celebrity")
PICTURES = ("image", "training_images", "other_images")
PERSON = ("id", "name", "group", *PICTURES, "questions", "comment")
QUESTION = ("modality", "question", "answer", "options", "attribute", "hint", *LETTERS, "comment")

_DIVIDER = re.compile(r";(?!\s*base64,)")
_STRUCTURED = (*PICTURES, "questions", "options")


@dataclass(slots=True)
class Draft:
    """A person as the file's rows have it."""

    id: str
    where: str
    name: str = ""
    group: str = GROUPS[0]
    cells: dict[str, list[Any]] = field(default_factory=dict)
    """Column of pictures -> what stands there."""
    entries: list[tuple[Mapping[str, Any], str]] = field(default_factory=list)
    """Questions as they stand, and where."""
    pairs: list[tuple[Pair, str]] = field(default_factory=list)
    """Further questions with their answers, to train on in words only, and where."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as the file has it: with its options, or with an attribute to draw them by."""

    id: str
    modality: Modality
    question: str
    hint: str
    attribute: str
    options: tuple[Option, ...]
    answer: str
    """Letter of the true option; the answer's text where there are no options."""
    text: str
    """The true answer in words."""
    where: str


def drafts_of(rows: Sequence[Row], problems: list[Problem]) -> list[Draft]:
    """Return the people of the rows, in order of first mention."""
    drafts: dict[str, Draft] = {}
    for row in rows:
        values = {name: value for name, value in row.values.items() if not _empty(value)}
        identity = clean(values.get("id"))
        wrong = check_text("id", identity, row.where)
        problems += wrong
        if wrong:
            continue
        where = f"{row.where} id {identity}"
        nested = "questions" in row.values
        known = PERSON if nested else (*PERSON, *QUESTION)
        problems += _wrong_fields(values, known, where)
        draft = drafts.get(identity)
        if draft and nested:
            problems.append(Problem("the id stands twice", where, got=f"also {draft.where}"))
            continue
        if draft is None:
            draft = drafts[identity] = Draft(identity, where)
        problems += _take_person(draft, values, where)
        if nested:
            problems += _take_questions(draft, values.get("questions"), where)
        elif any(name in values for name in QUESTION if name != "comment"):
            draft.entries.append(
                ({name: values[name] for name in QUESTION if name in values}, where)
            )
    return list(drafts.values())


def asked_of(draft: Draft, problems: list[Problem]) -> list[Asked]:
    """Return a person's questions; those that can't be read are left out and told."""
    asked: list[Asked] = []
    counts = dict.fromkeys(MODALITIES, 0)
    seen: dict[tuple[str, str], str] = {}
    for entry, where in draft.entries:
        modality = next((kind for kind in MODALITIES if kind == entry.get("modality")), None)
        if modality is None:
            got = repr(entry.get("modality"))[:40]
            problems.append(Problem("unknown modality", where, got, " or ".join(MODALITIES)))
            continue
        counts[modality] += 1
        identity = f"{draft.id}/{modality}/{counts[modality]}"
        question = clean(entry.get("question"))
        key = (modality, question)
        if question and key in seen:
            problems.append(Problem("the question is asked twice", where, f"also {seen[key]}"))
        seen[key] = where
        options = _options(entry, where, problems)
        text = clean(entry.get("answer"))
        letter = _letter(text, options)
        problems += _ambiguous(text, options, where)
        attribute = clean(entry.get("attribute")).casefold()
        if not options and not attribute:
            problems.append(
                Problem(
                    "neither options nor an attribute",
                    where,
                    allowed="options with the true one among them, or an attribute, so that other "
                    "people's answers can be the options",
                )
            )
        words = next((one.text for one in options if one.letter == letter), text)
        hint = clean(entry.get("hint"))
        asked.append(
            Asked(identity, modality, question, hint, attribute, options, letter, words, where)
        )
    return asked


def _take_person(draft: Draft, values: Mapping[str, Any], where: str) -> list[Problem]:
    """Put a row's fields of the person into its draft; rows may repeat, not contradict, them."""
    problems = []
    name = clean(values.get("name"))
    if name and draft.name and name != draft.name:
        problems.append(_contradiction("name", where, draft))
    draft.name = draft.name or name
    group = clean(values.get("group"))
    if group and group not in GROUPS:
        problems.append(Problem("unknown group", where, repr(group), " or ".join(GROUPS)))
    elif group and draft.where != where and group != draft.group:
        problems.append(_contradiction("group", where, draft))
    elif group:
        draft.group = group
    for column in PICTURES:
        cells = _listed(values.get(column))
        if cells and draft.cells.setdefault(column, cells) != cells:
            problems.append(_contradiction(column, where, draft))
    return problems


def _take_questions(draft: Draft, value: Any, where: str) -> list[Problem]:
    if value is None:
        return []
    if not isinstance(value, list):
        return [Problem("questions is not a list", where, type(value).__name__)]
    problems = []
    for number, entry in enumerate(value, start=1):
        place = f"{where} question {number}"
        if not isinstance(entry, Mapping):
            problems.append(Problem("not a question", place, type(entry).__name__))
            continue
        kept = {str(name): given for name, given in entry.items() if not _empty(given)}
        problems += _wrong_fields(kept, QUESTION, place)
        draft.entries.append((kept, place))
    return problems


def _options(entry: Mapping[str, Any], where: str, problems: list[Problem]) -> tuple[Option, ...]:
    """Return options given as a list, by letter, or in columns named by letters."""
    columns = {letter: entry[letter] for letter in LETTERS if letter in entry}
    given = entry.get("options")
    if given is not None and columns:
        problems.append(Problem("options stand twice", where, "in options and under letters"))
    if isinstance(given, Mapping):
        columns = {str(key): text for key, text in given.items() if not _empty(text)}
        foreign = sorted(key for key in columns if key not in LETTERS or len(key) != 1)
        if foreign:
            allowed = ", ".join(LETTERS)
            problems.append(Problem("unknown option letter", where, ", ".join(foreign), allowed))
    elif given is not None:
        texts = _listed(given)
        if len(texts) > len(LETTERS):
            problems.append(Problem("too many options", where, str(len(texts)), str(len(LETTERS))))
        columns = dict(zip(LETTERS, texts, strict=False))
    return tuple(Option(letter, clean(columns[letter])) for letter in LETTERS if letter in columns)


def _letter(text: str, options: Sequence[Option]) -> str:
    """Return the true option's letter, be it named by letter or by its whole text."""
    if any(option.letter == text for option in options):
        return text
    same = [option.letter for option in options if option.text == text]
    return same[0] if same else text


def _ambiguous(text: str, options: Sequence[Option], where: str) -> list[Problem]:
    """Return problems if the answer could be two options, or two options say the same."""
    meant = [one.letter for one in options if text in (one.letter, one.text)]
    problems = []
    if len({one.text for one in options if one.letter in meant}) > 1:
        got = f"{text} is {meant[0]} and {meant[1]}"
        fix = "name the option by the other of the two, or reorder the options"
        problems.append(
            Problem("the answer is one option's letter, another one's text", where, got, fix=fix)
        )
    alike: dict[str, list[Option]] = defaultdict(list)
    for one in options:
        alike[" ".join(one.text.casefold().split())].append(one)
    for same in alike.values():
        # Exactly equal ones are told where every question is looked at.
        if len({one.text for one in same}) > 1:
            got = ", ".join(f"{one.letter}: {one.text}" for one in same)
            problems.append(
                Problem("options differ in nothing but their spelling", where, got, "one of them")
            )
    return problems


def _wrong_fields(values: Mapping[str, Any], known: Sequence[str], where: str) -> list[Problem]:
    problems = []
    for name, value in values.items():
        if name not in known:
            fix = did_you_mean(str(name), known)
            problems.append(Problem("unknown field", where, str(name)[:40], ", ".join(known), fix))
        elif name not in _STRUCTURED and not isinstance(value, str | int | float):
            problems.append(Problem(f"{name} is no text", where, type(value).__name__))
    return problems


def _contradiction(column: str, where: str, draft: Draft) -> Problem:
    fix = "say it once, or the same in every row of the person"
    return Problem(f"the rows of one person disagree on {column}", where, draft.where, fix=fix)


def _listed(value: Any) -> list[Any]:
    """Return a list's entries, or the parts of a text that `;` divides, data URIs whole."""
    if isinstance(value, str):
        return [part.strip() for part in _DIVIDER.split(value) if part.strip()]
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())
