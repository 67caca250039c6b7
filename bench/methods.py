"""What each method costs, against GA: `python bench/methods.py [METHOD ...]`.

Time: whole operations of a few steps, GA and the method in turn (GA, method, GA, ...), each on a
fresh copy of the model and as a second request, so that what a sequence carries is paid, too. The
ratio of each pair is taken; the table has their median and range. Memory: the peak beyond the
loaded model, each method in a forked process (on CUDA torch's own peak), of a model whose
weights are most of it, but for methods that ask questions in other forms than its made-up examples
have. LoRA methods need one model: what one holds beyond GA's peak must be less
than the weights, or the last column says so and the script ends with 1.

Methods run with their defaults; where one refuses the usual LoRA update, the first kind it accepts
is used, for GA as well. `--model wide` times the larger model instead of the embedded one.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import itertools
import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from pairs import PAIRS, Neighbours, Paired
from peft import PeftModel
from speed_cases import SIZES, SMALL_LORA, Case, embedded, random_llava

from pulse_unlearn.config import OptimiserSettings, StopSettings, UnlearnSettings
from pulse_unlearn.data.variants import Variants
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

STEPS, BATCH = 6, 8
MEMORY_BATCH = 2
"""Small, so that what a loss holds for its questions is little beside a model."""
COMPARE_MODALITIES = ("manu",)
"""Methods that refuse questions of one modality alone."""
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BUILDERS = {
    "world": embedded,
    "wide": partial(random_llava, SIZES["wide"], device=DEVICE),
}
KINDS = tuple(
    {"update": update, "scope": scope, "adapter": adapter, "retain": retain}
    for update, scope, adapter, retain in itertools.product(
        ("lora", "full"), ("llm", "projector+llm"), ("fresh", "continued"), ("d_retain", "none")
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
        s = self.settings
        told = (s.update, s.scope, s.adapter, s.retain)
        return ", ".join(one for one in told if one not in ("lora", "llm", "fresh", "d_retain"))


def fit(name: str, steps: int = STEPS, batch: int = BATCH) -> Fit:
    """Return a method with the first kind of update that it accepts; raises SystemExit if none."""
    method = build_method(name, {})
    told = []
    for kind in KINDS:
        settings = UnlearnSettings(
            **kind,
            lora=SMALL_LORA,
            optimiser=OptimiserSettings(
                learning_rate=1e-5, batch_size=batch, micro_batch_size=batch
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
    pictures: bool = False
    """Whether questions with pictures are asked of a wide model, too."""
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
            if not self.history:  # every later one is the second
                self.state, self.history = carried(Path(folder)), (Request("first", ("0",)),)
        if not self.copied and isinstance(made.model, PeftModel):
            made.model.unload()
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
            variants=self._variants(),
            views=lambda part, epochs: self._plan(1).first_epoch(part) * epochs,
        )

    def _variants(self) -> Variants | None:
        """Return other forms of the questions; None for a case of made-up examples."""
        people = self._in_turn(self.case.people)
        half = len(people) // 2
        return Variants(people[:half], people[half:], profile="short", seed=0) if people else None

    def _plan(self, steps: int) -> UnlearnSteps:
        text_alone = self.case.talks_on and not self.pictures  # what is wide takes minutes else
        people = self._in_turn(self.case.named if text_alone else self.case.mixed)
        half = len(people) // 2
        return UnlearnSteps(
            lambda _: _flat(people[:half]),
            lambda _: _flat(people[half:]),
            lambda _: _flat(people[half:]),
            batch_size=self.chosen.settings.optimiser.batch_size,
            general_share=0.0,
            steps=steps,
            seed=0,
        )

    def _in_turn(self, people: Sequence[Any]) -> Sequence[Any]:
        """Return those the request forgets first; the first is about others than the second.

        FIT leaves out what comes again.
        """
        return people if self.history else people[::-1]


def _flat(people: Sequence[Sequence[Example]]) -> list[Example]:
    return [example for examples in people for example in examples]


def _wait() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def family_of(case: Case) -> Family:
    """Return the family of a case's model: all of them are LLaVAs."""
    return case.encoder.family


def times(case: Case, name: str, *, pairs: int) -> list[float]:
    """Return the time of the method as a share of GA's, of each pair."""
    chosen = fit(name)
    sides = [
        Operations(case, family_of(case), one)
        for one in (Fit(build_method("ga", {}), chosen.settings), chosen)
    ]
    for side in sides:
        side()  # pays what only a first pass pays, and leaves what the next request finds
    # Each times itself, since a fresh copy of the model is no part of an operation.
    measured = [tuple(side() for side in sides) for _ in range(pairs)]
    return Paired(tuple(b for _, b in measured), tuple(a for a, _ in measured)).ratios


def peak(case: Case, name: str, like: str) -> float:
    """Return the MiB that two requests add to a loaded model; `like` says in what kind.

    On a CPU it is the process's own peak, and so is right once a process.
    """
    chosen = Fit(build_method(name, {}), fit(like, 2, MEMORY_BATCH).settings)
    operations = Operations(
        case, family_of(case), chosen, copied=False, pictures=like in COMPARE_MODALITIES
    )
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / 2**20
    else:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins here
        before = _status("VmRSS")
    operations()
    operations()
    if DEVICE == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20 - before
    return _status("VmHWM") - before


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def peaks(names: Sequence[str]) -> tuple[dict[str, tuple[float, float]], float]:
    """Return each method's peak and GA's in the same kind, and the model's size, in MiB.

    Each on a copy of the loaded model: in a forked process, or on CUDA one after the other.
    """
    torch.set_num_threads(1)  # a process with more cannot be forked
    case = BUILDERS["wide"](adapt=plain)
    weights = sum(one.numel() * one.element_size() for one in case.made.model.parameters())
    usual: dict[tuple[str, bool], float] = {}
    found = {}
    for name in names:
        kind = (fit(name).kind, name in COMPARE_MODALITIES)
        if kind not in usual:
            usual[kind] = _apart(case, "ga", name)
        own = math.nan if needs_people(name) else _apart(case, name, name)
        found[name] = (own, usual[kind])
    return found, weights / 2**20


def needs_people(name: str) -> bool:
    """Tell whether a method asks questions in other forms, which made-up examples do not have."""
    needs = build_method(name, {}).needs
    return needs.options is not None or needs.option_words or needs.decoupled


def _apart(case: Case, name: str, like: str) -> float:
    if DEVICE == "cuda":
        held = copy.deepcopy(case.made.model)
        made = TrainableModel(held, (), (), {}, has_reference=False)
        return peak(dataclasses.replace(case, made=made), name, like)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=lambda: theirs.send(peak(case, name, like)))
    child.start()
    theirs.close()  # so that a child that fails is noticed
    found: float = ours.recv()
    child.join()
    return found


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
    parser.add_argument("methods", nargs="*", metavar="METHOD")
    parser.add_argument("--model", choices=BUILDERS, default="world", help="which to time")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="0 measures memory alone")
    asked = parser.parse_args(argv)
    names, threads, twice = asked.methods or METHODS.names(), torch.get_num_threads(), []
    memory, weights = peaks(names)
    torch.set_num_threads(threads)
    print(f"{asked.model} on {DEVICE}, {STEPS} steps of {BATCH}, {asked.pairs} pairs;")
    print(f"memory of a model of {weights:.0f} MiB\n\n{HEAD}", flush=True)
    case = BUILDERS[asked.model](adapt=plain) if asked.pairs else None
    neighbours = Neighbours()
    for name in names:
        chosen, (own, usual) = fit(name), memory[name]
        ratios = times(case, name, pairs=asked.pairs) if case else []
        shown = f"{statistics.median(ratios):.2f}" if ratios else ""
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}" if ratios else ""
        if second_model(chosen, own, usual, weights):
            twice.append(name)
        unknown = chosen.settings.update == "full" or math.isnan(own)
        told = "" if unknown else "yes" if name in twice else "no"
        shown_own = "" if math.isnan(own) else f"{own:.0f}"
        cells = (f"`{name}`", chosen.kind, shown, spread, shown_own, f"{usual:.0f}", told)
        print(f"| {' | '.join(cells)} |", flush=True)
    neighbours.warn()
    return 1 if twice else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
