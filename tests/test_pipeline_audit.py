"""Models that somebody else unlearned: the numbers of the run that made them, to the digit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from safetensors.numpy import load_file, save_file

from pipeline_cases import (
    Bench,
    in_own_process,
    make_experiment,
    outcome,
    result_rows,
    settings,
)
from pulse_unlearn import store


def one_of_each(root):
    """Adapters in a chain, and whole tensors, from one fine-tuning; a retain model beside."""
    chosen = settings(root)
    chosen["scoring"] |= {"people": "vanilla", "words": "none"}  # for time's sake
    chosen["methods"] = {
        "npo": {"scenarios": ["sustainability"], "settings": {"beta": 1.0}},
        "full": {
            "method": "ga",
            "scenarios": ["finetuned"],
            "unlearn": {"update": "full", "scope": "llm"},
        },
    }
    chosen["scenarios"] = {
        "finetuned": {"forget": 2, "retain": 2},
        "sustainability": {"forget": 2, "retain": 2, "requests": 2},
    }
    chosen["evaluations"] = {"retain_model": {}}
    return chosen


@pytest.fixture(scope="module")
def bench(server, tmp_path_factory):
    root = tmp_path_factory.mktemp("audit")
    bench = Bench(server, make_experiment(root, one_of_each), root / "runs" / "tiny")
    ended = bench.run(bench.finished.parent)
    assert ended.code == 0, ended.output
    return bench


def update(bench: Bench, name: str) -> str:
    return str(next((bench.finished / "stages").glob(f"*{name}-*")) / "adapter")


def asked_alike(bench: Bench, runs: Path) -> tuple[str, ...]:
    """The options with which an audit asks what the run asked."""
    root = bench.experiment.parent
    sets = json.loads((bench.finished / "results.json").read_text())["sets"]["finetuned/0"]
    return (
        *("audit", "--base", str(root / "model"), "--adapter", update(bench, "finetune")),
        *("--people", str(root / "people")),
        *("--general", str(root / "general" / "mmbench_world.tsv")),
        *("--forget", ",".join(sets["forget"]), "--retain", ",".join(sets["retain"])),
        *("--prompt", "short", "--general-prompt", "short", "--runs", str(runs)),
        *("--set", "scoring={general: vanilla, people: vanilla, words: none, max_new_tokens: 3}"),
    )


def numbers(run, method, *, scenario, request, condition="plain"):
    """Rows about the sets that run and audit share."""
    place = (scenario, method, str(request), condition)
    return {
        (row["set"], row["modality"], row["measure"]): (row["value"], row["low"], row["high"])
        for row in result_rows(run)
        if (row["scenario"], row["method"], row["request"], row["condition"]) == place
        and row["set"] in ("forget", "retain", "general")
    }


def test_an_audit_of_a_runs_own_models_gives_its_numbers_to_the_digit(bench, tmp_path):
    taught = update(bench, "finetune")
    first, second = (update(bench, f"request{number}.unlearn") for number in (1, 2))
    ended = bench.server.pulse(
        *asked_alike(bench, tmp_path),
        *("--unlearned", f"second={taught},{first},{second}"),
        *("--unlearned", f"full={taught},{update(bench, 'full.unlearn')}"),
        *("--retain-model", update(bench, "retain-model")),
    )
    assert ended.code == 0, ended.output
    run = tmp_path / "audit"
    for label, method, scenario, request, condition in (
        ("second", "npo", "sustainability", 2, "plain"),
        ("full", "full", "finetuned", 1, "plain"),
        ("full", "full", "finetuned", 0, "plain"),
        ("full", "full", "finetuned", 0, "retain_model"),
    ):
        of_run = numbers(
            bench.finished, method, scenario=scenario, request=request, condition=condition
        )
        audited = numbers(
            run, label, scenario="audit", request=min(request, 1), condition=condition
        )
        assert audited == of_run, (label, condition)
        assert len(audited) > 100
    assert store.verify(run) == []
    again = bench.server.pulse("run", str(run / "experiment.yaml"), "--runs", str(tmp_path))
    assert "0 stages computed" in again.output, again.output


def test_a_scenario_may_name_a_retain_model_and_gets_the_numbers_of_its_own(bench, tmp_path):
    folder = shutil.copytree(update(bench, "retain-model"), tmp_path / "gone")
    run = shutil.copytree(bench.finished, tmp_path / "runs" / bench.finished.name)
    named = ("--set", f"scenarios.finetuned.retain_model={folder}")
    again = ("run", str(bench.experiment), "--runs", str(run.parent), *named)
    ended = bench.server.pulse(*again)
    assert ended.code == 0, ended.output
    assert "1 stages computed" in ended.output, ended.output
    for request, condition in ((1, "plain"), (0, "retain_model")):
        place = {"scenario": "finetuned", "request": request, "condition": condition}
        ours, own = (numbers(one, "full", **place) for one in (run, bench.finished))
        assert ours == own
    plain = numbers(run, "full", scenario="finetuned", request=1)
    assert float(plain["forget", "all", "correct_probability_ks"][0]) > 0
    assert plain["forget", "all", "accuracy_from_never_knew"][0] != ""
    stage = next((run / "stages").glob("*finetuned.retain-model.score-*"))
    made_of = json.loads((stage / "manifest.json").read_text())
    assert "audited/retain_model:finetuned/model" in made_of["data"]
    # Another adapter under the same name is another model.
    weights = folder / "adapter_model.safetensors"
    save_file({name: 2 * value for name, value in load_file(weights).items()}, weights)
    assert "1 stages computed" in bench.server.pulse(*again).output
    shutil.rmtree(folder)
    gone = bench.server.pulse(*again)
    assert gone.code != 0
    assert str(folder) in gone.output


@pytest.mark.slow  # two audits
def test_an_audit_by_two_processes_is_that_of_one(bench, tmp_path):
    taught, full = update(bench, "finetune"), update(bench, "full.unlearn")
    models = ("--unlearned", f"full={taught},{full}", "--unlearned", f"same={taught}")
    alone = bench.server.pulse(*asked_alike(bench, tmp_path / "one"), *models)
    assert alone.code == 0, alone.output
    two = in_own_process(*asked_alike(bench, tmp_path / "two"), *models, "--on", "local:2")
    assert two.returncode == 0, two.stderr
    run = tmp_path / "two" / "audit"
    assert outcome(run) == outcome(tmp_path / "one" / "audit")
    assert {path.name for path in (run / "logs").glob("local-*")} == {"local-0.log", "local-1.log"}


def test_an_attack_trains_on_top_of_the_audited_model(bench, tmp_path):
    taught, full = update(bench, "finetune"), update(bench, "full.unlearn")
    ended = bench.server.pulse(
        *asked_alike(bench, tmp_path),
        *("--unlearned", f"full={taught},{full}", "--unlearned", f"same={taught}"),
        *("--attack", "relearning", "--set", "evaluations.relearning.steps=[1,2]"),
        *("--set", "evaluations.relearning.lora={rank: 2, alpha: 4}"),
    )
    assert ended.code == 0, ended.output
    run = tmp_path / "audit"
    conditions = {row["condition"] for row in result_rows(run) if row["method"] == "full"}
    assert conditions == {"plain", "relearned:0", "relearned:1", "relearned:2"}
    # One that is the model before forgets nothing, and its attack differs from the other's.
    same = numbers(run, "same", scenario="audit", request=1)
    assert same["forget", "all", "forgotten_pct"][0] in ("0.0", "")
    taught_again = sorted((run / "stages").glob("*relearn-*/adapter/adapter_model.safetensors"))
    assert len({path.read_bytes() for path in taught_again}) == 2


def test_without_a_retain_set_and_general_questions_the_rest_is_measured(bench, tmp_path):
    root = bench.experiment.parent
    ended = bench.server.pulse(
        *("audit", "--base", str(root / "model"), "--people", str(root / "people")),
        *("--unlearned", update(bench, "finetune"), "--runs", str(tmp_path)),
        *("--set", "scoring={people: vanilla, words: none, max_new_tokens: 3}"),
    )
    assert ended.code == 0, ended.output
    rows = result_rows(tmp_path / "audit")
    assert {row["set"] for row in rows} == {"forget"}
    assert {row["method"] for row in rows} == {"adapter"}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--unlearned", "a=x", "--unlearned", "a=y"), "two models have one label"),
        (("--unlearned", "a=x", "--forget", "nobody"), "nobody in the data set has this id"),
        (("--unlearned", "retain_model=x"), "is no label"),
        (("--unlearned", "a=owner/name"), "a hub model needs a pinned revision"),
    ],
)
def test_what_cannot_be_audited_is_told_at_once(bench, tmp_path, options, told):
    root = bench.experiment.parent
    common = ("audit", "--base", str(root / "model"), "--people", str(root / "people"))
    ended = bench.server.pulse(*common, *options, "--runs", str(tmp_path))
    assert ended.code != 0
    assert told in ended.output, ended.output
    assert "Traceback" not in ended.output


def test_folders_that_cannot_be_used_are_all_told_before_anything_is_asked(bench, tmp_path):
    root, taught = bench.experiment.parent, Path(update(bench, "finetune"))
    own = shutil.copytree(taught, tmp_path / "own")
    (own / "config.json").write_text("{}")
    (own / "non_lora_trainables.bin").write_bytes(b"not to be opened")
    torn = shutil.copytree(taught, tmp_path / "torn")
    (torn / "adapter_config.json").write_text("{")
    ended = bench.server.pulse(
        *("audit", "--base", str(root / "model"), "--people", str(root / "people")),
        *("--unlearned", str(own), "--unlearned", str(torn), "--runs", str(tmp_path / "runs")),
    )
    assert ended.code == 1
    for told in ("LLaVA's own trainer", "merge_lora_weights.py", "torn"):
        assert told in ended.output, ended.output
    assert not (tmp_path / "runs" / "audit" / "stages").exists()


def test_the_experiment_of_an_audit_can_be_read_again(bench, tmp_path):
    from pulse_unlearn.config import load_experiment
    from pulse_unlearn.registries import schemas

    text = {
        "name": "audit",
        "scenarios": {"audit": {"models": {"a": {"adapters": ["x"]}}, "forget": ["f001"]}},
    }
    path = tmp_path / "audit.yaml"
    path.write_text(yaml.safe_dump(text))
    loaded = load_experiment(str(path), schemas=schemas())
    assert loaded.methods == {}
    assert loaded.model_of("a").source == loaded.model.source
    assert loaded.model_of("a").adapters == ("x",)
