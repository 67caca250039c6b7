"""PEFT folders that others made: what is held, and what is refused before it is opened."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

import tiny_families as families
import tiny_models as tiny
from pulse_unlearn.config import ModelSettings
from pulse_unlearn.errors import ModelError
from pulse_unlearn.models.adapters import load_adapters, trainable_names
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
        ({"bias": "all", "lora_bias": True}, "bias 'all', lora_bias True"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
    ],
)
def test_an_adapter_that_is_more_than_low_rank_layers_is_refused_with_the_mend(more, told, adapter):
    edit(adapter, lambda config: config | more)
    with pytest.raises(ModelError, match=rf"{told}[\s\S]*merge_and_unload"):
        merged(adapter)


# --- what is merged through PEFT, because it does not lie beside the weights

MORE = {
    "dora": {"use_dora": True},
    "projector": {"modules_to_save": ["multi_modal_projector"]},
    "vocabulary and dora": {"modules_to_save": ["lm_head", "embed_tokens"], "use_dora": True},
}


@pytest.fixture(params=list(MORE))
def others(request, tmp_path):
    """An adapter as PEFT itself trains and saves it, every tensor changed."""
    config = LoraConfig(
        r=2, lora_alpha=8, target_modules=["q_proj", "up_proj"], **MORE[request.param]
    )
    model = get_peft_model(tiny.base(), config)
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.3 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "others", save_embedding_layers=False)
    return tmp_path / "others"


def said(model):
    with torch.no_grad():
        return torch.cat(tiny.log_probs(model.eval(), tiny.mixed()))


@pytest.mark.parametrize("how", ["merged", "stacked"])
def test_dora_and_whole_modules_do_what_they_do_in_peft(how, others):
    expected = said(PeftModel.from_pretrained(tiny.base(), str(others)))
    assert not torch.allclose(expected, said(tiny.base()), atol=0.1)
    found = load_adapters(tiny.base(), [others], how=how)
    assert type(found) is type(tiny.base()), "merged, whatever is asked for"
    torch.testing.assert_close(said(found), expected, atol=1e-4, rtol=0)
    assert trainable_names(found) == []


def test_what_lies_above_dora_stays_beside_it(others, adapter):
    found = load_adapters(tiny.base(), [others, adapter], how="stacked")
    assert list(found.peft_config) == ["frozen0"]
    below = load_adapters(tiny.base(), [others], how="merged")
    expected = said(load_adapters(below, [adapter], how="merged"))
    torch.testing.assert_close(said(found), expected, atol=1e-3, rtol=0)


def test_whole_modules_are_found_by_the_names_they_had(others, tmp_path):
    folder = Path(shutil.copytree(others, tmp_path / "old"))
    changed = {
        "base_model.model." + old(name.removeprefix("base_model.model.")): value
        for name, value in load_file(others / WEIGHTS).items()
    }
    save_file(changed, folder / WEIGHTS, metadata={"format": "pt"})
    found, expected = merged(folder), merged(others)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_whole_module_that_the_config_does_not_name_is_refused(others):
    edit(others, lambda config: config | {"modules_to_save": None, "use_dora": False})
    with pytest.raises(ModelError, match="would not be loaded"):
        merged(others)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"peft_type": "LORA"}'])
def test_a_config_that_says_nothing_is_refused(content, adapter):
    (adapter / CONFIG).write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match="does not fit"):
        merged(adapter)


@pytest.mark.parametrize("setting", ["bias", "r", "lora_alpha", "lora_dropout"])
def test_a_config_with_null_for_a_value_is_refused(setting, adapter):
    """Mutation: PEFT's AttributeError is let through; met with `bias` by random inputs."""
    edit(adapter, lambda config: config | {setting: None})
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
