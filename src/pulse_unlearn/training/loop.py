"""One loop for fine-tuning and every method: accumulation, clipping, schedule, guards, checkpoints.

The loop owns every normalisation. A step's loss is, for each term, the mean of its values over all
examples of the step; cutting the step into micro-batches changes nothing but rounding.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pulse_unlearn import store
from pulse_unlearn.config import OptimiserSettings
from pulse_unlearn.errors import Interrupted, ModelError, Problem
from pulse_unlearn.methods import GradientHook, Penalty, Term, TermWeights, UpdateHook
from pulse_unlearn.models.memory import SHORTAGES, is_shortage
from pulse_unlearn.models.sharding import held_in_parts, local
from pulse_unlearn.ranks import ALONE, Ranks
from pulse_unlearn.training.guards import Guard, StoppedBy, StopRule
from pulse_unlearn.training.objectives import FORGET_NLL, RETAIN_NLL, Objective, weighted_sum
from pulse_unlearn.training.state import (
    Weights,
    copy_weights,
    gradients_of,
    load_state,
    put_back,
    save_state,
    state_tensors,
    trained,
)
from pulse_unlearn.training.steps import StepData, Steps

Log = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Watch:
    """How a training is observed and interrupted from outside."""

    folder: Path
    """Where checkpoints are kept; made if it is missing."""
    checkpoint_seconds: float
    on_step: Callable[[int, int, Log], None]
    """Called with step, planned steps and that step's log row."""
    should_stop: Callable[[], bool]
    warn: Callable[[str], None]
    on_snapshot: Callable[[int], None] = lambda step: None
    """Called after each step of `snapshots`, with the model as it then is."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a procedure does within each step, besides its loss."""

    gradient: GradientHook | None = None
    update: UpdateHook | None = None
    penalty: Penalty | None = None
    term_weights: TermWeights | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a training ended."""

    steps: int
    stopped_by: StoppedBy
    skipped_steps: int
    flags: tuple[str, ...]
    checks: tuple[tuple[int, float], ...]
    """(step, accuracy on views never reported) for each check of the stop rule."""
    micro_batch_size: int
    """Examples per forward pass at the end; below the setting where memory did not suffice."""
    rows: tuple[Log, ...] = ()
    """The log: one row a step."""


@dataclass(slots=True)
class _Run:
    """Everything the loop's helpers share; lives for one call of `train`."""

    model: nn.Module
    objective: Objective
    steps: Steps
    settings: OptimiserSettings
    watch: Watch
    seed: int
    hooks: Hooks
    optimiser: torch.optim.Optimizer
    guard: Guard
    good: Weights
    """The newest weights at which every loss and gradient was finite."""
    micro_batch_size: int
    ranks: Ranks = ALONE
    done: int = 0
    rows: list[Log] = field(default_factory=list)
    checks: list[tuple[int, float]] = field(default_factory=list)


def train(
    model: nn.Module,
    objective: Objective,
    steps: Steps,
    *,
    settings: OptimiserSettings,
    stop: StopRule,
    accuracy: Callable[[], float],
    vocabulary: int,
    seed: int,
    watch: Watch,
    hooks: Hooks = Hooks(),
    snapshots: Collection[int] = (),
    ranks: Ranks = ALONE,
) -> Outcome:
    """Train what of the model is trainable; continues from the newest good checkpoint.

    A training that left the finite numbers ends as `diverged`, with the last weights that were
    good. `accuracy` measures what the stop rule looks at. Several `ranks` share each step and end
    with the same weights; `accuracy` must say the same in all. Raises Interrupted, after a
    checkpoint, if `watch.should_stop` says so in any of them.
    """
    guard = Guard(vocabulary)
    optimiser = _optimiser(model, settings)
    run = _Run(
        model,
        objective,
        steps,
        settings,
        watch,
        seed,
        hooks,
        optimiser,
        guard,
        good=copy_weights(model),
        micro_batch_size=settings.micro_batch_size,
        ranks=ranks,
    )
    _resume(run)
    ranks.follow(one for one in trained(model).values() if not held_in_parts(one))
    model.train()
    stopped_by: StoppedBy = "max_steps"
    if _holds_at_once(run, stop, accuracy):
        stopped_by = "already_forgotten"
    saved_at = time.monotonic()
    while stopped_by == "max_steps" and run.done < len(steps):
        reason = _advance(run, stop, accuracy)
        if reason is not None:
            stopped_by = reason
            break
        if run.done in snapshots:
            watch.on_snapshot(run.done)
        late = ranks.told(time.monotonic() - saved_at >= watch.checkpoint_seconds)
        asked = ranks.any(watch.should_stop())
        if late or asked:
            _save(run)
            saved_at = time.monotonic()
        if asked:
            raise Interrupted(Problem("stopped after a checkpoint", got=f"step {run.done}"))
    if stopped_by == "diverged" or (run.done and not _is_finite(run)):
        stopped_by = "diverged"
        run.guard.note_divergence()
        put_back(model, run.good)
    for step in snapshots:
        if step > run.done:  # it ended before: what it ended with stands for what would have been
            watch.on_snapshot(step)
    return Outcome(
        run.done,
        stopped_by,
        guard.skipped,
        tuple(guard.flags),
        tuple(run.checks),
        run.micro_batch_size,
        tuple(run.rows),
    )


def as_lines(rows: Sequence[Log]) -> str:
    """Return a log as JSON lines."""
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)


def learning_rate_at(step: int, total: int, settings: OptimiserSettings) -> float:
    """Return the learning rate of a step (counted from 0) under warm-up and schedule."""
    warmup = math.ceil(round(settings.warmup * total, 6))  # 0.07 * 100 is above 7 in binary
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(total - warmup, 1)
    factor = {
        "constant": 1.0,
        "linear": 1.0 - progress,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * progress)),
    }[settings.schedule]
    return settings.learning_rate * factor


def _optimiser(model: nn.Module, settings: OptimiserSettings) -> torch.optim.Optimizer:
    every = list(trained(model).values())
    # What is held whole and what in parts is not updated in one go.
    groups = [[p for p in every if held_in_parts(p) is parts] for parts in (False, True)]
    return torch.optim.AdamW(
        [{"params": group} for group in groups if group],
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=every[0].device.type in ("cpu", "cuda"),
    )


def _resume(run: _Run) -> None:
    """Put back what the newest good checkpoint holds, if there is one."""
    newest = store.latest(run.watch.folder, warn=run.watch.warn) if run.ranks.first else None
    path = run.ranks.told(newest.path if newest else None)
    if path is None:
        return
    saved = load_state(path, run.model, run.optimiser)
    run.good, state = saved.good, saved.state
    run.objective.kept.update(saved.kept)
    run.done, run.rows = state["step"], state["rows"]
    run.micro_batch_size = state["micro_batch_size"]
    run.checks = [(step, value) for step, value in state["checks"]]
    run.guard.restore(state["guard"])


def _holds_at_once(run: _Run, stop: StopRule, accuracy: Callable[[], float]) -> bool:
    """Tell whether there is nothing left to do before the first step."""
    if run.done or not stop.may_hold_at_once:
        return False
    run.checks.append((0, accuracy()))
    return stop.by_accuracy(run.checks[-1][1]) is not None


def _advance(run: _Run, stop: StopRule, accuracy: Callable[[], float]) -> StoppedBy | None:
    """Do one step, note and tell it; return what ends the training behind it."""
    row, diverged = _step(run)
    run.done += 1
    reason = "diverged" if diverged else stop.by_loss(row.get(FORGET_NLL))
    if reason is None and stop.due(run.done):
        run.checks.append((run.done, accuracy()))
        row["check_accuracy"] = run.checks[-1][1]
        reason = stop.by_accuracy(run.checks[-1][1])
    run.rows.append(row)
    run.watch.on_step(run.done, len(run.steps), row)
    return reason


def _step(run: _Run) -> tuple[Log, bool]:
    """Do one optimiser step; return its log row and whether training has diverged."""
    started = time.perf_counter()
    rate = learning_rate_at(run.done, len(run.steps), run.settings)
    for group in run.optimiser.param_groups:
        group["lr"] = rate
    totals = _together(run, _fitting(run, run.steps[run.done]))
    if run.hooks.gradient is not None:
        run.hooks.gradient(gradients_of(run.model))
    norm = _clip(run)
    # Read off together and only here: each look at a number makes an accelerator wait.
    where = next(iter(totals.values())).device  # the norm of no gradients is on the CPU
    numbers = [number.float().to(where) for number in (*totals.values(), norm)]
    *values, size = torch.stack(numbers).tolist()
    means = dict(zip(totals, values, strict=True))
    finite = all(math.isfinite(value) for value in (*values, size))
    if finite:
        run.good = copy_weights(run.model)
        run.optimiser.step()
        if run.hooks.update is not None:
            with torch.no_grad():
                run.hooks.update(trained(run.model))
    run.optimiser.zero_grad(set_to_none=True)
    diverged = run.guard.note_step(finite=finite)
    if finite:
        run.guard.note_losses(forget=means.get(FORGET_NLL), retain=means.get(RETAIN_NLL))
    row: Log = {"step": run.done + 1, "learning_rate": rate, "skipped": not finite}
    row |= {name: value if math.isfinite(value) else None for name, value in means.items()}
    row["grad_norm"] = size if finite else None
    row["seconds"] = round(time.perf_counter() - started, 4)
    return row, diverged


def _is_finite(run: _Run) -> bool:
    """Tell whether the weights after the last update still give a finite loss."""
    run.model.eval()
    own = run.steps[run.done - 1].part_of(run.ranks)
    with torch.no_grad():
        finite = [
            bool(torch.isfinite(term.values).all())
            for micro in own.micro_batches(run.micro_batch_size)
            for term in run.objective.terms(micro)
        ]
    return not run.ranks.any(not all(finite))


def _fitting(run: _Run, data: StepData) -> dict[str, torch.Tensor]:
    """Accumulate a step's gradients in micro-batches that fit; half as large after each failure.

    The step's batch stays whole. Raises ModelError if a single example is too much.
    """
    while True:
        # A seed per step, so that dropout after a resume is what it would have been without one;
        # and one of its own for each rank, as their examples are others.
        torch.manual_seed(run.seed + run.done + (run.ranks.rank << 40))
        try:
            return _accumulate(run, data)
        except SHORTAGES as error:
            if not is_shortage(error):
                raise
            # In lockstep a rank cannot go another way than the others.
            if run.micro_batch_size == 1 or run.ranks.lockstep:
                size = run.micro_batch_size
                count = "one example does" if size == 1 else f"{size} examples do"
                raise ModelError(
                    Problem(
                        f"{count} not fit into the device's memory",
                        got=str(error),
                        fix="a smaller model dtype, gradient checkpointing or a larger device",
                    )
                ) from error
        run.optimiser.zero_grad(set_to_none=True)
        run.micro_batch_size = max(1, run.micro_batch_size // 2)
        run.watch.warn(f"out of memory: micro-batches of {run.micro_batch_size} from here on")
        torch.cuda.empty_cache()


def _accumulate(run: _Run, data: StepData) -> dict[str, torch.Tensor]:
    """Add up the gradients of this rank's part of a step; return each term's share of its mean."""
    own = data.part_of(run.ranks)
    totals: dict[str, torch.Tensor] = {}
    if run.hooks.penalty is not None and run.ranks.first:
        penalty = run.hooks.penalty(trained(run.model))
        if penalty.requires_grad:
            penalty.backward()  # type: ignore[no-untyped-call]
        totals["penalty"] = penalty.detach()
    weights = run.hooks.term_weights(run.rows) if run.hooks.term_weights else {}
    for micro in own.micro_batches(run.micro_batch_size):
        terms = [_reweighted(term, weights) for term in run.objective.terms(micro)]
        loss = weighted_sum(terms, data)
        # Questions without a picture have no gradient where the projector or the tower is trained.
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        for term in terms:
            share = term.values.detach().sum() / data.count(term.over)
            totals[term.name] = totals[term.name] + share if term.name in totals else share
    return totals


def _together(run: _Run, totals: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add up what the ranks made of their parts of a step: gradients in place, and the means."""
    if run.ranks.alone:
        return totals
    tensors = trained(run.model)
    own = [name for name, tensor in tensors.items() if tensor.grad is not None]
    parts = run.ranks.gather(({name: float(value) for name, value in totals.items()}, own))
    moved = {name for _, names in parts for name in names}
    for name in moved:  # where no rank has a gradient the optimiser is to see none
        if tensors[name].grad is None:
            tensors[name].grad = torch.zeros_like(tensors[name])
    run.ranks.add(
        one.grad
        for name, one in tensors.items()
        if name in moved and one.grad is not None and not held_in_parts(one)
    )
    names = dict.fromkeys(name for means, _ in parts for name in means)
    return {name: torch.tensor(sum(means.get(name, 0.0) for means, _ in parts)) for name in names}


def _clip(run: _Run) -> Tensor:
    """Clip the gradients to the largest norm that is allowed; return the norm they had."""
    gradients = [one.grad for one in trained(run.model).values() if one.grad is not None]
    norm = nn.utils.get_total_norm([one for one in gradients if not held_in_parts(one)])
    if parts := [local(one) for one in gradients if held_in_parts(one)]:
        square = torch.stack([one.float().square().sum() for one in parts]).sum()
        run.ranks.add([square])
        norm = (norm.to(square.device).square() + square).sqrt()
    if run.settings.clip_norm is not None:
        factor = (run.settings.clip_norm / (norm + 1e-6)).clamp(max=1.0)
        for one in gradients:
            local(one).mul_(factor.to(one.device))
    return norm


def _reweighted(term: Term, weights: Mapping[str, float]) -> Term:
    return replace(term, weight=weights[term.name]) if term.name in weights else term


def _save(run: _Run) -> None:
    tensors = state_tensors(run.model, run.optimiser, good=run.good, kept=run.objective.kept)
    if not run.ranks.first:
        return
    state = {
        "step": run.done,
        "rows": run.rows,
        "checks": run.checks,
        "guard": run.guard.state(),
        "micro_batch_size": run.micro_batch_size,
    }
    store.save(
        run.watch.folder,
        run.done,
        write=lambda folder: save_state(folder, tensors, state),
    )
