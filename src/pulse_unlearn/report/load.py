"""Reads a run folder into one record; what cannot be read is reported, never guessed."""

from __future__ import annotations

import csv
import gc
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from pulse_unlearn.config import read_yaml
from pulse_unlearn.errors import ConfigError, Problem, StoreError
from pulse_unlearn.files import plain_file
from pulse_unlearn.records import PLAIN, RESULT_COLUMNS, Cell, Measurement, Result
from pulse_unlearn.report.asked import one_letters
from pulse_unlearn.report.estimates import Numbers, Place
from pulse_unlearn.report.extras import Extras, read_extras
from pulse_unlearn.report.words import method_title, scenario_title, scope_title

_MOST_PROBLEMS = 20
_KEY = RESULT_COLUMNS[:9]


@dataclass(frozen=True, slots=True)
class Stage:
    """One planned stage; `cell` is None for stages that belong to no method (training a target)."""

    name: str
    kind: str
    folder: str
    cell: Cell | None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """All that the report reads from a run folder."""

    path: Path
    name: str
    results: tuple[Result, ...]
    extras: Extras
    """What `results.json` holds: numbers over seeds, verdicts, findings, flags."""
    sets: Mapping[str, Any]
    stages: tuple[Stage, ...]
    samples: tuple[Mapping[str, Any], ...]
    experiment_text: str
    experiment: Mapping[str, Any]
    environment: Mapping[str, Any]
    labels: Mapping[str, str]
    """Method label -> registered method, where the experiment says."""
    notes: tuple[str, ...]
    """What a reader must know about the data: allowed overlaps, scored pictures trained on."""
    letters: Mapping[tuple[Any, ...], str]
    """Cell, as a tuple, whose verdict is one letter -> that letter."""
    problems: tuple[Problem, ...]
    """Files beside the results that are missing or unreadable; the report prints them."""


def load_run(run: Path) -> RunRecord:
    """Read a run folder.

    Raises StoreError if there are no results yet or if results.csv is not well formed; a missing
    or broken file of another kind becomes an entry of `problems`.
    """
    reader = _Reader(run)
    with _uncollected():
        content = reader.json("results.json", {})
        results = _read_results(run, reader)
        extras = read_extras(_mapping(content), reader.problems)
    plan = reader.json("plan.json", {})
    text = reader.text("experiment.yaml")
    samples = reader.json("samples.json", [])
    experiment = reader.yaml("experiment.yaml", text)
    return RunRecord(
        path=run,
        name=str(_mapping(plan).get("name") or run.resolve().name),
        results=results,
        extras=extras,
        sets=_mapping(_mapping(content).get("sets")),
        stages=tuple(_stage(entry) for entry in _entries(plan, "stages")),
        samples=tuple(entry for entry in _list(samples) if isinstance(entry, dict)),
        experiment_text=text,
        experiment=experiment,
        labels=_labels(experiment),
        environment=_mapping(reader.json("environment.json", {})),
        notes=tuple(str(note) for note in _list(_mapping(content).get("notes", []))),
        letters=one_letters(_mapping(content).get("verdicts")),
        problems=tuple(reader.problems),
    )


@contextmanager
def _uncollected() -> Iterator[None]:
    """Hold the search for cycles back: among half a million records it is half of the reading."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class _Reader:
    """Reads the files of one run and collects their problems."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.problems: list[Problem] = []

    def text(self, name: str) -> str:
        try:
            return plain_file(self.run / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            self.problems.append(Problem("file is missing", where=name))
        except (OSError, UnicodeDecodeError) as error:
            self.problems.append(Problem("file cannot be read", where=name, got=str(error)))
        return ""

    def json(self, name: str, default: object) -> Any:
        text = self.text(name)
        if not text:
            return default
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            self.problems.append(Problem("file is not valid JSON", where=name, got=str(error)))
            return default

    def yaml(self, name: str, text: str) -> Mapping[str, Any]:
        try:
            return _mapping(read_yaml(text, name) if text else {})
        except ConfigError as error:
            self.problems += error.problems
            return {}


def _read_results(run: Path, reader: _Reader) -> tuple[Result, ...]:
    path = run / "results.csv"
    if not path.exists():
        raise StoreError(_nothing(run, "there is no results.csv"))
    text = reader.text("results.csv")
    if not text:
        raise StoreError([*reader.problems, _nothing(run, "results.csv is empty or unreadable")])
    table = csv.DictReader(io.StringIO(text, newline=""))
    missing = [name for name in RESULT_COLUMNS if name not in (table.fieldnames or ())]
    if missing:
        raise StoreError(
            Problem(
                "columns are missing",
                where=str(path),
                got=", ".join(table.fieldnames or ()),
                allowed=", ".join(RESULT_COLUMNS),
                fix="run `pulse verify` on the folder, or let `pulse run` write the results again",
            )
        )
    results, problems = _parse(table, str(path))
    if problems:
        raise StoreError(problems)
    if not results:
        raise StoreError(_nothing(run, "results.csv holds no row"))
    return tuple(results)


def _parse(table: csv.DictReader[str], where: str) -> tuple[list[Result], list[Problem]]:
    results: list[Result] = []
    problems: list[Problem] = []
    seen: dict[tuple[str, ...], int] = {}
    cells: dict[tuple[str, ...], Cell] = {}
    names = list(table.fieldnames or ())
    # By place, not by name: runs of many cells have hundreds of thousands of rows.
    columns = itemgetter(*(len(names) - 1 - names[::-1].index(name) for name in RESULT_COLUMNS))
    try:
        for row in filter(None, table.reader):
            line = table.reader.line_num
            try:
                texts = columns(row)
                key = texts[: len(_KEY)]
                if key in seen:
                    said = f"repeats line {seen[key]}"
                    problems.append(Problem(said, where=f"{where}:{line}", got=" ".join(key)))
                seen[key] = line
                results.append(_result(texts, cells))
            except (ValueError, IndexError) as error:
                problems.append(
                    Problem(
                        "row is not well formed",
                        where=f"{where}:{line}",
                        got=str(error),
                        allowed="whole numbers and finite decimals; empty if undefined",
                        fix="let `pulse run` write the results again",
                    )
                )
            if len(problems) >= _MOST_PROBLEMS:
                break
    except csv.Error as error:
        problems.append(Problem("not a CSV file", where=where, got=str(error)))
    return results, problems


def _result(texts: tuple[str, ...], cells: dict[tuple[str, ...], Cell]) -> Result:
    """Read one row, its texts in the order of `RESULT_COLUMNS`; `cells` are those seen before."""
    at = texts[:6]
    cell = cells.get(at)
    if cell is None:
        scenario, method, scope, seed, request, condition = at
        cell = cells[at] = Cell(scenario, method, scope, int(seed), int(request), condition)
    name, modality, measure, value, low, high, questions, individuals, reason = texts[6:]
    return Result(
        cell,
        Measurement(
            set=name,
            modality=modality,
            measure=measure,
            value=_number(value),
            low=_number(low),
            high=_number(high),
            questions=int(questions or 0),
            individuals=int(individuals or 0),
            reason=reason,
        ),
    )


def _number(text: str) -> float | None:
    if text == "":
        return None
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is not a finite number")
    return number


def _labels(experiment: Mapping[str, Any]) -> dict[str, str]:
    return {
        str(label): str(entry["method"])
        for label, entry in _mapping(experiment.get("methods")).items()
        if isinstance(entry, dict) and entry.get("method")
    }


def _stage(entry: Mapping[str, Any]) -> Stage:
    return Stage(
        name=str(entry.get("name", "")),
        kind=str(entry.get("kind", "")),
        folder=str(entry.get("folder", "")),
        cell=_cell(entry),
    )


def _cell(entry: Mapping[str, Any]) -> Cell | None:
    scenario, seed, request = (entry.get(name) for name in ("scenario", "seed", "request"))
    if not scenario or not isinstance(seed, int) or not isinstance(request, int):
        return None
    method, scope = (str(entry.get(name) or "") for name in ("method", "scope"))
    condition = str(entry.get("condition") or PLAIN)
    return Cell(str(scenario), method, scope, seed, request, condition)


def _entries(content: object, name: str) -> list[Mapping[str, Any]]:
    return [entry for entry in _list(_mapping(content).get(name)) if isinstance(entry, dict)]


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _nothing(run: Path, what: str) -> Problem:
    return Problem(
        f"nothing to report yet: {what}",
        where=str(run),
        allowed="a run folder in which at least one stage was scored",
        fix="`pulse run EXPERIMENT` continues the run; `pulse plan EXPERIMENT` shows its stages",
    )


@dataclass(frozen=True, slots=True)
class Progress:
    """Planned and finished cells; `missing` holds one line per scenario, method and scope."""

    planned: int
    finished: int
    missing: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every planned cell has numbers."""
        return not self.missing


def progress(record: RunRecord, numbers: Numbers) -> Progress:
    """Compare the plan with the results; without a plan the results are all there is."""
    done = {result.cell for result in record.results if result.cell.condition == PLAIN}
    planned = {stage.cell for stage in record.stages if stage.cell and _counts(stage.cell)}
    planned = planned or done

    def key(cell: Cell) -> tuple[object, ...]:
        place = Place(cell.scenario, cell.method, cell.scope, cell.request)
        return (*numbers.order(place), cell.seed)

    missing = sorted(planned - _with_shared_starts(planned, done), key=key)
    return Progress(len(planned), len(planned) - len(missing), tuple(_lines(missing)))


def _with_shared_starts(planned: set[Cell], done: set[Cell]) -> set[Cell]:
    """Before unlearning all methods share a model: one such row serves every planned label."""
    starts = {(cell.scenario, cell.seed) for cell in done if cell.request == 0}
    shared = {
        cell for cell in planned if cell.request == 0 and (cell.scenario, cell.seed) in starts
    }
    return done | shared


def _counts(cell: Cell) -> bool:
    return cell.condition == PLAIN and (cell.request == 0 or bool(cell.method))


def _lines(missing: Sequence[Cell]) -> list[str]:
    groups: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in missing:
        groups.setdefault((cell.scenario, cell.method, cell.scope), []).append(cell)
    return [_line(*key, cells) for key, cells in groups.items()]


def _line(scenario: str, method: str, scope: str, cells: Sequence[Cell]) -> str:
    seeds = ", ".join(str(seed) for seed in sorted({cell.seed for cell in cells}))
    requests = ", ".join(str(request) for request in sorted({cell.request for cell in cells}))
    what = f"{method_title(method)} · {scope_title(scope)}" if method else "before unlearning"
    return f"{scenario_title(scenario)}, {what}: request {requests}, seed {seeds}"
