"""A certificate says what the run says, hides people, and can be checked by somebody else."""

from __future__ import annotations

import copy
import csv
import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from pulse_unlearn.cli import pulse
from pulse_unlearn.errors import ConfigError, Corrupted, StoreError
from pulse_unlearn.export import certificate_files
from pulse_unlearn.export.certificate_files import render, verify_certificate, write_certificate
from pulse_unlearn.export.finished import open_run

SEQUENCE = {"request": 2, "scenario": "sustainability", "method": "ga"}
SINGLE = {"request": 1, "scenario": "finetuned", "method": "whole"}
NEEDS_KEYS = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen here")


@pytest.fixture
def run(exported_run, tmp_path):
    """A copy that a test may change."""
    return Path(shutil.copytree(exported_run, tmp_path / "runs" / "exported"))


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "id"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)]
    subprocess.run(command, check=True)
    return path


def told(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("operation", "asked"),
    [
        (SEQUENCE, [("after", "2", "just_requested")]),
        (SINGLE, [("before", "0", "forget"), ("after", "1", "forget")]),
    ],
)
def test_numbers_are_those_of_results(run, operation, asked):
    found = told(write_certificate(run, **operation))
    with (run / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = {
            (row["request"], row["set"], row["measure"]): row
            for row in csv.DictReader(file)
            if (row["scenario"], row["method"]) == (operation["scenario"], operation["method"])
            and (row["condition"], row["modality"]) == ("plain", "all")
        }
    readings = found["tested"]["readings"]
    assert [one["measure"] for one in readings][:3] == [
        *("latent_accuracy", "accuracy", "rotated_accuracy")
    ]
    compared = 0
    for one in readings:
        for when, request, name in asked:
            row, number = rows.get((request, name, one["measure"])), one[when]["value"]
            assert number == (float(row["value"]) if row and row["value"] else None)
            compared += number is not None
    assert compared >= 4


def test_the_operation_and_what_was_not_tested_are_told(run):
    found = told(write_certificate(run, **SEQUENCE))
    assert found["verdict"]["word"] == "unknown"
    assert found["done"]["model_before"]["sha256"] != found["done"]["model_after"]["sha256"]
    assert list(found["done"]["model_after"]["updates"]) == [
        "seed0/finetune",
        "seed0/sustainability/ga/request1/unlearn",
        "seed0/sustainability/ga/request2/unlearn",
    ]
    said = " ".join(found["not_tested"])
    assert "relearning" in said
    assert "every order" in said, "this run asks about people in the file's order alone"


def test_people_are_hidden_unless_asked_for(run):
    plan = open_run(run)
    (identity,) = plan.inputs.plan.operations[-1].requests[1].ids
    name = plan.inputs.people[identity].name
    path = write_certificate(run, **SEQUENCE)
    hidden = path.read_text(encoding="utf-8") + path.with_suffix(".html").read_text(
        encoding="utf-8"
    )
    assert name not in hidden
    assert f'"{identity}"' not in hidden
    asked = told(path)["asked"]
    digest = hashlib.sha256(f"{asked['salt']}\n{identity}".encode()).hexdigest()
    assert [one["sha256"] for one in asked["people"]] == [digest]
    again = told(write_certificate(run, **SEQUENCE))["asked"]
    assert again["salt"] != asked["salt"]
    named = write_certificate(run, names=True, **SEQUENCE).with_suffix(".html")
    assert name in named.read_text(encoding="utf-8")


def test_nothing_of_the_run_is_read_as_html_and_nothing_is_called_deleted(run):
    path = write_certificate(run, names=True, **SEQUENCE)
    facts = told(path)
    for text in (path, path.with_suffix(".html")):
        assert "deleted" not in text.read_text(encoding="utf-8").lower()
    hostile = copy.deepcopy(facts)
    script = "<script>alert(1)</script>"
    hostile["asked"] |= {"name": script, "date": script}
    hostile["asked"]["people"][0] |= {"name": script, "id": script}
    hostile["run"] = hostile["done"]["method"] = hostile["verdict"]["word"] = script
    hostile["operation"] |= {"method": script, "scenario": script}
    hostile["not_tested"] = hostile["limits"] = hostile["verdict"]["why"] = [script]
    hostile["verdict"]["conditions"] = [{"condition": script, "word": script, "why": script}]
    hostile["tested"]["readings"][0] |= {"measure": script}
    hostile["tested"]["readings"][0]["before"] = {"value": None, "reason": script}
    page = render(hostile)
    assert page.count("&lt;script&gt;") >= 14
    assert "<script" not in page


def test_the_one_operation_must_be_meant(run):
    with pytest.raises(ConfigError, match=r"2 operations are meant[\s\S]*--method whole"):
        write_certificate(run, request=1)
    with pytest.raises(ConfigError, match=r"no such operation[\s\S]*--request 2"):
        write_certificate(run, request=3)
    assert not (run / "certificates").exists()


def test_what_the_certificate_names_is_checked(run, tmp_path, capsys):
    path = write_certificate(run, **SEQUENCE)
    pulse(["verify", str(path)], standalone_mode=False)
    assert "it is not signed" in capsys.readouterr().out
    page = path.with_suffix(".html")
    whole = page.read_text(encoding="utf-8")
    page.write_text(whole.replace("unknown", "like never known"), encoding="utf-8")
    (answers,) = run.glob("stages/*request2.score*/predictions.parquet")
    answers.unlink()
    with pytest.raises(Corrupted, match="2 problems") as caught:
        verify_certificate(path)
    assert {Path(one.where).name for one in caught.value.problems} == {page.name, answers.name}
    moved = Path(shutil.copytree(run / "certificates", tmp_path / "moved")) / path.name
    with pytest.raises(Corrupted, match="--run FOLDER"):
        verify_certificate(moved)
    with pytest.raises(Corrupted, match="2 problems"):
        verify_certificate(moved, run=run)


@pytest.mark.parametrize("content", ["{", "[]", '{"kind": "pulse-certificate", "version": 1}'])
def test_what_is_no_certificate_is_told(content, tmp_path):
    path = tmp_path / "x.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(Corrupted, match="is no certificate"):
        verify_certificate(path)


@NEEDS_KEYS
def test_a_signature_holds_for_these_bytes_and_these_signers(run, key, tmp_path):
    path = write_certificate(run, key=key, **SEQUENCE)
    public = key.with_suffix(".pub").read_text(encoding="utf-8")
    signers, others = tmp_path / "signers", tmp_path / "others"
    signers.write_text(f"dpo@example.org {public}", encoding="utf-8")
    lines: list[str] = []
    verify_certificate(path, signers=signers, say=lines.append)
    assert lines[0] == "signed by dpo@example.org"
    verify_certificate(path, say=lines.append)
    assert "whose key" in lines[2]

    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True
    )
    other = (tmp_path / "other.pub").read_text(encoding="utf-8")
    others.write_text(f"dpo@example.org {other}", encoding="utf-8")
    with pytest.raises(Corrupted, match="none of the allowed signers"):
        verify_certificate(path, signers=others)

    sealed = path.read_text(encoding="utf-8")
    path.write_text(sealed.replace('"word":"unknown"', '"word":"like never known"'), "utf-8")
    for allowed in (signers, None):
        with pytest.raises(Corrupted, match="the signature is not of this certificate"):
            verify_certificate(path, signers=allowed)
    path.write_text(sealed, encoding="utf-8")
    path.with_name(f"{path.name}.sig").unlink()
    with pytest.raises(Corrupted, match="the signature is missing"):
        verify_certificate(path, signers=signers)


@NEEDS_KEYS
def test_a_signature_made_for_something_else_does_not_count(run, key, monkeypatch):
    monkeypatch.setattr(certificate_files, "NAMESPACE", "file")
    path = write_certificate(run, key=key, **SEQUENCE)
    monkeypatch.undo()
    with pytest.raises(Corrupted, match="the signature is not of this certificate"):
        verify_certificate(path)


@NEEDS_KEYS
def test_what_is_no_key_is_told(run, tmp_path):
    (tmp_path / "no-key").write_text("", encoding="utf-8")
    with pytest.raises(StoreError, match="could not be signed"):
        write_certificate(run, key=tmp_path / "no-key", **SEQUENCE)
