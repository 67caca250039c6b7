"""Adapters as trainers and earlier releases write them: they load whole, or the reason is told."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny_families as families
import tiny_models as tiny
import wild_files as wild
from pulse_unlearn.config import ModelSettings
from pulse_unlearn.errors import ModelError
from pulse_unlearn.models.adapters import (
    AdapterStack,
    load_adapters,
    prepare,
    prepare_full,
    reference_view,
)
from pulse_unlearn.models.loading import load_model


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    monkeypatch.setattr("socket.socket.connect", None)


def weights(name, folders):
    return dict(load_adapters(families.model(name), folders, how="merged").named_parameters())


def changed(name, folder):
    """Each changed weight of a tiny model, less what it was."""
    base = dict(families.model(name).named_parameters())
    found = weights(name, [folder])
    return {
        path: found[path] - base[path] for path in base if not torch.equal(found[path], base[path])
    }


def refusal(name, folder):
    with pytest.raises(ModelError) as caught:
        weights(name, [folder])
    return str(caught.value)


# --- patterns of layers, and the names layers had


@pytest.mark.parametrize("moved", [False, True], ids=["today", "before"])
@pytest.mark.parametrize(
    "pattern", [wild.SWIFT, wild.SWIFT_LEAVES, wild.FACTORY, wild.UNSLOTH, "all-linear"]
)
def test_layers_are_those_of_the_tensors_whatever_the_pattern_says(pattern, moved, tmp_path):
    layers = wild.qwen_layers()
    halves = wild.update("qwen2_vl", layers)
    named = {wild.before(key) if moved else key: value for key, value in halves.items()}
    assert moved == (named.keys() != halves.keys())
    found = changed("qwen2_vl", wild.write(tmp_path / "a", named, target_modules=pattern))
    assert found.keys() == {f"{layer}.weight" for layer in layers}
    for layer in layers:
        product = halves[f"{layer}.lora_B.weight"] @ halves[f"{layer}.lora_A.weight"]
        torch.testing.assert_close(found[f"{layer}.weight"], 2.0 * product, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("moved", [False, True], ids=["today", "before"])
def test_ranks_and_scales_of_single_layers_are_read_by_the_names_of_the_file(moved, tmp_path):
    up = [layer for layer in wild.qwen_layers() if layer.endswith("up_proj")]
    other = [layer for layer in wild.qwen_layers() if layer.endswith("q_proj")]
    halves = wild.update("qwen2_vl", up, rank=4) | wild.update("qwen2_vl", other)
    pattern = r"layers(?=\.).*up_proj" if moved else r"language_model(?=\.).*up_proj"
    named = {wild.before(key) if moved else key: value for key, value in halves.items()}
    folder = wild.write(
        tmp_path / "a",
        named,
        target_modules=wild.SWIFT_LEAVES,
        rank_pattern={pattern: 4},
        alpha_pattern={pattern: 12},
    )
    found = changed("qwen2_vl", folder)
    assert len(found) == len(up) + len(other)
    for layer in up + other:
        product = halves[f"{layer}.lora_B.weight"] @ halves[f"{layer}.lora_A.weight"]
        scale = 3.0 if layer in up else 2.0
        torch.testing.assert_close(found[f"{layer}.weight"], scale * product, rtol=1e-4, atol=1e-4)


def test_a_rank_the_config_does_not_say_is_refused_because_the_scale_rests_on_it(tmp_path):
    halves = wild.update("qwen2_vl", wild.qwen_layers()[:2], rank=4)
    folder = wild.write(tmp_path / "a", halves, target_modules=wild.SWIFT)
    assert "of another rank than adapter_config.json says (4, not 2)" in refusal("qwen2_vl", folder)


def test_layers_of_the_vision_tower_are_found_by_the_names_they_had(tmp_path):
    layer = "model.visual.blocks.0.attn.qkv"
    halves = wild.update("qwen2_vl", [layer])
    named = {wild.before(key): value for key, value in halves.items()}
    found = changed(
        "qwen2_vl", wild.write(tmp_path / "a", named, target_modules=[r"qkv"], exclude_modules="x")
    )
    assert found.keys() == {f"{layer}.weight"}


def test_layers_of_paligemma_are_found_by_the_names_they_had(tmp_path):
    old = "language_model.model.layers.0.self_attn.q_proj"
    new = "model.language_model.layers.0.self_attn.q_proj"
    halves = {key.replace(new, old): v for key, v in wild.update("paligemma", [new]).items()}
    found = changed("paligemma", wild.write(tmp_path / "a", halves, target_modules="(.*q_proj)"))
    assert found.keys() == {f"{new}.weight"}


@pytest.mark.parametrize(
    ("old", "told"),
    [
        ("layers.9.self_attn.q_proj", "beyond the model's last layer"),
        ("h.0.attn.c_attn", "that the model does not have"),
        ("encoder.0.self_attn.q_proj", r"named in another layout; here it is model.language_model"),
    ],
)
def test_a_tensor_without_a_layer_is_named_with_the_reason(old, told, tmp_path):
    new = "model.language_model.layers.0.self_attn.q_proj"
    halves = {
        key.replace(new, f"model.language_model.{old}"): value
        for key, value in wild.update("qwen2_vl", [new]).items()
    }
    said = refusal("qwen2_vl", wild.write(tmp_path / "a", halves, target_modules="(.*)"))
    assert told in said
    assert old in said
    assert "use the base model the adapter was trained on (Some/Base-VL)" in said


def test_the_head_of_a_retrieval_model_is_named(tmp_path):
    new = "model.language_model.layers.0.self_attn.q_proj"
    halves = wild.update("paligemma", [new])
    for side in "AB":
        halves[f"custom_text_proj.lora_{side}.weight"] = torch.zeros(2, 2)
    said = refusal("paligemma", wild.write(tmp_path / "a", halves, target_modules="(.*)"))
    assert "custom_text_proj) of a retrieval model's own head (ColPali, ColQwen)" in said


def test_an_adapter_of_another_width_is_refused_with_both(tmp_path):
    new = "model.language_model.layers.0.self_attn.q_proj"
    halves = wild.update("qwen2_vl", [new])
    halves[f"{new}.lora_A.weight"] = torch.zeros(2, 99)
    said = refusal("qwen2_vl", wild.write(tmp_path / "a", halves, target_modules="(.*)"))
    assert "of another width" in said
    assert "in_features 99, here 16" in said


@pytest.mark.parametrize("whole", ["", "lm_head", "embed_tokens"])
def test_an_output_layer_that_is_the_embedding_too_is_refused(whole, tmp_path):
    more = {"target_modules": ["lm_head"]}
    halves = wild.update("qwen2_vl", ["lm_head"])
    if whole:
        path = next(n for n, _ in families.model("qwen2_vl").named_modules() if n.endswith(whole))
        halves = wild.update("qwen2_vl", wild.qwen_layers()[:1]) | {
            f"{path}.weight": torch.ones(3, 3)
        }
        more = {"target_modules": wild.SWIFT, "modules_to_save": [whole]}
    said = refusal("qwen2_vl", wild.write(tmp_path / "a", halves, **more))
    assert "sharing its weight with the embedding" in said


# --- more than low-rank layers


@pytest.mark.parametrize(
    "more",
    [
        "lm_head.weight",
        "model.language_model.embed_tokens.weight",
        "model.language_model.embed_tokens.lora_embedding_A",
        "model.language_model.layers.0.self_attn.q_proj.lora_magnitude_vector",
        "model.language_model.layers.0.self_attn.q_proj.lora_A.default.weight",
    ],
)
def test_tensors_that_are_no_low_rank_layers_are_named_and_refused(more, tmp_path):
    halves = wild.update("qwen2_vl", wild.qwen_layers()[:1]) | {more: torch.zeros(3, 3)}
    folder = wild.write(tmp_path / "a", halves, target_modules=wild.SWIFT, modules_to_save=None)
    said = refusal("qwen2_vl", folder)
    assert "would not be loaded" in said
    assert more in said
    assert "merge it beforehand" in said


@pytest.mark.parametrize("more", [{"init_lora_weights": "pissa"}, {"layer_replication": [[0, 2]]}])
def test_configs_that_change_more_than_the_layers_are_refused(more, tmp_path):
    halves = wild.update("qwen2_vl", wild.qwen_layers()[:1])
    folder = wild.write(tmp_path / "a", halves, target_modules=wild.SWIFT, **more)
    assert f"{next(iter(more))} " in refusal("qwen2_vl", folder)


NULLS = ("lora_ga_config", "kasa_config", "velora_config", "monteclora_config", "modules_to_save")


def test_fields_a_later_peft_writes_empty_mean_nothing(tmp_path):
    halves = wild.update("qwen2_vl", wild.qwen_layers())
    empty = dict.fromkeys(NULLS)
    folder = wild.write(tmp_path / "a", halves, target_modules=wild.UNSLOTH, **empty)
    assert len(changed("qwen2_vl", folder)) == len(wild.qwen_layers())


@pytest.mark.parametrize("safe", [False, True])
def test_a_folder_of_llavas_own_trainer_is_named_and_its_pickle_left_alone(safe, tmp_path):
    folder = tiny.adapter_folder(tmp_path / "a", seed=1)
    (folder / "non_lora_trainables.bin").write_bytes(b"not to be opened")
    if not safe:
        (folder / wild.WEIGHTS).rename(folder / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"LLaVA's own trainer[\s\S]*merge_lora_weights"):
        load_adapters(tiny.base(), [folder], how="stacked")


@pytest.mark.parametrize("name", [wild.CONFIG, wild.WEIGHTS])
def test_a_pointer_in_place_of_an_adapters_file_is_told(name, tmp_path):
    folder = tiny.adapter_folder(tmp_path / "a", seed=1)
    (folder / name).write_text(wild.POINTER, encoding="utf-8")
    with pytest.raises(ModelError, match=rf"Git LFS[\s\S]*{name}[\s\S]*git lfs pull"):
        load_adapters(tiny.base(), [folder], how="merged")


# --- model.adapters follows frozen_adapters


@pytest.fixture(scope="module")
def faint(tmp_path_factory):
    """A model folder, and an adapter so faint that half precision cannot add it in."""
    root = tmp_path_factory.mktemp("faint")
    tiny.base().save_pretrained(root / "model")
    tiny.processor().save_pretrained(root / "model")
    folder = tiny.adapter_folder(root / "adapter", seed=1, scope="llm")
    tensors = load_file(folder / wild.WEIGHTS)
    weak = {key: value * (1e-3 if "lora_B" in key else 1.0) for key, value in tensors.items()}
    save_file(weak, folder / wild.WEIGHTS, metadata={"format": "pt"})
    return str(root / "model"), str(folder)


def said(model):
    with torch.no_grad():
        return torch.cat(tiny.log_probs(model, tiny.mixed())).float()


def test_own_adapters_are_held_as_frozen_adapters_says(faint):
    source, folder = faint
    settings = ModelSettings(source=source, device="cpu", dtype="float32", adapters=(folder,))
    merged = load_model(settings)
    assert merged.beside == ()
    loaded = load_model(settings.model_copy(update={"frozen_adapters": "stacked"}))
    stacked = load_adapters(loaded.model, loaded.beside, how="stacked")
    torch.testing.assert_close(said(stacked), said(merged.model), rtol=1e-4, atol=1e-4)
    layer = "model.language_model.layers.0.mlp.up_proj.weight"
    own = dict(load_model(settings.model_copy(update={"adapters": ()})).model.named_parameters())
    assert not torch.equal(own[layer], dict(merged.model.named_parameters())[layer])
    # Beside the weights, these are the base model's to the last bit.
    beneath = layer.replace(".weight", ".base_layer.weight")
    assert torch.equal(own[layer], dict(stacked.get_base_model().named_parameters())[beneath])


def test_half_precision_rounds_less_of_a_faint_adapter_away_where_it_is_stacked(faint):
    source, folder = faint
    settings = ModelSettings(source=source, device="cpu", dtype="bfloat16", adapters=(folder,))
    base = load_model(settings.model_copy(update={"adapters": ()})).model
    merged = load_model(settings).model
    loaded = load_model(settings.model_copy(update={"frozen_adapters": "stacked"}))
    stacked = load_adapters(loaded.model, loaded.beside, how="stacked")
    layer = "model.language_model.layers.0.mlp.up_proj"
    held = stacked.get_base_model().get_submodule(layer)
    asked = held.get_delta_weight("frozen0").float()
    before, after = (model.get_submodule(layer).weight.float() for model in (base, merged))
    lost = (after - before - asked).norm() / asked.norm()
    assert lost > 0.3
    assert asked.dtype is torch.float32
    assert held.lora_A["frozen0"].weight.dtype is torch.float32


def test_own_stacked_adapters_are_part_of_the_reference_and_of_a_full_update(faint):
    source, folder = faint
    settings = ModelSettings(source=source, device="cpu", adapters=(folder,))
    merged = said(load_model(settings).model)
    stacked = settings.model_copy(update={"frozen_adapters": "stacked"})
    loaded = load_model(stacked)
    below = AdapterStack(loaded.beside, reference_depth=len(loaded.beside))
    made = prepare(loaded.model, below, how="stacked", fresh=tiny.fresh())
    tiny.randomise(made.model, seed=3)
    assert not torch.allclose(said(made.model), merged, atol=1e-2)
    with reference_view(made):
        torch.testing.assert_close(said(made.model), merged, rtol=1e-4, atol=1e-4)
    loaded = load_model(stacked)
    full = prepare_full(loaded.model, below, family=loaded.family, scope="llm")
    torch.testing.assert_close(said(full.model), merged, rtol=1e-4, atol=1e-4)
