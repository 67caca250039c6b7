"""What the page asks for, as plain data: runs, one run, its results, its answers, a picture."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pulse_unlearn.config import read_yaml
from pulse_unlearn.errors import ConfigError, Problem, StoreError
from pulse_unlearn.evaluation.measures import ALL
from pulse_unlearn.evaluation.parsers import DEFAULT_PARSER
from pulse_unlearn.files import plain_file
from pulse_unlearn.report.asked import KINDS, one_letters
from pulse_unlearn.report.load import RunRecord, load_run
from pulse_unlearn.report.words import (
    MODALITY_TITLES,
    method_title,
    scenario_title,
    scope_title,
    set_title,
)
from pulse_unlearn.store.products import FOLDERS, PRODUCTS
from pulse_unlearn.texts import printable
from pulse_unlearn.view.answers import READINGS, Filters, Found, find, item, models_of
from pulse_unlearn.view.comparisons import GENERAL, Comparison, comparisons_of, sets_of
from pulse_unlearn.view.questions import Catalogue, catalogue_of
from pulse_unlearn.view.results import MEASURES, result_rows
from pulse_unlearn.view.runs import Run, find_runs, inside, read_json
from pulse_unlearn.view.stage_answers import StageAnswers, open_answers

LARGEST_PAGE = 100
_STAGES_KEPT = 24
_OTHERS_KEPT = 8
_READ = ("results.csv", "results.json", "plan.json", "experiment.yaml", "samples.json")
_READ_TOO = ("environment.json",)
_FIRST = ("report.html", "results.csv", "results.json")
_FILES = (*_FIRST, *sorted({*PRODUCTS} - {*_FIRST}))

_Made = TypeVar("_Made")


class _Kept:
    """The newest few of what was made, by key and by the state of the files it was made from."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._kept: OrderedDict[Hashable, tuple[Hashable, Any]] = OrderedDict()

    def get(self, key: Hashable, state: Hashable, make: Callable[[], _Made]) -> _Made:
        """Return what was made under the key from files in this state; make it otherwise."""
        found = self._kept.get(key)
        if found is None or found[0] != state:
            found = (state, make())
        self._kept[key] = found
        self._kept.move_to_end(key)
        while len(self._kept) > self._count:
            self._kept.popitem(last=False)
        made: _Made = found[1]
        return made


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is wanted, from 1."""

    number: int = 1
    size: int = 25

    def cut(self, count: int) -> tuple[int, int, int]:
        """Return the number of the page that is shown, of all pages, and of its first entry."""
        pages = max(1, -(-count // self.size))
        number = min(max(self.number, 1), pages)
        return number, pages, (number - 1) * self.size


class Library:
    """Reads runs below one folder and keeps what is dear to read; safe to ask from threads."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._stages = _Kept(_STAGES_KEPT)
        self._catalogues = _Kept(_OTHERS_KEPT)
        self._found = _Kept(_OTHERS_KEPT)
        self._records = _Kept(_OTHERS_KEPT)

    def runs(self) -> dict[str, Any]:
        """Return every run with its state; raises StoreError if the folder cannot be listed."""
        return {"root": str(self.root), "runs": [_summary(run) for run in find_runs(self.root)]}

    def run(self, key: str) -> Run:
        """Return a run by the name of its folder; raises StoreError if there is none."""
        for run in find_runs(self.root):
            if run.key == key:
                return run
        raise StoreError(Problem("there is no such run", printable(key, 80)))

    def _readable(self, key: str) -> Run:
        """Return a run by the name of its folder; raises StoreError unless it can be read."""
        run = self.run(key)
        if run.state == "unreadable":
            raise StoreError(Problem("this run cannot be read", run.key, run.why))
        return run

    def overview(self, key: str) -> dict[str, Any]:
        """Return a run's state, stages, files, and what its answers can be filtered by."""
        run = self.run(key)
        told: dict[str, Any] = {
            **_summary(run),
            "files": files_of(run),
            "cells": [],
            "problems": [],
        }
        told["stages"] = [
            {
                "name": printable(stage.name, 200),
                "kind": printable(stage.kind, 60),
                "state": "complete"
                if stage.folder
                else ("running" if stage.is_worked_on else "waiting"),
            }
            for stage in run.stages
        ]
        if run.state == "unreadable":
            return told
        try:
            comparisons = comparisons_of(run)
        except StoreError as error:
            return {**told, "problems": _lines(error)}
        told["cells"] = [
            {
                **_cell(one),
                "asked": run.folder_of(one.asked) is not None,
                "retain_model": one.never_is_retain_model,
            }
            for one in comparisons
        ]
        names = [name for one in comparisons for name in _set_names(one)]
        told["titles"] = _titles(comparisons, [*dict.fromkeys(names), GENERAL])
        return told

    def results(self, key: str, filters: Filters, page: Page) -> dict[str, Any]:
        """Return the rows of `results.csv`, one a cell, set and modality, by the page.

        Raises StoreError if there are none yet, or if the file is damaged.
        """
        run = self._readable(key)
        with self._lock:
            record = self._record(run)
        rows = result_rows(record, filters)
        number, pages, first = page.cut(len(rows))
        return {
            "columns": MEASURES,
            "total": len(rows),
            "page": number,
            "pages": pages,
            "size": page.size,
            "rows": rows[first : first + page.size],
            "problems": [" ".join(str(problem).split()) for problem in record.problems],
        }

    def answers(self, key: str, filters: Filters, page: Page) -> dict[str, Any]:
        """Return the stored answers that pass the filters, by the page; raises StoreError."""
        run = self._readable(key)
        with self._lock:
            catalogue, letters = self._catalogue(run), self._letters(run)
            state = (_state_of(run), *(stage.folder for stage in run.stages))
            found: Found = self._found.get(
                (key, filters),
                state,
                lambda: find(
                    run,
                    filters,
                    catalogue=catalogue,
                    letters=letters,
                    open_stage=self._open_stage,
                ),
            )
            number, pages, first = page.cut(len(found.rows))
            items = [
                self._item(run, comparison, question, filters, catalogue, letters)
                for comparison, question in found.rows[first : first + page.size]
            ]
        return {
            "total": len(found.rows),
            "page": number,
            "pages": pages,
            "size": page.size,
            "items": items,
            "problems": [*found.problems, *([catalogue.problem] if catalogue.problem else [])],
        }

    def picture(self, key: str, digest: str) -> bytes | None:
        """Return a picture of a run's questions as PNG; None if it has no such picture."""
        run = self._readable(key)
        with self._lock:
            catalogue = self._catalogue(run)
        return catalogue.picture(digest)

    def file(self, key: str, name: str) -> Path:
        """Return a file that a run offers to be looked at; raises StoreError for any other."""
        run = self._readable(key)
        if name not in files_of(run):
            raise StoreError(Problem("the run offers no such file", printable(name, 120)))
        return inside(run.path, name)

    def _item(
        self,
        run: Run,
        comparison: Comparison,
        question: str,
        filters: Filters,
        catalogue: Catalogue,
        letters: Mapping[tuple[Any, ...], str],
    ) -> dict[str, Any]:
        return item(
            comparison,
            question,
            models_of(run, comparison, self._open_stage),
            sets=sets_of(run, comparison),
            catalogue=catalogue,
            reading=filters.reading,
            letter=letters.get(tuple(_cell(comparison).values()), ""),
        )

    def _record(self, run: Run) -> RunRecord:
        for name in (*_READ, *_READ_TOO):
            inside(run.path, name)
        return self._records.get(run.key, _state_of(run), lambda: load_run(run.path))

    def _catalogue(self, run: Run) -> Catalogue:
        scored = tuple(stage.folder for stage in run.stages if stage.kind == "score")
        return self._catalogues.get(
            run.key, (_state_of(run), scored[:1]), lambda: catalogue_of(run)
        )

    def _letters(self, run: Run) -> Mapping[tuple[Any, ...], str]:
        try:
            content = read_json(run.path, "results.json")
        except StoreError:
            return {}  # not written yet, or damaged, which the results tell
        return one_letters(content.get("verdicts") if isinstance(content, dict) else None)

    def _open_stage(self, run: Run, name: str) -> StageAnswers | None:
        folder = run.folder_of(name) if name else None
        if folder is None:
            return None
        place = f"stages/{folder.name}/predictions.parquet"
        scores = inside(run.path, f"scores/{folder.name}.parquet")
        state = (_stamp(inside(run.path, place)), _stamp(scores))
        return self._stages.get(
            (run.key, folder.name),
            state,
            lambda: open_answers(folder, scores, parser=_parser(run)),
        )


_CELL = ("scenario", "method", "scope", "seed", "request", "condition")


def files_of(run: Run) -> list[str]:
    """Return the files of a run that may be looked at, as names below its folder; no links."""
    if run.state == "unreadable":
        return []
    names = list(_FILES)
    for folder in FOLDERS:
        if not (run.path / folder).is_symlink():
            names += sorted(f"{folder}/{path.name}" for path in (run.path / folder).glob("[!.]*"))
    return [name for name in names if (path := run.path / name).is_file() and not path.is_symlink()]


def _summary(run: Run) -> dict[str, Any]:
    return {
        "key": run.key,
        "name": printable(run.key, 120),
        "state": run.state,
        "why": printable(run.why, 600),
        "done": run.done,
        "planned": len(run.stages),
        "working": [printable(one.name, 200) for one in run.stages if one.is_worked_on],
        "changed": run.changed,
        "report": run.state != "unreadable" and (run.path / "report.html").is_file(),
    }


def _cell(comparison: Comparison) -> dict[str, Any]:
    return {name: getattr(comparison.cell, name) for name in _CELL}


def _set_names(comparison: Comparison) -> list[str]:
    operation = comparison.operation
    names = ["forget", "retain", *(str(name) for name, _ in operation["unseen"])]
    if len(operation["requests"]) > 1:
        names += ["just_requested", "forgotten_earlier", "not_yet_requested"]
    return names


def _titles(comparisons: list[Comparison], sets: list[str]) -> dict[str, Any]:
    cells = [one.cell for one in comparisons]
    return {
        "scenario": {cell.scenario: scenario_title(cell.scenario) for cell in cells},
        "method": {cell.method: method_title(cell.method) for cell in cells},
        "scope": {cell.scope: scope_title(cell.scope) for cell in cells},
        "set": {name: set_title(name) for name in sets},
        "modality": {k: v for k, v in MODALITY_TITLES.items() if k != ALL},
        "reading": READINGS,
        "kinds": {name: {"title": title, "what": what} for name, (title, what) in KINDS.items()},
    }


def _parser(run: Run) -> str:
    """Return the parser that the run's answers are read by."""
    try:
        path = inside(run.path, "experiment.yaml")
        raw = read_yaml(plain_file(path).read_text(encoding="utf-8"), str(path))
        return str(raw["scoring"]["parser"])
    except (OSError, ConfigError, ValueError, KeyError, TypeError):
        return DEFAULT_PARSER


def _state_of(run: Run) -> Hashable:
    return tuple(_stamp(run.path / name) for name in (*_READ, *_READ_TOO))


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return (0, 0)
    return stat.st_mtime_ns, stat.st_size


def _lines(error: StoreError) -> list[str]:
    return [" ".join(str(problem).split()) for problem in error.problems]
