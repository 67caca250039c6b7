"""Sizes from a config.json alone, held against the real classes on the meta device."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig, CLIPVisionConfig, LlamaConfig

import pulse_unlearn
from meta_models import known_config, known_model, parameters
from pulse_unlearn.config import LoraSettings
from pulse_unlearn.errors import ModelError
from pulse_unlearn.models import formulas
from pulse_unlearn.models.adapters import AdapterStack, add_trainable, prepare
from pulse_unlearn.models.families import FAMILIES, Family
from pulse_unlearn.models.formulas import UnknownShape, shape_of
from pulse_unlearn.models.known_configs import known_configs
from pulse_unlearn.models.meta import build_on_meta, measure, shape_on_meta
from pulse_unlearn.models.parts import targets
from pulse_unlearn.models.shapes import Linear, Part, PictureRule

WORLD = Path(pulse_unlearn.__file__).parent / "assets" / "world" / "model"
LLAVA_7B, LLAVA_13B = "llava-hf/llava-1.5-7b-hf", "llava-hf/llava-1.5-13b-hf"
QWEN, SMOLVLM = "Qwen/Qwen2.5-VL-7B-Instruct", "HuggingFaceTB/SmolVLM-256M-Instruct"
PLACES = {
    LLAVA_7B: ("model.vision_tower", "model.multi_modal_projector", "model.language_model"),
    LLAVA_13B: ("model.vision_tower", "model.multi_modal_projector", "model.language_model"),
    QWEN: ("model.visual", "model.visual.merger", "model.language_model"),
    SMOLVLM: ("model.vision_model", "model.connector", "model.text_model"),
}


def family(name: str) -> Family:
    tower, projector, language = PLACES[name]
    return Family(
        model_type=known_configs()[name]["model_type"],
        vision_tower=tower,
        projector=projector,
        language_model=language,
        answer_prefix="",
    )


@pytest.mark.parametrize(
    ("name", "published"),
    # Parameters in billions as their model cards have them.
    [(LLAVA_7B, 7.06), (LLAVA_13B, 13.35), (QWEN, 8.29), (SMOLVLM, 0.26)],
)
def test_known_models_are_as_large_as_published(name, published):
    assert round(shape_of(known_configs()[name]).parameters / 1e9, 2) == published


@pytest.mark.parametrize("name", list(known_configs()))
def test_every_part_is_as_large_as_on_the_meta_device(name):
    model, shape = known_model(name), shape_of(known_configs()[name])
    assert shape.parameters == parameters(model)
    tower, projector, language = (parameters(model.get_submodule(path)) for path in PLACES[name])
    inside = projector if PLACES[name][1].startswith(PLACES[name][0]) else 0
    assert shape.vision.parameters == tower - inside
    assert shape.projector.parameters == projector
    assert shape.language.parameters == language


@pytest.mark.parametrize("name", list(known_configs()))
def test_the_formula_and_the_count_agree_on_every_linear_layer(name):
    shape = shape_of(known_configs()[name])
    counted = measure(known_model(name), known_config(name), family(name))
    for part in ("vision", "projector", "language"):
        assert sizes(getattr(shape, part)) == sizes(getattr(counted, part)), part
        assert getattr(shape, part).rest == getattr(counted, part).rest
    assert shape.text == counted.text
    assert (shape.head, shape.vocabulary) == (counted.head, counted.vocabulary)


def sizes(part):
    found = {}
    for layer in part.linear:
        key = (layer.inputs, layer.outputs, layer.bias)
        found[key] = found.get(key, 0) + layer.count
    return found


def test_the_13b_shape_has_the_module_paths_that_are_adapted():
    """40 layers of 7 linear layers, and the projector's two; none of the tower's."""
    model, llava = known_model(LLAVA_13B), FAMILIES.get("llava")
    paths = targets(model, llava, "projector+llm").layers
    assert len(paths) == 40 * 7 + 2
    assert not any("vision" in path for path in paths)
    rank = 128
    counted = sum(rank * sum(model.get_submodule(path).weight.shape) for path in paths)
    assert shape_of(known_configs()[LLAVA_13B]).adapter("projector+llm", rank) == counted
    # By hand: a layer has q, k, v, o of 5120 x 5120 and three of 5120 x 13824; the projector
    # 1024 x 5120 and 5120 x 5120.
    layer = 4 * (5120 + 5120) + 3 * (5120 + 13824)
    assert counted == rank * (40 * layer + (1024 + 5120) + (5120 + 5120))


def test_the_embedded_model_is_counted_right():
    config = json.loads((WORLD / "config.json").read_text(encoding="utf-8"))
    shape = shape_of(config)
    with safe_open(WORLD / "model.safetensors", framework="np") as file:
        stored = sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    assert shape.parameters == shape_on_meta(WORLD).parameters == stored
    assert shape.head == 0, "its output head is its input embedding"


def test_defaults_are_those_of_transformers():
    for kind, made in (("llama", LlamaConfig()), ("clip_vision_model", CLIPVisionConfig())):
        for key, value in formulas._DEFAULTS[kind].items():
            assert getattr(made, key) == value, f"{kind}.{key}"
    made = AutoConfig.for_model("idefics3").vision_config
    for key, value in formulas._DEFAULTS["idefics3_vision"].items():
        assert getattr(made, key) == value, f"idefics3_vision.{key}"


def test_a_file_that_leaves_out_what_is_usual_is_filled_up():
    """LLaVA-1.5-7B's own file names neither widths nor layers of its language model."""
    sparse = {
        **known_configs()[LLAVA_7B],
        "text_config": {"model_type": "llama", "vocab_size": 32064},
    }
    assert shape_of(sparse) == shape_of(known_configs()[LLAVA_7B])


def test_part_and_linear_by_hand():
    part = Part((Linear(3, 5, 2, bias=True), Linear(5, 3)), rest=7)
    assert part.parameters == 7 + 2 * (15 + 5) + 15
    assert part.products == 2 * 15 + 15
    assert part.adapter(4) == 4 * (2 * 8 + 8)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "unheard_of"},
        {**known_configs()[LLAVA_7B], "text_config": {"model_type": "mistral"}},
        {"model_type": "qwen2_5_vl", "vision_config": {}},
    ],
)
def test_what_cannot_be_told_is_said(config):
    with pytest.raises(UnknownShape):
        shape_of(config)


def test_a_wrong_module_path_is_named():
    wrong = replace(family(LLAVA_7B), vision_tower="model.no_tower")
    with pytest.raises(ModelError, match=r"model\.no_tower"):
        measure(known_model(LLAVA_7B), known_config(LLAVA_7B), wrong)


def test_a_config_that_is_no_such_model_is_refused():
    with pytest.raises(ModelError, match="image-text-to-text"):
        build_on_meta(LlamaConfig())


def test_llava_brings_every_picture_to_one_size():
    rule = shape_of(known_configs()[LLAVA_13B]).pictures
    assert rule.tokens(100, 900) == 24 * 24  # 336 / 14 squared, the class token left out
    assert rule.patches(100, 900) == (1, 24 * 24 + 1)


def test_qwen_keeps_a_pictures_size_in_steps_of_28_pixels():
    rule = shape_of(known_configs()[QWEN]).pictures
    assert rule.tokens(512, 512) == 18 * 18  # 512 / 28 = 18.3
    assert rule.patches(512, 512) == (1, 4 * 18 * 18)
    assert rule.tokens(10, 10) == 4  # brought up to 56 x 56
    small = PictureRule(14, 2, pixels=(56 * 56, 280 * 280))
    assert small.tokens(2800, 2800) == 100  # brought down to 280 x 280


def test_smolvlm_cuts_a_picture_into_tiles_and_adds_a_small_whole():
    rule = shape_of(known_configs()[SMOLVLM]).pictures
    # Longer side to 2048, tiles of 512: four by four and the whole; 64 tokens and two marks each.
    assert rule.patches(700, 700) == (17, 1024)
    assert rule.tokens(700, 700) == 17 * 66
    assert rule.patches(1000, 500) == (4 * 2 + 1, 1024)


def test_reading_sizes_imports_no_torch():
    code = (
        "import sys\nfrom pulse_unlearn.config import ModelSettings\n"
        "from pulse_unlearn.models.describe import describe\n"
        "from pulse_unlearn.models import costs\ndescribe(ModelSettings())\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(("name", "width", "layers"), [(LLAVA_7B, 4096, 32), (LLAVA_13B, 5120, 40)])
def test_a_step_of_full_size_has_the_shapes_and_gradients_that_are_planned_for(name, width, layers):
    """Two pictures, 64 words each, LoRA on projector and language model; no number in memory."""
    lora = LoraSettings(rank=128, alpha=256.0)
    scope = "projector+llm"
    base = build_on_meta(known_config(name)).to(torch.bfloat16)
    with torch.device("meta"):
        made = prepare(
            base,
            AdapterStack(),
            how="merged",
            fresh=lambda model: add_trainable(
                model, FAMILIES.get("llava"), scope, lora=lora, seed=0
            ),
        )
        inner = made.model.get_base_model()
        pixels = torch.zeros(2, 3, 336, 336, dtype=torch.bfloat16)
        pictures = torch.stack(list(inner.model.get_image_features(pixels).pooler_output))
        words = inner.get_input_embeddings()(torch.zeros(2, 64, dtype=torch.long))
        sequence = torch.cat([pictures.to(words.dtype), words], dim=1)
        tokens = sequence.shape[1]
        logits = made.model(
            inputs_embeds=sequence,
            # Whole masks and positions: what is worked out from them would ask for numbers.
            attention_mask=torch.zeros(2, 1, tokens, tokens, dtype=torch.bfloat16),
            position_ids=torch.zeros(2, tokens, dtype=torch.long),
            logits_to_keep=3,
            use_cache=False,
        ).logits
        logits.sum().backward()
    assert pictures.shape == (2, 24 * 24, width)
    assert logits.shape == (2, 3, 32064)
    trained = {key: tensor for key, tensor in made.model.named_parameters() if tensor.requires_grad}
    assert len(trained) == 2 * (7 * layers + 2)
    assert [key for key, tensor in trained.items() if tensor.grad is None] == []
    assert sum(map(torch.numel, trained.values())) == shape_of(known_configs()[name]).adapter(
        scope, 128
    )
    gradients = [key for key, tensor in made.model.named_parameters() if tensor.grad is not None]
    assert set(gradients) == set(trained)
    assert all(tensor.is_meta for tensor in made.model.parameters())
