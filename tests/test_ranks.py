"""Several processes that do a stage together end as one does: two real ones, over gloo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

import tiny_models as tiny
import two_ranks
from pulse_unlearn.errors import Interrupted
from pulse_unlearn.models.sharding import whole_weights
from pulse_unlearn.ranks import ALONE, Ranks, cut, reading_costs
from pulse_unlearn.training.steps import StepData

QUICK = [
    *("ga_klr", "npo", "safe_eraser", "ewc", "mmunlearner", "fit", "smfa"),
    *("finetune-8", "finetune-4", "finetune-1", "projector", "single", "answers"),
    *("sharded-full", "sharded-npo", "sharded-answers"),
]
"""Among them reference, retained data, other forms, a penalty, a look at gradients, two phases."""


def launch(folder: Path, names: list[str]) -> Path:
    """Have two processes carry out cases, as torchrun starts them."""
    started = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*started, str(Path(two_ranks.__file__)), str(folder), *names]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    with pytest.raises(Interrupted):
        two_ranks.finetuned(folder / "alone", ALONE, stop_at=1)
    return launch(folder, QUICK)


def same(left: Path, right: Path) -> None:
    """Compare what two trainings left: weights to 1e-6, rows as numbers of that size allow."""
    one, other = load_file(left / "w.st"), load_file(right / "w.st")
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], atol=1e-6, rtol=0, msg=name)
    mine, theirs = (json.loads((of / "rows.json").read_text()) for of in (left, right))
    assert [row["step"] for row in mine] == [row["step"] for row in theirs]
    for row, expected in zip(mine, theirs, strict=True):
        assert row == pytest.approx(expected, abs=1e-6, rel=1e-5)


@pytest.mark.parametrize("name", [name for name in QUICK if "answers" not in name])
def test_two_ranks_end_as_one_process(name, together, tmp_path):
    two_ranks.case(name, tmp_path / "one")
    same(together / "rank0" / name, tmp_path / "one")
    first, second = (load_file(together / f"rank{rank}" / name / "w.st") for rank in (0, 1))
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.slow  # as above, for the methods that look at nothing else: about a minute
def test_so_do_all_others(tmp_path):
    names = [name for name in two_ranks.CASES if name not in QUICK]
    with pytest.raises(Interrupted):
        two_ranks.finetuned(tmp_path / "alone", ALONE, stop_at=1)
    launch(tmp_path, names)
    for name in names:
        two_ranks.case(name, tmp_path / "one" / name)
        same(tmp_path / "rank0" / name, tmp_path / "one" / name)


def test_batches_of_8_4_and_1_are_one(together):
    for size in (4, 1):
        same(together / "rank0" / "finetune-8", together / "rank0" / f"finetune-{size}")


@pytest.mark.parametrize("name", ["answers", "sharded-answers"])
def test_answers_are_gathered_one_by_one_and_equal_to_the_bit(name, together, tmp_path):
    two_ranks.case(name, tmp_path / "one")
    expected = (tmp_path / "one" / "answers.json").read_bytes()
    for rank in (0, 1):
        assert (together / f"rank{rank}" / name / "answers.json").read_bytes() == expected


def test_one_rank_that_is_asked_stops_all_and_one_process_goes_on(together, tmp_path):
    assert (together / "stopped-0").exists()
    assert (together / "stopped-1").exists()
    model, outcome = two_ranks.finetuned(together / "stopped", ALONE)
    assert outcome.rows[0]["seconds"] > 0
    two_ranks.left(tmp_path, whole_weights(model), outcome)
    same(tmp_path, together / "rank0" / "finetune-8")


def test_what_ranks_held_in_parts_one_process_goes_on_with(together, tmp_path):
    assert (together / "parts-1").exists()
    model, outcome = two_ranks.finetuned(together / "parts", ALONE, full=True)
    two_ranks.left(tmp_path, whole_weights(model), outcome)
    same(tmp_path, together / "rank0" / "sharded-full")


def test_what_one_process_began_two_go_on_with(together):
    same(together / "rank0" / "resumed", together / "rank0" / "finetune-8")


# --- dealing out


@given(st.lists(st.floats(0.1, 100.0), max_size=30), st.integers(1, 9))
def test_a_row_is_cut_into_runs_of_about_equal_weight(weights, count):
    runs = cut(weights, count)
    assert len(runs) == count
    assert [n for run in runs for n in range(len(weights))[run]] == list(range(len(weights)))
    for run in runs:
        assert sum(weights[run]) <= sum(weights) / count + max(weights, default=0) + 1e-6


@given(st.integers(0, 12), st.integers(0, 12), st.integers(1, 5))
def test_ranks_get_both_parts_side_by_side_and_all_of_them(forget, retain, count):
    data = StepData(tuple(tiny.letters(forget)), tuple(tiny.letters(retain, first=100)))
    dealt = data.dealt(count)
    assert sorted(e.example_id for one in dealt for e in one.forget) == sorted(
        e.example_id for e in data.forget
    )
    assert sorted(e.example_id for one in dealt for e in one.retain) == sorted(
        e.example_id for e in data.retain
    )
    if forget == retain:
        assert all(len(one.forget) == len(one.retain) for one in dealt)


def test_a_picture_costs_once_for_the_questions_that_follow_each_other_on_it():
    shown = [tiny.example(k, words=5, shown=True) for k in (1, 1, 2)]
    text = [len(one.prompt) + len(one.answer) for one in shown]
    more = [cost - length for cost, length in zip(reading_costs(shown), text, strict=True)]
    assert more[0] == more[2] > 0 == more[1]


def test_whole_batches_go_to_a_rank():
    asked = sorted(tiny.letters(11), key=lambda one: one.likeness)
    parts = [Ranks(rank, 3).share(asked, 2) for rank in range(3)]
    assert [one.example_id for part in parts for one in asked[part]] == [
        one.example_id for one in asked
    ]
    assert all(part.start % 2 == 0 for part in parts)
