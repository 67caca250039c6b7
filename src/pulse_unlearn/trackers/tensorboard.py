"""TensorBoard: event files in the run folder, `tensorboard --logdir runs`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from pulse_unlearn.records import Result
from pulse_unlearn.trackers.base import TRACKERS, StageEvent, TrackedRun, headline


@TRACKERS.register("tensorboard")
class Tensorboard:
    """TensorBoard's event files in the run folder (extra `tensorboard`)."""

    def __init__(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run.folder))
        settings = json.dumps(run.settings, indent=2)
        self._writer.add_text("experiment", f"```\n{settings}\n```")

    def stage(self, event: StageEvent) -> None:
        """Draw how many stages are done, and how long each took."""
        if event.state != "started":
            self._scalar("stages/done", event.number, event.number)
        if event.state == "finished":
            self._scalar("stages/seconds", event.seconds, event.number)

    def step(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Draw a curve for each value of a stage."""
        for name, value in values.items():
            self._scalar(f"{stage}/{name}", value, step)

    def results(self, rows: Sequence[Result]) -> None:
        """Draw the main numbers along the requests."""
        for name, request, value in headline(rows):
            self._scalar(name, value, request)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()

    def _scalar(self, name: str, value: float, step: int) -> None:
        self._writer.add_scalar(name, value, step)
