"""Weights & Biases, and Trackio, which has the same calls. Both keep what is told on this machine.

Nothing is uploaded from here: `wandb sync` and `trackio sync` do that when you decide to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pulse_unlearn.records import Result
from pulse_unlearn.trackers.base import TRACKERS, StageEvent, TrackedRun, headline


class _Logged:
    """Tells a run object of either library."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def stage(self, event: StageEvent) -> None:
        """Log how many stages are done, and how long each took."""
        if event.state == "finished":
            self._run.log({"stages/done": event.number, "stages/seconds": event.seconds})
        elif event.state == "reused":
            self._run.log({"stages/done": event.number})

    def step(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Log the values of a stage beside its own count of steps."""
        told = {f"{stage}/{name}": value for name, value in values.items()}
        self._run.log({**told, f"{stage}/step": step})

    def results(self, rows: Sequence[Result]) -> None:
        """Log the main numbers, a row for each request."""
        by_request: dict[int, dict[str, float]] = {}
        for name, request, value in headline(rows):
            by_request.setdefault(request, {})[name] = value
        for request, told in sorted(by_request.items()):
            self._run.log({**told, "results/request": request})

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


@TRACKERS.register("wandb")
class Wandb(_Logged):
    """Weights & Biases, offline in the run folder; `wandb sync` uploads it (extra `wandb`)."""

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        run.folder.mkdir(parents=True, exist_ok=True)
        opened = wandb.init(
            project="pulse-unlearn",
            name=run.name,
            dir=str(run.folder),
            config=dict(run.settings),
            mode="offline",
            settings=wandb.Settings(silent=True, console="off"),
        )
        opened.define_metric("results/*", step_metric="results/request")
        super().__init__(opened)
        self._seen: set[str] = set()

    def step(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Log the values of a stage, drawn over its own steps."""
        if stage not in self._seen:
            self._seen.add(stage)
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        super().step(stage, step, values)


@TRACKERS.register("trackio")
class Trackio(_Logged):
    """Trackio's local database; `trackio show` draws it (extra `trackio`)."""

    def __init__(self, run: TrackedRun) -> None:
        import trackio

        settings = dict(run.settings)
        opened = trackio.init("pulse-unlearn", name=run.name, config=settings, resume="allow")
        super().__init__(opened)
