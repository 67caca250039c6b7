"""Answered in words and read by likelihood, from command to report; readings changed later."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections import defaultdict
from dataclasses import asdict

import pytest
import yaml

from pulse_unlearn import store
from pulse_unlearn.config import load_experiment, shipped_experiments
from pulse_unlearn.errors import ConfigError
from pulse_unlearn.estimate.placeholders import placeholder_inputs
from pulse_unlearn.evaluation.scoring import by_question, score_all
from pulse_unlearn.evaluation.table import read_predictions
from pulse_unlearn.pipeline.decisions import select_known
from pulse_unlearn.pipeline.inputs import check_settings, read_inputs
from pulse_unlearn.registries import schemas


@pytest.fixture(scope="module")
def in_words(bench, tmp_path_factory):
    """The smoke experiment on fewer people and steps, in words and by likelihood."""
    root = tmp_path_factory.mktemp("words")
    settings = yaml.safe_load(shipped_experiments()["smoke"])
    settings["data"] = {
        "people_prompt": "statement",
        "general_prompt": "statement",
        "general_questions": 4,
    }
    settings["scoring"] |= {"parser": "likelihood", "general": "vanilla"}
    settings["finetune"] |= {"individuals": 4, "epochs": 1, "target_accuracy": 1.0}
    settings["unlearn"]["stop"] |= {"max_steps": 1, "check_every": 1, "check_examples": 10}
    settings["methods"] = {"ga": {}}
    settings["scenarios"] = {
        "finetuned": {"forget": 2, "retain": 2},
        "pretrained": {"candidates": 4, "forget": 1, "retain": 1},
    }
    path = root / "smoke.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    ended = bench.server.pulse("run", str(path), "--runs", str(root))
    assert ended.code == 0, ended.output
    return root / "smoke"


def folder(run, inputs, name):
    return store.Store(run).find(inputs.keys[name])


def inputs_of(experiment, *overrides):
    return read_inputs(load_experiment(str(experiment), overrides=overrides, schemas=schemas()))


def numbers(results, measure):
    rows = csv.DictReader(io.StringIO(results.decode()))
    return {
        tuple(row[key] for key in ("scenario", "method", "request", "set", "modality")): row[
            "value"
        ]
        for row in rows
        if row["measure"] == measure
    }


@pytest.mark.slow  # seconds of a core; parts of it are tested quickly
def test_every_answer_counts_and_the_likeliest_is_the_answer(in_words):
    results = (in_words / "results.csv").read_bytes()
    assert {float(value) for value in numbers(results, "unreadable").values()} == {0.0}
    accuracies = numbers(results, "accuracy")
    assert accuracies == numbers(results, "letter_accuracy")
    assert len({float(value) for value in accuracies.values()}) > 1
    assert store.verify(in_words) == []
    report = (in_words / "report.html").read_text(encoding="utf-8")
    assert "The option whose answer is likeliest, in the file’s order, whatever was" in report
    assert "right or wrong is the likeliest option" in report


def test_an_option_is_as_likely_wherever_it_stands(in_words):
    """A candidate's questions without a picture, in the scored and in the reserved order."""
    inputs, turned = inputs_of(in_words / "experiment.yaml"), defaultdict(list)
    for name in ("base/score", "base/score-other-view"):
        for one in read_predictions(folder(in_words, inputs, name) / "predictions.parquet"):
            if one.modality == "text_only":
                turned[one.question_id].append(one)
    pairs = [views for views in turned.values() if len(views) == 2]
    assert len(pairs) == 4 * 5
    for pair in pairs:
        scored, other = (dict(zip(o.options, o.option_log_probs, strict=True)) for o in pair)
        assert scored.keys() != other.keys()
        scored, other = ({o.text: v for o, v in view.items()} for view in (scored, other))
        assert len(set(scored.values())) == len(scored)
        assert other == pytest.approx(scored, abs=1e-4)


def test_rotations_of_hidden_options_are_refused_with_all_else():
    """Also where data are missing, and so before anything is fetched."""
    hidden = "data.general_prompt=statement"

    def load(name, *overrides):
        return load_experiment(name, overrides=overrides, schemas=schemas())

    smoke = load("smoke", hidden)
    assert smoke.finetune.replay > 0
    with pytest.raises(ConfigError) as refused:
        check_settings(smoke, training=())
    places = [problem.where for problem in refused.value.problems]
    assert places == ["scoring.general", "finetune.replay"]
    assert refused.value.problems[0].fix == "--set scoring.general=vanilla"
    for read, experiment in ((read_inputs, smoke), (placeholder_inputs, load("paper", hidden))):
        with pytest.raises(ConfigError, match="every rotation is the same question"):
            read(experiment)
    for overrides in ((hidden, "scoring.general=vanilla"), ("data.people_prompt=statement",)):
        assert read_inputs(load("smoke", *overrides)).keys


def test_people_are_chosen_and_trainings_ended_by_likelihood(in_words):
    inputs = inputs_of(in_words / "experiment.yaml")
    (chosen,) = [one for one in inputs.plan.stages if one.kind == "select"]
    asked = read_predictions(folder(in_words, inputs, chosen.parents[0]) / "predictions.parquet")
    people, found = frozenset(chosen.candidates.ids), {}
    for parser in ("likelihood", "strict"):
        scores = by_question(asked, score_all(asked, parser=parser))
        sizes = {"forget": 1, "retain": 1, "unseen": 25}
        found[parser] = select_known(scores, people, **sizes, seed=chosen.seed, decides=parser)
    assert len(found["likelihood"].unseen) == len(people) - 2, "as many as there are"
    expected = asdict(found["likelihood"])
    path = folder(in_words, inputs, chosen.name) / "selection.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    assert {name: written[name] for name in expected} == json.loads(json.dumps(expected))
    # All of that person's questions of the other view are asked, by a model still unchanged.
    operation = folder(in_words, inputs, "seed0/pretrained/ga/unlearn")
    outcome = json.loads((operation / "outcome.json").read_text(encoding="utf-8"))
    (forgotten,) = written["forget"]
    by = {parser: {o.id: o.accuracy for o in one.candidates} for parser, one in found.items()}
    assert outcome["accuracy_before"] == by["likelihood"][forgotten]
    assert by["likelihood"] != by["strict"]


@pytest.mark.slow  # two more lives of a run
def test_reading_anew_keeps_who_was_chosen_there_and_back(bench, in_words, tmp_path):
    """A run decided by likelihood read strictly, and one decided strictly read by likelihood."""
    run = shutil.copytree(in_words, tmp_path / "smoke")
    for made, parsers in (
        (run, ("strict", "likelihood")),
        (bench.copied(tmp_path), ("likelihood", "strict")),
    ):
        before = (made / "results.csv").read_bytes()
        manifests = sorted(one.name for one in (made / "stages").iterdir())
        there, back = (read_anew(bench, made, parser) for parser in parsers)
        assert (there != before, back) == (True, before)
        assert sorted(one.name for one in (made / "stages").iterdir()) == manifests
        assert store.verify(made) == []
    report = (tmp_path / "tiny" / "report.html").read_text(encoding="utf-8")
    assert "The option whose answer is likeliest" not in report
    assert "the likeliest option" not in report.split('id="samples"')[1].split("<article")[0]
    recorded = yaml.safe_load((run / "experiment.yaml").read_text(encoding="utf-8"))["scoring"]
    assert (recorded["parser"], recorded["decided_by"]) == ("likelihood", "likelihood")


def read_anew(bench, run, parser):
    scored = bench.server.pulse("score", str(run), "--parser", parser)
    assert scored.code == 0, scored.output
    results = (run / "results.csv").read_bytes()
    if parser == "likelihood":
        assert {float(value) for value in numbers(results, "unreadable").values()} == {0.0}
    return results


def test_only_what_answers_decide_has_another_fingerprint(bench):
    strict = inputs_of(bench.experiment)
    for overrides in (
        ["scoring.parser=vlmevalkit"],
        ["scoring.parser=likelihood", "scoring.decided_by=strict"],
    ):
        assert inputs_of(bench.experiment, *overrides).keys == strict.keys
    likely = inputs_of(bench.experiment, "scoring.parser=likelihood")
    changed = {name for name, key in likely.keys.items() if key != strict.keys[name]}
    # GA has a target of forgetting; the people of the pre-trained scenario are chosen, and with
    # them those whom all scenarios leave alone, and ask.
    assert changed == {
        "seed0/target/score",
        *(f"seed0/finetuned/ga/{part}" for part in ("unlearn", "score")),
        "seed0/select",
        *(f"seed0/pretrained/npo/{part}" for part in ("unlearn", "score")),
        *(f"seed0/sustainability/npo/request{number}/score" for number in (1, 2)),
    }
    taught = "finetune.target_accuracy=0.9"
    one, other = (
        inputs_of(bench.experiment, taught, f"scoring.parser={parser}").keys["seed0/finetune"]
        for parser in ("strict", "likelihood")
    )
    assert one != other
