"""Telling trackers of a run, beside whoever watches it; what fails in one never ends the run."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from pulse_unlearn.config import Experiment
from pulse_unlearn.errors import PluginError
from pulse_unlearn.isolation import Origin, isolated
from pulse_unlearn.pipeline.progress import Progress, Working
from pulse_unlearn.records import Cell, Measurement, Result
from pulse_unlearn.scenarios import Stage
from pulse_unlearn.store import file_errors
from pulse_unlearn.trackers import TRACKERS, StageEvent, TrackedRun, Tracker

FOLDER = "trackers"
"""Folder in a run folder, with one for each tracker: the user's, no product of the run."""
STEPS = "train.jsonl"
"""File that a training stage leaves, with a line for each step."""
_INSTALL = "the run goes on without it; `pip install 'pulse-unlearn[{name}]'` if it is missing"


class Tracked:
    """Passes everything on to `progress`, and then to each tracker that still works."""

    def __init__(self, experiment: Experiment, run: Path, progress: Progress) -> None:
        self._inner = progress
        self._trackers: dict[str, Tracker] = {}
        self._total = self._before = self._last = 0
        self._stage = ""
        settings = experiment.model_dump(mode="json")
        for name in experiment.trackers:
            self._guard(name, partial(self._open, name, run, settings))

    def begin(self, total: int) -> None:
        """Remember how many stages there are."""
        self._total = total
        self._inner.begin(total)

    def reuse(self, number: int, stage: Stage) -> None:
        """Tell of a stage that was complete."""
        self._inner.reuse(number, stage)
        event = StageEvent(stage.name, number, self._total, "reused")
        self._tell(lambda tracker: tracker.stage(event))

    def start(self, number: int, stage: Stage) -> None:
        """Tell of a stage that begins."""
        self._stage, self._before, self._last = stage.name, 0, 0
        self._inner.start(number, stage)
        event = StageEvent(stage.name, number, self._total, "started")
        self._tell(lambda tracker: tracker.stage(event))

    def prepare(self, what: str) -> None:
        """Pass on what is done first."""
        self._inner.prepare(what)

    def advance(self, done: int, total: int, values: Mapping[str, object]) -> None:
        """Tell of a step that was logged; batches of questions have no values and are not told."""
        self._inner.advance(done, total, values)
        told = _losses(values)
        if not told:
            return
        if done <= self._last:  # the next phase of a procedure counts from 1 again
            self._before += self._last
        self._last = done
        self._step(self._stage, self._before + done, told)

    def logged(self, stage: Stage, log: Path) -> None:
        """Tell the steps of a stage that another process trained: the same as in this one."""
        self._inner.logged(stage, log)
        if not self._trackers or not log.is_file():
            return
        with file_errors(log, "read"):
            rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        for step, row in enumerate(rows, start=1):
            self._step(stage.name, step, _losses(row))

    def _step(self, stage: str, step: int, told: Mapping[str, float]) -> None:
        self._tell(lambda tracker: tracker.step(stage, step, told))

    def finish(self, number: int, stage: Stage, seconds: float) -> None:
        """Tell of a stage that is done."""
        self._inner.finish(number, stage, seconds)
        event = StageEvent(stage.name, number, self._total, "finished", seconds)
        self._tell(lambda tracker: tracker.stage(event))

    def working(self, now: Sequence[Working]) -> None:
        """Pass on what others work on."""
        self._inner.working(now)

    def warn(self, text: str) -> None:
        """Pass a warning on."""
        self._inner.warn(text)

    def results(self, run: Path) -> None:
        """Tell the numbers that the run has written."""
        if self._trackers:
            rows = _read_results(run / "results.csv")
            self._tell(lambda tracker: tracker.results(rows))

    def close(self) -> None:
        """Close every tracker."""
        self._tell(lambda tracker: tracker.close())

    def _open(self, name: str, run: Path, settings: Mapping[str, Any]) -> None:
        folder = run / FOLDER / name
        self._trackers[name] = TRACKERS.get(name)(TrackedRun(run.name, folder, settings))

    def _tell(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            self._guard(name, partial(call, tracker))

    def _guard(self, name: str, action: Callable[[], None]) -> None:
        """Do what concerns one tracker; if it raises, warn once and leave it out from here on."""
        origin = TRACKERS.origin(name) or Origin(name, "", "")
        try:
            with isolated(f"tracker '{name}'", origin, fix=_INSTALL.format(name=name)):
                action()
        except PluginError as error:
            self._trackers.pop(name, None)
            self._inner.warn(str(error))


def _losses(values: Mapping[str, object]) -> dict[str, float]:
    """Return the numbers of a step."""
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name != "step"
    }


@contextmanager
def tracked(experiment: Experiment, run: Path, progress: Progress) -> Iterator[Tracked]:
    """Open the experiment's trackers for a run, and close them whatever happens."""
    watch = Tracked(experiment, run, progress)
    try:
        yield watch
    finally:
        watch.close()


def _read_results(path: Path) -> list[Result]:
    with file_errors(path, "read"), path.open(encoding="utf-8", newline="") as file:
        return [
            Result(Cell(**_of(Cell, row)), Measurement(**_of(Measurement, row)))
            for row in csv.DictReader(file)
        ]


def _of(kind: type[Any], row: Mapping[str, str]) -> dict[str, Any]:
    """Return the columns of a record with their types, as `write_results` wrote them."""
    whole, decimal = ("seed", "request", "questions", "individuals"), ("value", "low", "high")
    found: dict[str, Any] = {}
    for one in fields(kind):
        text = row[one.name]
        found[one.name] = int(text) if one.name in whole else text
        if one.name in decimal:
            found[one.name] = float(text) if text else None
    return found
