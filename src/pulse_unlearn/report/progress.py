"""Which cells of the plan have numbers, and which are still missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pulse_unlearn.records import PLAIN, Cell
from pulse_unlearn.report.estimates import Numbers, Place
from pulse_unlearn.report.load import RunRecord
from pulse_unlearn.report.words import method_title, scenario_title, scope_title


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
    return cell.request == 0 or bool(cell.method)


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
