"""Every kind of method, the retain model and an attack through the whole pipeline, killed often."""

from __future__ import annotations

import json
import signal

import pytest

from pipeline_cases import (
    Bench,
    computed,
    every_door,
    make_experiment,
    outcome,
    result_rows,
)
from pulse_unlearn import store

WEIGHTS = "adapter_model.safetensors"
MOMENTS = (
    ("phase1/step-00000002", 1),  # within the first phase of a method
    ("phase1-done", 1),  # when the task vector has been learned, before it is negated
    ("state.safetensors", 9),  # while something is carried over to the next request
    ("adapter-step1", 1),  # while the attacker's first snapshot is written
    ("retain-model", 8),  # in the retain model's training or scoring
)


@pytest.fixture(scope="module")
def doors(server, tmp_path_factory):
    root = tmp_path_factory.mktemp("doors")
    experiment = make_experiment(root, every_door, "doors")
    bench = Bench(server, experiment, root / "runs" / "doors")
    ended = bench.run(bench.finished.parent)
    assert ended.code == 0, ended.output
    return bench


@pytest.mark.slow  # lives of the whole command; tests/test_training_session.py resumes every phase
@pytest.mark.parametrize(
    "moments",
    [pytest.param(MOMENTS[1:2], id="a procedure"), pytest.param(MOMENTS, id="every phase")],
)
def test_killed_in_every_phase_the_same_command_ends_with_the_same_bytes(moments, doors, tmp_path):
    for mark, events in moments:
        ended = doors.run(tmp_path, events=events, mark=mark)
        assert ended.code == -signal.SIGKILL, f"{mark}: {ended.output}"
    ended = doors.run(tmp_path)
    assert ended.code == 0, ended.output
    assert outcome(tmp_path / "doors") == outcome(doors.finished)
    assert store.verify(tmp_path / "doors") == []


def test_the_retain_model_is_one_a_seed_and_measured_beside_every_method(doors):
    rows = result_rows(doors.finished)
    gold = [row for row in rows if row["condition"] == "retain_model"]
    assert {(row["scenario"], row["request"]) for row in gold} == {
        ("finetuned", "0"),
        ("sustainability", "0"),
    }
    strict = {
        (row["method"], row["modality"]): row["value"]
        for row in gold
        if (row["set"], row["measure"]) == ("forget", "accuracy")
    }
    assert {method for method, _ in strict} == {
        *("rmu", "task_vector", "manu", "gradient_projection")
    }
    for modality in ("multimodal", "text_only", "all"):
        assert len({value for (_, of), value in strict.items() if of == modality}) == 1
    stages = [path.name for path in (doors.finished / "stages").iterdir()]
    assert sum(".retain-model-" in name for name in stages) == 1


def test_relearning_is_a_curve_on_the_other_half_of_the_facts(doors):
    rows = result_rows(doors.finished)
    found = {
        (row["method"], row["condition"]): row
        for row in rows
        if (row["set"], row["measure"], row["modality"]) == ("forget", "accuracy", "all")
        and row["request"] == ("2" if row["scenario"] == "sustainability" else "1")
    }
    for method in ("rmu", "gradient_projection"):
        curve = [found[method, f"relearned:{step}"] for step in (0, 1, 3)]
        control = [found[method, f"retain_model+relearned:{step}"] for step in (0, 1, 3)]
        asked = {row["questions"] for row in (*curve, *control)}
        assert len(asked) == 1
        assert 0 < int(asked.pop()) < int(found[method, "plain"]["questions"])
    sets = {row["set"] for row in rows if "relearned" in row["condition"]}
    assert "retain" not in sets
    assert "general" not in sets


def test_a_trajectory_ends_where_its_operation_did_to_the_last_bit(doors):
    for stem in ("finetuned.rmu", "sustainability.gradient_projection.request2"):
        (operation,) = (doors.finished / "stages").glob(f"*-seed0.{stem}.unlearn-*")
        (again,) = (doors.finished / "stages").glob(f"*-seed0.{stem}.trajectory-????????")
        ends = [(one / "adapter" / WEIGHTS).read_bytes() for one in (operation, again)]
        assert ends[0] == ends[1]
        assert (again / "adapter-step1" / WEIGHTS).read_bytes() != ends[0]
        assert not (operation / "adapter-step1").exists()


def test_a_trajectory_is_asked_what_its_end_is_asked(doors):
    rows = result_rows(doors.finished)
    asked = {
        condition: {
            (row["method"], row["set"], row["modality"], row["questions"])
            for row in rows
            if (row["condition"], row["measure"]) == (condition, "accuracy")
            and row["method"] in ("rmu", "gradient_projection")
            and row["request"] == ("2" if row["scenario"] == "sustainability" else "1")
            and not row["set"].startswith("request:")
        }
        for condition in ("plain", "step:0", "step:1")
    }
    assert asked["step:1"] == asked["step:0"] == asked["plain"]
    assert {"general", "retain", "unseen", "forget"} <= {name for _, name, *_ in asked["step:1"]}
    assert {row["method"] for row in rows if row["condition"] == "step:1"} == {
        *("rmu", "gradient_projection")
    }
    notes = json.loads((doors.finished / "results.json").read_text(encoding="utf-8"))["notes"]
    for label in ("task_vector", "manu"):
        assert any(f"trajectory: left out for {label}," in note for note in notes)


def test_the_attacker_is_taught_nothing_that_is_asked(doors):
    plan = json.loads((doors.finished / "plan.json").read_text(encoding="utf-8"))
    names = [stage["name"] for stage in plan["stages"]]
    assert "seed0/finetuned/rmu/relearn" in names
    verdicts = json.loads((doors.finished / "results.json").read_text(encoding="utf-8"))["verdicts"]
    assert {"plain", "retain_model", "relearned:3"} <= {one["condition"] for one in verdicts}


@pytest.mark.slow  # another whole attack
def test_another_step_of_the_attack_recomputes_the_attack_alone(doors, tmp_path):
    again = doors.run(doors.finished.parent, "--set", "evaluations.relearning.steps=[1,2,3]")
    assert again.code == 0, again.output
    assert computed(again)
    assert all("relearn" in name for name in computed(again))
    assert doors.run(doors.finished.parent).code == 0  # as it was


def test_people_named_in_a_file_leave_a_model_that_somebody_else_taught(doors, tmp_path):
    """The foreign target: an adapter folder over the base, here another run's fine-tuning."""
    (stage,) = (doors.finished / "stages").glob("*-seed0.finetune-*")
    (tmp_path / "requests.csv").write_text(
        "individual,request,date,set\n"
        "f002,one,2026-02-01,forget\n"
        "f001,two,2026-01-01,forget\n"
        "f003,,,retain\n",
        encoding="utf-8",
    )
    named = doors.run(
        tmp_path,
        *("--set", f"model.adapters=[{stage / 'adapter'}]"),
        *("--set", f"scenarios={{requests: {{file: {tmp_path / 'requests.csv'}}}}}"),
        *("--set", "methods={ga: {unlearn: {stop: {max_steps: 1}}}}"),
        *("--set", "evaluations={}"),
    )
    assert named.code == 0, named.output
    names = computed(named)
    assert "base/score" in names
    assert not [name for name in names if name.endswith("finetune")]
    results = json.loads((tmp_path / "doors" / "results.json").read_text(encoding="utf-8"))
    sets = results["sets"]["requests/0"]
    assert sets["requests"] == [["f001"], ["f002"]]  # by date
    assert sets["retain"] == ["f003"]
    rows = result_rows(tmp_path / "doors")
    assert {row["request"] for row in rows if row["scenario"] == "requests"} == {"0", "1", "2"}
