"""What two processes do together, for `test_ranks.py`: `torchrun two_ranks.py FOLDER CASE ...`.

Each rank leaves the weights it ends with, the rows it logged and the answers it was given.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import save_file

import tiny_models as tiny
from pulse_unlearn.config import LoraSettings, OptimiserSettings
from pulse_unlearn.errors import Interrupted
from pulse_unlearn.evaluation.predict import predict, rotated_accuracy
from pulse_unlearn.methods import METHODS, build_method
from pulse_unlearn.models.forward import Plain
from pulse_unlearn.ranks import ALONE, Ranks, joined
from pulse_unlearn.training.guards import StopRule
from pulse_unlearn.training.loop import Outcome, Watch, train
from pulse_unlearn.training.steps import FinetuneSteps
from test_training_session import SETTINGS, session_of, settings_of

STILL = LoraSettings(rank=2, alpha=4.0, dropout=0.0)
"""Dropout is drawn for each process anew, so there is none."""
RATE = 3e-5
"""AdamW divides by the gradient's own size: where that is rounding, so is the sign of a step."""
METHOD_CASES = METHODS.names()
SIZES = (8, 4, 1)
"""Micro-batches of fine-tuning in steps of eight."""
CASES = [*METHOD_CASES, *(f"finetune-{size}" for size in SIZES), "projector", "single", "answers"]


def case(name: str, folder: Path, ranks: Ranks = ALONE) -> None:
    """Carry out one case and write what it left into a folder."""
    folder.mkdir(parents=True)
    encoder = tiny.encoder()
    if name == "answers":
        made = tiny.prepared("llm", lora=STILL)
        tiny.randomise(made.model, seed=6)
        backend, asked = Plain(made.model, encoder), [*tiny.mixed(), *tiny.letters(9)]
        said = predict(
            backend,
            asked,
            batch_size=2,
            max_new_tokens=3,
            on_batch=lambda done, total: None,
            ranks=ranks,
        )
        level = rotated_accuracy(backend, tiny.letters(9), batch_size=2, ranks=ranks)
        told = {"answers": [asdict(one) for one in said], "accuracy": level}
        (folder / "answers.json").write_text(json.dumps(told), encoding="utf-8")
        return
    if name in METHOD_CASES:
        settings = settings_of(name, lora=STILL)
        optimiser = OptimiserSettings(learning_rate=RATE, batch_size=4, micro_batch_size=2)
        settings = settings.model_copy(update={"optimiser": optimiser})
        session = session_of(folder / "stage", encoder, settings, ranks=ranks)
        outcome = session.apply(build_method(name, SETTINGS.get(name, {})))
        left(folder, session.current, outcome)
        return
    scope = "projector" if name == "projector" else "llm"
    size = 1 if name == "single" else int(name.partition("-")[2] or 8)
    model, outcome = finetuned(
        folder, ranks, scope=scope, micro=size, batch=1 if name == "single" else 8
    )
    left(folder, weights_of(model), outcome)


def finetuned(folder, ranks, *, scope="llm", micro=8, batch=8, stop_at=None, at=None):
    """Fine-tune for three steps; `stop_at` asks to stop, in rank `at` alone if that is given."""
    made = tiny.prepared(scope, lora=STILL)
    tiny.randomise(made.model, seed=6)

    def epoch(first, count):
        return lambda number: [
            replace(one, example_id=f"{one.example_id}@{number}")
            for one in tiny.letters(count, first=first)
        ]

    replay = 0.25 if batch > 1 else 0.0
    steps = FinetuneSteps(
        epoch(0, 18), epoch(200, 7), batch_size=batch, replay=replay, epochs=1, seed=1, steps=3
    )
    seen: list[int] = []
    folder.mkdir(parents=True, exist_ok=True)
    here = at is None or at == ranks.rank
    watch = Watch(
        folder=folder / "checkpoints",
        checkpoint_seconds=1e9,
        on_step=lambda step, total, row: seen.append(step),
        should_stop=lambda: here and stop_at is not None and seen[-1] == stop_at,
        warn=print,
    )
    outcome = train(
        made.model,
        tiny.learning(made, tiny.encoder()),
        steps,
        settings=OptimiserSettings(learning_rate=RATE, batch_size=batch, micro_batch_size=micro),
        stop=StopRule(check_every=1),
        accuracy=lambda: 0.0,
        vocabulary=411,
        seed=3,
        watch=watch,
        ranks=ranks,
    )
    return made.model, outcome


def weights_of(model):
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def left(folder: Path, weights, outcome: Outcome) -> None:
    """Write what a training left."""
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "w.st")
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in outcome.rows]
    (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")


def main(root: Path, names: list[str]) -> None:
    """Carry out the cases, then a training that is stopped and one that goes on."""
    torch.set_num_threads(1)
    with joined() as ranks:
        for name in names:
            case(name, root / f"rank{ranks.rank}" / name, ranks)
        try:  # rank 1 alone is asked to stop; all do
            finetuned(root / "stopped", ranks, stop_at=2, at=1)
        except Interrupted:
            (root / f"stopped-{ranks.rank}").touch()
        model, outcome = finetuned(root / "alone", ranks)  # begun by one process
        resumed = root / f"rank{ranks.rank}" / "resumed"
        resumed.mkdir()
        left(resumed, weights_of(model), outcome)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
