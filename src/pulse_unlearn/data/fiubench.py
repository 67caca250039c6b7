"""FIUBench people: `full.json` and its pictures to individuals, every fault at once.

Source: FIUBench (ICLR 2025, arXiv 2411.03554), Hub data set gray311/FIUBench. A person has twenty
questions about the picture, answered in sentences; options are other people's answers to the same
question. Nothing is asked in text only. PULSE draws its own sets, so `split.json` is only compared.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pulse_unlearn.data.checks import Problems, check_text, clean, listing
from pulse_unlearn.data.configs import (
    FIUBENCH_FILE,
    belongs_to,
    benchmark_in,
    benchmark_of,
    contents,
)
from pulse_unlearn.data.drafts import Draft, build_people, one_sided, weed
from pulse_unlearn.data.naming import same_answer, same_id
from pulse_unlearn.data.source import Dataset, Source
from pulse_unlearn.data.tables import Malformed, Row, json_rows, structure
from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.files import plain_file

SPLIT_FILE = "split.json"
PEOPLE = 400
"""The public evaluation takes the first 400 entries."""

_NEEDED = ("unique_id", "image_path", "qa_list")


def load_fiubench(root: Path, source: Source) -> Dataset:
    """Read the people of a folder; raises DataError with every problem of every entry."""
    file = root / FIUBENCH_FILE
    if not file.is_file():
        what = f"there is no {FIUBENCH_FILE} here"
        allowed = f"{FIUBENCH_FILE}, {SPLIT_FILE} and the pictures that image_path names"
        fix = "give the folder of gray311/FIUBench, its picture archive unpacked there"
        fix = belongs_to(benchmark_in(root)) or fix
        raise DataError(Problem(what, str(root), contents(root), allowed, fix))
    problems = Problems()
    rows = json_rows(file, problems)
    drafts = _drafts(rows[:PEOPLE], root, problems)
    _check_unpacked(root, drafts, problems)
    more = len(rows) - PEOPLE
    notes = [f"{more} entries after the first {PEOPLE} are left out"] if more > 0 else []
    notes += [*_about_split(root, drafts, problems), *weed(drafts), *one_sided(drafts)]
    if not drafts and not problems:
        problems.add("there are no people who can be asked", str(file))
    files = [path for path in (file, root / SPLIT_FILE) if path.is_file()]
    return build_people(drafts, source, problems, folder=root, files=files, notes=notes)


def _drafts(rows: Sequence[Row], root: Path, problems: Problems) -> list[Draft]:
    drafts: dict[str, Draft] = {}
    for row in rows:
        missing = [name for name in _NEEDED if row.values.get(name) in (None, "")]
        if missing:
            got, allowed = ", ".join(row.values)[:80], f"needs {', '.join(_NEEDED)}"
            fix = belongs_to(benchmark_of(row.values.keys() - {"qa_list"}))
            problems.add(f"{' and '.join(missing)} missing", row.where, got, allowed, fix)
            continue
        identity = clean(row.values["unique_id"])
        where = f"{row.where} unique_id {identity}"
        problems += check_text("unique_id", identity, row.where)
        if identity in drafts:
            problems.add("the unique_id stands twice", where, f"also {drafts[identity].where}")
            continue
        draft = drafts[identity] = Draft(identity, where, name=clean(row.values.get("name")))
        draft.cells["image"] = [_picture(root, row.values["image_path"])]
        draft.entries = list(_questions(row.values["qa_list"], where, problems))
    return list(drafts.values())


def _questions(
    cell: Any, where: str, problems: Problems
) -> Iterator[tuple[Mapping[str, Any], str]]:
    try:
        given = structure(cell)
    except Malformed as error:
        problems.add("qa_list is malformed", where, str(error))
        return
    if not isinstance(given, list):
        problems.add("qa_list is not a list", where, type(given).__name__)
        return
    for number, entry in enumerate(given, start=1):
        place = f"{where} question {number}"
        fields = entry if isinstance(entry, Mapping) else {}
        question, answer = fields.get("question"), fields.get("answer")
        if isinstance(question, str) and isinstance(answer, str):
            asked = {"question": clean(question), "answer": clean(answer)}
            # Options are drawn by the words that two people are asked alike.
            yield {"modality": "multimodal", **asked, "attribute": same_answer(question)}, place
        else:
            got = ", ".join(map(str, fields))[:80] or type(entry).__name__
            problems.add("not a question with its answer", place, got, "two texts")


def _picture(root: Path, given: Any) -> Any:
    """Return the picture's path in the folder: public files put folders of their own before it."""
    if not isinstance(given, str) or "\0" in given:
        return given
    parts = PurePosixPath(given.replace("\\", "/")).parts
    if ".." in parts:
        return given
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    inside = (end for end in ends if not end.startswith("/") and os.path.isfile(root / end))
    return next(inside, given)


def _check_unpacked(root: Path, drafts: Sequence[Draft], problems: Problems) -> None:
    """Tell that pictures are missing which an archive in the folder may hold."""
    names = [cell for draft in drafts for cell in draft.cells["image"] if isinstance(cell, str)]
    archives = ", ".join(sorted(path.name for path in root.glob("*.zip")))
    if archives and not all(os.path.isfile(root / name) for name in names):
        fix = "unpack SFHQ.zip, or the one that holds them, in this folder"
        what = "pictures are missing, and there are archives"
        problems.add(what, str(root), archives, fix=fix)


def _about_split(root: Path, drafts: Sequence[Draft], problems: Problems) -> Iterator[str]:
    """Yield what `split.json` says that PULSE does not do, and whom it names that nobody is."""
    file = root / SPLIT_FILE
    if not file.is_file():
        return
    try:
        split = json.loads(plain_file(file).read_text(encoding="utf-8-sig"))
        groups = {name: [clean(one) for one in ids] for name, ids in split.items()}
    except (OSError, ValueError, RecursionError, AttributeError, TypeError) as error:
        got, allowed = str(error)[:120], "lists of unique_id by name"
        problems.add(f"{SPLIT_FILE} cannot be read", file.name, got, allowed)
        return
    sizes = ", ".join(f"{name} {len(ids)}" for name, ids in groups.items())
    yield f"{SPLIT_FILE} is not followed, as PULSE draws its own sets by seed: {sizes}"
    known = {same_id(draft.id) for draft in drafts}
    unknown = [one for ids in groups.values() for one in ids if same_id(one) not in known]
    if unknown:
        names = listing(unknown)
        yield f"{SPLIT_FILE} names {len(unknown)} people whom {FIUBENCH_FILE} lacks: {names}"
