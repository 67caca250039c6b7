"""Numbers that are none, settings and models that cannot be used: told, flagged, never a crash."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import yaml

from pipeline_cases import computed
from pulse_unlearn import store


def flags(run, cell=None) -> set[str]:
    found = strict_json(run / "results.json")["flags"]
    return {flag["flag"] for flag in found if cell is None or flag["method"] == cell}


def strict_json(path):
    return strict(path.read_text(encoding="utf-8"))


def strict(text):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def assert_strict(run):
    assert store.verify(run) == []
    for path in [*run.glob("*.json"), *run.glob("stages/*/outcome.json")]:
        strict_json(path)
    for path in run.glob("stages/*/train.jsonl"):
        for line in path.read_text().splitlines():
            strict(line)
    cells = {cell.lower() for cell in re.split("[,\n]", (run / "results.csv").read_text())}
    assert not cells & {"nan", "inf", "-inf"}


def outcome_of(run, stage):
    (folder,) = run.glob(f"stages/*-{stage}-*")
    return strict_json(folder / "outcome.json")


def test_batches_that_do_not_fit_are_recorded_with_the_answers(bench, tmp_path):
    run = bench.copied(tmp_path)
    (folder,) = run.glob("stages/*ga.score-*")
    assert strict_json(folder / "asked.json") == {"batch_size": 64, "packed": True}
    shutil.rmtree(folder)
    ended = bench.run(tmp_path, poison="room:20")
    assert ended.code == 0, ended.output
    assert "batches of 16 from here on" in ended.output
    assert strict_json(folder / "asked.json") == {"batch_size": 16, "packed": True}
    assert store.verify(run) == []


def test_two_losses_that_are_no_numbers_are_skipped_and_counted(bench, tmp_path):
    run = bench.copied(tmp_path)
    shutil.rmtree(next(run.glob("stages/*ga.unlearn-*")))
    longer = ("--set", "methods.ga.unlearn.stop.max_steps=4")
    ended = bench.run(tmp_path, *longer, poison="nan:2")
    assert ended.code == 0, ended.output
    found = outcome_of(run, "seed0.finetuned.ga.unlearn")
    assert found["skipped_steps"] == 2
    assert found["flags"] == []
    # How the answers of a model of random weights look.
    broken = {"collapsed", "one_letter", "target_reached_by_unreadable_answers"}
    assert flags(run, "ga") - broken == {"stopped", "skipped_steps"}
    assert "2 steps had a non-finite loss" in (run / "report.html").read_text()
    assert_strict(run)


def test_three_in_a_row_end_the_stage_as_diverged_and_the_run_goes_on(bench, tmp_path):
    run = bench.copied(tmp_path)
    shutil.rmtree(next(run.glob("stages/*ga.unlearn-*")))
    every = ("--set", "methods.ga.unlearn.stop.target_forgetting=null")
    ended = bench.run(tmp_path, *every, poison="nan")
    assert ended.code == 0, ended.output
    found = outcome_of(run, "seed0.finetuned.ga.unlearn")
    assert found["stopped_by"] == "diverged"
    assert found["steps"] == found["skipped_steps"] == 3
    assert "diverged" in flags(run, "ga")
    assert "diverged" not in flags(run, "npo")
    assert "diverged" in (run / "report.html").read_text()
    assert_strict(run)


@pytest.mark.parametrize("steps", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_weights_that_left_the_numbers_are_rolled_back(bench, tmp_path, steps):
    """lr=1e30 spoils the weights in its first step, whenever training ends after that."""
    run = bench.copied(tmp_path)
    ended = bench.run(
        tmp_path,
        *("--set", "methods.ga.unlearn.optimiser.learning_rate=1.0e+30"),
        *("--set", f"methods.ga.unlearn.stop.max_steps={steps}"),
        *("--set", "methods.ga.unlearn.stop.target_forgetting=null"),
    )
    assert ended.code == 0, ended.output
    assert computed(ended) == ["seed0/finetuned/ga/unlearn", "seed0/finetuned/ga/score"]
    assert "diverged" in flags(run, "ga")
    assert "diverged" in (run / "report.html").read_text()
    assert_strict(run)


@pytest.mark.slow  # seconds of a core; parts of it are tested quickly
def test_a_finetuning_that_diverged_is_flagged_on_all_that_rests_on_it(bench, tmp_path):
    run = bench.copied(tmp_path)
    ended = bench.run(tmp_path, "--set", "finetune.optimiser.learning_rate=1.0e+30")
    assert ended.code == 0, ended.output
    assert outcome_of_newest(run, "seed0.finetune")["stopped_by"] == "diverged"
    found = strict_json(run / "results.json")["flags"]
    diverged = {flag["scenario"] for flag in found if flag["flag"] == "diverged"}
    assert diverged == {"finetuned", "sustainability"}
    assert_strict(run)


def outcome_of_newest(run, stage):
    folders = sorted(run.glob(f"stages/*-{stage}-*"), key=lambda path: path.stat().st_mtime)
    return strict_json(folders[-1] / "outcome.json")


def test_ascent_that_runs_away_is_flagged_collapsed_and_kept(bench, tmp_path):
    run = bench.copied(tmp_path)
    ended = bench.run(
        tmp_path,
        *("--set", "methods.ga.unlearn.optimiser.learning_rate=0.3"),
        *("--set", "methods.ga.unlearn.optimiser.clip_norm=null"),
        *("--set", "methods.ga.unlearn.stop.max_steps=30"),
        *("--set", "methods.ga.unlearn.stop.target_forgetting=null"),
    )
    assert ended.code == 0, ended.output
    assert "collapsed" in flags(run, "ga")
    assert "diverged" not in flags(run, "ga")
    assert "collapsed" in (run / "report.html").read_text()
    assert outcome_of_newest(run, "seed0.finetuned.ga.unlearn")["steps"] == 30
    assert_strict(run)


MISTAKES = {
    "seeds": "zero",
    "modell": {"source": "x"},
    "finetune": {"epochs": 0},
    "scoring": {"parser": "strickt"},
    "methods": {"npp": {}},
}


def test_five_mistakes_are_told_at_once_before_anything_is_loaded(bench, tmp_path):
    settings = yaml.safe_load(bench.experiment.read_text())
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump({**settings, **MISTAKES, "finetune": {"epochs": 0}}))
    ended = bench.server.pulse("run", str(path), "--runs", str(tmp_path / "runs"))
    assert ended.code == 2
    for word in ("seeds", "modell", "epochs", "strickt", "npp"):
        assert word in ended.output
    assert "did you mean 'strict'?" in ended.output
    assert "5 problems" in ended.output
    assert "Traceback" not in ended.output
    assert "Loading weights" not in ended.output
    assert not (tmp_path / "runs").exists()


def model_without(bench, folder, harm):
    shutil.copytree(bench.experiment.parent / "model", folder)
    config = folder / "tokenizer_config.json"
    if harm == "pickled":
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    elif harm == "pad":
        content = json.loads(config.read_text())
        del content["pad_token"]
        config.write_text(json.dumps(content))
    elif harm == "template":
        (folder / "chat_template.jinja").unlink()
    elif harm == "patch_size":
        path = folder / "processor_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "patch_size": None}))
    elif harm == "broken":
        config.write_text("{")
    elif harm == "family":
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "bert"}))
    elif harm == "weights":
        (folder / "model.safetensors").unlink()
    elif harm == "torn":
        weights = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    return folder


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        ("pickled", "pickled weights are never read"),
        ("pad", "no pad token"),
        ("template", "no chat template"),
        ("patch_size", "no patch_size"),
        ("broken", "cannot be loaded"),
        ("family", "no entry for this model family"),
        ("weights", "cannot be loaded"),
        ("torn", "cannot be loaded"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused_in_words(bench, tmp_path, harm, told):
    folder = model_without(bench, tmp_path / "model", harm)
    ended = bench.run(tmp_path / "runs", "--set", f"model.source={folder}")
    assert ended.code == 1, ended.output
    assert told in ended.output
    assert str(folder) in ended.output or harm == "family"
    assert "Traceback" not in ended.output
    assert "Loading weights" not in ended.output


def test_a_model_folder_that_is_not_there_is_refused(bench, tmp_path):
    missing = tmp_path / "no-such-model"
    ended = bench.run(tmp_path / "runs", "--set", f"model.source={missing}")
    assert ended.code == 1, ended.output
    assert "no such folder" in ended.output
    assert str(missing) in ended.output
    assert "Traceback" not in ended.output
    empty = tmp_path / "empty"
    empty.mkdir()
    ended = bench.run(tmp_path / "runs", "--set", f"model.source={empty}")
    assert ended.code == 1
    assert "not a model folder" in ended.output
    assert not (tmp_path / "runs").exists()


def test_a_prompt_the_model_cannot_be_asked_in_is_refused_before_anything_is_trained(
    bench, tmp_path
):
    """Its template drops a system turn; the model as it came is scored first, in any plan."""
    ended = bench.run(tmp_path, "--set", "data.general_prompt=mmbench_llava_vicuna")
    assert ended.code == 1, ended.output
    assert "does not write the prompt profile's system sentence" in ended.output
    assert "polite answers to the user's questions" in ended.output
    assert "data.general_prompt" in ended.output
    assert "Traceback" not in ended.output
    assert computed(ended) == []
