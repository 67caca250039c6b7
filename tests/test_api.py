"""A finished run from Python: everything in it, and nothing else."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import pytest
import yaml

import pulse_unlearn
from pipeline_cases import environment, result_rows
from pulse_unlearn.api.material import Material
from pulse_unlearn.data import load_people
from pulse_unlearn.data.examples import other_view
from pulse_unlearn.data.images import decode
from pulse_unlearn.errors import ConfigError, Corrupted, DataError, PluginError, StoreError
from pulse_unlearn.evaluation.measures import MEASURES
from pulse_unlearn.pipeline.failures import Failure
from pulse_unlearn.pipeline.run import Finished

PAGE = Path(__file__).parents[1] / "docs" / "api.md"


@pytest.fixture(scope="module")
def loaded(bench):
    return pulse_unlearn.load_run(bench.finished, frame="arrow")


def rows(table):
    return table.to_pylist()


def test_importing_is_instant_and_reading_imports_no_torch(bench):
    code = f"""
import sys
import pulse_unlearn
heavy = {{"torch", "transformers", "numpy", "pyarrow", "pydantic", "yaml"}}
print(sorted(heavy & set(sys.modules)), "load_run" in dir(pulse_unlearn))
run = pulse_unlearn.load_run({str(bench.finished)!r}, frame="arrow")
run.results, run.verdicts, run.scores, run.answers(), run.settings
run.picture(run.answers(of_set="forget").to_pylist()[0]["example_id"])
print(sorted({{"torch", "transformers", "peft", "matplotlib"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment()
    )
    assert done.stdout.splitlines() == ["[] True", "[]"]
    with pytest.raises(AttributeError, match="walk"):
        pulse_unlearn.walk  # noqa: B018


def test_results_are_those_of_the_file(bench, loaded):
    text = io.StringIO()
    table = rows(loaded.results)
    writer = csv.DictWriter(text, table[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    there = result_rows(bench.finished)
    found = list(csv.DictReader(io.StringIO(text.getvalue())))
    numbers = ("value", "low", "high")
    assert [{**row, **dict.fromkeys(numbers)} for row in found] == [
        {**row, **dict.fromkeys(numbers)} for row in there
    ]
    assert [[row[n] and float(row[n]) for n in numbers] for row in found] == [
        [row[n] and float(row[n]) for n in numbers] for row in there
    ]


def test_every_number_is_the_mean_of_its_question_scores(loaded):
    """Of every measure of questions, in every cell, set and modality: they are found again."""
    by_stage = defaultdict(list)
    for row in rows(loaded.scores):
        by_stage[row["stage"]].append(row)
    stages = {one.cell: one for one in loaded.evaluations}
    checked = 0
    for result in loaded.rows:
        number = result.measurement
        if number.measure not in MEASURES.names() or number.value is None:
            continue
        one, people = stages[result.cell], loaded.people(result.cell, number.set)
        only = {row["question_id"] for row in by_stage[one.only or one.scores]}
        values = defaultdict(list)
        for row in by_stage[one.scores]:
            fits = row["individual"] in people and row["question_id"] in only
            value = row[number.measure] if number.modality in ("all", row["modality"]) else None
            if fits and value is not None:
                values[row["modality"] if row["individual"] else ""].append(value)
        assert fmean(map(fmean, values.values())) == pytest.approx(number.value, abs=2e-6)
        checked += 1
    assert checked > 500


def test_every_answer_stands_there_once_and_is_chosen_by_cell_and_set(bench, loaded):
    everything = rows(loaded.answers())
    assert len({(row["stage"], row["example_id"]) for row in everything}) == len(everything)
    assert len(everything) == sum(len(loaded.predictions(stage)) for stage in loaded.stages)
    assert all(row["right"] == (row["verdict"] == "correct") for row in everything)
    assert all(len(row["options"]) == len(row["option_log_probs"]) for row in everything)

    chosen = rows(loaded.answers(scenario="finetuned", request=1, of_set="forget"))
    assert {row["stage"] for row in chosen} == {"seed0/finetuned/ga/score"}
    assert {row["individual"] for row in chosen} == set(loaded.sets["finetuned/0"]["forget"])
    first = rows(loaded.answers(scenario="sustainability", request=1, of_set="just_requested"))
    assert {row["individual"] for row in first} == set(
        loaded.sets["sustainability/0"]["requests"][0]
    )
    general = rows(loaded.answers("base/score", of_set="general"))
    assert general
    assert {row["individual"] for row in general} == {""}
    one = rows(loaded.answers(question=chosen[0]["question_id"], scenario="finetuned", request=1))
    assert {row["rotation"] for row in one} == {0, 1, 2, 3}
    assert {row["asked_as"] for row in one} == {"options", "words"}


def test_verdicts_models_plan_and_settings(bench, loaded):
    verdicts = rows(loaded.verdicts)
    assert {(row["scenario"], row["method"]) for row in verdicts} == {
        ("finetuned", "ga"),
        ("pretrained", "npo"),
        ("sustainability", "npo"),
    }
    written = json.loads((bench.finished / "results.json").read_text(encoding="utf-8"))["verdicts"]
    assert [(row["word"], row["why"], row["remembered"]) for row in verdicts] == [
        (one["word"], one["why"], one["remembered"]) for one in written
    ]
    assert [row["letter"] for row in verdicts] == [one["letter"]["letter"] for one in written]
    stages = {row["stage"] for row in rows(loaded.models)}
    assert stages < set(loaded.stages)
    assert {"base/score", "seed0/target/score"} < stages
    assert loaded.settings.unlearn.stop.max_steps == 3
    assert loaded.experiment["unlearn"]["stop"]["max_steps"] == 3
    assert len(loaded.plan["stages"]) == 14
    assert loaded.environment["pulse"] == pulse_unlearn.__version__


def test_a_picture_is_the_one_that_was_shown(bench, loaded):
    people = {
        one.id: one for one in load_people("mllmu", loaded.settings.data.people.path).individuals
    }
    answer = next(
        row for row in rows(loaded.answers(of_set="forget")) if row["modality"] == "multimodal"
    )
    person = people[answer["individual"]]
    question = next(one for one in person.questions if one.id == answer["question_id"])
    assert loaded.question(answer["example_id"]) == question
    scored = decode(question.picture)
    assert loaded.picture(answer["example_id"]).tobytes() == scored.tobytes()
    assert loaded.picture(question).tobytes() == scored.tobytes()

    held_out = next(
        one
        for one in loaded.predictions("base/score-other-view")
        if one.modality == "multimodal" and people[one.individual].other_pictures
    )
    profile = loaded.settings.data.people_prompt
    shown = {
        one.example_id: one
        for one in other_view([people[held_out.individual]], profile=profile, seed=0, turned=True)
    }
    other = loaded.picture(held_out)
    assert other.tobytes() == decode(shown[held_out.example_id].picture).tobytes()
    assert other.tobytes() != loaded.picture(held_out.question_id).tobytes()
    text_only = next(one for one in person.questions if one.modality == "text_only")
    with pytest.raises(DataError, match="shows no picture"):
        loaded.picture(text_only.id)
    with pytest.raises(DataError, match="no question of this run"):
        loaded.question("f001/multimodal/99")
    with pytest.raises(DataError, match="is not the file the run was asked with"):
        Material(loaded.settings, {**loaded.data, "people/Full_Set/gone.parquet": "0" * 64})


def test_frames_are_what_is_asked_for(bench, monkeypatch):
    with pytest.raises(ConfigError, match="did you mean 'pandas'") as error:
        pulse_unlearn.load_run(bench.finished, frame="panda")
    assert error.value.exit_code == 2
    monkeypatch.setattr("pulse_unlearn.api.frames.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install polars"):
        pulse_unlearn.load_run(bench.finished, frame="polars")
    assert type(pulse_unlearn.load_run(bench.finished).results).__module__ == "pyarrow.lib"


@pytest.mark.parametrize("name", ["pandas", "polars"])
def test_frames_of_other_libraries(bench, name):
    pytest.importorskip(name, reason=f"{name} is an extra")
    run = pulse_unlearn.load_run(bench.finished, frame=name)
    assert type(run.results).__module__.startswith(name)
    assert run.results.shape == (len(run.rows), 15)
    assert len(run.verdicts) == 4


def test_what_is_no_run_or_is_not_complete_is_refused_by_name(bench, loaded, tmp_path):
    with pytest.raises(StoreError, match="there is no such run folder"):
        pulse_unlearn.load_run(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="is not a run folder"):
        pulse_unlearn.load_run(tmp_path)
    run = bench.copied(tmp_path)
    (run / "results.csv").rename(run / "kept.csv")
    with pytest.raises(StoreError, match=r"no results\.csv"):
        pulse_unlearn.load_run(run)
    (run / "kept.csv").rename(run / "results.csv")
    for stage in ("finetuned.ga", "pretrained.npo"):
        (score,) = run.glob(f"stages/*-seed0.{stage}.score-*")
        shutil.rmtree(score)
    with pytest.raises(StoreError) as error:
        pulse_unlearn.load_run(run)
    assert [problem.got for problem in error.value.problems] == [
        "seed0/finetuned/ga/score",
        "seed0/pretrained/npo/score",
    ]
    assert "`pulse run`" in str(error.value)
    # Where a plug-in failed the rest is there to be read, as in the report.
    (run / "failures").mkdir()
    (run / "failures" / "x.txt").write_text("why", encoding="utf-8")
    partial = pulse_unlearn.load_run(run)
    assert "seed0/finetuned/ga/score" not in partial.stages
    assert not any(one.scores == "seed0/finetuned/ga/score" for one in partial.evaluations)
    (run / "plan.json").write_text("{", encoding="utf-8")
    with pytest.raises(Corrupted, match="is not JSON"):
        pulse_unlearn.load_run(run)
    with pytest.raises(DataError, match="method: ga, npo"):
        loaded.answers(method="gaa")
    with pytest.raises(DataError, match="no stage with answers"):
        loaded.answers("seed0/finetune")


def test_results_and_experiment_of_another_make_are_named_not_a_traceback(bench, tmp_path):
    """Found by the fuzzer: a list in place of `results.json`, and bytes that are no text."""
    run = bench.copied(tmp_path)
    (run / "results.json").write_text("[1]", encoding="utf-8")
    damaged = pulse_unlearn.load_run(run)
    for part in ("sets", "notes", "verdicts"):
        with pytest.raises(Corrupted, match=f"holds no {part} as written"):
            getattr(damaged, part)
    (run / "experiment.yaml").write_bytes(b"name: \xe5\x00")
    with pytest.raises(Corrupted, match="is no text in UTF-8"):
        _ = pulse_unlearn.load_run(run).experiment


def test_run_takes_a_path_or_settings_and_computes_nothing_twice(bench, tmp_path):
    run = bench.copied(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in run.glob("stages/*/*") if path.is_file()}
    by_path = pulse_unlearn.run(bench.experiment, runs=tmp_path, frame="arrow")
    settings = yaml.safe_load(bench.experiment.read_text(encoding="utf-8"))
    by_settings = pulse_unlearn.run(settings, runs=tmp_path, overrides=["checkpoint_seconds=0"])
    assert by_path.rows == by_settings.rows
    assert {p: p.stat().st_mtime_ns for p in run.glob("stages/*/*") if p.is_file()} == before
    wrong = {"finetune.epoch": 1, "methods.npo.settings.bta": 1.0}
    with pytest.raises(ConfigError) as error:
        pulse_unlearn.run(settings, runs=tmp_path, overrides=wrong)
    assert len(error.value.problems) == 2
    with pytest.raises(ConfigError, match="did you mean 'smoke'"):
        pulse_unlearn.run("smok", runs=tmp_path)


def test_failures_of_plug_ins_are_raised(tmp_path):
    Finished(tmp_path, 1, 0, 0.0).raise_failures()
    failed = {"seed0/x": Failure("it broke", "trace"), "seed0/y": Failure("so did it", "trace")}
    with pytest.raises(PluginError) as error:
        Finished(tmp_path, 1, 0, 0.0, failures=failed).raise_failures()
    assert [one.where for one in error.value.problems] == ["seed0/x", "seed0/y"]


def test_the_page_runs_as_it_stands(bench, tmp_path, monkeypatch, capsys):
    """`smoke` is stood in for by a file of that name: the tiny experiment, which is finished."""
    shutil.copy(bench.experiment, tmp_path / "smoke")
    bench.copied(tmp_path / "runs")
    shutil.copytree(bench.finished, tmp_path / "runs" / "smoke")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.S | re.M)
    assert len(blocks) == 7
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    said = capsys.readouterr().out
    assert "did you mean 'epochs'?" in said
    assert "is not a run folder" in said
    value = re.search(r"^finetuned ga (0\.\d+)$", said, re.M)[1]
    results = result_rows(tmp_path / "runs" / "smoke")
    assert float(value) == pytest.approx(
        next(
            float(row["value"])
            for row in results
            if (row["scenario"], row["method"], row["request"]) == ("finetuned", "ga", "1")
            and (row["set"], row["modality"], row["measure"]) == ("forget", "all", "accuracy")
        ),
        abs=2e-6,
    )
    assert names["image"].mode == "RGB"
