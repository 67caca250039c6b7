"""A whole run by one process against N: `python bench/launch.py [EXPERIMENT] [--workers N]`.

Both run from nothing, in turn, with their own default of threads: one process all cores, N workers
an equal share each. The results of each side are compared byte for byte; those of one side with the
other's need not agree, as a matrix product rounds otherwise on another number of threads.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from pairs import PAIRS, Neighbours, paired

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Runs:
    """Runs of one experiment, each into a folder of its own."""

    def __init__(self, experiment: str, root: Path) -> None:
        self.experiment, self.root = experiment, root
        self.results: list[tuple[str, bytes]] = []

    def carry_out(self, where: str) -> None:
        """Run the command as a user does; raises CalledProcessError."""
        runs = self.root / str(len(self.results))
        command = [sys.executable, "-m", "pulse_unlearn", "run", self.experiment]
        plain = {name: value for name, value in os.environ.items() if name not in _THREADS}
        subprocess.run(
            [*command, "--runs", str(runs), "--on", where],
            check=True,
            capture_output=True,
            env=plain,
        )
        self.results.append((where, next(runs.glob("*/results.csv")).read_bytes()))


def main(argv: Sequence[str]) -> int:
    """Print the ratio; return 1 if any two results of one side differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", nargs="?", default="smoke")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    asked = parser.parse_args(argv)
    neighbours = Neighbours()
    with TemporaryDirectory() as folder:
        runs = Runs(asked.experiment, Path(folder))
        where = f"local:{asked.workers}"
        found = paired(
            lambda: runs.carry_out("local"), lambda: runs.carry_out(where), pairs=asked.pairs
        )
        low, high = found.spread
        kinds = len(set(runs.results))
        across = len({result for _, result in runs.results}) == 1
    one, many = (f"{sum(side) / len(side):.0f} s" for side in (found.first, found.second))
    print(f"{asked.experiment}: {one} by one process, {many} by {asked.workers}")
    print(f"{where} is {found.ratio:.2f} times as fast ({low:.2f} to {high:.2f})")
    print(f"results.csv: each side always the same: {kinds == 2}; both sides the same: {across}")
    neighbours.warn()
    return 0 if kinds == 2 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
