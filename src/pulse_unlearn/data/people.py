"""Your own people: a folder with `people.jsonl` (or `.csv`, `.parquet`) and their pictures.

A row is a person with a list of `questions`, or one question with the person's fields beside it. A
question has options, or an `attribute` and its true answer; options then are other people's answers
of that attribute. `assets/starter/README.md` describes every field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pulse_unlearn.data.checks import LETTERS, Problems, check_text, clean
from pulse_unlearn.data.configs import contents
from pulse_unlearn.data.drafts import Draft, build_people, is_empty, listed
from pulse_unlearn.data.source import Dataset, Source
from pulse_unlearn.data.tables import SUFFIXES, Row, read_records
from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.registry import did_you_mean

STEM = "people"

_GROUPS = ("fictional", "celebrity")
_PICTURES = ("image", "training_images", "other_images")
_PERSON = ("id", "name", "group", *_PICTURES, "questions", "comment")
_QUESTION = ("modality", "question", "answer", "options", "attribute", "hint", *LETTERS, "comment")
_STRUCTURED = (*_PICTURES, "questions", "options")


def load_folder(folder: Path, source: Source) -> Dataset:
    """Read the people of a folder; raises DataError with every problem of every row."""
    file, reader = people_file(folder), _Reader()
    problems, drafts = reader.problems, reader.drafts
    for row in read_records(file, problems):
        reader.add(row)
    if not drafts and not problems:
        problems.add("there are no people", str(file))
    if source.scored_picture != "own":
        what, where = "further poses are scored of MLLMU-Bench only", "data.people.scored_picture"
        fix = "name the pose to score under image"
        problems.add(what, where, source.scored_picture, "own", fix)
    return build_people([*drafts.values()], source, problems, folder=folder, files=[file])


def people_file(folder: Path) -> Path:
    """Return the one file of people in a folder; raises DataError if there is none, or several."""
    wanted = [f"{STEM}{suffix}" for suffix in SUFFIXES]
    found = [folder / name for name in wanted if (folder / name).is_file()]
    if len(found) == 1:
        return found[0]
    got = ", ".join(path.name for path in found) or contents(folder)
    what, allowed = "a folder of people has one file of people", f"one of {', '.join(wanted)}"
    fix = "`pulse data init FOLDER` writes an example"
    raise DataError(Problem(what, str(folder), got, allowed, fix))


class _Reader:
    """Collects people in order of first mention, and every unknown or contradictory field."""

    def __init__(self) -> None:
        self.problems = Problems()
        self.drafts: dict[str, Draft] = {}

    def add(self, row: Row) -> None:
        """Take the row of a person, or of one question about a person."""
        values = {name: value for name, value in row.values.items() if not is_empty(value)}
        identity = clean(values.get("id"))
        if self.problems.take(check_text("id", identity, row.where)):
            return
        where = f"{row.where} id {identity}"
        nested = "questions" in row.values
        self._check_fields(values, _PERSON if nested else (*_PERSON, *_QUESTION), where)
        draft = self.drafts.get(identity)
        if draft and nested:
            self.problems.add("the id stands twice", where, f"also {draft.where}")
            return
        if draft is None:
            draft = self.drafts[identity] = Draft(identity, where)
        self._take_person(draft, values, where)
        if nested:
            self._take_questions(draft, values.get("questions"), where)
        elif any(name in values for name in _QUESTION if name != "comment"):
            entry = {name: values[name] for name in _QUESTION if name in values}
            draft.entries.append((entry, where))

    def _take_person(self, draft: Draft, values: Mapping[str, Any], where: str) -> None:
        """Take a row's fields of the person; rows may repeat, not contradict, one another."""
        name, group = clean(values.get("name")), clean(values.get("group"))
        if name and draft.name and name != draft.name:
            self._contradiction("name", where, draft)
        draft.name = draft.name or name
        if group and group not in _GROUPS:
            self.problems.add("unknown group", where, repr(group), " or ".join(_GROUPS))
        elif group and draft.where != where and group != draft.group:
            self._contradiction("group", where, draft)
        elif group:
            draft.group = group
        for column in _PICTURES:
            cells = listed(values.get(column))
            if cells and draft.cells.setdefault(column, cells) != cells:
                self._contradiction(column, where, draft)

    def _take_questions(self, draft: Draft, value: Any, where: str) -> None:
        if not isinstance(value, list | None):
            self.problems.add("questions is not a list", where, type(value).__name__)
            return
        for number, entry in enumerate(value or (), start=1):
            place = f"{where} question {number}"
            if not isinstance(entry, Mapping):
                self.problems.add("not a question", place, type(entry).__name__)
                continue
            kept = {str(name): given for name, given in entry.items() if not is_empty(given)}
            self._check_fields(kept, _QUESTION, place)
            draft.entries.append((kept, place))

    def _check_fields(self, values: Mapping[str, Any], known: Sequence[str], where: str) -> None:
        for name, value in values.items():
            if name not in known:
                got, fix = str(name)[:40], did_you_mean(str(name), known)
                self.problems.add("unknown field", where, got, ", ".join(known), fix)
            elif name not in _STRUCTURED and not isinstance(value, str | int | float):
                self.problems.add(f"{name} is no text", where, type(value).__name__)

    def _contradiction(self, column: str, where: str, draft: Draft) -> None:
        what = f"the rows of one person disagree on {column}"
        fix = "say it once, or the same in every row of the person"
        self.problems.add(what, where, draft.where, fix=fix)
