"""The script that judges positive controls: it passes for what it should, and for nothing else."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pulse_unlearn.api.experiments import resolve
from pulse_unlearn.evaluation.table import read_predictions, write_predictions
from pulse_unlearn.scenarios import build_plan
from simulated_models import Design, Model, predict
from test_scenarios import ROSTER

SCRIPT = Path(__file__).parents[1] / "bench" / "controls.py"
SPEC = importlib.util.spec_from_file_location("controls", SCRIPT)
controls = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = controls  # its dataclasses look there
SPEC.loader.exec_module(controls)
CONTROL = controls.Control("4 bits", "guard", "a guard", ("int4",))
KNOWS, NOT = Model(knows=0.9, knows_words=0.9), Model()


def run_of(folder, *, attacked, retain_attacked):
    """Fill a run folder: a hider at chance, the retain model, and what an attack finds in both."""
    models = {"plain": NOT, "int4": attacked, "retain_model": NOT}
    models["retain_model+int4"] = retain_attacked
    people = []
    for seed, (name, model) in enumerate(models.items()):
        answers = predict(model, Design(people=20), seed=seed, world=7)
        if name == "retain_model+int4" and model is NOT:
            answers = predict(model, Design(people=20), seed=2, world=7)  # as without the attack
        people = sorted({one.individual for one in answers})
        (folder / "stages" / f"07-{name}").mkdir(parents=True)
        write_predictions(folder / "stages" / f"07-{name}" / "predictions.parquet", answers)
    rows = [
        {"scenario": "finetuned", "method": "guard", "condition": name, "request": 1,
         "scores": name, "only": ""}
        for name in models
    ]  # fmt: skip
    plan = {
        "stages": [{"name": name, "folder": f"03-{name}"} for name in models],
        "evaluations": rows,
    }
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    sets = {"sets": {"finetuned/0": {"forget": people}}}
    (folder / "results.json").write_text(json.dumps(sets), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("attacked", "retain_attacked", "holds"),
    [(KNOWS, NOT, True), (NOT, NOT, False), (KNOWS, KNOWS, False)],
)
def test_a_control_needs_what_was_hidden_and_nothing_from_who_never_knew(
    tmp_path, attacked, retain_attacked, holds
):
    run_of(tmp_path, attacked=attacked, retain_attacked=retain_attacked)
    line, held = controls.judge(tmp_path, CONTROL)
    assert held is holds
    assert line.startswith("| 4 bits | `guard`, a guard | `int4` |")


def test_of_one_modality_the_other_says_nothing(tmp_path):
    """Mutation: `gain` takes the questions of both."""
    run_of(tmp_path, attacked=KNOWS, retain_attacked=NOT)
    stage = tmp_path / "stages" / "07-int4" / "predictions.parquet"
    unlearned = read_predictions(tmp_path / "stages" / "07-plain" / "predictions.parquet")
    found = [one for one in read_predictions(stage) if one.modality == "text_only"]
    write_predictions(stage, [*found, *(one for one in unlearned if one.modality == "multimodal")])
    for modality, holds in (("text_only", True), ("multimodal", False)):
        control = replace(CONTROL, modality=modality)
        assert controls.judge(tmp_path, control)[1] is holds


@pytest.mark.parametrize(
    ("target", "never", "holds"),
    [
        ((0.85, 0.7, 0.95), (0.45, 0.3, 0.6), True),
        ((0.70, 0.5, 0.8), (0.45, 0.3, 0.6), False),
        ((0.95, 0.9, 1.0), (0.6, 0.51, 0.7), False),
    ],
)
def test_membership_tells_the_target_models_people_and_nobody_elses(tmp_path, target, never, holds):
    run_of(tmp_path, attacked=KNOWS, retain_attacked=NOT)
    control = replace(CONTROL, attack="membership", conditions=("membership_auc",))
    rows = [
        f"finetuned,guard,0,{condition},forget,all,membership_auc,{','.join(map(str, numbers))}"
        for condition, numbers in (("plain", target), ("retain_model", never))
    ]
    head = "scenario,method,request,condition,set,modality,measure,value,low,high"
    (tmp_path / "results.csv").write_text("\n".join([head, *rows]), encoding="utf-8")
    assert controls.judge_membership(tmp_path, control)[1] is holds


@pytest.mark.parametrize("made", controls.MADE, ids=lambda made: made.method)
def test_the_experiment_asks_for_every_condition_that_is_judged(made):
    experiment = resolve(controls.experiment(made))
    assert {one.hider for one in made.controls} == {*experiment.methods}
    stages = build_plan(experiment, ROSTER, serving={"refusal_guard"}).evaluations
    asked = {(one.cell.scenario, one.cell.condition) for one in stages}
    measured = {(control.scenario, "plain") for control in made.controls}
    assert measured <= asked
    for control in made.controls:
        if control.attack == controls.MEMBERSHIP:
            assert "membership" in experiment.evaluations
            continue
        assert {(control.scenario, one) for one in control.conditions} <= asked
