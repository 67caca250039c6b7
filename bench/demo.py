"""Time a whole experiment from nothing, by kind of stage: `python bench/demo.py`.

Takes an experiment and overrides: `python bench/demo.py demo speed.packing=off`. `--runs FOLDER`
keeps the run, for `decisions.py`; `--double` computes in float64, which settings do not offer, so
that it shows there what is rounding. Run it with nothing else on the machine. Prints seconds and
the share of each kind of stage, and writes them to bench/latest.json.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pulse_unlearn.config import Experiment, load_experiment
from pulse_unlearn.pipeline.progress import Silent
from pulse_unlearn.pipeline.run import run_experiment
from pulse_unlearn.registries import schemas
from pulse_unlearn.report import build_report
from pulse_unlearn.scenarios import Stage

LATEST = Path(__file__).with_name("latest.json")


class Timing(Silent):
    """Adds up seconds by kind of stage."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.stages: Counter[str] = Counter()

    def finish(self, number: int, stage: Stage, seconds: float) -> None:
        """Take one stage's time."""
        self.seconds[stage.kind] += seconds
        self.stages[stage.kind] += 1
        print(f"{stage.name:50s} {seconds:6.1f} s", flush=True)


def in_float64(experiment: Experiment) -> Experiment:
    """Return the experiment in double precision, past the settings that allow no such thing."""
    import torch

    from pulse_unlearn.models.backends import TOLERANCE

    TOLERANCE[torch.float64] = TOLERANCE[torch.float32]  # norms stay in single precision
    model = experiment.model.model_copy(update={"dtype": "float64"})
    return experiment.model_copy(update={"model": model})


def main(name: str, overrides: Sequence[str], runs: Path | None, *, double: bool) -> None:
    """Run the experiment twice, from nothing and again; into a temporary folder if no other.

    But for `double`, nothing imports torch before the run does: that is part of a user's time.
    """
    experiment = load_experiment(name, overrides=overrides, schemas=schemas())
    if double:
        experiment = in_float64(experiment)
    timing = Timing()
    with tempfile.TemporaryDirectory() as temporary:
        folder = runs or Path(temporary)
        first = run_experiment(experiment, folder, progress=timing)
        started = time.monotonic()
        build_report(first.run, redraw=True)
        report = time.monotonic() - started
        again = run_experiment(experiment, folder)
    found = {
        "cores": os.cpu_count(),
        "seconds": {"all": round(first.seconds + report, 1), "report": round(report, 1)}
        | {kind: round(seconds, 1) for kind, seconds in timing.seconds.items()}
        | {"same command again": round(again.seconds, 1)},
        "stages": dict(timing.stages),
    }
    print(json.dumps(found, indent=2))
    latest = json.loads(LATEST.read_text(encoding="utf-8"))
    key = " ".join([name, *overrides, *(["in float64"] if double else [])])
    latest["experiments"] = latest.get("experiments", {}) | {key: found}
    LATEST.write_text(json.dumps(latest, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", default="demo")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--double", action="store_true")
    given = parser.parse_args()
    main(given.name, given.overrides, given.runs, double=given.double)
