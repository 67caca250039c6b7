"""Adapters of somebody else's that do not belong to the model: refused, with both models named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny_models as tiny
from pulse_unlearn.config import EMBEDDED, ModelSettings
from pulse_unlearn.errors import ModelError
from pulse_unlearn.models.adapter_base import Base, base_of, base_problem
from pulse_unlearn.models.adapters import load_adapters

CONFIG, WEIGHTS, NOTE = "adapter_config.json", "adapter_model.safetensors", "base.json"


def taught(bench, folder: Path) -> Path:
    """A copy of the adapter that a finished run taught its model with."""
    return Path(
        shutil.copytree(next((bench.finished / "stages").glob("*finetune-*")) / "adapter", folder)
    )


def name_base(folder: Path, name: str | None) -> None:
    """Say in an adapter's config alone, as other tools do, which model it was made for."""
    (folder / NOTE).unlink(missing_ok=True)
    path = folder / CONFIG
    written = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(written | {"base_model_name_or_path": name}), encoding="utf-8")


def audit(bench, runs, adapter, *more, base=None):
    root = bench.experiment.parent
    return bench.server.pulse(
        *("audit", "--base", str(base or root / "model"), "--people", str(root / "people")),
        *("--unlearned", str(adapter), "--runs", str(runs), *more),
        *("--set", "scoring={people: vanilla, words: none, max_new_tokens: 3}"),
    )


def test_an_adapter_that_names_another_base_is_refused_unless_allowed(bench, tmp_path):
    adapter = taught(bench, tmp_path / "other")
    name_base(adapter, "Other/Base-VL")
    ended = audit(bench, tmp_path / "runs", adapter)
    assert ended.code == 1
    assert "made for another base model" in ended.output
    assert "Other/Base-VL" in ended.output
    assert str(bench.experiment.parent / "model") in ended.output
    assert "Traceback" not in ended.output
    assert not (tmp_path / "runs" / "audit" / "stages").exists()
    allowed = audit(bench, tmp_path / "runs", adapter, "--allow-base-mismatch")
    assert allowed.code == 0, allowed.output
    told = json.loads((tmp_path / "runs" / "audit" / "results.json").read_text())
    assert "allowed by model.allow_base_mismatch" in json.dumps(told)
    assert "Other/Base-VL" in json.dumps(told)


def test_what_this_package_wrote_is_held_to_the_digest_of_its_base(bench, tmp_path):
    """Mutation: `note_base` is not called."""
    adapter = taught(bench, tmp_path / "own")
    made = json.loads((adapter / NOTE).read_text())
    model = bench.experiment.parent / "model"
    moved = Path(shutil.copytree(model, tmp_path / "moved"))
    assert base_of(ModelSettings(source=str(model))).sha256 == made["sha256"]
    assert base_problem(adapter, base_of(ModelSettings(source=str(moved)))) is None
    weights = moved / "model.safetensors"
    tensors = load_file(weights)
    tensors[sorted(tensors)[0]] += 1
    save_file(tensors, weights, metadata={"format": "pt"})
    ended = audit(bench, tmp_path / "runs", adapter, base=moved)
    assert ended.code == 1
    assert made["sha256"][:12] in ended.output
    assert base_of(ModelSettings(source=str(moved))).sha256[:12] in ended.output
    assert "--allow-base-mismatch" in " ".join(ended.output.split())


@pytest.mark.parametrize(
    ("named", "source", "same"),
    [
        ("llava-hf/llava-1.5-7b-hf", "llava-hf/llava-1.5-7b-hf", True),
        ("llava-hf/llava-1.5-7b-hf", "llava-hf/llava-1.5-13b-hf", False),
        ("other/llava-1.5-7b-hf", "llava-hf/llava-1.5-7b-hf", False),
        ("/home/x/llava-1.5-7b-hf", "llava-hf/llava-1.5-7b-hf", True),
        ("llava-hf/llava-1.5-7b-hf", "/models/LLaVA-1.5-7B-hf/", True),
        ("llava-hf/llava-1.5-7b-hf", "/hub/models--llava-hf--llava-1.5-7b-hf/snapshots/0a", True),
        ("llava-hf/llava-1.5-13b-hf", "/hub/models--llava-hf--llava-1.5-7b-hf/snapshots/0a", False),
        ("Some/Base-VL", EMBEDDED, False),
        (EMBEDDED, EMBEDDED, True),
        (None, EMBEDDED, True),
    ],
)
def test_names_are_compared_as_far_as_they_tell(named, source, same, tmp_path):
    """Mutation: `_is_same` returns True."""
    adapter = tiny.adapter_folder(tmp_path / "adapter", seed=1)
    name_base(adapter, named)
    base = Base(source, None, "0" * 64, files=source.startswith("/") or source == EMBEDDED)
    assert (base_problem(adapter, base) is None) is same


def test_a_base_that_lies_elsewhere_is_told_by_its_files(tmp_path):
    """Mutation: `_files_are` returns False."""
    model = tmp_path / "a" / "model"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    copied = Path(shutil.copytree(model, tmp_path / "b"))
    other = Path(shutil.copytree(model, tmp_path / "c"))
    (other / "config.json").write_text("{ }")
    adapter = tiny.adapter_folder(tmp_path / "adapter", seed=1)
    name_base(adapter, str(model))
    assert base_problem(adapter, base_of(ModelSettings(source=str(copied)))) is None
    assert base_problem(adapter, base_of(ModelSettings(source=str(other)))) is not None


def test_a_note_that_is_none_is_refused(tmp_path):
    adapter = tiny.adapter_folder(tmp_path / "adapter", seed=1)
    base = Base(EMBEDDED, None, "0" * 64, files=True)
    for text in ("{", "[]", '{"source": 1}'):
        (adapter / NOTE).write_text(text)
        with pytest.raises(ModelError, match="note of the base cannot be read"):
            base_problem(adapter, base)


UP = "base_model.model.model.language_model.layers.1.mlp.up_proj.lora_{}.weight"


def harmed(tensors, how):
    """One fault in the tensors of an adapter."""
    a, b = UP.format("A"), UP.format("B")
    if how in ("nan", "inf"):
        tensors[b][1, 1] = float(how)
    elif how == "renamed":
        tensors[a.replace("up_proj", "upward")] = tensors.pop(a)
        tensors[b.replace("up_proj", "upward")] = tensors.pop(b)
    elif how == "other size":
        tensors[a] = torch.cat([tensors[a], tensors[a]], dim=1)
    elif how == "missing half":
        del tensors[b]
    elif how == "missing layer":
        del tensors[a], tensors[b]
    elif how == "extra":
        tensors["base_model.model.model.language_model.layers.9.mlp.up_proj.lora_A.weight"] = (
            tensors[a].clone()
        )
    return tensors


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("nan", r"no finite numbers[\s\S]*up_proj"),
        ("inf", r"no finite numbers[\s\S]*up_proj"),
        ("renamed", "upward"),
        ("other size", r"of another width[\s\S]*up_proj"),
        ("missing half", r"missing[\s\S]*up_proj"),
        ("missing layer", r"up_proj[\s\S]*without tensors"),
        ("extra", r"layers\.9"),
    ],
)
@pytest.mark.parametrize("held", ["merged", "stacked"])
def test_no_tensor_is_left_as_it_was_drawn(held, how, told, tmp_path):
    """Mutation: `require_finite` raises nothing: NaN and infinities pass or are told by PEFT."""
    adapter = tiny.adapter_folder(tmp_path / "adapter", seed=1)
    tensors = load_file(adapter / WEIGHTS)
    save_file(harmed(tensors, how), adapter / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=told):
        load_adapters(tiny.base(), [adapter], how=held)


def test_values_that_are_no_numbers_end_a_command_in_words(bench, tmp_path):
    adapter = taught(bench, tmp_path / "nan")
    tensors = load_file(adapter / WEIGHTS)
    first = sorted(tensors)[0]
    tensors[first][0, 0] = float("nan")
    save_file(tensors, adapter / WEIGHTS, metadata={"format": "pt"})
    ended = audit(bench, tmp_path / "runs", adapter)
    assert ended.code == 1
    assert "no finite numbers" in ended.output
    assert first.rpartition(".lora")[0] in "".join(ended.output.split())
    assert "Traceback" not in ended.output
