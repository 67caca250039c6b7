"""`pulse data` and what a run makes of overlaps: refused with the list, or allowed and written."""

from __future__ import annotations

import csv
import json
import os
import sys
from itertools import combinations
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from data_cases import benchmark, person_row, tsv_row, write_config, write_tsv
from pipeline_cases import in_own_process
from pulse_unlearn import registries
from pulse_unlearn.cli import main, pulse
from pulse_unlearn.config import load_experiment
from pulse_unlearn.data.checks import SHOWN
from pulse_unlearn.errors import ConfigError, DataError
from pulse_unlearn.pipeline.inputs import read_inputs
from pulse_unlearn.pipeline.leaks import check_leaks, known_sides, leak_notes
from pulse_unlearn.pipeline.run import run_experiment

# One epoch, one step, four general questions: the path, not the numbers.
TINY = (
    *("finetune.epochs=1", "data.general_questions=4", "finetune.forms=multiple_choice"),
    *("unlearn.stop={max_steps: 1}", "methods={npo: {}}", "finetune.check_examples=4"),
)


def invoke(*arguments: object):
    return CliRunner().invoke(pulse, [str(argument) for argument in arguments])


@pytest.fixture
def own(tmp_path) -> Path:
    assert invoke("data", "init", tmp_path / "own").exit_code == 0
    return tmp_path / "own"


def change(own: Path, number: int, **fields) -> None:
    """Change a person's row of the example."""
    path = own / "people.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[number] = json.dumps(json.loads(lines[number]) | fields)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def load(own: Path, *overrides: str):
    path = str(own / "experiment.yaml")
    return load_experiment(path, overrides=overrides, schemas=registries.schemas())


def test_the_example_passes_its_own_check(own):
    done = invoke("data", "check", own)
    assert (done.exit_code, done.exception) == (0, None)
    assert "12 people, fictional: 48 questions with a picture, 36 in text only" in done.output
    assert "no fault found" in done.output


def test_init_overwrites_nothing(own):
    before = (own / "people.jsonl").read_bytes()
    done = invoke("data", "init", own)
    assert isinstance(done.exception, DataError)
    assert (own / "people.jsonl").read_bytes() == before


def test_init_works_in_folders_of_any_name(tmp_path):
    folder = tmp_path / "my: 'people' {1} é"
    assert invoke("data", "init", folder).exit_code == 0
    experiment = load(folder)
    assert experiment.data.people.path == str(folder)
    assert len(read_inputs(experiment).people) == 12


def test_formats_are_recognised(tmp_path):
    tsv = write_tsv(tmp_path / "some.tsv", [tsv_row(1), tsv_row(2, C="", D="")])
    done = invoke("data", "check", tsv)
    assert "2 general questions: 1 of 2 options, 1 of 4 options" in done.output
    folder = benchmark(tmp_path / "people")
    done = invoke("data", "check", folder, "--allow-overlap", "trained_on_scored")
    assert "2 people, fictional: 10 questions with a picture" in done.output
    assert "allowed: person 002: a scored picture is trained on" in done.output
    assert isinstance(invoke("data", "check", folder).exception, DataError)
    assert isinstance(invoke("data", "check", tmp_path).exception, ConfigError)
    assert isinstance(invoke("data", "check", tmp_path / "none").exception, ConfigError)
    # On further poses the fictional people's own pictures are free to be trained on.
    posing = invoke("data", "check", folder, "--scored-picture", "other_pose").exception
    assert [problem.where for problem in posing.problems] == ["person c1"]
    # Said, not guessed: a folder that lacks the configs is faulty, not unknown.
    done = invoke("data", "check", tmp_path, "--source", "mllmu")
    assert isinstance(done.exception, DataError)


def test_many_people_with_one_picture_are_all_named_in_a_list_that_can_be_read(tmp_path):
    names = [f"c{number:03d}" for number in range(SHOWN + 10)]
    rows = [person_row(name, 10 * n, name=f"Ada{n} Lake{n}") for n, name in enumerate(names)]
    write_config(tmp_path, "Retain_Set", rows)
    problems = invoke("data", "check", tmp_path).exception.problems
    assert len(problems) == SHOWN + 1
    assert all(f"person {name}" in "\n".join(map(str, problems)) for name in names)
    allowed = invoke("data", "check", tmp_path, "--allow-overlap", "trained_on_scored").output
    assert f"{SHOWN + 10} overlaps allowed" in allowed


def test_faults_of_all_parts_are_told_and_the_exit_code_is_that_of_data(tmp_path):
    write_tsv(tmp_path / "dev.tsv", [tsv_row(1, answer="E")])
    write_tsv(tmp_path / "dev_train.tsv", [tsv_row(2, question="")])
    done = in_own_process("data", "check", str(tmp_path / "dev.tsv"))
    assert done.returncode == 1
    assert "dev.tsv:2: the answer is not among the options" in done.stderr
    assert "dev_train.tsv:2: the question is empty" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_names_people_who_stand_there_twice(own):
    change(own, 3, name="NASH, Lára")
    done = invoke("data", "check", own)
    assert [problem.got for problem in done.exception.problems] == ["same name"]
    assert done.exception.problems[0].where == "p01, p04"


def test_overlaps_are_refused_before_anything_is_written(own, tmp_path):
    change(own, 3, name="L. Nash", training_images=["images/p04-scored.png"])
    with pytest.raises(DataError) as caught:
        run_experiment(load(own, *TINY, "seeds=[0]"), tmp_path / "runs")
    told = {problem.where: problem for problem in caught.value.problems}
    assert "it is among the training pictures" in told["person p04"].got
    assert "--allow-overlap trained_on_scored" in told["person p04"].fix
    assert not list((tmp_path / "runs").rglob("experiment.yaml"))


def test_people_of_two_requests_may_not_be_one(own):
    inputs = read_inputs(
        load(
            own,
            "scenarios={sustainability: {forget: 10, retain: 2, requests: 2}}",
            "methods={npo: {}}",
        )
    )
    first, second = (
        [int(name[1:]) - 1 for name in group.ids] for group in inputs.plan.operations[0].requests
    )
    people = (own / "people.jsonl").read_text(encoding="utf-8").splitlines()
    change(own, second[0], name=json.loads(people[first[0]])["name"])
    again = read_inputs(inputs.experiment)
    with pytest.raises(DataError) as caught:
        check_leaks(again, known_sides(again.plan))
    (problem,) = caught.value.problems
    assert problem.where == f"request 1 p{first[0] + 1:02d}, request 2 p{second[0] + 1:02d}"


def test_allowed_overlaps_are_notes(own):
    change(own, 3, training_images=[])
    refused = read_inputs(load(own))
    with pytest.raises(DataError, match="it is the only picture"):
        check_leaks(refused, known_sides(refused.plan))
    allowed = read_inputs(load(own, "data.allow_overlap=[trained_on_scored]"))
    check_leaks(allowed, known_sides(allowed.plan))
    (note,) = leak_notes(allowed, known_sides(allowed.plan))
    assert note.startswith(
        "allowed by data.allow_overlap (trained_on_scored): person p04: a scored picture is trained"
    )
    # Allowing changes no stage, so nothing has to be computed anew.
    assert allowed.keys == refused.keys


def test_drawn_options_and_scored_poses_are_part_of_a_stage(own):
    def keys(*overrides):
        inputs = read_inputs(load(own, *overrides))
        return {name: key.fingerprint for name, key in inputs.keys.items()}

    plain = keys()
    assert keys("data.people.options_seed=0") == plain
    for override in ("data.people.options_seed=1", "data.people.options=3"):
        assert not set(keys(override).values()) & set(plain.values())


def test_who_is_drawn_follows_the_seed_and_is_recorded(own):
    drawn = []
    for seed in (0, 0, 1):
        plan = read_inputs(load(own, f"seeds=[{seed}]", "methods={npo: {}}")).plan
        drawn.append(plan.operations[0].forget.ids)
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.slow  # seconds of a core; parts of it are tested quickly
def test_from_init_to_a_report(own, tmp_path):
    """The example with the embedded model, an allowed overlap on the way into the report.

    General questions are of two kinds of category, and come with copies, as Windows writes them.
    """
    change(own, 3, training_images=[])
    path = own / "experiment.yaml"
    rows = [tsv_row(n, **{"l2-category": "seeing" if n < 3 else "thinking"}) for n in (1, 2, 3)]
    copies = [tsv_row(n + 1_000_000, image=str(n)) for n in (1, 2, 3)]
    tsv = write_tsv(tmp_path / "dev.tsv", [*rows, *copies])
    tsv.write_bytes(b"\xef\xbb\xbf" + tsv.read_bytes().replace(b"\n", b"\r\n"))
    write_tsv(tmp_path / "dev_train.tsv", [tsv_row(n) for n in range(10, 20)])
    general = f"data.general={{source: mmbench, path: {tsv}}}"
    sets = [part for override in (*TINY, general) for part in ("--set", override)]
    runs = ("--runs", tmp_path / "runs")
    done = invoke("run", path, *sets, *runs, "--allow-overlap", "trained_on_scored")
    assert done.exit_code == 0, done.output
    run = tmp_path / "runs/own-people"
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert any("person p04: a scored picture is trained on" in note for note in results["notes"])
    assert "a scored picture is trained on" in (run / "report.html").read_text(encoding="utf-8")
    recorded = yaml.safe_load((run / "experiment.yaml").read_text(encoding="utf-8"))
    assert recorded["data"]["allow_overlap"] == ["trained_on_scored"]
    assert recorded["data"]["people"]["options_seed"] == 0
    sets_of = results["sets"]["finetuned/0"]
    assert sorted(sets_of["forget"] + sets_of["retain"]) == [f"p{n:02d}" for n in range(1, 13)]
    with (run / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    accuracies = [
        row
        for row in rows
        if (row["measure"], row["set"], row["modality"]) == ("accuracy", "forget", "multimodal")
    ]
    wider = {
        (row["measure"], int(row["questions"]))
        for row in rows
        if row["measure"].startswith("l2_accuracy")
    }
    assert wider == {("l2_accuracy:seeing", 2), ("l2_accuracy:thinking", 1)}
    assert "by l2-category</summary>" in (run / "report.html").read_text(encoding="utf-8")
    # Four people are forgotten, of whom four questions each are asked with a picture.
    assert {(row["questions"], row["individuals"]) for row in accuracies} == {("16", "4")}


def test_a_bad_image_is_told_by_check_with_its_row(tmp_path):
    write_config(
        tmp_path, "Full_Set", [person_row("001", 1, image={"bytes": b"<html>", "path": ""})]
    )
    (problem,) = invoke("data", "check", tmp_path).exception.problems
    assert problem.where.startswith("Full_Set/train-00000-of-00001.parquet:row 0")
    assert "HTML" in problem.got


def test_two_people_who_share_a_name_are_declared_different(own):
    lines = [json.loads(line) for line in (own / "people.jsonl").read_text("utf-8").splitlines()]
    for number in range(1, 12):
        change(own, number, name=lines[0]["name"])
    plain = read_inputs(load(own))
    with pytest.raises(DataError, match=r"data\.different_people"):
        check_leaks(plain, known_sides(plain.plan))
    ids = [f"p{number:02d}" for number in range(1, 13)]
    pairs = json.dumps([list(pair) for pair in combinations(ids, 2)])
    declared = read_inputs(load(own, f"data.different_people={pairs}"))
    check_leaks(declared, known_sides(declared.plan))
    notes = leak_notes(declared, known_sides(declared.plan))
    assert notes
    assert all(note.startswith("declared by data.different_people: forget p") for note in notes)
    assert all(note.endswith(": same name") for note in notes)
    # It decides what is refused, not what a stage computes.
    assert declared.keys == plain.keys


@pytest.mark.parametrize(
    ("pairs", "told"),
    [
        ('[["p01", "p13"]]', "nobody has this id(.|\n)*got: p13(.|\n)*did you mean 'p1"),
        ('[["p01", "p01"]]', "p01 and p01 is one person"),
        ('[["p01", "p02"], ["p02", "p01"]]', "p02 and p01 stand there twice"),
        ('[["p01"]]', "different_people"),
        ("[[1, 2]]", "string"),
    ],
)
def test_wrong_pairs_of_different_people_are_told(own, pairs, told):
    with pytest.raises(ConfigError, match=told):
        read_inputs(load(own, f"data.different_people={pairs}"))


def test_check_takes_pairs_that_are_different(own):
    change(own, 3, name="Lara Nash")
    command = ["data", "check", str(own)]
    refused = invoke(*command)
    assert [problem.got for problem in refused.exception.problems] == ["same name"]
    done = invoke(*command, "--different", "p04", "p01")
    assert done.exit_code == 0, done.output
    assert "note: declared different: p01, p04: same name" in done.output
    unknown = invoke(*command, "--different", "p04", "p1")
    assert [problem.got for problem in unknown.exception.problems] == ["p1"]


@pytest.mark.parametrize(("own", "found"), [(None, "1"), ("4", "4")])
def test_numpy_is_told_to_leave_threads_to_us(monkeypatch, own, found):
    """Of 20,000 pictures the search took 26 s of two busy cores with numpy's own, 6 s without."""
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    if own:
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", own)
    monkeypatch.setattr(sys, "argv", ["pulse", "--version"])
    main()
    assert os.environ["OPENBLAS_NUM_THREADS"] == found
