"""What each method costs, against GA: `python bench/methods.py [METHOD ...]`.

Time: whole operations of a few steps, GA and the method in turn (GA, method, GA, ...), each on a
fresh copy of the model and as a second request, so that what a sequence carries is paid, too. The
ratio of each pair is taken; the table has their median and range. Memory: the peak beyond the
loaded model, each method in a process of its own (on CUDA torch's own peak), of a model whose
weights are most of it. LoRA methods need one model: what one holds beyond GA's peak must be less
than the weights, or the last column says so and the script ends with 1.

Methods run with their defaults; where one refuses the usual LoRA update, the first kind it accepts
is used, for GA as well. `--model wide` times the larger model, too.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from speed_cases import SIZES, SMALL_LORA, Case, embedded, random_llava

from pulse_unlearn.config import OptimiserSettings, StopSettings, UnlearnSettings
from pulse_unlearn.methods import METHODS, Checked, Method, Request, build_method
from pulse_unlearn.models.adapters import (
    AdapterStack,
    AnyModel,
    TrainableModel,
    add_trainable,
    prepare,
    prepare_full,
)
from pulse_unlearn.models.families import Family
from pulse_unlearn.models.fast.packed import Packed
from pulse_unlearn.records import Example
from pulse_unlearn.training.guards import StopRule
from pulse_unlearn.training.loop import Watch
from pulse_unlearn.training.references import References
from pulse_unlearn.training.session import MethodSession, carried
from pulse_unlearn.training.steps import UnlearnSteps

STEPS, BATCH, PAIRS = 6, 8, 5
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BUILDERS = {
    "world": embedded,
    "wide": partial(random_llava, SIZES["wide"], device=DEVICE),
}
KINDS = tuple(
    {"update": update, "scope": "llm", "adapter": adapter, "retain": retain}
    for update, adapter, retain in itertools.product(
        ("lora", "full"), ("fresh", "continued"), ("d_retain", "none")
    )
)
"""Kinds of an operation, the usual one first."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A method with its defaults, and the settings it accepts."""

    method: Method
    settings: UnlearnSettings

    @property
    def kind(self) -> str:
        """What of the settings is not the usual."""
        told = (self.settings.update, self.settings.adapter, self.settings.retain)
        return ", ".join(one for one in told if one not in ("lora", "fresh", "d_retain"))


def fit(name: str, steps: int = STEPS) -> Fit:
    """Return a method with the first kind of update that it accepts; raises SystemExit if none."""
    method = build_method(name, {})
    told = []
    for kind in KINDS:
        settings = UnlearnSettings(
            **kind,
            lora=SMALL_LORA,
            optimiser=OptimiserSettings(
                learning_rate=1e-5, batch_size=BATCH, micro_batch_size=BATCH
            ),
            stop=StopSettings(max_steps=steps),
        )
        if kind["retain"] == "none" and method.needs.retain:
            continue
        told = [*method.problems(settings)] if isinstance(method, Checked) else []
        if not told:
            return Fit(method, settings)
    raise SystemExit(f"{name} accepts none of {KINDS}: {'; '.join(map(str, told))}")


def plain(model: AnyModel, _family: Family) -> TrainableModel:
    """Leave the model as it is: every operation adapts a copy."""
    return TrainableModel(model.requires_grad_(False).eval(), (), (), {}, has_reference=False)


def ready(model: AnyModel, family: Family, chosen: Fit) -> TrainableModel:
    """Make a plain model ready for an operation, as the pipeline does."""
    settings = chosen.settings
    stack = AdapterStack(keep_reference=chosen.method.needs.reference)
    if settings.update == "full":
        return prepare_full(model, stack, family=family, scope=settings.scope)
    fresh = partial(_fresh, family=family, settings=settings)
    return prepare(model, stack, how="merged", fresh=fresh)


def _fresh(model: AnyModel, *, family: Family, settings: UnlearnSettings) -> Any:
    return add_trainable(model, family, settings.scope, lora=settings.lora, seed=0)


@dataclass
class Operations:
    """Operations of one method on copies of one model."""

    case: Case
    family: Family
    chosen: Fit
    copied: bool = True
    state: Mapping[str, torch.Tensor] = field(default_factory=dict)
    history: tuple[Request, ...] = ()

    def __call__(self) -> float:
        """Carry out one operation; return its seconds, those of making it ready left out."""
        model = copy.deepcopy(self.case.made.model) if self.copied else self.case.made.model
        made = ready(model, self.family, self.chosen)
        with TemporaryDirectory() as folder:
            session = self._session(made, Path(folder))
            _wait()
            began = time.perf_counter()
            session.apply(self.chosen.method)
            _wait()
            seconds = time.perf_counter() - began
            self.state, self.history = carried(Path(folder)), (Request("first", ("0",)),)
        return seconds

    def _session(self, made: TrainableModel, folder: Path) -> MethodSession:
        backend = Packed(made.model, self.case.encoder, budget=self.case.budget)
        watch = Watch(
            folder=folder / "checkpoints",
            checkpoint_seconds=1e9,
            on_step=lambda step, total, row: None,
            should_stop=lambda: False,
            warn=lambda text: None,
        )
        return MethodSession(
            backend,
            References(made, backend),
            self.chosen.settings,
            self._plan,
            StopRule(check_every=10**6),
            lambda: 1.0,
            0,
            watch,
            folder,
            history=self.history,
            state=self.state,
        )

    def _plan(self, steps: int) -> UnlearnSteps:
        people = self.case.named if self.case.talks_on else self.case.mixed
        half = len(people) // 2
        return UnlearnSteps(
            lambda _: _flat(people[:half]),
            lambda _: _flat(people[half:]),
            lambda _: _flat(people[half:]),
            batch_size=BATCH,
            general_share=0.0,
            steps=steps,
            seed=0,
        )


def _flat(people: Sequence[Sequence[Example]]) -> list[Example]:
    return [example for examples in people for example in examples]


def _wait() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def family_of(case: Case) -> Family:
    """Return the family of a case's model: all of them are LLaVAs."""
    return case.encoder.family


def times(case: Case, name: str, *, pairs: int) -> tuple[list[float], float]:
    """Return method / GA of each pair, and GA's steps a second."""
    chosen = fit(name)
    sides = [
        Operations(case, family_of(case), one)
        for one in (Fit(build_method("ga", {}), chosen.settings), chosen)
    ]
    for side in sides:
        side()  # pays what only a first pass pays, and leaves what the next request finds
    measured = [tuple(side() for side in sides) for _ in range(pairs)]
    usual = statistics.median(first for first, _ in measured)
    return [second / first for first, second in measured], STEPS / usual


def peak(name: str, like: str) -> float:
    """Return the MiB that two operations add to a loaded model; `like` says in what kind."""
    case = BUILDERS["wide"](adapt=plain)
    if case.made.model.get_input_embeddings().weight.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        _twice(case, name, like)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins here
    before_mib = _status("VmRSS")
    _twice(case, name, like)
    return _status("VmHWM") - before_mib


def _twice(case: Case, name: str, like: str) -> None:
    chosen = Fit(build_method(name, {}), fit(like, steps=2).settings)
    operations = Operations(case, family_of(case), chosen)
    operations()
    operations()


def _status(field_name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field_name))


def weights_mib() -> float:
    """Return the size of the model that memory is measured of."""
    case = BUILDERS["wide"](adapt=plain)
    return sum(one.numel() * one.element_size() for one in case.made.model.parameters()) / 2**20


def peaks(names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return each method's peak and GA's in the same kind, each in a process of its own."""
    usual: dict[str, float] = {}
    found = {}
    for name in names:
        kind = fit(name).kind
        if kind not in usual:
            usual[kind] = _in_a_process("ga", name)
        found[name] = (_in_a_process(name, name), usual[kind])
    return found


def _in_a_process(name: str, like: str) -> float:
    command = [sys.executable, __file__, "--peak", name, like]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


HEAD = (
    "| method | kind | time / GA | range | MiB beyond the model | GA's | second model |\n"
    "|---|---|---|---|---|---|---|"
)


def second_model(chosen: Fit, own: float, usual: float, weights: float) -> bool:
    """Tell whether a LoRA method holds as much more than GA as another model is."""
    return chosen.settings.update == "lora" and own - usual >= weights


def main(argv: Sequence[str]) -> int:
    """Print the table; return 1 if a method holds a second model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", default=[], metavar="METHOD")
    parser.add_argument("--model", choices=BUILDERS, default="world", help="which to time")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args(argv)
    if asked.peak:
        print(json.dumps(peak(*asked.peak)))
        return 0
    names = asked.methods or METHODS.names()
    case = BUILDERS[asked.model](adapt=plain)
    weights, twice = weights_mib(), []
    print(f"{asked.model} on {DEVICE}, {STEPS} steps of {BATCH}, {asked.pairs} pairs;")
    print(f"memory of a model of {weights:.0f} MiB\n\n{HEAD}", flush=True)
    memory = peaks(names)
    for name in names:
        chosen = fit(name)
        ratios, _ = times(case, name, pairs=asked.pairs)
        own, usual = memory[name]
        if second_model(chosen, own, usual, weights):
            twice.append(name)
        told = "" if chosen.settings.update == "full" else "yes" if name in twice else "no"
        print(
            f"| `{name}` | {chosen.kind} | {statistics.median(ratios):.2f} | "
            f"{min(ratios):.2f} to {max(ratios):.2f} | {own:.0f} | {usual:.0f} | {told} |",
            flush=True,
        )
    return 1 if twice else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
