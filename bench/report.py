"""What a report of many cells takes: `python bench/report.py [CELLS ...]`, 200 unless told.

Writes a made-up run of three scenarios, three seeds and as many methods as give so many cells, the
retain model and the relearning attack among them, has its report made, and prints processor and
wall seconds, the peak of memory, and the sizes of the page and of all figures. The run has results
and no stages, so the curves of training are not among what is drawn.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench")]

from people import spent  # noqa: E402

import synthetic_findings  # noqa: E402
import synthetic_run  # noqa: E402

SCENARIOS = ("finetuned", "pretrained", "sustainability")
SEEDS = (0, 1, 2)
DRAW = """
import sys, pathlib
from pulse_unlearn.report import build_report
build_report(pathlib.Path(sys.argv[1]))
"""


def make(run: Path, cells: int) -> int:
    """Write a run of about so many cells and return how many they are."""
    wanted = max(1, round(cells / len(SCENARIOS) / len(SEEDS)))
    names = [f"method{number:02d}" for number in range(1, wanted + 1)]
    made = list(synthetic_run.AFTER)
    for number, name in enumerate(names):
        like = synthetic_run.METHODS[number % len(synthetic_run.METHODS)]
        for scenario in SCENARIOS:
            scope = next(s for one, m, s in made if (one, m) == (scenario, like))
            for table in (synthetic_run.AFTER, synthetic_findings.WORDS):
                table[scenario, name, scope] = table[scenario, like, scope]
    recipe = synthetic_run.Recipe(methods=names, seeds=SEEDS, conditions=True)
    synthetic_run.write_run(run, recipe)
    return len(names) * len(SCENARIOS) * len(SEEDS)


def main(*counts: int) -> None:
    """Print a line for each number of cells."""
    for wanted in counts or (200,):
        with tempfile.TemporaryDirectory() as place:
            run = Path(place) / "run"
            cells = make(run, wanted)
            took = spent("-c", DRAW, str(run))
            page = (run / "report.html").stat().st_size / 1e6
            figures = sum(path.stat().st_size for path in (run / "figures").iterdir()) / 1e6
            print(
                f"{cells} cells: {took}; page {page:.2f} MB, figures {figures:.1f} MB", flush=True
            )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
