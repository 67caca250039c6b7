"""Stages that a third party's code failed in: set apart, so that all others are carried out."""

from __future__ import annotations

import traceback
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pulse_unlearn.errors import PluginError
from pulse_unlearn.scenarios import Evaluation, Operation, Plan, Stage
from pulse_unlearn.store import StageKey, file_errors, write_text

FAILURES = "failures"
"""Folder of tracebacks, a file for each stage that failed."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What a plug-in raised; text alone, since an exception would hold the model in memory."""

    why: str
    """Package, version and the error, on one line."""
    traceback: str


@dataclass(frozen=True, slots=True)
class Failures:
    """Which stages of a run are missing, and for whose sake."""

    run: Path
    keys: Mapping[str, StageKey]
    found: dict[str, Failure] = field(default_factory=dict)
    """Stage that failed -> what its plug-in raised."""
    missing: dict[str, str] = field(default_factory=dict)
    """Missing stage -> the failed one: itself, or one that it depends on."""

    def forget(self) -> None:
        """Remove the files of earlier attempts."""
        with file_errors(self.run / FAILURES, "remove what failed earlier"):
            for old in (self.run / FAILURES).glob("*.txt"):
                old.unlink()

    def record(self, stage: str, error: PluginError, text: str = "") -> None:
        """Note a stage that failed, and keep the traceback in the run folder.

        `text` is the traceback where another process raised the error.
        """
        why = f"{error.problems[0].what}: {error.problems[0].got}"
        text = text or "".join(traceback.format_exception(error))
        self.found[stage] = Failure(why, text)
        self.missing[stage] = stage
        folder = self.run / FAILURES
        with file_errors(folder, "make the folder"):
            folder.mkdir(exist_ok=True)
        write_text(self._file(stage), f"{why}\n\n{text}")

    def recall(self, stage: str) -> bool:
        """Tell whether a stage failed when the run was last carried out; note it if so."""
        if not self._file(stage).is_file():
            return False
        why, _, text = self._file(stage).read_text(encoding="utf-8").partition("\n\n")
        self.found[stage] = Failure(why, text)
        self.missing[stage] = stage
        return True

    def skips(self, stage: Stage) -> str:
        """Return the failed stage for whose sake this one cannot be carried out; empty if none."""
        failed = next((self.missing[name] for name in stage.parents if name in self.missing), "")
        if failed:
            self.missing[stage.name] = failed
        return failed

    def without(self, plan: Plan) -> Plan:
        """Return the plan without what is missing and without what is measured on it."""
        return replace(
            plan,
            stages=tuple(stage for stage in plan.stages if stage.name not in self.missing),
            operations=tuple(one for one in plan.operations if not self._lacks(_of(one))),
            evaluations=tuple(one for one in plan.evaluations if not self._lacks(_asked(one))),
            never_learned={
                name: stage
                for name, stage in plan.never_learned.items()
                if not self._lacks([stage])
            },
        )

    def notes(self, plan: Plan) -> list[str]:
        """Return what the report says of each failure: what is not measured, and why."""
        said = []
        for stage, failure in self.found.items():
            cells = [
                f"{cell.scenario} {cell.method} seed {cell.seed} request {cell.request}"
                + (f" ({cell.condition})" if cell.condition != "plain" else "")
                for evaluation in plan.evaluations
                if self._lacks(_asked(evaluation)) == stage
                for cell in [evaluation.cell]
            ]
            lost = ", ".join(cells) or "no cell"
            said.append(f"not measured, since {stage} failed ({failure.why}): {lost}")
        return said

    def _lacks(self, names: Collection[str]) -> str:
        return next((self.missing[name] for name in names if name in self.missing), "")

    def _file(self, stage: str) -> Path:
        return self.run / FAILURES / f"{self.keys[stage].rest}.txt"


def _of(operation: Operation) -> tuple[str, ...]:
    return (operation.before, operation.unlearn, operation.after, operation.never_knew)


def _asked(one: Evaluation) -> tuple[str, ...]:
    return (*_of(one.operation), one.scores, one.compared_to, one.only, one.taught)
