"""`pulse plan` as it is read: for what is there, and for what is not there yet."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from pulse_unlearn.cli import pulse
from pulse_unlearn.cli.plan_text import size_of, time_of, tokens_of
from pulse_unlearn.data.starter import write_starter
from pulse_unlearn.errors import ModelError


def plan(*argv, cwd=None):
    ended = CliRunner().invoke(pulse, ["plan", *argv])
    if ended.exception:
        raise ended.exception
    return ended.output


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.parametrize("name", ["paper", "paper-7b", "qwen2.5-vl", "smolvlm-laptop"])
def test_a_plan_can_be_read_before_anything_is_fetched(name, tmp_path):
    said = plan(name)
    for word in (
        "D_unlearn",
        "sizes known to the package",
        "assumed, as the data are not there",
        "memory on the device at the peak",
        "parameters x b",
        "disk:",
        "time: about",
        "smallest difference in accuracy",
        "before it can run",
        "--set model.revision=",
    ):
        assert word in said, word
    assert "--------  seed0/finetune" in said, "a stand-in has no identity"
    assert list(tmp_path.iterdir()) == [], "a plan writes nothing"


def test_a_plan_of_what_is_there_has_identities_and_nothing_missing():
    said = plan("demo")
    assert re.search(r"2  finetune  [0-9a-f]{8}  seed0/finetune .*625 steps, [\d.]+ M tokens", said)
    assert "in the package" in said
    assert "before it can run" not in said
    assert "stand-in" not in said
    assert "assumed, as the data" not in said


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("paper", "questions will be packed if a trial"),
        ("qwen2.5-vl", "questions are not packed"),
    ],
)
def test_packing_is_told_in_one_line(name, word):
    assert word in plan(name, "--set", "speed.packing=auto")
    assert "speed.packing is off" in plan(name, "--set", "speed.packing=off")


def test_the_memory_is_split_and_each_part_has_its_formula():
    """LLaVA-1.5-13B by hand: 502 792 192 trained parameters, five such adapters below."""
    said = plan("paper", "--set", "seeds=[0]").split("memory on the device")[1]
    training = said.split("  scoring:")[0]
    for part, size, formula in (
        ("weights", "26.7 GB", "parameters x b"),
        ("frozen adapters", "10.1 GB", "parameters of every adapter not merged x 4"),
        ("trained adapter", "2.0 GB", "P x t"),
        ("gradients", "2.0 GB", "P x t"),
        ("optimiser", "4.0 GB", "P x 2t"),
        ("copies", "4.0 GB", "P x 2t"),
        ("references kept", "328.3 MB", "E x A x 4 (NPO) or E x A x V x 4 (KL)"),
        ("activations", "8.1 GB", "B x T x (l x wb"),
    ):
        assert re.search(rf"{part} +{size}  {re.escape(formula)}", training), part
    spread = plan("paper", "--set", "model.device_map=auto", "--set", "seeds=[0]")
    assert "memory on all devices together" in spread


def test_numbers_of_questions_are_those_of_the_data(tmp_path):
    write_starter(tmp_path / "own")
    said = plan(str(tmp_path / "own/experiment.yaml"))
    # Four of the twelve are forgotten; everybody is asked seven questions.
    assert re.search(
        r"finetuned: .* assumed\n    D_unlearn \(4 people, 28 questions\): [\d.]+ points", said
    )
    assert "general ability: 60 questions, asked in the file's order" in said
    turned = plan(str(tmp_path / "own/experiment.yaml"), "--set", "scoring.general=circular")
    assert re.search(r"general ability: 60 questions, asked in every rotation: (\d{3})", turned)
    assert re.search(r"general ability \(60 questions, 10% of answers differing\): [\d.]+ p", said)


def test_overlaps_are_told_before_a_run_refuses_them(tmp_path):
    write_starter(tmp_path / "own")
    people = tmp_path / "own/people.jsonl"
    text = people.read_text(encoding="utf-8")
    people.write_text(text.replace("p04-train1.png", "p04-scored.png"), encoding="utf-8")
    experiment = str(tmp_path / "own/experiment.yaml")
    said = plan(experiment).split("before it can run")[1]
    assert "person p04: a scored picture is trained on" in said
    allowed = plan(experiment, "--set", "data.allow_overlap=[same_person,trained_on_scored]")
    assert "allowed by data.allow_overlap, and listed in the report: 1 overlaps" in allowed
    assert "before it can run" not in allowed


def test_data_on_the_hub_are_stood_in_for_and_that_is_said():
    people = "data.people={source: mllmu, path: MLLMMU/MLLMU-Bench, revision: abc}"
    general = "data.general={source: mmbench, path: me/mmbench/dev.tsv, revision: abc}"
    said = plan("paper", "--set", people, "--set", general)
    assert "assumed, as the data are not there" in said
    assert said.split("before it can run")[1].count("fix:") == 1, (
        "only the model's commit is missing"
    )


def test_a_given_rate_sets_the_time():
    """At 1000 times the rate it takes a thousandth: hours become seconds."""
    slow, fast = (
        re.search(r"time: about (\S+) (\w+)", plan("paper", *rate)).groups()
        for rate in (("--tflops", "100"), ("--tflops", "100000"))
    )
    seconds = {"days": 86400, "h": 3600, "min": 60, "s": 1}
    ratio = float(slow[0]) * seconds[slow[1]] / (float(fast[0]) * seconds[fast[1]])
    assert ratio == pytest.approx(1000, rel=0.05)


def test_a_model_nothing_is_known_of_leaves_the_rest_of_the_plan():
    said = plan("demo", "--set", "model.source=owner/name")
    assert "memory, disk and time are not estimated" in said
    assert "hf download owner/name config.json" in said
    assert "smallest difference in accuracy" in said


def test_what_is_missing_cannot_be_measured():
    with pytest.raises(ModelError, match="pinned revision"):
        plan("paper", "--measure")


def test_three_steps_are_measured_where_everything_is_there():
    said = plan("smoke", "--measure", "--set", "scoring.batch_size=4")
    assert re.search(r"measured on (cpu|cuda:?\d*): [\d.]+ s a step \([\d.e-]+ TFLOP/s\)", said)
    assert "--tflops" not in said


def test_a_plan_loads_no_weights():
    """The model is built on torch's meta device; 13 thousand million weights would not fit."""
    code = (
        "import resource\nfrom pulse_unlearn.cli import pulse\n"
        "pulse(['plan', 'paper'], standalone_mode=False)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) < 2e6, "kilobytes"


def test_units_are_those_people_use():
    assert [size_of(n) for n in (1500, 2.5e6, 26.7e9, 3e12)] == [
        "1.5 kB",
        "2.5 MB",
        "26.7 GB",
        "3.0 TB",
    ]
    assert [time_of(n) for n in (30, 119, 150, 7200, 200_000)] == [
        "30 s",
        "119 s",
        "2.5 min",
        "2.0 h",
        "2.3 days",
    ]
    assert [tokens_of(n) for n in (178_000, 1_200_000)] == ["178 k", "1.2 M"]
