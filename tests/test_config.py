"""Experiment files: what is accepted, and how every mistake is told at once."""

from __future__ import annotations

import pytest

from pulse_unlearn.config import (
    dump_experiment,
    load_experiment,
    parse_experiment,
    shipped_experiments,
)
from pulse_unlearn.errors import ConfigError
from pulse_unlearn.registries import schemas

GOOD = """
name: small
unlearn: {lora: {rank: 4}, optimiser: {learning_rate: 1.0e-3}}
methods:
  ga: {}
  ga_llm: {method: ga, unlearn: {scope: llm, lora: {alpha: 5.0}}}
  npo: {settings: {beta: 0.4}}
finetune: {individuals: 20}
scenarios: {finetuned: {forget: 10, retain: 10}}
"""


def parse(text, *overrides):
    return parse_experiment(text, where="x.yaml", overrides=overrides, schemas=schemas())


def problems(text, *overrides):
    with pytest.raises(ConfigError) as caught:
        parse(text, *overrides)
    return caught.value.problems


def test_method_entries_inherit_the_shared_settings_and_may_change_them():
    methods = parse(GOOD).methods
    assert methods["ga"].unlearn.lora.rank == 4
    assert methods["ga_llm"].unlearn.scope == "llm"
    assert (methods["ga_llm"].unlearn.lora.rank, methods["ga_llm"].unlearn.lora.alpha) == (4, 5.0)
    assert methods["ga_llm"].unlearn.optimiser.learning_rate == 1e-3


def test_defaults_of_a_method_are_written_out():
    written = {"beta": 0.4, "retain_weight": 0.0, "retain_kl_weight": 0.0}
    assert parse(GOOD).methods["npo"].settings == written


def test_a_dumped_experiment_is_the_same_experiment():
    experiment = parse(GOOD, "seeds=[1,2]")
    assert parse(dump_experiment(experiment)) == experiment


def test_a_retain_model_is_a_folder_of_weights_or_of_an_adapter_or_both(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, file in (("whole", "config.json"), ("lora", "adapter_config.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("{}")

    def named(value):
        experiment = parse(GOOD, f"scenarios.finetuned.retain_model={value}")
        (label,) = experiment.audited
        assert label == "retain_model:finetuned"
        held = experiment.model_of(label)
        return held.source, held.adapters

    whole, lora = str(tmp_path / "whole"), str(tmp_path / "lora")
    assert named("whole") == (whole, ())
    assert named("lora") == ("world", (lora,))
    assert named("{source: whole, adapters: [lora]}") == (whole, (lora,))
    assert parse(GOOD).audited == {}


def test_one_retain_model_is_not_for_several_choices_of_people():
    several = ("scenarios.finetuned.retain_model=x", "seeds=[0,1]")
    (problem,) = problems(GOOD, *several)
    assert "scenarios.finetuned.retain_model" in str(problem)
    assert parse(GOOD, *several, "vary=[training,order]").audited


def test_relative_paths_are_written_out_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    (tmp_path / "model").mkdir()
    experiment = parse(
        GOOD,
        "model.source=model",
        "data.people={source: mllmu, path: people}",
        "data.general={source: mmbench, path: ~/x.tsv}",
    )
    assert experiment.model.source == str(tmp_path / "model")
    assert experiment.data.people.path == str(tmp_path / "people")
    assert experiment.data.general.path == "/home/somebody/x.tsv"
    monkeypatch.chdir("/")
    assert parse(dump_experiment(experiment)) == experiment


def test_a_hub_id_and_the_embedded_model_are_no_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "world").mkdir()
    assert parse(GOOD).model.source == "world"
    assert parse(GOOD, "model.source=owner/name").model.source == "owner/name"
    assert parse(GOOD).data.people.path is None


@pytest.mark.parametrize("name", list(shipped_experiments()))
def test_every_shipped_experiment_is_valid(name):
    experiment = load_experiment(name, schemas=schemas())
    assert experiment.name == name
    assert experiment.description


def test_overrides_change_nested_values_and_are_typed():
    experiment = parse(GOOD, "methods.npo.settings.beta=2", "scoring.parser=vlmevalkit")
    assert experiment.methods["npo"].settings["beta"] == 2.0
    assert experiment.scoring.parser == "vlmevalkit"


def test_off_is_a_word_although_yaml_reads_it_as_false():
    assert parse(GOOD, "speed.packing=off").speed.packing == "off"
    assert "allowed: auto, off" in str(problems(GOOD, "speed.packing=on")[0])


def test_five_mistakes_are_five_problems_with_place_and_mend():
    text = """
name: bad name
modle: {source: world}
unlearn: {lora: {rank: 0}}
methods:
  gaa: {}
  npo: {settings: {bata: 2}}
scenarios: {finetuned: {forget: 50}}
"""
    found = problems(text)
    told = {problem.where: problem for problem in found}
    assert len(found) == 5
    assert told["x.yaml:3 modle"].fix == "did you mean 'model'?"
    assert "greater than or equal to 1" in told["x.yaml:4 unlearn.lora.rank"].allowed
    assert told["x.yaml:6 methods.gaa"].fix == "did you mean 'ga'?"
    assert told["x.yaml:7 methods.npo.settings.bata"].fix == "did you mean 'beta'?"
    assert "x.yaml:2 name" in told


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("scoring.parser=loose", "declared, first_character, likelihood, strict, vlmevalkit"),
        ("nonsense", "--set key.subkey=value"),
        ("name.deeper=1", "has no keys below"),
        ("seeds=[]", "at least 1"),
        ("scenarios.finetuned.forget=11", "must be equal"),
        ("scenarios.sustainability={forget: 10, retain: 10, requests: 3}", "multiple of requests"),
        ("unlearn.optimiser.micro_batch_size=3", "multiple of micro_batch_size"),
        ("methods={}", "at least 1"),
    ],
)
def test_a_bad_override_is_told(override, word):
    assert any(word in str(problem) for problem in problems(GOOD, override))


def test_a_key_that_stands_twice_is_told_not_swallowed():
    found = problems(GOOD + "\nname: other\n")
    assert [problem.what for problem in found] == ["the key stands twice"]


@pytest.mark.parametrize("text", ["", "[1, 2]", "a: [", "just words"])
def test_what_is_no_experiment_is_refused(text):
    assert problems(text)


def test_an_unknown_experiment_names_the_known_ones():
    with pytest.raises(ConfigError, match="did you mean 'smoke'"):
        load_experiment("smoek", schemas=schemas())
