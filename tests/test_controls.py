"""The script that judges positive controls: it passes for what it should, and for nothing else."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from pulse_unlearn.config import load_experiment
from pulse_unlearn.evaluation.table import write_predictions
from pulse_unlearn.registries import schemas
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
    """A run folder with a hider at chance, the retain model, and what an attack finds in both."""
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
    return controls.Run(folder)


@pytest.mark.parametrize(
    ("attacked", "retain_attacked", "holds"),
    [(KNOWS, NOT, True), (NOT, NOT, False), (KNOWS, KNOWS, False)],
)
def test_a_control_needs_what_was_hidden_and_nothing_from_who_never_knew(
    tmp_path, attacked, retain_attacked, holds
):
    line, held = controls.judge(
        run_of(tmp_path, attacked=attacked, retain_attacked=retain_attacked), CONTROL
    )
    assert held is holds
    assert line.startswith("| 4 bits | `guard`, a guard | `int4` |")


@pytest.mark.parametrize("made", controls.MADE, ids=lambda made: made.method)
def test_the_experiment_asks_for_every_condition_that_is_judged(tmp_path, made):
    path = controls.write_experiment(tmp_path, made)
    experiment = load_experiment(str(path), schemas=schemas())
    assert {one.hider for one in made.controls} == {*experiment.methods}
    stages = build_plan(experiment, ROSTER, serving={"refusal_guard"}).evaluations
    asked = {one.cell.condition for one in stages}
    for control in made.controls:
        assert {*control.conditions} <= asked
