"""One process at a time, and nothing that was changed is believed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal

import pytest

from pipeline_cases import computed, outcome
from pulse_unlearn import store

ADAPTER = "adapter/adapter_model.safetensors"


@pytest.mark.slow  # seconds of a core; parts of it are tested quickly
def test_the_second_process_is_refused_until_the_first_is_dead(bench, tmp_path):
    first = bench.start(tmp_path, poison="slow")
    first.wait_for("tiny/stages/.partial-seed0.finetuned.ga.unlearn-*", tmp_path)
    second = bench.run(tmp_path)
    assert second.code == 1
    assert f"process {first.pid} on {os.uname().nodename}, started 20" in second.output
    assert "Traceback" not in second.output
    first.send(signal.SIGKILL)
    assert first.wait().code == -signal.SIGKILL
    third = bench.run(tmp_path)
    assert third.code == 0, third.output
    assert outcome(tmp_path / "tiny") == outcome(bench.finished)


@pytest.mark.parametrize(
    ("stage", "name", "harm"),
    [
        ("finetune", ADAPTER, "flip"),
        pytest.param("request1.unlearn", "outcome.json", "truncate", marks=pytest.mark.slow),
        pytest.param("target.score", "predictions.parquet", "flip", marks=pytest.mark.slow),
    ],
)
def test_damage_in_a_finished_stage_is_named_and_repaired_on_request(
    bench, tmp_path, stage, name, harm
):
    run = bench.copied(tmp_path)
    (victim,) = run.glob(f"stages/*{stage}-*/{name}")
    damage(victim, harm)
    for found in (bench.server.pulse("verify", str(run)), bench.run(tmp_path)):
        assert found.code == 1, found.output
        assert str(victim) in found.output
        assert "--repair" in found.output
        assert "Traceback" not in found.output
        assert computed(found) == []
    repaired = bench.run(tmp_path, "--repair")
    assert repaired.code == 0, repaired.output
    (again,) = computed(repaired)
    assert again.replace("/", ".").endswith(stage)
    shutil.rmtree(next(run.glob("stages/.bad-*")))
    assert outcome(run) == outcome(bench.finished)
    assert bench.server.pulse("verify", str(run)).code == 0


def damage(path, harm):
    data = bytearray(path.read_bytes())
    if harm == "truncate":
        data = data[:-1]
    else:
        data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_missing_parent_of_a_finished_stage_is_computed_again(bench, tmp_path):
    run = bench.copied(tmp_path)
    (gone,) = run.glob("stages/*finetune-*")
    shutil.rmtree(gone)
    assert str(gone) in bench.server.pulse("verify", str(run)).output
    ended = bench.run(tmp_path)
    assert computed(ended) == ["seed0/finetune"]
    assert outcome(run) == outcome(bench.finished)


@pytest.mark.parametrize(
    "name",
    [
        "results.csv",
        "report.html",
        pytest.param("results.json", marks=pytest.mark.slow),
        pytest.param("samples.json", marks=pytest.mark.slow),
    ],
)
def test_a_tampered_product_is_found_and_written_anew(bench, tmp_path, name):
    run = bench.copied(tmp_path)
    path = run / name
    text = path.read_text(encoding="utf-8")
    at = re.search(r"\d\d|\d\.\d", text)
    assert at
    digit = "7" if text[at.end() - 1] != "7" else "3"
    path.write_text(text[: at.end() - 1] + digit + text[at.end() :], encoding="utf-8")
    found = bench.server.pulse("verify", str(run))
    assert found.code == 1
    assert str(path) in found.output
    if name.startswith("results"):
        # A report made from edited results must not vouch for them.
        assert bench.server.pulse("report", str(run)).code == 0
        assert str(path) in bench.server.pulse("verify", str(run)).output
    assert bench.run(tmp_path).code == 0
    assert store.verify(run) == []
    assert outcome(run) == outcome(bench.finished)


def test_the_record_names_no_one_and_re_runs(bench):
    record = json.loads((bench.finished / "environment.json").read_text())
    assert os.uname().nodename not in json.dumps(record)
    assert set(record) == {"pulse", "python", "platform", "packages"}
