"""The one loop: what a step's loss is a mean over, when it stops, what a resume changes."""

from __future__ import annotations

import json
import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_models as tiny
from pulse_unlearn.config import LoraSettings, OptimiserSettings
from pulse_unlearn.errors import Interrupted
from pulse_unlearn.methods import METHODS, build_method
from pulse_unlearn.methods.base import Term
from pulse_unlearn.training.guards import StopRule
from pulse_unlearn.training.loop import Watch, learning_rate_at, train
from pulse_unlearn.training.objectives import Learning, Unlearning
from pulse_unlearn.training.steps import FinetuneSteps, StepData, Stream, UnlearnSteps

NEVER = StopRule(check_every=1)
METHOD_NAMES = [name for name, _ in METHODS]


class Fixed:
    """The same few examples every step, at other places in the batch."""

    def __init__(self, steps, size=8, *, learning=False):
        self.steps, self.size, self.learning = steps, size, learning

    def __len__(self):
        return self.steps

    def __getitem__(self, step):
        forget = tuple(tiny.letters(self.size, first=step))
        retain = tuple(tiny.letters(self.size, first=50 + step))
        return StepData((), retain) if self.learning else StepData(forget, retain)


def watch(folder, *, stop_at=None, every=1e9):
    seen = []

    def on_step(done, total, row):
        seen.append(done)

    return Watch(folder, every, on_step, lambda: bool(seen) and seen[-1] == stop_at, lambda _: None)


def run(folder, name, *, steps=3, micro=8, stop=NEVER, rate=1e-2, stop_at=None, every=1e9, **more):
    """Train a fresh adapter; return (prepared, outcome)."""
    folder.mkdir(exist_ok=True)
    lora = LoraSettings(rank=2, alpha=4.0, dropout=more.pop("dropout", 0.0))
    prepared = tiny.prepared(lora=lora)
    encoder = tiny.encoder()
    objective = more.pop("objective", None)
    if objective is None and name == "finetune":
        objective = Learning(prepared, encoder)
    elif objective is None:
        objective = Unlearning(prepared, encoder, build_method(name, {}), "with_end")
    outcome = train(
        prepared.model,
        objective,
        Fixed(steps, learning=name == "finetune"),
        settings=OptimiserSettings(
            learning_rate=rate, batch_size=8, micro_batch_size=micro, **more.pop("optimiser", {})
        ),
        stop=stop,
        accuracy=more.pop("accuracy", lambda: 1.0),
        vocabulary=411,
        seed=5,
        watch=watch(folder, stop_at=stop_at, every=every),
    )
    return prepared, outcome


def weights(prepared):
    return {n: p.detach().clone() for n, p in prepared.model.named_parameters() if p.requires_grad}


def rows(folder):
    lines = (folder / "train.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


@pytest.mark.parametrize("name", ["finetune", *METHOD_NAMES])
def test_eight_at_once_equal_two_by_four_and_one_by_eight(name, tmp_path):
    found = []
    for micro in (8, 2, 1):
        prepared, _ = run(tmp_path / str(micro), name, micro=micro)
        found.append(weights(prepared))
    assert any(value.any() for key, value in found[0].items() if "lora_B" in key)
    for other in found[1:]:
        for key, value in found[0].items():
            assert torch.allclose(value, other[key], atol=2e-5), key


def test_the_logged_terms_do_not_depend_on_accumulation(tmp_path):
    run(tmp_path / "a", "ga_klr", micro=8)
    run(tmp_path / "b", "ga_klr", micro=2)
    for one, other in zip(rows(tmp_path / "a"), rows(tmp_path / "b"), strict=True):
        assert one["ascent"] == pytest.approx(other["ascent"], abs=1e-4)
        assert one["kl"] == pytest.approx(other["kl"], abs=1e-4)


@pytest.mark.parametrize("name", ["finetune", "ga_klr"])
def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(name, tmp_path):
    whole, _ = run(tmp_path / "whole", name, steps=5, dropout=0.2)
    with pytest.raises(Interrupted):
        run(tmp_path / "cut", name, steps=5, dropout=0.2, stop_at=2)
    resumed, outcome = run(tmp_path / "cut", name, steps=5, dropout=0.2)
    assert outcome.steps == 5
    for key, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[key]), key
    assert rows(tmp_path / "whole") == rows(tmp_path / "cut")


def test_step_budget_ends_training(tmp_path):
    _, outcome = run(tmp_path, "ga", steps=2)
    assert (outcome.steps, outcome.stopped_by) == (2, "max_steps")


def test_loss_bound_ends_training_at_the_first_step_above_it(tmp_path):
    _, outcome = run(tmp_path, "ga", steps=9, rate=0.1, stop=StopRule(1, loss_bound=30.0))
    losses = [row["forget_nll"] for row in rows(tmp_path)]
    assert outcome.stopped_by == "loss_bound"
    assert losses[-1] >= 30.0
    assert all(loss < 30.0 for loss in losses[:-1])


@pytest.mark.parametrize(
    ("rule", "answers", "reason"),
    [
        (StopRule(2, accuracy_at_most=0.3), [0.9, 0.3, 0.0], "target_forgetting"),
        (StopRule(2, accuracy_at_least=0.8), [0.5, 0.8, 0.9], "target_accuracy"),
    ],
)
def test_accuracy_rules_look_every_so_often_and_stop_at_their_bound(
    rule, answers, reason, tmp_path
):
    given_answers = iter(answers)
    _, outcome = run(tmp_path, "ga", steps=9, stop=rule, accuracy=lambda: next(given_answers))
    assert outcome.stopped_by == reason
    assert outcome.checks == ((2, answers[0]), (4, answers[1]))
    assert outcome.steps == 4


class Poisoned:
    """NaN at chosen calls; otherwise the mean of a real objective."""

    def __init__(self, prepared, bad):
        self.real = Unlearning(prepared, tiny.encoder(), build_method("ga", {}), "with_end")
        self.bad, self.calls = bad, 0

    def terms(self, data):
        self.calls += 1
        terms = self.real.terms(data)
        if self.calls in self.bad:
            return tuple(Term(t.name, t.values * math.nan, t.weight, t.over) for t in terms)
        return terms


@pytest.mark.parametrize(
    ("bad", "stopped_by", "skipped"), [({2}, "max_steps", 1), ({2, 3, 4}, "diverged", 3)]
)
def test_non_finite_steps_are_skipped_and_three_in_a_row_end_it(bad, stopped_by, skipped, tmp_path):
    prepared = tiny.prepared()
    outcome = train(
        prepared.model,
        Poisoned(prepared, bad),
        Fixed(6),
        settings=OptimiserSettings(learning_rate=1e-2, batch_size=8, micro_batch_size=8),
        stop=NEVER,
        accuracy=lambda: 1.0,
        vocabulary=411,
        seed=0,
        watch=watch(tmp_path),
    )
    assert (outcome.stopped_by, outcome.skipped_steps) == (stopped_by, skipped)
    assert ("diverged" in outcome.flags) == (stopped_by == "diverged")
    assert all(torch.isfinite(value).all() for value in weights(prepared).values())
    assert sum(row["skipped"] for row in rows(tmp_path)) == skipped


def test_a_run_away_is_flagged_and_kept(tmp_path):
    _, outcome = run(tmp_path, "ga", steps=6, rate=0.3)
    assert "collapsed" in outcome.flags
    assert outcome.stopped_by == "max_steps"


def test_gradients_are_clipped(tmp_path):
    """With Adam the size of the first step hides clipping, so look at the norm that is applied."""
    prepared = tiny.prepared()
    applied = []
    original = torch.optim.AdamW.step

    def spy(self, *args, **kwargs):
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        applied.append(float(torch.linalg.vector_norm(torch.cat([g.flatten() for g in grads]))))
        return original(self, *args, **kwargs)

    torch.optim.AdamW.step = spy
    try:
        objective = Unlearning(prepared, tiny.encoder(), build_method("ga", {}), "with_end")
        train(
            prepared.model,
            objective,
            Fixed(2),
            settings=OptimiserSettings(
                learning_rate=1e-3, batch_size=8, micro_batch_size=8, clip_norm=0.01
            ),
            stop=NEVER,
            accuracy=lambda: 1.0,
            vocabulary=411,
            seed=0,
            watch=watch(tmp_path),
        )
    finally:
        torch.optim.AdamW.step = original
    assert applied
    assert all(norm <= 0.01 * 1.001 for norm in applied)


def test_learning_rates_by_hand():
    def at(step, **more):
        return learning_rate_at(step, 10, OptimiserSettings(learning_rate=1.0, **more))

    assert at(7) == 1.0
    # Warm-up over 2 of 10 steps: 1/2, 2/2, then 8 steps down to 1/8 of the way from zero.
    linear = {"schedule": "linear", "warmup": 0.2}
    assert [at(step, **linear) for step in (0, 1, 2, 6, 9)] == [0.5, 1.0, 1.0, 0.5, 0.125]
    assert at(6, schedule="cosine", warmup=0.2) == pytest.approx(0.5)
    assert at(5, schedule="cosine") == pytest.approx(0.5)


@settings(max_examples=40, deadline=None)
@given(length=st.integers(1, 12), size=st.integers(1, 7), seed=st.integers(0, 99))
def test_a_stream_shows_everything_once_per_epoch(length, size, seed):
    def epoch(number):
        return [tiny.example(100 * number + k) for k in range(length)]

    stream = Stream(epoch, seed=seed, name="x")
    positions = range(0, 3 * length, size)
    taken = [e for start in positions for e in stream.take(start, size)][: 3 * length]
    counts = Counter(e.id for e in taken)
    assert set(counts) == {f"e{100 * number + k}" for number in range(3) for k in range(length)}
    assert set(counts.values()) == {1}
    again = Stream(epoch, seed=seed, name="x").take(length, size)
    assert again == stream.take(length, size)


def test_unlearning_steps_have_a_retain_batch_of_equal_size_with_its_general_share():
    steps = UnlearnSteps(
        lambda epoch: tiny.letters(10),
        lambda epoch: tiny.letters(10, first=100),
        lambda epoch: tiny.letters(10, first=200),
        batch_size=8,
        general_share=0.25,
        steps=4,
        seed=0,
    )
    data = steps[2]
    assert len(data.forget) == len(data.retain) == 8
    assert sum(int(e.id[1:]) >= 200 for e in data.retain) == 2
    assert steps[2] == data


def test_fine_tuning_replays_its_share():
    steps = FinetuneSteps(
        lambda epoch: tiny.letters(12),
        lambda epoch: tiny.letters(9, first=200),
        batch_size=8,
        replay=0.25,
        epochs=3,
        seed=0,
    )
    assert len(steps) == 6  # 36 examples of people, 6 a step
    assert sum(int(e.id[1:]) >= 200 for e in steps[3].retain) == 2


@settings(max_examples=40, deadline=None)
@given(forget=st.integers(0, 9), retain=st.integers(1, 9), size=st.integers(1, 5))
def test_micro_batches_hold_every_example_once(forget, retain, size):
    data = StepData(tuple(tiny.letters(forget)), tuple(tiny.letters(retain, first=50)))
    pieces = data.micro_batches(size)
    assert all(len(p.forget) <= size and len(p.retain) <= size for p in pieces)
    for part in ("forget", "retain"):
        held = sorted(e.id for piece in pieces for e in getattr(piece, part))
        assert held == sorted(e.id for e in getattr(data, part))
