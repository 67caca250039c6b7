"""Whether a plan's stages fit into the memory of the machines and GPUs that are to carry them out.

Refused is only what cannot fit by what is certain: weights and, of a training, what is trained with
its gradients and moments; activations depend on batches, which are halved where they do not fit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pulse_unlearn.config import ModelSettings
from pulse_unlearn.errors import Problem, TooLarge
from pulse_unlearn.estimate.units import size_of
from pulse_unlearn.launch import Fleet, Machine, Memory
from pulse_unlearn.launch.schedule import moments
from pulse_unlearn.models.checkpoints import embedded_or_named
from pulse_unlearn.pipeline.work import Pipeline
from pulse_unlearn.scenarios import Plan

if TYPE_CHECKING:
    from pulse_unlearn.estimate.stages import StageEstimate

CERTAIN = (
    "weights",
    "frozen adapters",
    "trained adapter",
    "gradients",
    "optimiser",
    "reference",
)
"""Parts of a stage's memory that no smaller batch makes smaller."""
SURELY = 32
"""Times the bytes of a model's weight files, more than `CERTAIN` can be: 4 bytes for each stored
one, and eight such numbers a weight."""


@dataclass(frozen=True, slots=True)
class Place:
    """A memory that so many workers share at a time."""

    memory: Memory
    workers: int
    is_gpu: bool

    @property
    def shares_weights(self) -> bool:
        """Weights that are read only lie in a machine's memory once, mapped from their files."""
        return not self.is_gpu


@dataclass(frozen=True, slots=True)
class Fit:
    """How the worst moment of a plan fits into one place."""

    place: Place
    stages: tuple[str, ...]
    """Stages at work there at that moment; those that need most."""
    certain: int
    """Bytes that they need at least, together."""
    likely: int
    """Bytes by the full estimate, at its own worst moment."""
    fitting: int
    """Workers of which the same could fit; 0 if one stage alone is too large."""
    trains_most: bool
    """Whether what is trained takes more of the first of the stages than the weights do."""

    @property
    def refused(self) -> bool:
        """Tell whether it cannot fit."""
        return self.certain > self.place.memory.total

    @property
    def doubtful(self) -> bool:
        """Tell whether it may not fit."""
        return self.likely > self.place.memory.free


def on_gpus(machine: Machine, settings: ModelSettings) -> int:
    """Return how many GPUs of a machine a model of these settings runs on; 0 for its cores."""
    return 0 if settings.device == "cpu" else len(machine.gpus) + machine.untold


def places_of(fleet: Fleet, settings: ModelSettings) -> list[Place]:
    """Return the memories that stages of this model are in, without those that are not told."""
    found: dict[tuple[str, int], Place] = {}
    for machine in fleet.machines:
        if not (count := on_gpus(machine, settings)):
            held = [(machine.memory, machine.workers, False)] if machine.memory else []
        else:
            shares = [len(range(n, machine.workers, count)) for n in range(count)]
            told = zip(machine.gpus, shares, strict=False)
            held = [(gpu, share, True) for gpu, share in told if share]
        for memory, workers, is_gpu in held:
            found.setdefault(
                (f"{memory.name} {memory.total}", workers), Place(memory, workers, is_gpu)
            )
    return list(found.values())


def fits_of(
    plan: Plan,
    stages: Sequence[StageEstimate],
    fleet: Fleet,
    settings: ModelSettings,
    *,
    done: Collection[str] = (),
) -> list[Fit]:
    """Return the worst moment of each place, of what is left to do; empty if no memory is told.

    Which stages meet is told from their times, in the order in which the coordinator starts them.
    """
    sized = {s.name: s for s in stages if s.memory and s.name not in done}
    parents = {stage.name: stage.parents for stage in plan.stages}

    def cost(name: str) -> float:
        return sized[name].operations if name in sized else 0.0

    met = {
        frozenset(name for name in busy if name in sized)
        for _, busy in moments(parents, cost, workers=fleet.workers)
    } - {frozenset()}
    found = []
    for place in places_of(fleet, settings) if met else ():
        each = [_fit(place, [sized[name] for name in busy]) for busy in met]
        worst = max(each, key=lambda one: one.certain)
        found.append(replace(worst, likely=max(one.likely for one in each)))
    return found


def _fit(place: Place, busy: Sequence[StageEstimate]) -> Fit:
    """Return what stages at work at once take; of more than a place has workers, the smaller."""
    count = min(place.workers, len(busy))
    fewest = sorted(busy, key=_certain)[:count]
    most = sorted(busy, key=lambda one: sum(_memory(one).values()))[-count:]
    shared = max(_memory(one)["weights"] for one in busy) * place.shares_weights
    together = shared + sum(_certain(one) - shared for one in fewest)
    # A single stage is carried out by somebody, wherever the others are.
    alone = max(map(_certain, busy))
    held = [alone + sum(_certain(one) - shared for one in fewest[1:n]) for n in range(1, count + 1)]
    likely = sum(sum(_memory(one).values()) for one in most)
    by_itself = alone > min(together, place.memory.total)
    by_need = sorted(busy if by_itself else fewest, key=lambda one: (-_certain(one), one.name))
    named = by_need[:1] if by_itself else by_need
    weights = _memory(named[0])["weights"]
    return Fit(
        place,
        tuple(one.name for one in named),
        alone if by_itself else together,
        likely,
        sum(bytes_ <= place.memory.total for bytes_ in held),
        trains_most=_certain(named[0]) > 2 * weights,
    )


def _memory(stage: StageEstimate) -> Mapping[str, int]:
    return stage.memory or {"weights": 0}


def _certain(stage: StageEstimate) -> int:
    return sum(_memory(stage).get(part, 0) for part in CERTAIN)


def problems_of(fits: Sequence[Fit], settings: ModelSettings) -> list[Problem]:
    """Return what cannot fit: stage, need, what there is, and how to mend it.

    Where one of several places has room, a stage may be carried out there. A model whose layers are
    spread goes to other devices and to the machine's memory, too: nothing of it is refused.
    """
    if settings.device_map != "none" or not all(one.refused for one in fits):
        return []
    return [
        Problem(
            "cannot fit into the memory of what is to carry it out",
            one.stages[0] + (f" and {len(one.stages) - 1} beside it" if one.stages[1:] else ""),
            f"{size_of(one.certain)} at least: weights, adapters, gradients, optimiser",
            f"{size_of(one.place.memory.total)}, {one.place.memory.name}",
            _mend(one, settings),
        )
        for one in fits
    ]


def _mend(fit: Fit, settings: ModelSettings) -> str:
    ways = []
    if fit.fitting:
        ways.append(f"at most {fit.fitting} at a time there: --on local:N, fewer slots in Ray")
    else:
        ways.append("a device with more memory")
    if settings.dtype == "float32":
        ways.append("--set model.dtype=bfloat16")
    if settings.quantise == "none" and fit.place.is_gpu:
        ways.append("--set model.quantise=4bit --set model.frozen_adapters=stacked")
    if fit.trains_most:
        ways.append("update: lora in place of full, or a smaller rank")
    ways.append("--set model.device_map=auto and --on local, over all GPUs of a machine")
    return "; ".join(ways)


def doubts_of(fits: Sequence[Fit], settings: ModelSettings) -> list[str]:
    """Return where the full estimate is more than is free, in a sentence each."""
    mend = "smaller micro-batches or scoring.batch_size"
    if not settings.gradient_checkpointing:
        mend += ", --set model.gradient_checkpointing=true"
    found = []
    for one in fits if settings.device_map == "none" else ():
        if one.doubtful and not all(each.refused for each in fits):
            shared = one.place.workers > 1
            who = f"{one.place.workers} workers" if shared else one.stages[0]
            found.append(
                f"{one.place.memory.name} may not be enough: {who} may take "
                f"{size_of(one.likely)}, of which {size_of(one.place.memory.free)} are free; "
                f"{'fewer workers, ' if shared else ''}{mend}"
            )
    return found


def require_room(pipeline: Pipeline, fleet: Fleet) -> None:
    """Raise TooLarge if what is left of a run cannot fit; warn if it may not.

    Tells nothing of a model whose sizes cannot be told, of one that loading refuses anyway, nor
    where several processes hold a part of each layer.
    """
    settings = pipeline.inputs.experiment.model
    if pipeline.inputs.experiment.speed.sharding != "none":
        return
    done = pipeline.finished()
    if len(done) == len(pipeline.inputs.plan.stages) or _surely_fits(settings, fleet):
        return
    from pulse_unlearn.estimate.outlook import look_ahead

    found = look_ahead(pipeline.inputs)
    fits = fits_of(pipeline.inputs.plan, found.stages, fleet, settings, done=done)
    if problems := problems_of(fits, settings):
        raise TooLarge(problems)
    for doubt in doubts_of(fits, settings):
        pipeline.progress.warn(doubt)


def _surely_fits(settings: ModelSettings, fleet: Fleet) -> bool:
    """Tell whether the model's files alone show it, so that torch need not be imported to ask."""
    with embedded_or_named(settings) as source:
        sizes = [path.stat().st_size for path in Path(source).glob("*.safetensors")]
    return bool(sizes) and all(
        SURELY * sum(sizes) * place.workers < place.memory.free
        for place in places_of(fleet, settings)
    )
