"""Compare the answers of two runs of one experiment: `python bench/decisions.py RUN OTHER`.

For the fast path: run an experiment with and without `--set speed.packing=off` and list, stage by
stage, how many answers differ and what the accuracy of either run is. Stages that only ask must
agree; behind a training, rounding may have grown.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from pulse_unlearn.evaluation.scoring import score_all
from pulse_unlearn.evaluation.table import read_predictions
from pulse_unlearn.records import Prediction


def answers(run: Path) -> dict[str, tuple[Prediction, ...]]:
    """Return a run's answers by stage, in plan order."""
    files = sorted(run.glob("stages/*/predictions.parquet"))
    # A stage's folder is its number, its name and its fingerprint.
    return {
        path.parent.name.split("-", 1)[1].rsplit("-", 1)[0]: read_predictions(path)
        for path in files
    }


def accuracy(predictions: Sequence[Prediction]) -> float:
    """Return the share of strictly read right answers, percent."""
    return 100 * fmean(s.verdict == "correct" for s in score_all(predictions, parser="strict"))


def main(run: Path, other: Path) -> None:
    """Print one line a stage."""
    theirs = answers(other)
    for name, mine in answers(run).items():
        if name not in theirs:
            print(f"{name:50s} only in {run}")
            continue
        texts = {one.example_id: one.text for one in theirs[name]}
        differ = sum(one.text != texts.get(one.example_id) for one in mine)
        print(
            f"{name:50s} {differ:5d} of {len(mine)} differ   "
            f"{accuracy(mine):5.1f} / {accuracy(theirs[name]):5.1f} %"
        )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
