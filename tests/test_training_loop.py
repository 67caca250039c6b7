"""The loop: accumulation, resumption, stop rules, guards, schedules and what each step sees."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import tiny_models as tiny
from method_cases import LOSSES, OTHER_FORMS, costly
from pulse_unlearn.config import LoraSettings, OptimiserSettings
from pulse_unlearn.errors import DataError, Interrupted, ModelError
from pulse_unlearn.evaluation.predict import greedy_accuracy
from pulse_unlearn.methods import Term, build_method
from pulse_unlearn.models.forward import Plain
from pulse_unlearn.records import Example, Picture
from pulse_unlearn.training.guards import Guard, StopRule
from pulse_unlearn.training.loop import Outcome, Watch, as_lines, learning_rate_at, train
from pulse_unlearn.training.objectives import FORGET_NLL, RETAIN_NLL, weighted_sum
from pulse_unlearn.training.steps import FinetuneSteps, StepData, Stream, UnlearnSteps

VOCABULARY = 411
NEVER = StopRule(check_every=1)
DROPOUT = LoraSettings(rank=2, alpha=4.0, dropout=0.3)
SETTINGS = {
    "npo": {"beta": 0.5, "retain_weight": 0.5},
    "ga_klr": {"weight": 0.7},
    "rmu": {"layer": -1},
    **OTHER_FORMS,
}
KINDS = [*LOSSES, "finetune"]
RESUMED = ("ga", "ga_klr", "npo", "finetune")
"""The others are resumed in `test_training_session.py`."""


def unused() -> float:
    raise AssertionError("accuracy was measured without need")


@dataclass
class Runner:
    """Calls `train` with everything a test does not care about."""

    folder: Path
    stop_at: int | None = None
    """Ask to stop after this many steps."""
    rows: list = field(default_factory=list)
    warnings: list = field(default_factory=list)
    outcome: Outcome | None = None

    def __call__(
        self, model, objective, steps, *, stop=NEVER, accuracy=unused, seed=3, seconds=1e9, **knobs
    ):
        self.folder.mkdir(exist_ok=True)
        self.rows = []
        knobs = {"learning_rate": 1e-3, **knobs}
        watch = Watch(
            folder=self.folder / "checkpoints",
            checkpoint_seconds=seconds,
            on_step=lambda step, total, row: self.rows.append((step, total, row)),
            should_stop=lambda: bool(self.rows) and self.rows[-1][0] == self.stop_at,
            warn=self.warnings.append,
        )
        self.outcome = None
        self.outcome = train(
            model,
            objective,
            steps,
            settings=OptimiserSettings(**knobs),
            stop=stop,
            accuracy=accuracy,
            vocabulary=VOCABULARY,
            seed=seed,
            watch=watch,
        )
        return self.outcome

    @property
    def log(self) -> list[dict]:
        rows = map(json.loads, as_lines(self.outcome.rows).splitlines())
        return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.fixture
def run(tmp_path):
    return Runner(tmp_path / "work")


@pytest.fixture(scope="module")
def encoder():
    return tiny.encoder()


def trained(model):
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def epochs(count, *, first=0):
    """An epoch function: the same questions, named after the epoch."""

    def epoch(number):
        return [
            replace(one, example_id=f"{one.example_id}@{number}")
            for one in tiny.letters(count, first=first)
        ]

    return epoch


def unlearn_steps(*, steps=3, batch_size=8, general_share=0.25, retain=True, seed=1):
    return UnlearnSteps(
        epochs(10),
        epochs(9, first=100) if retain else None,
        epochs(7, first=200),
        batch_size=batch_size,
        general_share=general_share,
        steps=steps,
        seed=seed,
    )


def finetune_steps(*, batch_size=8, replay=0.25, epoch_count=1, seed=1):
    return FinetuneSteps(
        epochs(18),
        epochs(7, first=200),
        batch_size=batch_size,
        replay=replay,
        epochs=epoch_count,
        seed=seed,
    )


def job(kind, encoder, *, lora=tiny.LORA):
    """A model, its objective and its three steps for one method, or for fine-tuning."""
    made = tiny.prepared("llm", lora=lora)
    tiny.randomise(made.model, seed=6)
    if kind == "finetune":
        return made.model, tiny.learning(made, encoder), finetune_steps()
    method = build_method(kind, SETTINGS.get(kind, {}))
    return made.model, tiny.unlearning(made, encoder, method), unlearn_steps()


# --- accumulation


@pytest.mark.parametrize("kind", costly(KINDS))
def test_micro_batches_change_nothing_but_rounding(kind, encoder, tmp_path):
    found = []
    for size in (8, 4, 2, 1):
        model, objective, steps = job(kind, encoder)
        before = trained(model)
        run = Runner(tmp_path / f"{size}")
        run(model, objective, steps, batch_size=8, micro_batch_size=size, learning_rate=3e-5)
        after = trained(model)
        assert all(not torch.equal(before[name], after[name]) for name in before)
        found.append((after, run.log))
    (weights, log), *others = found
    for other, rows in others:
        for name, tensor in weights.items():
            # AdamW divides by the gradient's own size, so that a small learning rate is needed to
            # see anything but rounding; a wrong size of the gradient shows in the log below.
            torch.testing.assert_close(tensor, other[name], atol=1e-6, rtol=0)
        for row, expected in zip(rows, log, strict=True):
            assert row == pytest.approx(expected, abs=1e-5, rel=1e-4)


def test_a_step_minimises_the_mean_over_all_its_examples(encoder, run):
    """Against the gradient of the plain mean, written out, in one batch and in eight."""
    model, objective, steps = job("ga", encoder)
    data = steps[0]
    # Answers of one to three tokens, so that a mean over tokens would differ.
    data = StepData(tuple(tiny.mixed()), ())
    losses = []
    for one in data.forget:
        logs = objective.terms(StepData((one,), ()))[0].values
        losses.append(logs.sum())
    torch.stack(losses).mean().backward()
    parameters = [p for p in model.parameters() if p.requires_grad]
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in parameters))
    mean = torch.stack(losses).mean().item()
    model.zero_grad()
    for size in (5, 1):
        fresh, again, _ = job("ga", encoder)
        runner = Runner(run.folder.parent / f"{size}")
        runner(fresh, again, [data], batch_size=5, micro_batch_size=size, clip_norm=None)
        assert runner.log[0]["grad_norm"] == pytest.approx(norm, rel=1e-4)
        assert runner.log[0]["ascent"] == pytest.approx(mean, rel=1e-4)
        assert runner.log[0][FORGET_NLL] == pytest.approx(-mean, rel=1e-4)


@pytest.mark.parametrize("scope", ["projector", "vision"])
def test_text_alone_moves_nothing_where_only_what_sees_is_trained(scope, encoder, run):
    made = tiny.prepared(scope)
    tiny.randomise(made.model, seed=1)
    before = trained(made.model)
    words, mixed = tiny.letters(4, shown=False), tiny.letters(4)
    objective = tiny.unlearning(made, encoder, build_method("ga", {}))
    run(made.model, objective, [StepData(tuple(words), ())], micro_batch_size=2)
    assert run.log[0]["grad_norm"] == 0.0
    assert all(torch.equal(before[name], value) for name, value in trained(made.model).items())
    data = [StepData((*words, *mixed), ())]
    run = Runner(run.folder.parent / "mixed")
    run(made.model, objective, data, batch_size=8, micro_batch_size=2)
    assert run.log[0]["grad_norm"] > 0.0


def test_retain_terms_are_means_over_the_retain_batch(encoder, run):
    model, objective, _ = job("npo", encoder)
    data = StepData(tuple(tiny.letters(2)), tuple(tiny.letters(6, first=9)))
    expected = objective.terms(data)[1].values.mean()
    run(model, objective, [data], batch_size=6, micro_batch_size=6)
    assert run.log[0]["retain_nll"] == pytest.approx(expected.item(), rel=1e-4)


def test_the_loss_is_the_weighted_sum_of_means_over_each_terms_own_batch():
    # 2 forget and 3 retain examples: (1 + 3) / 2 + 0.5 * (2 + 4 + 6) / 3 = 4.
    data = StepData(tuple(tiny.letters(2)), tuple(tiny.letters(3)))
    terms = (
        Term("a", torch.tensor([1.0, 3.0])),
        Term("b", torch.tensor([2.0, 4.0, 6.0]), 0.5, over="retain"),
        Term("watched", torch.tensor([math.nan, 1.0]), 0.0),
    )
    assert weighted_sum(terms, data).item() == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("npo", {"beta": 0.1}, {"beta": 5.0}),
        ("npo", {"retain_weight": 0.1}, {"retain_weight": 0.9}),
        ("ga_klr", {"weight": 0.1}, {"weight": 5.0}),
        ("ga_klr", {"data": "forget_batch"}, {"data": "retain_batch"}),
        ("ga_klr", {"direction": "reference_to_current"}, {"direction": "current_to_reference"}),
    ],
)
def test_a_methods_settings_reach_the_gradient(name, one, other, encoder, tmp_path):
    norms = []
    for number, chosen in enumerate((one, other)):
        made = tiny.prepared("llm")
        tiny.randomise(made.model, seed=6)
        objective = tiny.unlearning(made, encoder, build_method(name, chosen))
        run = Runner(tmp_path / str(number))
        run(made.model, objective, unlearn_steps(steps=1), batch_size=8)
        norms.append(run.log[0]["grad_norm"])
    assert abs(norms[0] / norms[1] - 1) > 1e-3  # batching alone changes 1e-6


def test_answer_tokens_reach_the_loss(encoder):
    made = tiny.prepared("llm")
    data = StepData(tuple(tiny.letters(3)), ())
    found = [
        tiny.unlearning(made, encoder, build_method("ga", {}), tokens).terms(data)[0].values
        for tokens in ("with_end", "text")
    ]
    assert not torch.allclose(*found, atol=1e-3)


# --- resumption


@pytest.mark.parametrize("kind", RESUMED)
@pytest.mark.parametrize("stop_at", [1, 2, 3])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(kind, stop_at, encoder, tmp_path):
    rules = {"stop": StopRule(2, accuracy_at_most=-1.0), "warmup": 0.4, "schedule": "cosine"}
    held_out = tiny.letters(3, first=50)

    def go(runner):
        model, objective, steps = job(kind, encoder, lora=DROPOUT)

        def accuracy():
            return greedy_accuracy(Plain(model, encoder), held_out, batch_size=2)

        outcome = runner(model, objective, steps, accuracy=accuracy, micro_batch_size=4, **rules)
        return outcome, trained(model)

    whole = Runner(tmp_path / "whole")
    outcome, expected = go(whole)
    cut = Runner(tmp_path / "cut", stop_at=stop_at)
    with pytest.raises(Interrupted):
        go(cut)
    cut.stop_at = None
    torch.manual_seed(12345)  # another process has another random state
    resumed, found = go(cut)
    assert [step for step, _, _ in cut.rows] == list(range(stop_at + 1, 4))
    assert [replace(one, rows=()) for one in (resumed, outcome)] == [replace(outcome, rows=())] * 2
    assert [step for step, _ in outcome.checks] == [0, 2]
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert cut.log == whole.log


def test_dropout_differs_between_steps_and_seeds(encoder, tmp_path):
    norms = []
    for seed in (3, 4):
        model, objective, _ = job("finetune", encoder, lora=DROPOUT)
        data = StepData((), tuple(tiny.letters(4)))
        run = Runner(tmp_path / str(seed))
        run(model, objective, [data] * 2, learning_rate=1e-12, seed=seed)
        norms += [row["grad_norm"] for row in run.log]
    assert len(set(norms)) >= 3  # step 2 of one seed may be step 1 of the next


def test_checkpoints_by_the_clock_are_kept_for_resuming(encoder, run):
    model, objective, steps = job("ga", encoder)
    run(model, objective, steps, seconds=0.0)
    names = sorted(path.name for path in (run.folder / "checkpoints").iterdir())
    assert names == ["step-00000002", "step-00000003"]


# --- stop rules


class Scripted:
    """An objective of the loop with the losses a test wants, one per call."""

    kept: ClassVar = {}

    def __init__(self, model, script):
        self.weight = next(p for p in model.parameters() if p.requires_grad)
        self.script, self.calls = script, 0

    def terms(self, data):
        value = self.script(self.calls)
        self.calls += 1
        count = len(data.forget)
        pull = self.weight.sum() * 0.01
        return (
            Term("pull", (pull + value).expand(count)),
            Term(FORGET_NLL, torch.full((count,), float(value)), 0.0),
        )


def scripted(run, script, *, steps=10, **knobs):
    model = tiny.prepared("projector").model
    tiny.randomise(model, seed=1)
    objective = Scripted(model, script)
    data = StepData(tuple(tiny.letters(2)), ())
    return model, run(model, objective, [data] * steps, **knobs)


def test_max_steps(run):
    _, outcome = scripted(run, lambda call: 1.0, steps=4)
    assert (outcome.steps, outcome.stopped_by) == (4, "max_steps")
    assert (outcome.skipped_steps, outcome.flags, outcome.checks) == (0, (), ())
    assert [(step, total) for step, total, _ in run.rows] == [(k, 4) for k in (1, 2, 3, 4)]
    assert [row["step"] for row in run.log] == [1, 2, 3, 4]


def test_loss_bound_stops_at_the_first_step_that_reaches_it(run):
    stop = StopRule(check_every=1, loss_bound=5.0)
    _, outcome = scripted(run, lambda call: 2.0 + call, stop=stop)  # 2, 3, 4, 5
    assert (outcome.steps, outcome.stopped_by) == (4, "loss_bound")
    assert len(run.log) == 4


@pytest.mark.parametrize(
    ("rule", "values", "reason"),
    [
        ({"accuracy_at_most": 0.3}, {0: 0.99, 2: 0.9, 4: 0.31, 6: 0.3}, "target_forgetting"),
        ({"accuracy_at_least": 0.8}, {2: 0.2, 4: 0.79, 6: 0.8}, "target_accuracy"),
    ],
)
def test_accuracy_is_measured_when_due_and_stops_at_the_target(run, rule, values, reason):
    """What is to fall is also measured before the first step: it may have fallen already."""
    left = list(values.values())
    stop = StopRule(check_every=2, **rule)
    _, outcome = scripted(run, lambda call: 1.0, stop=stop, accuracy=lambda: left.pop(0))
    assert (outcome.steps, outcome.stopped_by) == (6, reason)
    assert outcome.checks == tuple(values.items())
    checked = {row["step"]: row["check_accuracy"] for row in run.log if "check_accuracy" in row}
    assert checked == {step: value for step, value in values.items() if step}


def test_nothing_is_done_where_the_target_was_reached_before(run):
    """A later request may find its people forgotten; one more step would only break more."""
    stop = StopRule(check_every=2, accuracy_at_most=0.3)
    _, outcome = scripted(run, lambda call: 1.0, stop=stop, accuracy=lambda: 0.3)
    assert (outcome.steps, outcome.stopped_by) == (0, "already_forgotten")
    assert outcome.checks == ((0, 0.3),)
    assert run.log == []


def test_the_loss_does_not_count_as_forgetting_and_accuracy_is_never_of_the_batch(run):
    """What the batch says is the loss bound's business; without one it never stops."""
    stop = StopRule(check_every=3, accuracy_at_most=0.1)
    _, outcome = scripted(run, lambda call: 900.0, stop=stop, accuracy=lambda: 0.5, steps=6)
    assert outcome.stopped_by == "max_steps"
    assert [step for step, _ in outcome.checks] == [0, 3, 6]


# --- guards


def test_a_non_finite_step_is_skipped_and_counted(run):
    script = [1.0, math.nan, 1.0, math.inf, math.nan, 1.0, 1.0]
    reference, _ = scripted(
        Runner(run.folder.parent / "clean"), lambda call: 1.0, steps=4, clip_norm=None
    )
    model, outcome = scripted(
        run, lambda call: script[call], steps=6, clip_norm=None, schedule="constant"
    )
    expected = [False, True, False, True, True, False]
    assert [row["skipped"] for row in run.log] == expected
    assert (outcome.steps, outcome.stopped_by, outcome.skipped_steps) == (6, "max_steps", 3)
    assert [row["grad_norm"] is None for row in run.log] == expected
    assert all(torch.isfinite(p).all() for p in model.parameters())
    # Three good steps moved the weights by three quarters of what four do: a skip moves nothing.
    start = tiny.prepared("projector").model
    tiny.randomise(start, seed=1)
    first, three, four = (next(iter(trained(m).values())) for m in (start, model, reference))
    torch.testing.assert_close(three - first, 0.75 * (four - first), atol=1e-6, rtol=1e-3)


class NanGradient(Scripted):
    """Finite losses whose gradient is not."""

    def terms(self, data):
        call = self.calls
        pull, watched = super().terms(data)
        if call == 1:
            zero = (self.weight - self.weight.detach()).sum()
            pull = Term("pull", pull.values + zero.abs().sqrt())
        return pull, watched


def test_a_finite_loss_with_a_non_finite_gradient_is_skipped(run):
    model = tiny.prepared("projector").model
    tiny.randomise(model, seed=1)
    data = StepData(tuple(tiny.letters(2)), ())
    outcome = run(model, NanGradient(model, lambda call: 1.0), [data] * 3)
    assert outcome.skipped_steps == 1
    assert [row["skipped"] for row in run.log] == [False, True, False]
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_the_third_non_finite_step_in_a_row_is_divergence(run):
    model, outcome = scripted(run, lambda call: 1.0 if call < 2 else math.nan)
    assert (outcome.steps, outcome.stopped_by, outcome.skipped_steps) == (5, "diverged", 3)
    assert outcome.flags == ("diverged",)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert [row["pull"] is None for row in run.log] == [False, False, True, True, True]


def test_a_run_of_skipped_steps_is_counted_across_a_resume(run):
    run.stop_at = 4
    with pytest.raises(Interrupted):
        scripted(run, lambda call: 1.0 if call < 2 else math.nan)
    run.stop_at = None
    _, outcome = scripted(run, lambda call: math.nan)
    assert (outcome.steps, outcome.stopped_by, outcome.skipped_steps) == (5, "diverged", 3)


def test_collapse_is_flagged_above_twice_uniform_and_kept(run):
    limit = 2 * math.log(VOCABULARY)
    _, below = scripted(Runner(run.folder.parent / "below"), lambda call: limit - 0.01, steps=2)
    _, above = scripted(run, lambda call: limit + 0.01, steps=2)
    assert (below.flags, above.flags) == ((), ("collapsed",))
    assert above.stopped_by == "max_steps"


class Retaining(Scripted):
    """One whose loss on the forget part is low, and that on the retain part as scripted."""

    def terms(self, data):
        first = super().terms(data)[0]
        low = torch.full((len(data.forget),), 0.1)
        nll = torch.full((len(data.retain),), float(self.script(self.calls - 1)))
        return first, Term(FORGET_NLL, low, 0.0), Term(RETAIN_NLL, nll, 0.0, over="retain")


@pytest.mark.parametrize(
    ("first", "then", "flags"),
    [
        (0.5, 0.99, ()),
        (0.5, 1.01, ("collapsed",)),
        (1.01, 1.99, ()),  # nobody knew them
        (1.01, 2.01, ("collapsed",)),
    ],
)
def test_retained_answers_that_become_less_likely_than_guesses_are_collapse(
    first, then, flags, run
):
    """Mutation: the guard looks at the forget loss alone."""
    model = tiny.prepared("projector").model
    uniform = math.log(VOCABULARY)
    data = StepData(tuple(tiny.letters(2)), tuple(tiny.letters(4, first=9)))
    values = Retaining(model, lambda call: (then if call else first) * uniform)
    outcome = run(model, values, [data] * 2)
    assert outcome.flags == flags
    assert (outcome.steps, outcome.stopped_by) == (2, "max_steps")


def test_retained_answers_are_watched_where_they_are_asked_anyway(encoder, run):
    """Mutation: no such term."""
    made, (forget, retain) = tiny.prepared("llm"), (tiny.letters(2), tiny.letters(6, first=9))
    data = StepData(tuple(forget), tuple(retain))
    passes = []
    made.model.register_forward_hook(lambda *_: passes.append(1))
    objective = tiny.unlearning(made, encoder, build_method("grad_diff", {}))
    run(made.model, objective, [data], batch_size=6, micro_batch_size=6)
    # A step's two passes, and the two of the last look at whether losses are finite.
    assert len(passes) == 4
    assert run.log[0][RETAIN_NLL] == pytest.approx(run.log[0]["retain_nll"], rel=1e-6)
    alone = Runner(run.folder.parent / "ga")
    alone(made.model, tiny.unlearning(made, encoder, build_method("ga", {})), [data])
    assert RETAIN_NLL not in alone.log[0]


def test_guard_state_survives_a_checkpoint():
    guard = Guard(VOCABULARY)
    guard.note_step(finite=False)
    guard.note_losses(forget=100.0, retain=None)
    other = Guard(VOCABULARY)
    other.restore(json.loads(json.dumps(guard.state())))
    assert other == guard


# --- schedule and clipping


def rates(total, **knobs):
    settings = OptimiserSettings(learning_rate=0.8, **knobs)
    return [learning_rate_at(step, total, settings) for step in range(total)]


def test_learning_rates_by_hand():
    assert rates(3) == [0.8, 0.8, 0.8]
    assert rates(4, schedule="linear") == pytest.approx([0.8, 0.6, 0.4, 0.2])
    # Warm-up over 2 of 6 steps, then 4 steps of 1 - k/4.
    assert rates(6, schedule="linear", warmup=2 / 6) == pytest.approx(
        [0.4, 0.8, 0.8, 0.6, 0.4, 0.2]
    )
    # cos(0), cos(pi/4), cos(pi/2), cos(3 pi/4): factors 1, 0.853553, 0.5, 0.146447.
    assert rates(4, schedule="cosine") == pytest.approx([0.8, 0.6828427, 0.4, 0.1171573])
    assert rates(4, warmup=1.0) == pytest.approx([0.2, 0.4, 0.6, 0.8])


@pytest.mark.parametrize("share", [k / 100 for k in range(101)])
def test_warm_up_takes_its_share_of_the_steps(share):
    """7 % of 100 steps are 7 steps, though 0.07 * 100 is a little more than 7 in binary."""
    rising = [rate for rate in rates(100, warmup=share) if rate < 0.8 - 1e-9]
    assert len(rising) == max(round(share * 100) - 1, 0)


def test_the_schedule_reaches_the_optimiser_and_the_log(run):
    model, _ = scripted(
        run, lambda call: 1.0, steps=4, schedule="linear", learning_rate=1e-3, clip_norm=None
    )
    logged = [row["learning_rate"] for row in run.log]
    assert logged == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])
    # A constant gradient makes every AdamW step as long as the learning rate.
    start = tiny.prepared("projector").model
    tiny.randomise(start, seed=1)
    first, last = (next(iter(trained(m).values())) for m in (start, model))
    torch.testing.assert_close(first - last, torch.full_like(first, sum(logged)), rtol=1e-3, atol=0)


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_clipping_bounds_the_gradient_that_adamw_sees(clip, encoder, run):
    model, objective, steps = job("ga", encoder)
    run.stop_at = 1
    with pytest.raises(Interrupted):
        run(model, objective, steps, clip_norm=clip)
    tensors = load_file(run.folder / "checkpoints/step-00000001/state.safetensors")
    moments = [t for name, t in tensors.items() if name.startswith("adamw.exp_avg.")]
    seen = math.sqrt(sum(float(t.square().sum()) for t in moments)) / 0.1  # 1 - beta1
    logged = run.rows[0][2]["grad_norm"]
    assert logged > 1e-2
    assert seen == pytest.approx(logged if clip is None else clip, rel=1e-3)


def test_weight_decay_reaches_the_optimiser(tmp_path):
    ends = []
    for decay in (0.0, 0.5):
        run = Runner(tmp_path / str(decay))
        model, _ = scripted(run, lambda call: 1.0, steps=2, weight_decay=decay)
        ends.append(next(iter(trained(model).values())))
    assert not torch.allclose(*ends, atol=1e-5)


# --- what each step sees


@hypothesis_settings(max_examples=60)
@given(
    length=st.integers(1, 13),
    batch=st.integers(1, 9),
    steps=st.integers(1, 12),
    seed=st.integers(0, 99),
)
def test_a_stream_shows_every_example_once_per_epoch(length, batch, steps, seed):
    def epoch(number):
        return [f"{number}:{k}" for k in range(length)]

    stream = Stream(epoch, seed=seed, name="x")
    seen = [one for step in range(steps) for one in stream.take(step * batch, batch)]
    assert len(seen) == steps * batch
    assert max(Counter(seen).values()) == 1
    for number in range(steps * batch // length):
        assert sorted(seen[number * length : (number + 1) * length]) == sorted(epoch(number))
    # Any step in any order, as after a resume.
    again = Stream(epoch, seed=seed, name="x")
    for step in reversed(range(steps)):
        assert list(again.take(step * batch, batch)) == seen[step * batch : (step + 1) * batch]


def test_streams_differ_by_seed_name_and_epoch():
    def order(seed, name, epoch=0):
        return Stream(lambda _: range(50), seed=seed, name=name).take(epoch * 50, 50)

    assert len({order(1, "a"), order(2, "a"), order(1, "b"), order(1, "a", epoch=1)}) == 4


def test_a_stream_without_examples_is_told():
    with pytest.raises(DataError, match="no examples for retain"):
        Stream(lambda _: [], seed=0, name="retain")


@pytest.mark.parametrize("later", [0, 2, 4])
def test_an_epoch_of_another_length_is_told(later):
    stream = Stream(lambda epoch: range(later if epoch else 3), seed=0, name="forget")
    assert len(stream.take(0, 3)) == 3
    with pytest.raises(DataError) as caught:
        stream.take(0, 4)
    (problem,) = caught.value.problems
    assert (problem.where, problem.got) == ("forget", f"{later} examples")
    assert "epoch 1" in problem.what


@hypothesis_settings(max_examples=40)
@given(
    batch=st.integers(1, 9),
    share=st.floats(0, 1),
    retain=st.booleans(),
    step=st.integers(0, 20),
)
def test_unlearning_batches_have_the_asked_sizes(batch, share, retain, step):
    steps = unlearn_steps(steps=30, batch_size=batch, general_share=share, retain=retain)
    data = steps[step]
    general = [one for one in data.retain if int(one.question_id[1:]) >= 200]
    assert len(steps) == 30
    assert data.count("forget") == batch
    # With nobody to retain: general questions alone.
    assert data.count("retain") == (batch if retain else round(batch * share))
    assert len(general) == round(batch * share)
    assert all(int(one.question_id[1:]) < 100 for one in data.forget)
    again = unlearn_steps(steps=30, batch_size=batch, general_share=share, retain=retain)
    assert again[step] == data


def test_unlearning_sees_every_retain_example_once_per_epoch():
    steps = unlearn_steps(steps=9, batch_size=4, general_share=0.25)
    kept = [one.example_id for step in range(9) for one in steps[step].retain]
    people = [identity for identity in kept if int(identity[1:].split("@")[0]) < 200]
    assert len(people) == 27  # three epochs of nine
    assert sorted(people[:9]) == sorted(one.example_id for one in epochs(9, first=100)(0))
    assert max(Counter(kept).values()) == 1


@hypothesis_settings(max_examples=40)
@given(batch=st.integers(1, 9), replay=st.floats(0, 1), count=st.integers(1, 4))
def test_finetuning_shows_everybody_as_many_times_as_there_are_epochs(batch, replay, count):
    steps = finetune_steps(batch_size=batch, replay=replay, epoch_count=count)
    replayed = round(batch * replay)
    seen = Counter()
    for step in range(len(steps)):
        data = steps[step]
        assert (data.count("forget"), data.count("retain")) == (0, batch)
        general = [one for one in data.retain if int(one.question_id[1:]) >= 200]
        assert len(general) == replayed
        seen.update(one.example_id for one in data.retain if one not in general)
    if replayed < batch:
        for number in range(count):
            assert all(seen[one.example_id] == 1 for one in epochs(18)(number))
        assert sum(seen.values()) - 18 * count < batch - replayed


@hypothesis_settings(max_examples=40)
@given(forget=st.integers(0, 9), retain=st.integers(0, 9), size=st.integers(1, 10))
def test_micro_batches_hold_every_example_once(forget, retain, size):
    data = StepData(tuple(tiny.letters(forget)), tuple(tiny.letters(retain, first=100)))
    pieces = data.micro_batches(size)
    for part in ("forget", "retain"):
        held = [one.example_id for piece in pieces for one in getattr(piece, part)]
        assert sorted(held) == sorted(one.example_id for one in getattr(data, part))
        assert all(piece.count(part) <= size for piece in pieces)


def test_shuffled_by_pictures_the_questions_on_one_stay_together_and_none_is_lost():
    def example(number: int, face: str) -> Example:
        picture = Picture(data=b"", digest=face, where="") if face else None
        modality = "multimodal" if face else "text_only"
        return Example(
            example_id=str(number),
            question_id=str(number),
            modality=modality,
            prompt="?",
            answer="A",
            picture=picture,
        )

    examples = [example(n, f"face{n % 4}" if n < 20 else "") for n in range(40)]
    stream = Stream(lambda _: examples, seed=0, name="x", shuffle="pictures")
    epochs = [stream.take(40 * epoch, 40) for epoch in range(2)]
    for taken in epochs:
        assert sorted(e.example_id for e in taken) == sorted(e.example_id for e in examples)
        faces = [e.picture.digest for e in taken if e.picture]
        places = [n for n, e in enumerate(taken) if e.picture]
        runs = 1 + sum(
            one != other or there != here + 1
            for one, other, here, there in zip(faces, faces[1:], places, places[1:], strict=False)
        )
        assert runs == 4
        words = [n for n, e in enumerate(taken) if not e.picture]
        assert words != list(range(words[0], words[0] + 20)), "text-only questions mix"
    assert epochs[0] != epochs[1]


@dataclass
class Crowded:
    """An objective on a device that holds few examples at a time."""

    inner: object
    room: int
    refused: int = 0

    def terms(self, data):
        if max(len(data.forget), len(data.retain)) > self.room:
            self.refused += 1
            raise torch.OutOfMemoryError("no room")
        return self.inner.terms(data)


def test_out_of_memory_halves_the_micro_batch_and_keeps_the_step(run, encoder):
    found = []
    for room in (100, 2):
        made = tiny.prepared("projector+llm")
        objective = tiny.unlearning(made, encoder, build_method("ga", {}))
        crowded = Crowded(objective, room)
        data = unlearn_steps(retain=False)
        outcome = run(made.model, crowded, data, batch_size=8, micro_batch_size=8)
        found.append((outcome, trained(made.model), crowded.refused))
        shutil.rmtree(run.folder)
    (whole, expected, _), (halved, weights, refused) = found
    assert (whole.micro_batch_size, halved.micro_batch_size, refused) == (8, 2, 2)
    assert len(run.warnings) == 2
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, atol=1e-5, rtol=1e-4)


def test_one_example_that_does_not_fit_is_told(run, encoder):
    made = tiny.prepared("projector+llm")
    crowded = Crowded(tiny.unlearning(made, encoder, build_method("ga", {})), 0)
    with pytest.raises(ModelError, match="one example does not fit"):
        run(made.model, crowded, unlearn_steps(retain=False), batch_size=8, micro_batch_size=4)
