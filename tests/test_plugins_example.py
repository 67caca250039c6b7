"""The example package, installed as a user would: found, checked, and run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline_cases import Bench, Server, computed, make_experiment, result_rows
from pulse_unlearn import store

EXAMPLE = Path(__file__).parents[1] / "examples" / "pulse-example-plugin"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tiny experiment, and a process that finds the installed example."""
    root = tmp_path_factory.mktemp("example")
    site = root / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-index", "--no-build-isolation", "--target", str(site)]
    done = subprocess.run([*command, str(EXAMPLE)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(site), before])
    try:
        experiment = make_experiment(root)
        settings = yaml.safe_load(experiment.read_text())
        settings["scenarios"] = {"finetuned": {"forget": 2, "retain": 2}}
        settings["methods"] = {
            "own_simnpo": {"settings": {"retain_weight": 0.5}},
            "random_labels": {"settings": {"repair_steps": 2}},
        }
        settings["evaluations"] = {"benign_finetuning": {"steps": 2, "lora": {"rank": 2}}}
        settings["scoring"]["parser"] = "last_letter"
        experiment.write_text(yaml.safe_dump(settings))
        with Server(root) as server:
            yield Bench(server, experiment, root / "runs" / "tiny")
    finally:
        os.environ["PYTHONPATH"] = before


@pytest.mark.slow  # seconds of a core; parts of it are tested quickly
@pytest.mark.parametrize(
    ("group", "names"),
    [
        ("methods", {"own_simnpo", "random_labels", "ga"}),
        ("parsers", {"last_letter", "strict"}),
        ("evaluations", {"benign_finetuning", "relearning"}),
    ],
)
def test_what_it_registers_is_listed(world, group, names):
    listed = world.server.pulse("list", group)
    assert listed.code == 0
    assert names <= {line.split(" ")[0] for line in listed.output.splitlines()}


@pytest.mark.slow  # seconds of a core; parts of it are tested quickly
def test_it_keeps_the_contract(world):
    checked = world.server.pulse("plugin", "check", "pulse-example-plugin")
    assert checked.code == 0, checked.output
    assert {line.split(" ")[0] for line in checked.output.splitlines()} == {"ok"}


@pytest.mark.slow  # a whole run
def test_a_tiny_experiment_runs_with_all_of_it(world, tmp_path):
    planned = world.server.pulse("plan", str(world.experiment), "--runs", str(tmp_path))
    assert planned.code == 0, planned.output
    ended = world.run(tmp_path)
    assert ended.code == 0, ended.output
    run = tmp_path / "tiny"
    results = json.loads((run / "results.json").read_text())
    kinds = {(row["method"], row["condition"]) for row in result_rows(run)}
    for method in ("own_simnpo", "random_labels"):
        assert {(method, "plain"), (method, "benign_finetuning:2")} <= kinds
    assert any("the parser 'last_letter' of pulse-example-plugin" in n for n in results["notes"])
    # Two phases in one log: the wrong answers, then the repair under its penalty.
    (log,) = run.glob("stages/*random_labels.unlearn-*/train.jsonl")
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert [row["phase"] for row in rows] == [1, 1, 1, 2, 2]
    assert "wrong_nll" in rows[0]
    assert "penalty" in rows[-1]
    assert store.verify(run) == []
    assert computed(world.run(tmp_path)) == []
