"""Training curves and cost, read from the stages' `train.jsonl`."""

from __future__ import annotations

import glob
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulse_unlearn.files import plain_file
from pulse_unlearn.records import PLAIN
from pulse_unlearn.report.drawing import Drawing, colour, finish, quiet, style
from pulse_unlearn.report.estimates import Numbers, Place
from pulse_unlearn.report.load import RunRecord, Stage
from pulse_unlearn.report.words import method_title, scenario_title, scope_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOG = "train.jsonl"
_NOT_LOSSES = frozenset(
    {"step", "epoch", "lr", "learning_rate", "grad_norm", "seconds", "seed", "request", "time",
     "tokens", "examples", "skipped", "peak_memory", "memory", "check_accuracy"}
)  # fmt: skip
_MOST_POINTS = 160
_MOST_POINTS_DRAWN = 12_000
_MOST_PANELS = 18
_COLUMNS = 3


@dataclass(frozen=True, slots=True)
class Curve:
    """One stage's training: loss terms by name, each a list of (step, value)."""

    stage: Stage
    terms: Mapping[str, tuple[tuple[float, float], ...]]
    steps: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Panel:
    """All stages that share scenario, method and scope, over seeds and requests."""

    title: str
    curves: tuple[Curve, ...]

    @property
    def steps(self) -> int:
        """Optimiser steps over all stages."""
        return sum(curve.steps for curve in self.curves)

    @property
    def minutes(self) -> float:
        """Training time over all stages, in minutes."""
        return sum(curve.seconds for curve in self.curves) / 60


def panels(record: RunRecord, numbers: Numbers) -> list[Panel]:
    """Read every finished stage's log; lines that are not JSON end that log (a run may go on)."""
    groups: dict[tuple[object, ...], tuple[str, list[Curve]]] = {}
    for stage in record.stages:
        folder = _folder(record.path / "stages", stage.folder)
        entries = _entries(folder / LOG) if folder else []
        if not entries or (stage.cell and stage.cell.condition != PLAIN):
            continue  # the way of an operation gone once more shows the same
        key, title = _group(stage, numbers)
        groups.setdefault(key, (title, []))[1].append(_curve(stage, entries))
    ordered = sorted(groups.items(), key=lambda item: item[0])
    return [Panel(title, tuple(curves)) for _, (title, curves) in ordered]


def draw_curves(shown: Sequence[Panel], numbers: Numbers) -> Drawing | None:
    """Draw the loss terms of every panel; seeds and requests of a panel lie over one another.

    Terms take colours behind those of the methods: a colour never means both.
    """
    from matplotlib.figure import Figure

    shown = shown[:_MOST_PANELS]
    if not shown:
        return None
    lines = [points for panel in shown for curve in panel.curves for points in curve.terms.values()]
    stride = 1 + sum(len(points) for points in lines) // _MOST_POINTS_DRAWN
    names = sorted({name for panel in shown for curve in panel.curves for name in curve.terms})
    looks = {name: look for look, name in enumerate(names, start=numbers.look(""))}
    with style():
        rows = math.ceil(len(shown) / _COLUMNS)
        figure = Figure(figsize=(10, 0.5 + 1.75 * rows), layout="constrained")
        grid = list(figure.subplots(rows, _COLUMNS, squeeze=False).flat)
        for axes, panel in zip(grid, shown, strict=False):
            _draw(axes, panel, looks, stride)
        for axes in grid[len(shown) :]:
            axes.set_axis_off()
        _legend(figure, looks)
        return finish(
            figure,
            "training",
            title="Training curves",
            description="Loss terms by optimiser step, one panel per scenario, method and "
            "updated parameters; one line per seed and request.",
        )


def _folder(stages: Path, planned: str) -> Path | None:
    """Find a stage's folder; its leading number may be another than planned if the plan grew."""
    name = Path(planned).name
    if not name:
        return None
    if (stages / name).is_dir():
        return stages / name
    _, _, rest = name.partition("-")
    found = sorted(stages.glob(f"*-{glob.escape(rest)}")) if rest else []
    return found[0] if found else None


def _entries(path: Path) -> list[Mapping[str, Any]]:
    try:
        text = plain_file(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    found: list[Mapping[str, Any]] = []
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            break
        if isinstance(entry, dict):
            found.append(entry)
    return found


def _group(stage: Stage, numbers: Numbers) -> tuple[tuple[object, ...], str]:
    cell = stage.cell
    if cell is None or not cell.method:
        scenario = cell.scenario if cell else ""
        title = f"{stage.kind or 'training'} {scenario_title(scenario) if scenario else ''}".strip()
        return (-1, title), title[:48]
    place = Place(cell.scenario, cell.method, cell.scope, 0)
    title = f"{scenario_title(cell.scenario)} · {method_title(cell.method)}"
    return numbers.order(place), f"{title} · {scope_title(cell.scope)}"[:60]


def _curve(stage: Stage, entries: Sequence[Mapping[str, Any]]) -> Curve:
    stride = max(1, len(entries) // _MOST_POINTS)
    terms: dict[str, list[tuple[float, float]]] = {}
    for position, entry in enumerate(entries):
        if position % stride and position != len(entries) - 1:
            continue
        step = _finite(entry.get("step"))
        for name, number in _losses(entry):
            terms.setdefault(name, []).append((position + 1 if step is None else step, number))
    seconds = [_finite(entry.get("seconds")) or 0.0 for entry in entries]
    return Curve(
        stage, {name: tuple(points) for name, points in terms.items()}, len(entries), sum(seconds)
    )


def _losses(entry: Mapping[str, Any]) -> list[tuple[str, float]]:
    flat: list[tuple[str, Any]] = []
    for name, value in entry.items():
        if name in _NOT_LOSSES:
            continue
        flat += value.items() if isinstance(value, dict) else [(name, value)]
    numbers = [(str(name), _finite(value)) for name, value in flat]
    return [(name, number) for name, number in numbers if number is not None]


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _draw(axes: Axes, panel: Panel, looks: Mapping[str, int], stride: int) -> None:
    largest = 0.0
    for curve in panel.curves:
        for name, points in curve.terms.items():
            points = (*points[:-1:stride], points[-1])
            largest = max([largest, *(abs(value) for _, value in points)])
            axes.plot(
                [step for step, _ in points],
                [value for _, value in points],
                color=colour(looks[name]),
                lw=1.2,
                alpha=0.75 if len(panel.curves) < 4 else 0.45,
            )
    if largest > 50:
        # Gradient ascent runs from -6 to below -280; a linear axis would hide all but its end.
        axes.set_yscale("symlog", linthresh=1.0)
    axes.set_title(panel.title, fontsize=8, fontweight="normal")
    axes.tick_params(labelsize=8)
    quiet(axes, grid="y")


def _legend(figure: Any, looks: Mapping[str, int]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour(look), lw=1.8, label=name[:30])
        for name, look in list(looks.items())[:7]
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=max(len(handles), 1))
