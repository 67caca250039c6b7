"""FIUBench people: `full.json` and its pictures to individuals, every fault at once.

Source: FIUBench (ICLR 2025, arXiv 2411.03554), Hub data set gray311/FIUBench. A person has twenty
questions about the picture, answered in sentences; options are other people's answers to the same
question. Nothing is asked in text only. PULSE draws its own sets, so `split.json` is only compared.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pulse_unlearn.data.benchmarks import FIUBENCH_FILE, belongs_to, benchmark_in, benchmark_of
from pulse_unlearn.data.checks import check_text, clean
from pulse_unlearn.data.configs import contents
from pulse_unlearn.data.mllmu_rows import same_id
from pulse_unlearn.data.parquet import Row
from pulse_unlearn.data.people_build import build_people
from pulse_unlearn.data.people_pictures import Album
from pulse_unlearn.data.people_rows import Draft
from pulse_unlearn.data.public import one_sided, same_question, shown, weed
from pulse_unlearn.data.records_file import json_rows
from pulse_unlearn.data.source import Dataset, Source, digest, with_notes
from pulse_unlearn.data.structures import Malformed, structure
from pulse_unlearn.errors import DataError, Problem

SPLIT_FILE = "split.json"
PEOPLE = 400
"""The public evaluation takes the first 400 entries."""

_NEEDED = ("unique_id", "image_path", "qa_list")


def load_fiubench(root: Path, *, source: Source) -> Dataset:
    """Read the people of a folder; raises DataError with every problem of every entry."""
    file = root / FIUBENCH_FILE
    if not file.is_file():
        raise DataError(
            Problem(
                f"there is no {FIUBENCH_FILE} here",
                str(root),
                got=contents(root),
                allowed=f"{FIUBENCH_FILE}, {SPLIT_FILE} and the pictures that image_path names",
                fix=belongs_to(benchmark_in(root))
                or "give the folder of gray311/FIUBench, its picture archive unpacked there",
            )
        )
    problems: list[Problem] = []
    rows = json_rows(file, problems)
    notes = [f"{len(rows) - PEOPLE} entries after the first {PEOPLE} are left out"]
    notes = notes if len(rows) > PEOPLE else []
    drafts = _drafts(rows[:PEOPLE], root, problems)
    problems += _packed(root, drafts)
    notes += [*_about_split(root, drafts, problems), *weed(drafts)]
    if not drafts and not problems:
        problems.append(Problem("there are no people who can be asked", str(file)))
    files = [path for path in (file, root / SPLIT_FILE) if path.is_file()]
    digests = digest(files, root=root)
    album = Album(root, problems)
    found = build_people(drafts, album, source, problems, digests=digests)
    return with_notes(found, [*notes, *one_sided(found.individuals)])


def _drafts(rows: list[Row], root: Path, problems: list[Problem]) -> list[Draft]:
    drafts: dict[str, Draft] = {}
    for row in rows:
        missing = [name for name in _NEEDED if row.values.get(name) in (None, "")]
        if missing:
            got, allowed = ", ".join(row.values)[:80], f"needs {', '.join(_NEEDED)}"
            fix = belongs_to(benchmark_of(frozenset(row.values) - {"qa_list"}))
            what = f"{' and '.join(missing)} missing"
            problems.append(Problem(what, row.where, got, allowed, fix))
            continue
        identity = clean(row.values["unique_id"])
        where = f"{row.where} unique_id {identity}"
        problems += check_text("unique_id", identity, row.where)
        if identity in drafts:
            got = f"also {drafts[identity].where}"
            problems.append(Problem("the unique_id stands twice", where, got))
            continue
        draft = drafts[identity] = Draft(identity, where, name=clean(row.values.get("name")))
        draft.cells["image"] = [_picture(root, row.values["image_path"])]
        draft.entries = list(_questions(row.values["qa_list"], where, problems))
    return list(drafts.values())


def _questions(
    cell: Any, where: str, problems: list[Problem]
) -> Iterator[tuple[Mapping[str, Any], str]]:
    try:
        listed = structure(cell)
    except Malformed as error:
        problems.append(Problem("qa_list is malformed", where, str(error)))
        return
    if not isinstance(listed, list):
        problems.append(Problem("qa_list is not a list", where, type(listed).__name__))
        return
    for number, entry in enumerate(listed, start=1):
        place = f"{where} question {number}"
        said = entry if isinstance(entry, Mapping) else {}
        question, answer = said.get("question"), said.get("answer")
        if not isinstance(question, str) or not isinstance(answer, str):
            got = ", ".join(map(str, said))[:80] or type(entry).__name__
            problems.append(Problem("not a question with its answer", place, got, "two texts"))
            continue
        attribute = same_question(question)
        fields = {"question": clean(question), "answer": clean(answer), "attribute": attribute}
        yield {"modality": "multimodal", **fields}, place


def _picture(root: Path, given: Any) -> Any:
    """Return the picture's path in the folder: public files put folders of their own before it."""
    if not isinstance(given, str) or "\0" in given:
        return given
    parts = PurePosixPath(given.replace("\\", "/")).parts
    if ".." in parts:
        return given
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    return next(
        (end for end in ends if not end.startswith("/") and os.path.isfile(root / end)), given
    )


def _packed(root: Path, drafts: list[Draft]) -> Iterator[Problem]:
    """Yield a problem if pictures are missing that an archive in the folder may hold."""
    names = [cell for draft in drafts for cell in draft.cells["image"] if isinstance(cell, str)]
    archives = sorted(path.name for path in root.glob("*.zip"))
    if archives and not all(os.path.isfile(root / name) for name in names):
        got, fix = (
            ", ".join(archives),
            "unpack SFHQ.zip, or the one that holds them, in this folder",
        )
        yield Problem("pictures are missing, and there are archives", str(root), got, fix=fix)


def _about_split(root: Path, drafts: list[Draft], problems: list[Problem]) -> Iterator[str]:
    """Yield what `split.json` says that PULSE does not do, and whom it names that nobody is."""
    file = root / SPLIT_FILE
    if not file.is_file():
        return
    try:
        split = json.loads(file.read_text(encoding="utf-8-sig"))
        groups = {name: [clean(one) for one in ids] for name, ids in split.items()}
    except (OSError, ValueError, RecursionError, AttributeError, TypeError) as error:
        got, allowed = str(error)[:120], "lists of unique_id by name"
        problems.append(Problem(f"{SPLIT_FILE} cannot be read", file.name, got, allowed))
        return
    sizes = ", ".join(f"{name} {len(ids)}" for name, ids in groups.items())
    yield f"{SPLIT_FILE} is not followed, as PULSE draws its own sets by seed: {sizes}"
    known = {same_id(draft.id) for draft in drafts}
    unknown = [one for ids in groups.values() for one in ids if same_id(one) not in known]
    if unknown:
        count = len(unknown)
        yield f"{SPLIT_FILE} names {count} people whom {FIUBENCH_FILE} lacks: {shown(unknown)}"
