"""Time a whole experiment from nothing, by kind of stage: `python bench/demo.py`.

Takes an experiment and overrides: `python bench/demo.py demo speed.packing=off`; `--runs=FOLDER`
in front keeps the run, for `decisions.py`. Run it with nothing else on the machine. Prints seconds
and the share of each kind of stage, and writes them to bench/latest.json.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pulse_unlearn.config import load_experiment
from pulse_unlearn.methods import schemas
from pulse_unlearn.pipeline.progress import Silent
from pulse_unlearn.pipeline.run import run_experiment
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


def main(name: str, overrides: Sequence[str], runs: Path | None = None) -> None:
    """Run the experiment twice, from nothing and again; into a temporary folder if no other."""
    experiment = load_experiment(name, overrides=overrides, schemas=schemas())
    timing = Timing()
    with tempfile.TemporaryDirectory() as temporary:
        folder = runs or Path(temporary)
        first = run_experiment(experiment, folder, progress=timing)
        started = time.monotonic()
        build_report(first.run)
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
    latest["experiments"] = latest.get("experiments", {}) | {" ".join([name, *overrides]): found}
    LATEST.write_text(json.dumps(latest, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    given = sys.argv[1:]
    kept = (
        Path(given.pop(0).removeprefix("--runs=")) if given[:1] and "--runs=" in given[0] else None
    )
    main(*(given[:1] or ["demo"]), given[1:], kept)
