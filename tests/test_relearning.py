"""Relearning attacks: what is taught, how fast, and models compared where as much was taught."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline_cases import Bench, make_experiment, result_rows, settings
from pulse_unlearn.errors import ConfigError
from pulse_unlearn.evaluation.relearned import Taught, taught_equally, where_taught
from pulse_unlearn.leaderboard.entries import _attacks
from pulse_unlearn.pipeline.inputs import check_settings
from pulse_unlearn.records import Example
from pulse_unlearn.report.estimates import RETAIN_MODEL, Numbers
from pulse_unlearn.report.relearned import (
    TAUGHT,
    curves,
    draw_equally,
    equally_table,
    worst_table,
)
from pulse_unlearn.scenarios.relearning import CONDITIONS
from pulse_unlearn.training.steps import FinetuneSteps
from test_report_rules import GA, result
from test_scenarios import conditions, make, operations, plan

RECOUNT = Path(__file__).parents[1] / "bench" / "recount.py"
EVERY = (
    "evaluations={retain_model: {}, relearning: {steps: [2, 6], ask_taught: true, "
    "teach: [forgotten_half, d_retain, general], learning_rates: [0.003, 0.001]}}"
)


def test_what_is_taught_and_how_fast_are_attacks_of_their_own():
    protocol = plan(EVERY)
    (operation,) = operations(protocol, "finetuned")
    stem = "seed0/finetuned/ga"
    half, retain, general = (
        protocol.stage(f"{stem}/relearn{name}-lr0.003") for name in ("", "-retain", "-general")
    )
    assert (half.learn, half.facts) == (operation.forget, "taught")
    assert (retain.learn, retain.facts) == (operation.retain, "all")
    assert (general.learn.ids, general.settings.replay) == ((), 1.0)
    for stage in (half, retain, general):
        assert stage.settings.optimiser.learning_rate == 0.003
        assert stage.chain == operation.chain
    assert protocol.stage(f"{stem}/relearn").settings.optimiser.learning_rate == 0.001
    names = {stage.name for stage in protocol.stages}
    assert f"{stem}/relearn-lr0.001" not in names  # it is the optimiser's own
    for name in ("-retain", "-general"):
        asked = protocol.stage(f"{stem}/relearn{name}/score-step2")
        assert (asked.ask, asked.facts, asked.general) == ((operation.forget,), "all", False)


def test_every_curve_has_the_retain_models_beside_it():
    found = conditions(plan(EVERY), "finetuned", "ga", 1)
    for name in CONDITIONS.values():
        for rate in ("", "@0.003"):
            for step in (0, 2, 6):
                assert f"{name}{rate}:{step}" in found
                assert f"{RETAIN_MODEL}+{name}{rate}:{step}" in found
    assert len(found) == 1 + 2 * 18
    by_condition = {
        one.cell.condition: one
        for one in plan(EVERY).evaluations
        if (one.cell.scenario, one.cell.method, one.cell.request) == ("finetuned", "ga", 1)
    }
    one = by_condition["relearned_general@0.003:6"]
    assert one.control == "seed0/retain-model/relearn-general-lr0.003/score-step6"


def test_the_other_half_is_asked_as_ever_and_the_taught_one_besides():
    """Fails if asking what was taught changes the stages that finished runs have."""
    plain = plan("evaluations={retain_model: {}, relearning: {steps: [2, 6]}}")
    more = plan(EVERY)
    for stage in plain.stages:
        assert more.stage(stage.name) == stage
    asked = more.stage("seed0/finetuned/ga/relearn/taught-step2")
    held_back = more.stage("seed0/finetuned/ga/relearn/score-step2")
    assert replace(asked, name=held_back.name, facts="held_back") == held_back
    assert asked.facts == "taught"
    at = {
        one.cell.condition: one.taught
        for one in more.evaluations
        if (one.cell.scenario, one.cell.method) == ("finetuned", "ga")
    }
    assert at["relearned:2"] == asked.name
    assert at["relearned:0"] == "seed0/finetuned/ga/score"
    assert at["relearned_retain:2"] == at["plain"] == ""


def test_where_nobody_is_retained_nobody_is_taught():
    protocol = plan(
        "scenarios={audit: {models: {theirs: {source: m}}}}",  # D_unlearn is everybody
        "methods={}",
        "evaluations={relearning: {teach: [d_retain, general], steps: [2]}}",
    )
    found = ["relearned_general:0", "relearned_general:2"]
    assert conditions(protocol, "audit", "theirs", 1) == ["plain", *found]
    assert any("D_retain is not taught to theirs in audit" in note for note in protocol.notes)


def test_general_questions_are_asked_for_before_anything_is_spent():
    experiment = make("evaluations={relearning: {teach: [general]}}")
    with pytest.raises(ConfigError, match=r"evaluations\.relearning\.teach"):
        check_settings(experiment, ())


def test_a_batch_of_replay_alone_needs_nobody():
    def general(epoch):
        return [
            Example(example_id=f"g{n}/{epoch}", question_id=f"g{n}", modality="text_only",
                    prompt="", answer="A")
            for n in range(3)
        ]  # fmt: skip

    steps = FinetuneSteps(
        lambda epoch: [], general, batch_size=4, replay=1.0, epochs=2, seed=0, shuffle="questions"
    )
    assert len(steps) == 2  # two epochs of three questions, four a step
    shown = [one.question_id for step in range(2) for one in steps[step].retain]
    assert sorted(shown[:3]) == ["g0", "g1", "g2"]
    assert len(shown) == 8


def curve(*points):
    return [Taught(*one) for one in points]


def test_models_are_compared_where_as_much_was_taught():
    model = curve((0.3, 0.2), (0.5, 0.5), (0.9, 0.8))
    control = curve((0.2, 0.25), (0.7, 0.25))
    assert where_taught(model, 0.7) == pytest.approx(0.65)
    found = taught_equally(model, control)
    assert (found.level, found.control) == (0.7, 0.25)
    assert found.more == pytest.approx(0.4)
    # Who knows it already had to be taught nothing; who never gets there says nothing.
    assert where_taught(model, 0.1) == 0.2
    assert where_taught(control, 0.8) is None
    assert taught_equally(model, []) is None


def rows_of(condition, *, forget, taught=None, beyond=None, place=GA):
    at = replace(place, condition=condition)
    found = [result(at, "forget", name, forget) for name in ("rotated_accuracy", "latent_accuracy")]
    if taught is not None:
        found.append(result(at, "taught", "rotated_accuracy", taught))
    if beyond is not None:
        found.append(result(at, "forget", "rotated_accuracy_from_never_knew", beyond))
    return found


@pytest.fixture
def numbers():
    rows = [result(GA, "forget", "accuracy", 0.3), result(GA.at(0), "forget", "accuracy", 0.9)]
    rows += rows_of("relearned:0", forget=0.3, taught=0.3, beyond=0.05)
    rows += rows_of("relearned:5", forget=0.4, taught=0.6, beyond=0.15)
    rows += rows_of("relearned@0.003:0", forget=0.3, taught=0.3, beyond=0.05)
    rows += rows_of("relearned@0.003:5", forget=0.7, taught=0.8, beyond=0.4)
    rows += rows_of("relearned_general:5", forget=0.5, beyond=0.25)
    for rate, asked in (("", 0.25), ("@0.003", 0.3)):
        rows += rows_of(f"{RETAIN_MODEL}+relearned{rate}:0", forget=0.25, taught=0.25)
        rows += rows_of(f"{RETAIN_MODEL}+relearned{rate}:5", forget=asked, taught=0.6)
    rows += rows_of(f"{RETAIN_MODEL}+relearned_general:5", forget=0.25)
    return Numbers(rows)


def test_the_worst_rate_and_step_count_for_each_thing_taught(numbers):
    told = [(one.teach, one.rate, one.steps) for one in curves(numbers, GA)]
    assert told == [
        ("relearned", "", (0, 5)),
        ("relearned", "0.003", (0, 5)),
        ("relearned_general", "", (5,)),
    ]
    table = worst_table(numbers)
    assert [(row.heads[1], row.cells[1].value, row.cells[3].value) for row in table.rows] == [
        ("half of the facts", "70.0", "+40.0"),
        ("general questions", "50.0", "+25.0"),
    ]
    assert table.rows[0].cells[1].beside == ("step 5, rate 0.003",)


def test_at_equal_teaching_the_rate_that_tells_most_counts(numbers):
    """By hand: at 60 % taught the other half is 30 + 0.6 * 40 = 54 %, the control's 30 %."""
    (row,) = equally_table(numbers).rows
    assert [cell.value for cell in row.cells] == ["60.0", "54.0", "30.0", "+24.0"]
    assert row.cells[0].beside == ("rate 0.003",)
    assert draw_equally(numbers).name == "relearning-taught"


def test_models_without_a_retain_model_are_compared_at_the_level_that_all_reach():
    """By hand: both reach 60 %; the first knows 54 % of the other half there, the second 25 %.

    Mutation: each at the highest level of its own.
    """
    rows = []
    for method, (asked, taught) in {"ga": (0.7, 0.8), "npo": (0.25, 0.6)}.items():
        place = replace(GA, method=method)
        rows.append(result(place, "forget", "accuracy", 0.3))
        for step, forget, half in ((0, 0.3, 0.3), (5, asked, taught)):
            at = replace(place, condition=f"relearned:{step}")
            rows.append(result(at, "forget", "rotated_accuracy", forget))
            rows.append(result(at, "taught", "rotated_accuracy", half))
    found = {
        row.heads[1]: [cell.value for cell in row.cells]
        for row in equally_table(Numbers(rows)).rows
    }
    assert found == {"GA": ["60.0", "54.0", "–", "–"], "NPO": ["60.0", "25.0", "–", "–"]}
    assert equally_table(Numbers([row for row in rows if row.cell.method == "ga"])) is None


def test_on_the_leaderboard_the_worst_rate_counts(numbers):
    found = dict(_attacks(numbers, GA, 0, 0.25))
    assert found == pytest.approx({"relearned": 0.4, "relearned_general": 0.25})


def test_one_curve_of_the_present_kind_has_no_table_of_the_worst():
    rows = [result(GA, "forget", "accuracy", 0.3), *rows_of("relearned:5", forget=0.4)]
    assert worst_table(Numbers(rows)) is None
    assert equally_table(Numbers(rows)) is None


def test_the_report_knows_what_the_plan_calls_them():
    assert {*TAUGHT} == {*CONDITIONS.values()}


def test_all_of_it_runs_and_its_numbers_are_recounted(server, tmp_path):
    def chosen(root):
        made = settings(root)
        made["scoring"] |= {"people": "vanilla", "words": "none"}  # for time's sake
        made["methods"] = {"ga": {}}
        made["scenarios"] = {"finetuned": {"forget": 2, "retain": 2}, "pretrained": None,
                             "unseen": {"celebrities": 1}}  # fmt: skip
        made["evaluations"] = {
            "probing": {"depths": [1.0]},
            "relearning": {
                "steps": [1],
                "teach": ["forgotten_half", "d_retain", "general"],
                "ask_taught": True,
                "lora": {"rank": 2, "alpha": 4},
                "optimiser": {"learning_rate": 1e-3, "batch_size": 8, "micro_batch_size": 8},
            },
        }
        return made

    bench = Bench(server, make_experiment(tmp_path, chosen), tmp_path / "runs" / "tiny")
    ended = bench.run(bench.finished.parent)
    assert ended.code == 0, ended.output
    rows = [row for row in result_rows(bench.finished) if row["measure"] == "accuracy"]
    count = {
        (row["condition"], row["set"]): int(row["questions"])
        for row in rows
        if row["modality"] == "all"
    }
    everything = count["plain", "forget"]
    for step in (0, 1):
        halves = [count[f"relearned:{step}", name] for name in ("forget", "taught")]
        assert sum(halves) == everything
        assert 0 < halves[1] < everything
        for name in ("relearned_retain", "relearned_general"):
            assert count[f"{name}:{step}", "forget"] == everything
    assert count["probed@1", "forget"] == everything
    seen = json.loads(
        next(bench.finished.glob("stages/*ga.relearn-general-*/outcome.json")).read_text()
    )
    assert (seen["steps"], seen["individuals"]) == (1, [])
    again = subprocess.run(
        [sys.executable, str(RECOUNT), str(bench.finished)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert again.returncode == 0, again.stdout
