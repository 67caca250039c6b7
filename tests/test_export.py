"""Exports give the stored answers to whoever loads them without PULSE, or are not there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from huggingface_hub import ModelCard
from safetensors.torch import load_file

import tiny_families as families
import tiny_models as tiny
from pipeline_cases import TESTS, environment, in_own_process
from pulse_unlearn import registries
from pulse_unlearn.cli import pulse
from pulse_unlearn.config import ModelSettings, load_experiment
from pulse_unlearn.data.images import decode
from pulse_unlearn.errors import ConfigError, ModelError, StoreError
from pulse_unlearn.evaluation.predict import predict
from pulse_unlearn.evaluation.table import read_predictions
from pulse_unlearn.export import check, plain_check, weights
from pulse_unlearn.export.build import export_model
from pulse_unlearn.export.finished import choose_model, open_run
from pulse_unlearn.models.encode import Encoder
from pulse_unlearn.models.forward import Plain
from pulse_unlearn.models.loading import load_model
from pulse_unlearn.pipeline.asked import stage_examples
from pulse_unlearn.pipeline.run import run_experiment
from pulse_unlearn.scenarios import ScoreStage

CHAIN = "seed0/sustainability/ga/request2/unlearn"
WHOLE = "seed0/finetuned/whole/unlearn"


@pytest.fixture
def here(monkeypatch):
    """The check without a process of its own, for time's sake."""

    def answers(task, place, *, offline):
        processor, model = plain_check.load(task)
        return [plain_check.ask(processor, model, task, one) for one in task["questions"]]

    monkeypatch.setattr(check, "_answers", answers)


def stored(run: Path, stage: str, place: Path, count: int):
    """Questions that the model of a stage was asked, and its stored answers."""
    found = open_run(run)
    score = choose_model(found, stage).score
    answers = {
        one.example_id: one.text
        for one in read_predictions(found.folder_of(score.name) / "predictions.parquet")
    }
    questions, texts = [], []
    for one in stage_examples(found.inputs, score, found.resolve)[:count]:
        assert not one.system
        shown = None
        if one.picture:
            shown = str(place / f"{one.picture.digest}.png")
            decode(one.picture).save(shown)
        questions.append({"text": one.prompt, "picture": shown})
        texts.append(answers[one.example_id])
    return questions, texts


def asked_elsewhere(run: Path, exports: dict[Path, str], place: Path, count: int = 250):
    """Ask exports in a process that knows nothing of PULSE; return answers and stored answers."""
    told = {str(folder): stored(run, stage, place, count) for folder, stage in exports.items()}
    task = place / "task.json"
    task.write_text(json.dumps({folder: asked for folder, (asked, _) in told.items()}))
    command = [sys.executable, "-P", str(TESTS / "plain_export.py"), str(task)]
    env = {key: value for key, value in environment().items() if key != "PYTHONPATH"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), {folder: texts for folder, (_, texts) in told.items()}


def left(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


@pytest.mark.slow  # seconds of a core; parts of it are tested quickly
def test_a_chain_and_whole_tensors_answer_elsewhere_as_they_did_here(exported_run, here, tmp_path):
    place = tmp_path / "questions"
    place.mkdir()
    chain, whole = tmp_path / "chain", tmp_path / "whole"
    export_model(exported_run, CHAIN, form="adapter", out=chain, questions=24)
    export_model(exported_run, WHOLE, form="merged", out=whole, questions=24)
    assert left(tmp_path) == ["chain", "questions", "whole"]
    found, expected = asked_elsewhere(exported_run, {chain: CHAIN, whole: WHOLE}, place, count=60)
    assert found == expected
    assert min(len(texts) for texts in expected.values()) == 60
    assert expected[str(chain)] != expected[str(whole)]
    config = json.loads((chain / "adapter_config.json").read_text(encoding="utf-8"))
    assert (
        config["base_model_name_or_path"] == open_run(exported_run).inputs.experiment.model.source
    )
    assert config["r"] == 6, "three updates of rank 2"


def test_the_card_is_one_of_the_hub_and_says_what_results_say(exported_run, here, tmp_path):
    folder = export_model(exported_run, CHAIN, form="merged", out=tmp_path / "m", questions=5)
    card = ModelCard.load(folder / "README.md")
    rows = (exported_run / "results.csv").read_text(encoding="utf-8").splitlines()
    table = {
        (one.dataset_split, one.dataset_config, one.metric_type): one
        for one in card.data.eval_results
    }
    start = "sustainability,ga,projector+llm,0,2,plain,"
    checked = 0
    for row in rows:
        if row.startswith(start):
            name, modality, measure, value, low = row.removeprefix(start).split(",")[:5]
            one = table.get((f"sustainability: {name}", modality, measure))
            if one is not None and value:
                assert one.metric_value == float(value)
                assert one.metric_args.get("low") == (float(low) if low else None)
                checked += 1
    assert checked == len(table) > 100
    assert "deleted" not in card.content.lower()
    assert (folder / "README.md").stat().st_mode == (folder / "model.safetensors").stat().st_mode
    record = json.loads((folder / "pulse_export.json").read_text(encoding="utf-8"))
    assert next(iter(record["chain"])) == "seed0/finetune"
    assert len(record["chain"]) == 3
    assert all(digest in card.content for digest in record["files"].values())


def test_half_precision_is_held_to_its_own_rounding(exported_run, here, tmp_path):
    folder = export_model(
        exported_run, CHAIN, form="merged", out=tmp_path / "m", questions=5, dtype="bfloat16"
    )
    kinds = {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()}
    assert kinds == {torch.bfloat16}


@pytest.mark.parametrize("fault", ["no update", "one stage of the chain", "one tensor"])
def test_a_wrong_export_fails_its_check_and_leaves_nothing(
    fault, exported_run, here, tmp_path, monkeypatch
):
    real = weights.load_adapters

    def wrong(model, folders, *, how):
        if fault == "one tensor":
            found = real(model, folders, how=how)
            found.model.language_model.layers[1].mlp.down_proj.weight.mul_(1.01)
            return found
        return real(model, [] if fault == "no update" else folders[-1:], how=how)

    monkeypatch.setattr(weights, "load_adapters", wrong)
    with pytest.raises(ModelError, match="does not give the answers that were scored"):
        export_model(exported_run, CHAIN, form="merged", out=tmp_path / "m", questions=24)
    assert left(tmp_path) == []


@pytest.mark.slow  # another process that imports torch
def test_a_folder_that_cannot_be_loaded_elsewhere_is_told_and_removed(
    exported_run, tmp_path, monkeypatch
):
    """The check's own process, as in life."""
    real = weights.write_merged

    def torn(settings, updates, folder, *, dtype):
        written = real(settings, updates, folder, dtype=dtype)
        (folder / "tokenizer.json").unlink()
        return written

    monkeypatch.setattr(weights, "write_merged", torn)
    with pytest.raises(ModelError, match="cannot be loaded by transformers and PEFT alone"):
        export_model(exported_run, CHAIN, form="merged", out=tmp_path / "m", questions=5)
    assert left(tmp_path) == []


def test_whole_tensors_are_no_adapter(exported_run, tmp_path):
    with pytest.raises(ModelError, match=r"adds up to no adapter[\s\S]*use --merged"):
        export_model(exported_run, WHOLE, form="adapter", out=tmp_path / "a")
    assert left(tmp_path) == []


def test_a_taken_or_unwritable_place_is_told_before_any_work(exported_run, tmp_path, monkeypatch):
    def worked(*_, **__):
        raise AssertionError("worked")

    monkeypatch.setattr(weights, "load_model", worked)
    (tmp_path / "taken").mkdir()
    (tmp_path / "file").write_text("", encoding="utf-8")
    for place, told in (("taken", "something here already"), ("file/m", "cannot write the export")):
        with pytest.raises(StoreError, match=told):
            export_model(exported_run, CHAIN, form="merged", out=tmp_path / place)
    assert left(tmp_path) == ["file", "taken"]


def test_a_changed_stage_is_not_exported(exported_run, tmp_path):
    (adapter,) = exported_run.glob("stages/*request1.unlearn*/adapter/adapter_model.safetensors")
    whole = adapter.read_bytes()
    try:
        adapter.write_bytes(whole[:-4] + b"\0\0\1\0")
        with pytest.raises(StoreError, match="changed since it was written"):
            export_model(exported_run, CHAIN, form="merged", out=tmp_path / "m")
    finally:
        adapter.write_bytes(whole)
    assert left(tmp_path) == []


def test_stages_are_found_by_name_or_end_and_others_listed(exported_run):
    found = open_run(exported_run)
    model = choose_model(found, "request1/unlearn")
    assert model.score.chain == ("seed0/finetune", "seed0/sustainability/ga/request1/unlearn")
    assert choose_model(found, "request2/score").score.chain[-1] == CHAIN
    assert choose_model(found, "finetune").score.name == "seed0/target/score"
    with pytest.raises(ConfigError, match=r"3 stages[\s\S]*whole/unlearn[\s\S]*request1/unlearn"):
        choose_model(found, "unlearn")
    with pytest.raises(ConfigError, match=r"no such stage[\s\S]*seed0/finetune\n"):
        choose_model(found, "forget")
    with pytest.raises(ConfigError, match="the base model"):
        choose_model(found, "base/score")


def test_the_command_wants_a_form(exported_run):
    ended = CliRunner().invoke(pulse, ["export", str(exported_run), CHAIN])
    assert ended.exit_code == 2
    assert "--adapter or --merged" in ended.output


NO_TEMPLATE = "paligemma"


@pytest.mark.slow  # eleven models are written and read
@pytest.mark.parametrize("family", list(families.FAMILIES))
def test_every_family_is_written_so_that_transformers_alone_asks_it_alike(family, tmp_path):
    source = families.save(family, tmp_path / "model")
    settings = ModelSettings(source=str(source), device="cpu", dtype="float32")
    if family == NO_TEMPLATE:
        with pytest.raises(ModelError, match="no chat template"):
            weights.write_merged(settings, [], tmp_path / "out", dtype="float32")
        return
    loaded = load_model(settings)
    examples = [tiny.example(), tiny.example(1, shown=True)]
    examples.append(tiny.in_words(2, ["baker", "old judge", "pilot"], shown=True))
    answers = predict(
        Plain(loaded.model, Encoder(loaded.processor, loaded.family)),
        examples,
        batch_size=1,
        max_new_tokens=4,
        on_batch=lambda done, total: None,
    )
    written = weights.write_merged(settings, [], tmp_path / "out", dtype="float32")
    task = {
        "folder": str(tmp_path / "out"),
        **{"base": "", "revision": None, "dtype": "float32", "attention": settings.attention},
        **{"device": "cpu", "max_new_tokens": 4, "end_ids": written.encoder.end_ids},
        "answer_type": 0,
    }
    processor, model = plain_check.load(task)
    for example, answer in zip(examples, answers, strict=True):
        one = check._Asked(example, answer)
        said = plain_check.ask(processor, model, task, check._question(one, written, tmp_path))
        assert list(check._faults(one, said, written, 1e-3, 1e-4)) == []


@pytest.mark.slow  # a minute for the run, half a minute for each of its models
def test_every_model_of_the_smoke_run_answers_elsewhere_as_it_did_here(tmp_path):
    whole = (
        "methods.whole={method: ga, scenarios: [finetuned], unlearn: {scope: llm, update: full}}"
    )
    smoke = load_experiment("smoke", overrides=[whole], schemas=registries.schemas())
    run_experiment(smoke, tmp_path)
    found = open_run(tmp_path / "smoke")
    stages = [
        one.name
        for one in found.inputs.plan.stages
        if isinstance(one, ScoreStage) and one.chain and one.view == "scored"
    ]
    assert len(stages) == 15
    exports = {}
    for number, stage in enumerate(stages):
        form = "merged" if number % 2 or "whole" in stage else "adapter"
        folder = tmp_path / f"{number}"
        ended = in_own_process(
            *("export", str(tmp_path / "smoke"), stage, f"--{form}", "--out", str(folder)),
            *("--questions", "60"),
        )
        assert ended.returncode == 0, ended.stderr
        assert "60 of 60 answers" in ended.stdout
        exports[folder] = stage
    place = tmp_path / "questions"
    place.mkdir()
    answers, expected = asked_elsewhere(tmp_path / "smoke", exports, place)
    assert answers == expected
