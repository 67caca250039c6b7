"""Compare two runs of one experiment, stage by stage: `python bench/decisions.py RUN OTHER`.

For the fast path: run an experiment with and without `speed.packing=off` (`demo.py --runs`), and
list how many answers differ, what the accuracy of either run is, and behind a training how far
apart the trained weights and how long the trainings are. Stages that only ask must agree; behind a
training, rounding has grown with every step, which `demo.py --double` shows by starting it smaller.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

import torch
from safetensors.torch import load_file

from pulse_unlearn.evaluation.scoring import score_all
from pulse_unlearn.evaluation.table import read_predictions
from pulse_unlearn.models.checkpoints import ADAPTER_FILE
from pulse_unlearn.pipeline.asked import PREDICTIONS
from pulse_unlearn.pipeline.runners import OUTCOME
from pulse_unlearn.pipeline.stage_context import ADAPTER
from pulse_unlearn.records import Prediction
from pulse_unlearn.store.stages import stage_folders

WEIGHTS = Path(ADAPTER) / ADAPTER_FILE


def stages(run: Path) -> dict[str, Path]:
    """Return a run's stage folders by stage name, in plan order."""
    # A stage's folder is its number, its name and its fingerprint.
    return {path.name.split("-", 1)[1].rsplit("-", 1)[0]: path for path in stage_folders(run)}


def accuracy(predictions: Sequence[Prediction]) -> float:
    """Return the share of strictly read right answers, percent."""
    return 100 * fmean(s.verdict == "correct" for s in score_all(predictions, parser="strict"))


def answers_differ(mine: Path, other: Path) -> str:
    """Tell how many answers of two score stages differ."""
    found, theirs = (read_predictions(path / PREDICTIONS) for path in (mine, other))
    texts = {one.example_id: one.text for one in theirs}
    differ = sum(one.text != texts.get(one.example_id) for one in found)
    return (
        f"{differ:5d} of {len(found)} answers differ   "
        f"{accuracy(found):5.1f} / {accuracy(theirs):5.1f} %"
    )


def weights_differ(mine: Path, other: Path) -> str:
    """Tell the distance of two trainings' weights, relative to the weights, and their steps."""
    found, theirs = (load_file(path / WEIGHTS) for path in (mine, other))
    apart, size = (
        torch.cat([tensor.double().flatten() for tensor in tensors]).norm()
        for tensors in ([found[key] - theirs[key] for key in theirs], theirs.values())
    )
    steps = [json.loads((path / OUTCOME).read_text())["steps"] for path in (mine, other)]
    return f"weights {float(apart / size):7.1e} apart   {steps[0]:5d} / {steps[1]} steps"


def lines(run: Path, other: Path) -> Iterator[str]:
    """Return a line for each scored stage or trained adapter of the first run."""
    theirs = stages(other)
    for name, folder in stages(run).items():
        if name not in theirs:
            yield f"{name:44s} only in {run}"
        elif (folder / PREDICTIONS).exists():
            yield f"{name:44s} {answers_differ(folder, theirs[name])}"
        elif (folder / WEIGHTS).exists():
            yield f"{name:44s} {weights_differ(folder, theirs[name])}"


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    for line in lines(Path(sys.argv[1]), Path(sys.argv[2])):
        print(line)
