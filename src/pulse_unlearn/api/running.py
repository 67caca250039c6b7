"""An experiment from Python: by name, by path, or as a dictionary."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulse_unlearn.api.experiments import Overrides, resolve
from pulse_unlearn.api.frames import choose_frame
from pulse_unlearn.api.loaded import LoadedRun, load_run

if TYPE_CHECKING:
    from pulse_unlearn.pipeline.progress import Progress


def run(
    experiment: str | PathLike[str] | Mapping[str, Any],
    *,
    runs: str | PathLike[str] = "runs",
    overrides: Overrides = (),
    repair: bool = False,
    on: str = "local",
    progress: Progress | None = None,
    frame: str | None = None,
) -> LoadedRun:
    """Run an experiment into `runs/<name>/`, or continue it there, and return it loaded.

    `experiment` is the name of a shipped one, the path of a file, or the settings themselves.
    What is complete is not computed again; `on` is as for `pulse run --on` (with `local:N` a script
    needs its `if __name__ == "__main__"`); `frame` is as for `load_run`. No report is drawn:
    `LoadedRun.report` does that. Started by torchrun, all processes do each stage together, and
    get the same. Raises ConfigError for settings, PluginError if a third party's
    code failed (the rest is in the run folder), and whatever else stops `pulse run`.
    """
    from pulse_unlearn.estimate.room import require_room
    from pulse_unlearn.launch import launched
    from pulse_unlearn.pipeline.run import follow_run, run_experiment
    from pulse_unlearn.ranks import joined

    choose_frame(frame)  # before anything is spent
    resolved = resolve(experiment, overrides)
    with joined() as ranks:
        carry_out = launched(on, resolved, Path(runs), ranks=ranks, check=require_room)
        if ranks.first:
            finished = run_experiment(
                resolved,
                Path(runs),
                repair=repair,
                progress=progress,
                carry_out=carry_out,
                ranks=ranks,
            )
            finished.raise_failures()
        else:
            follow_run(resolved, Path(runs), ranks)
    return load_run(Path(runs) / resolved.name, frame=frame)
