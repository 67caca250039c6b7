"""`pulse plan` as it is read: for what is there, and for what is not there yet."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

import unlisted_families as unlisted
from pulse_unlearn.cli import pulse
from pulse_unlearn.config import ModelSettings
from pulse_unlearn.data.starter import write_starter
from pulse_unlearn.errors import ModelError
from pulse_unlearn.estimate.sizes import describe
from pulse_unlearn.estimate.units import size_of, time_of, tokens_of
from pulse_unlearn.models.loading import load_model
from pulse_unlearn.pipeline.doctor import examine

ONE_SEED = ("--set", "seeds=[0]")
"""A third of the stages, where their number says nothing."""


def plan(*argv):
    """What is printed, each line of it no longer than a terminal is wide; a path is not torn."""
    ended = CliRunner().invoke(pulse, ["plan", *argv])
    for line in ended.output.splitlines():
        assert len(line) <= 80 or len(max(line.split(), key=len)) > 60, line
    if ended.exception:
        raise ended.exception
    return ended.output


def flat(said):
    """The same as one line, where the end of a line says nothing."""
    return " ".join(said.split())


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.parametrize(
    "name",
    [
        "paper",
        pytest.param("paper-7b", marks=pytest.mark.slow),  # as `paper`, with a smaller model
        "qwen2.5-vl",
        "smolvlm-laptop",
    ],
)
def test_a_plan_can_be_read_before_anything_is_fetched(name, tmp_path):
    said = plan(name, *(() if name == "paper" else ONE_SEED))
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
        assert word in flat(said), word
    assert "--------  seed0/finetune" in said, "a stand-in has no identity"
    assert list(tmp_path.iterdir()) == [], "a plan writes nothing"


@pytest.mark.slow  # a plan in full
def test_a_plan_of_what_is_there_has_identities_and_nothing_missing():
    said = plan("demo")
    assert re.search(r"  2  [0-9a-f]{8}  seed0/finetune .*625 steps, [\d.]+ M tokens", said)
    assert "in the package" in said
    assert "before it can run" not in said
    assert "stand-in" not in said
    assert "assumed, as the data" not in said


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("paper", "questions will be packed if a trial"),
        pytest.param("qwen2.5-vl", "questions are not packed", marks=pytest.mark.slow),
    ],
)
def test_packing_is_told_in_one_line(name, word):
    assert word in flat(plan(name, *ONE_SEED, "--set", "speed.packing=auto"))
    assert "speed.packing is off" in flat(plan(name, *ONE_SEED, "--set", "speed.packing=off"))


@pytest.mark.slow  # a plan of the paper
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
        assert re.search(rf"{part} {size} {re.escape(formula)}", flat(training)), part
    spread = plan("paper", "--set", "model.device_map=auto", "--set", "seeds=[0]")
    assert "memory on all devices together" in flat(spread)


def test_numbers_of_questions_are_those_of_the_data(tmp_path):
    write_starter(tmp_path / "own")
    said = plan(str(tmp_path / "own/experiment.yaml"))
    # Four of the twelve are forgotten; everybody is asked seven questions.
    assert re.search(
        r"finetuned: .* assumed\n    D_unlearn \(4 people, 28 questions\): [\d.]+ points", said
    )
    assert "general ability: 60 questions, asked in the file's order" in flat(said)
    turned = plan(str(tmp_path / "own/experiment.yaml"), "--set", "scoring.general=circular")
    assert re.search(
        r"general ability: 60 questions, asked in every rotation: (\d{3})", flat(turned)
    )
    assert re.search(
        r"general ability \(60 questions, 10% of answers differing\): [\d.]+ p", flat(said)
    )


def test_overlaps_are_told_before_a_run_refuses_them(tmp_path):
    write_starter(tmp_path / "own")
    people = tmp_path / "own/people.jsonl"
    text = people.read_text(encoding="utf-8")
    people.write_text(text.replace("p04-train1.png", "p04-scored.png"), encoding="utf-8")
    experiment = str(tmp_path / "own/experiment.yaml")
    said = flat(plan(experiment)).split("before it can run")[1]
    assert "person p04: a scored picture is trained on" in said
    allowed = plan(experiment, "--set", "data.allow_overlap=[same_person,trained_on_scored]")
    assert "allowed by data.allow_overlap, and listed in the report: 1 overlaps" in flat(allowed)
    assert "before it can run" not in allowed


def test_data_on_the_hub_are_stood_in_for_and_that_is_said():
    people = "data.people={source: mllmu, path: MLLMMU/MLLMU-Bench, revision: abc}"
    general = "data.general={source: mmbench, path: me/mmbench/dev.tsv, revision: abc}"
    said = plan("paper", *ONE_SEED, "--set", people, "--set", general)
    assert "assumed, as the data are not there" in flat(said)
    assert said.split("before it can run")[1].count("fix:") == 1, (
        "only the model's commit is missing"
    )


@pytest.mark.slow  # a plan of the paper
def test_a_given_rate_sets_the_time():
    """At 1000 times the rate it takes a thousandth: hours become seconds."""
    slow, fast = (
        re.search(r"time: about (\S+) (\w+)", plan("paper", *ONE_SEED, *rate)).groups()
        for rate in (("--tflops", "100"), ("--tflops", "100000"))
    )
    seconds = {"days": 86400, "h": 3600, "min": 60, "s": 1}
    ratio = float(slow[0]) * seconds[slow[1]] / (float(fast[0]) * seconds[fast[1]])
    assert ratio == pytest.approx(1000, rel=0.05)


def test_a_model_nothing_is_known_of_leaves_the_rest_of_the_plan():
    said = flat(plan("demo", "--set", "model.source=owner/name"))
    assert "memory, disk and time are not estimated" in said
    assert "hf download owner/name config.json" in said
    assert "smallest difference in accuracy" in said


def test_what_is_missing_cannot_be_measured():
    with pytest.raises(ModelError, match="pinned revision"):
        plan("paper", "--measure")


@pytest.mark.slow  # seconds of a core; parts of it are tested quickly
def test_three_steps_are_measured_where_everything_is_there():
    said = flat(plan("smoke", "--measure", "--set", "scoring.batch_size=4"))
    assert re.search(r"measured on (cpu|cuda:?\d*): [\d.]+ s a step \([\d.e-]+ TFLOP/s\)", said)
    assert "--tflops" not in said


@pytest.mark.slow  # seconds of a core; parts of it are tested quickly
def test_a_plan_loads_no_weights():
    """The model is built on torch's meta device; 13 thousand million weights would not fit."""
    code = (
        "import resource\nfrom pulse_unlearn.cli import pulse\n"
        "pulse(['plan', 'paper', '--set', 'seeds=[0]'], standalone_mode=False)\n"
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


# --- in ten lines


@pytest.mark.slow  # seconds of a core; parts of it are tested quickly
def test_a_plan_in_ten_lines_says_what_the_long_one_says():
    said, whole = plan("smoke", "--brief"), flat(plan("smoke"))
    assert len(said.splitlines()) <= 12
    told = {line.split()[0]: flat(line).partition(" ")[2] for line in said.splitlines()}
    assert told["stages"] == "32 (17 score, 1 finetune, 1 select, 13 unlearn), 0 complete"
    assert told["missing"] == "nothing"
    for name, long in (
        ("time", "time: about {}"),
        ("disk", "disk: {}"),
        ("memory", "training: {}"),
    ):
        amount = re.search(r"\d[\d.]* \w+", told[name]).group()
        assert long.format(amount) in whole


def test_what_is_missing_is_said_in_ten_lines_too():
    said = flat(plan("paper", *ONE_SEED, "--brief"))
    assert "missing data.people.path: the people are not there" in said
    assert "model.revision: a hub model needs a pinned revision" in said
    assert "on the device at the peak" in said


def test_most_of_the_ten_lines_need_no_torch():
    code = (
        "import sys\nimport pulse_unlearn.cli.plan_brief as b\n"
        "from pulse_unlearn.cli import pulse\n"
        "told = b._line\n"
        "b._line = lambda name, text: (told(name, text), print(name, 'torch' in sys.modules))\n"
        "pulse(['plan', 'smoke', '--brief'], standalone_mode=False)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    for name in ("smoke", "model", "scenarios", "methods", "stages", "missing"):
        assert f"{name} False" in lines
    assert "time True" in lines


# --- as a run decides


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("florence2", "an encoder reads the question"),
        ("pixtral", "allowed: LlavaProcessor"),
        ("got_ocr2", "--set model.attention=sdpa, or eager"),
    ],
)
def test_a_model_that_a_run_refuses_is_refused_in_its_words(name, told, tmp_path):
    folder = unlisted.save(name, tmp_path / "model")
    with pytest.raises(ModelError) as loaded:
        load_model(ModelSettings(source=str(folder), device="cpu"))
    for how in ((), ("--brief",)):
        ended = CliRunner().invoke(
            pulse, ["plan", "smoke", "--set", f"model.source={folder}", *how]
        )
        assert ended.exit_code == 1
        assert "stages" in ended.output, "the rest of the plan is told"
        assert str(ended.exception) == str(loaded.value)
        assert told in str(ended.exception)
    found = list(examine(tmp_path, model=str(folder)))
    assert [one.said.partition(":")[0] for one in found if one.state == "stop"] == [
        problem.what.partition(":")[0] for problem in loaded.value.problems
    ]


@pytest.mark.parametrize("name", ["glm4v", "blip_2"])
def test_what_only_the_weights_can_show_is_said_before(name, tmp_path):
    """One of the two will be accepted, the other not; neither plan nor doctor claims to know."""
    folder = unlisted.save(name, tmp_path / "model")
    said = flat(plan("smoke", "--set", f"model.source={folder}", "--brief"))
    assert "three questions decide when it is loaded" in said
    (note,) = [one for one in examine(tmp_path, model=str(folder)) if one.name == "family"]
    assert (note.state, "three questions" in note.said) == ("note", True)


def test_a_model_whose_own_code_is_named_is_planned_as_it_is_run(tmp_path):
    """Its code is run where the settings name the model, and only there."""
    folder = unlisted.save("vipllava", tmp_path / "model")
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    code = {"AutoConfig": "own.OwnConfig", "AutoModelForImageTextToText": "own.OwnModel"}
    path.write_text(json.dumps({**config, "model_type": "own", "auto_map": code}), encoding="utf-8")
    (folder / "own.py").write_text(
        "from transformers import VipLlavaConfig, VipLlavaForConditionalGeneration\n"
        "class OwnConfig(VipLlavaConfig):\n    model_type = 'own'\n"
        "class OwnModel(VipLlavaForConditionalGeneration):\n    config_class = OwnConfig\n",
        encoding="utf-8",
    )
    with pytest.raises(ModelError, match="Python code of its own"):
        describe(ModelSettings(source=str(folder)))
    named = ModelSettings(source=str(folder), trust_remote_code=(str(folder),))
    assert describe(named).config.model_type == "own"
