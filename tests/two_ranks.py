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
from pulse_unlearn.models.adapters import AdapterStack, prepare_full
from pulse_unlearn.models.forward import Plain
from pulse_unlearn.models.parts import language_layers
from pulse_unlearn.models.sharding import local, shard_layers, whole_weights
from pulse_unlearn.ranks import ALONE, Ranks, joined
from pulse_unlearn.training.guards import StopRule
from pulse_unlearn.training.loop import Outcome, Watch, train
from pulse_unlearn.training.steps import FinetuneSteps
from test_training_session import SETTINGS, model_of, session_of, settings_of

STILL = LoraSettings(rank=2, alpha=4.0, dropout=0.0)
"""Dropout is drawn for each process anew, so there is none."""
RATE = 3e-5
"""AdamW divides by the gradient's own size: where that is rounding, so is the sign of a step."""
METHOD_CASES = METHODS.names()
SIZES = (8, 4, 1)
"""Micro-batches of fine-tuning in steps of eight."""
SHARDED = {
    "sharded-finetune": {},
    "sharded-full": {"update": "full"},
    "sharded-ga": {"update": "full"},
    "sharded-npo": {},
    "sharded-ga_klr": {},
    "sharded-df_mcq": {},
    "sharded-gradient_projection": {"adapter": "continued"},
    "sharded-mmunlearner": {},
}
"""Cases in which each rank holds a part of every layer, and the update they make."""
CASES = [
    *METHOD_CASES,
    *(f"finetune-{size}" for size in SIZES),
    *("projector", "single", "answers", "sharded-answers"),
    *SHARDED,
]


def case(name: str, folder: Path, ranks: Ranks = ALONE) -> None:
    """Carry out one case and write what it left into a folder."""
    folder.mkdir(parents=True)
    encoder = tiny.encoder()
    kind = name.removeprefix("sharded-")
    if kind != name:
        ranks = replace(ranks, lockstep=not ranks.alone)
    if kind == "answers":
        made = tiny.prepared("llm", lora=STILL)
        tiny.randomise(made.model, seed=6)
        share_out(made.model, ranks)
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
    if kind in METHOD_CASES:
        settings = settings_of(kind, lora=STILL, **SHARDED.get(name, {}))
        optimiser = OptimiserSettings(learning_rate=RATE, batch_size=4, micro_batch_size=2)
        settings = settings.model_copy(update={"optimiser": optimiser})
        made = model_of(settings)
        share_out(made.model, ranks)
        session = session_of(folder / "stage", encoder, settings, made=made, ranks=ranks)
        if ranks.lockstep:
            session.references.recurring = ()
        outcome = session.apply(build_method(kind, SETTINGS.get(kind, {})))
        left(folder, whole_weights(session.model), outcome)
        return
    scope = "projector" if kind == "projector" else "llm"
    size = {"single": 1, "finetune-4": 4, "finetune-1": 1}.get(name, 8)
    batch, full = 1 if name == "single" else 8, kind == "full"
    if ranks.lockstep:
        size = size // ranks.count
    model, outcome = finetuned(folder, ranks, scope=scope, micro=size, batch=batch, full=full)
    left(folder, whole_weights(model), outcome)


def share_out(model, ranks):
    """Leave each rank its part of the layers, where they are to go in step."""
    if ranks.lockstep:
        layers = language_layers(model, tiny.LLAVA)
        before = weight_of(layers)
        shard_layers(model, tiny.LLAVA, ranks)
        assert weight_of(layers) < 0.6 * before


def weight_of(layers):
    """How many numbers of layers this process holds, adapters apart."""
    tensors = [p for layer in layers for n, p in layer.named_parameters() if ".lora_" not in n]
    return sum(local(one).numel() for one in tensors)


def finetuned(folder, ranks, *, scope="llm", micro=8, batch=8, stop_at=None, at=None, full=False):
    """Fine-tune for three steps; `stop_at` asks to stop, in rank `at` alone if that is given."""
    if full:
        stack = AdapterStack(keep_reference=False)
        made = prepare_full(tiny.base(), stack, family=tiny.LLAVA, scope=scope)
    else:
        made = tiny.prepared(scope, lora=STILL)
        tiny.randomise(made.model, seed=6)
    share_out(made.model, ranks)

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
        left(resumed, whole_weights(model), outcome)
        together = replace(ranks, lockstep=True)
        try:
            finetuned(root / "parts", together, micro=4, full=True, stop_at=2)
        except Interrupted:
            (root / f"parts-{ranks.rank}").touch()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
