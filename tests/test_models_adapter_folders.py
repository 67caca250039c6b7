"""PEFT folders that others made: what is held, and what is refused before it is opened."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny_families as families
import tiny_models as tiny
from pulse_unlearn.config import ModelSettings
from pulse_unlearn.errors import ModelError
from pulse_unlearn.models.adapters import load_adapters
from pulse_unlearn.models.loading import load_model

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@pytest.fixture
def adapter(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", None)
    return tiny.adapter_folder(tmp_path / "adapter", seed=1)


def edit(folder, change):
    path = folder / CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(change(config)), encoding="utf-8")


def merged(folder):
    return dict(load_adapters(tiny.base(), [folder], how="merged").named_parameters())


# --- adapters made with earlier releases of transformers


def old(name):
    """The name a layer of LLaVA had before it was moved below `model.`."""
    for new, before in (
        ("model.language_model.", "language_model.model."),
        ("model.multi_modal_projector.", "multi_modal_projector."),
    ):
        name = name.replace(new, before)
    return name


@pytest.mark.parametrize("named", ["paths", "pattern"])
def test_layers_are_found_by_the_names_they_had(named, adapter, tmp_path):
    folder = Path(shutil.copytree(adapter, tmp_path / "old"))
    tensors = load_file(adapter / WEIGHTS)
    changed = {
        "base_model.model." + old(name.removeprefix("base_model.model.")): value
        for name, value in tensors.items()
    }
    assert not changed.keys() & tensors.keys()
    targets = {
        "paths": lambda config: [old(path) for path in config["target_modules"]],
        "pattern": lambda config: r"^(?!.*vision_tower).*(?:_proj|linear_[12])$",
    }[named]
    edit(folder, lambda config: config | {"target_modules": targets(config)})
    save_file(changed, folder / WEIGHTS, metadata={"format": "pt"})
    found, expected = merged(folder), merged(adapter)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    base = dict(tiny.base().named_parameters())
    assert not torch.equal(
        found["model.language_model.layers.1.mlp.up_proj.weight"],
        base["model.language_model.layers.1.mlp.up_proj.weight"],
    )


# --- what is no such adapter


class Gadget:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (self.marker, "w")


def test_a_pickled_adapter_is_refused_unopened(adapter, tmp_path):
    (adapter / WEIGHTS).unlink()
    torch.save({"x": Gadget(str(tmp_path / "marker"))}, adapter / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"pickled adapters are never read[\s\S]*safetensors"):
        merged(adapter)
    assert not (tmp_path / "marker").exists()
    torch.load(adapter / "adapter_model.bin", weights_only=False)
    assert (tmp_path / "marker").exists(), "opened, it would have run"


def test_an_adapter_without_its_file_is_refused(adapter):
    (adapter / WEIGHTS).unlink()
    with pytest.raises(ModelError, match="file is missing"):
        merged(adapter)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"peft_type": "PROMPT_TUNING"}, "peft_type 'PROMPT_TUNING'"),
        ({"peft_type": "NO_SUCH"}, "peft_type 'NO_SUCH'"),
        (
            {"modules_to_save": ["lm_head"], "bias": "all"},
            r"bias 'all', modules_to_save \['lm_head",
        ),
        ({"use_dora": True}, "use_dora True"),
    ],
)
def test_an_adapter_that_is_more_than_low_rank_layers_is_refused_with_the_mend(more, told, adapter):
    edit(adapter, lambda config: config | more)
    with pytest.raises(ModelError, match=rf"{told}[\s\S]*merge_and_unload"):
        merged(adapter)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"peft_type": "LORA"}'])
def test_a_config_that_says_nothing_is_refused(content, adapter):
    (adapter / CONFIG).write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match="does not fit"):
        merged(adapter)


@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "idefics3"])
def test_an_adapter_of_another_model_is_refused_naming_its_folder(name, adapter, tmp_path):
    source = families.save(name, tmp_path / name)
    settings = ModelSettings(source=str(source), device="cpu", adapters=(str(adapter),))
    with pytest.raises(ModelError, match="does not fit the model") as caught:
        load_model(settings)
    (problem,) = caught.value.problems
    assert problem.where == str(adapter)
    assert len(problem.got.splitlines()) < 6
