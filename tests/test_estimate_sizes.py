"""A model's sizes from the small files beside its weights, wherever they are."""

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
from transformers import AutoConfig, LlamaConfig

import pulse_unlearn
import unlisted_families
from meta_models import known, parameters
from pulse_unlearn.config import LoraSettings, ModelSettings, SpeedSettings
from pulse_unlearn.errors import ModelError
from pulse_unlearn.estimate.counts import count_layer
from pulse_unlearn.estimate.sizes import (
    PictureRule,
    TextCounter,
    describe,
    known_configs,
)
from pulse_unlearn.models.adapters import AdapterStack, add_trainable, prepare
from pulse_unlearn.models.backends import packing_obstacle
from pulse_unlearn.models.families import FAMILIES
from pulse_unlearn.models.loading import build_on_meta
from pulse_unlearn.models.parts import targets

WORLD = Path(pulse_unlearn.__file__).parent / "assets" / "world" / "model"
LLAVA_7B, LLAVA_13B = "llava-hf/llava-1.5-7b-hf", "llava-hf/llava-1.5-13b-hf"
QWEN, SMOLVLM = "Qwen/Qwen2.5-VL-7B-Instruct", "HuggingFaceTB/SmolVLM-256M-Instruct"
AUTO = SpeedSettings(packing="auto")


@pytest.fixture(autouse=True)
def no_cache(monkeypatch, tmp_path):
    """What the hub's cache of this machine holds must not matter."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def folder(root: Path, config, **files) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name, content in {"config": config, **files}.items():
        (root / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return root


def described(root: Path, config, **files):
    return describe(ModelSettings(source=str(folder(root, config, **files))))


# --- sizes


@pytest.mark.parametrize(
    ("name", "published"),
    # Parameters in billions as their model cards have them.
    [(LLAVA_7B, 7.06), (LLAVA_13B, 13.35), (QWEN, 8.29), (SMOLVLM, 0.26)],
)
def test_known_models_are_as_large_as_published(name, published):
    assert round(known(name).parameters / 1e9, 2) == published


@pytest.mark.parametrize("name", list(known_configs()))
def test_the_parts_of_a_model_are_all_of_it(name):
    model = known(name)
    parts = [model.trained(scope) for scope in ("vision", "projector", "llm")]
    assert sum(parts) == model.trained("all") == model.parameters == parameters(model.module)
    assert parts[1] == parameters(model.module.get_submodule(model.family.projector))


def test_the_13b_shape_has_the_module_paths_that_are_adapted():
    """40 layers of 7 linear layers, and the projector's two; none of the tower's."""
    model, rank = known(LLAVA_13B), 128
    paths = targets(model.module, model.family, "projector+llm").layers
    assert len(paths) == 40 * 7 + 2
    assert not any("vision" in path for path in paths)
    # By hand: a layer has q, k, v, o of 5120 x 5120 and three of 5120 x 13824; the projector
    # 1024 x 5120 and 5120 x 5120.
    layer = 4 * (5120 + 5120) + 3 * (5120 + 13824)
    counted = rank * (40 * layer + (1024 + 5120) + (5120 + 5120))
    assert model.trained("projector+llm", rank) == counted
    assert (model.language.count, model.language.width) == (40, 5120)
    assert (model.tower.count, model.tower.width) == (24, 1024)


def test_the_embedded_model_is_counted_right():
    model = describe(ModelSettings())
    with safe_open(WORLD / "model.safetensors", framework="np") as file:
        stored = sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    assert model.parameters == stored
    language = parameters(model.module.get_submodule(model.family.language_model))
    assert model.trained("llm") == language, "its output head is its input embedding"


def test_a_file_that_leaves_out_what_is_usual_is_filled_up(tmp_path):
    """LLaVA-1.5-7B's own file names neither widths nor layers of its language model."""
    sparse = {
        **known_configs()[LLAVA_7B],
        "text_config": {"model_type": "llama", "vocab_size": 32064},
    }
    assert described(tmp_path, sparse).parameters == known(LLAVA_7B).parameters


def test_another_language_model_in_a_known_family_is_counted_likewise(tmp_path):
    config = json.loads((WORLD / "config.json").read_text(encoding="utf-8"))
    config["text_config"] = {**config["text_config"], "model_type": "mistral"}
    assert described(tmp_path, config).parameters == describe(ModelSettings()).parameters


def test_a_family_without_an_entry_is_counted_by_the_parts_that_are_found(tmp_path):
    unlisted_families.vipllava().config.save_pretrained(tmp_path)
    model = describe(ModelSettings(source=str(tmp_path)))
    assert model.family.language_model == "model.language_model"
    assert count_layer(model.language, None).forward(1) > 0
    assert "no entry" in packing_obstacle(model.config, model.family, AUTO)


def test_a_wrong_module_path_is_named():
    model = known(LLAVA_7B)
    wrong = replace(model, family=replace(model.family, vision_tower="model.no_tower"))
    with pytest.raises(ModelError, match="no_tower"):
        _ = wrong.tower


def test_a_config_that_is_no_such_model_is_refused():
    with pytest.raises(ModelError, match="AutoModelForImageTextToText"):
        build_on_meta(LlamaConfig(), ModelSettings())


def test_a_model_in_half_precision_or_with_flash_attention_needs_neither_here(tmp_path):
    config = json.loads((WORLD / "config.json").read_text(encoding="utf-8"))
    source = str(folder(tmp_path, config))
    settings = ModelSettings(source=source, dtype="float16", attention="flash_attention_2")
    model = describe(settings)
    assert {tensor.dtype for tensor in model.module.parameters()} == {torch.float16}
    assert all(tensor.is_meta for tensor in model.module.parameters())
    assert "flash" in packing_obstacle(model.config, model.family, AUTO)


# --- pictures


def test_llava_brings_every_picture_to_one_size():
    rule = known(LLAVA_13B).pictures
    assert rule.tokens(100, 900) == 24 * 24  # 336 / 14 squared, the class token left out
    assert rule.patches(100, 900) == (1, 24 * 24 + 1)


def test_qwen_keeps_a_pictures_size_in_steps_of_28_pixels():
    rule = known(QWEN).pictures
    assert rule.tokens(512, 512) == 18 * 18  # 512 / 28 = 18.3
    assert rule.patches(512, 512) == (1, 4 * 18 * 18)
    assert rule.tokens(10, 10) == 4  # brought up to 56 x 56
    small = PictureRule(14, 2, pixels=(56 * 56, 280 * 280))
    assert small.tokens(2800, 2800) == 100  # brought down to 280 x 280


def test_smolvlm_cuts_a_picture_into_tiles_and_adds_a_small_whole():
    rule = known(SMOLVLM).pictures
    # Longer side to 2048, tiles of 512: four by four and the whole; 64 tokens and two marks each.
    assert rule.patches(700, 700) == (17, 1024)
    assert rule.tokens(700, 700) == 17 * 66
    assert rule.patches(1000, 500) == (4 * 2 + 1, 1024)


def test_pictures_that_become_fewer_tokens_than_patches_are_counted_as_such(tmp_path):
    import tiny_families

    for name in ("gemma3", "internvl", "ovis2"):
        made = tiny_families.built(name)
        made.config.save_pretrained(tmp_path / name)
        rule = describe(ModelSettings(source=str(tmp_path / name))).pictures
        asked = made.processor.image_seq_length
        assert rule.tokens(30, 30) == asked, name


def test_a_processors_bounds_are_taken(tmp_path):
    configs = known_configs()
    qwen = described(
        tmp_path / "qwen", configs[QWEN], preprocessor_config={"max_pixels": 280 * 280}
    )
    assert qwen.pictures.tokens(2800, 2800) == 100
    whole = described(
        tmp_path / "whole",
        configs[SMOLVLM],
        processor_config={"image_processor": {"do_image_splitting": False}},
    )
    assert whole.pictures.tokens(700, 700) == 64
    half = described(
        tmp_path / "half", configs[SMOLVLM], preprocessor_config={"size": {"longest_edge": 1024}}
    )
    assert half.pictures.patches(700, 700)[0] == 5


# --- files


def test_the_embedded_model_is_described_by_its_own_files():
    model = describe(ModelSettings())
    assert "in the package" in model.origin
    assert model.counted_by == "tokenizer.json"
    assert model.pictures.tokens(48, 48) == 16


def test_a_known_model_that_is_not_here_is_said_to_be_known_only():
    model = describe(ModelSettings(source=QWEN))
    assert "not here yet" in model.origin
    assert "characters" in model.counted_by


def test_a_local_folder_is_preferred_to_what_is_known(tmp_path):
    smaller = json.loads(json.dumps(known_configs()[QWEN]))
    smaller["text_config"]["num_hidden_layers"] = 2
    model = described(tmp_path / "model", smaller)
    assert model.language.count == 2
    assert str(tmp_path / "model" / "config.json") in model.origin


def test_the_hubs_cache_is_read(no_cache):
    smaller = json.loads(json.dumps(known_configs()[SMOLVLM]))
    smaller["text_config"]["num_hidden_layers"] = 3
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = no_cache / "models--HuggingFaceTB--SmolVLM-256M-Instruct"
    folder(repository / "snapshots" / commit, smaller)
    model = describe(ModelSettings(source=SMOLVLM, revision=commit))
    assert model.language.count == 3
    assert "the hub's cache" in model.origin
    assert describe(ModelSettings(source=SMOLVLM, revision="f" * 40)).language.count == 30


@pytest.mark.parametrize(
    ("source", "word"),
    [("nobody/nothing", "hf download nobody/nothing config.json"), ("a/b/c", "owner/name")],
)
def test_an_unknown_model_is_told_with_the_mend(source, word):
    with pytest.raises(ModelError, match=word):
        describe(ModelSettings(source=source))


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_broken_config_is_told(tmp_path, text):
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=r"config\.json"):
        describe(ModelSettings(source=str(tmp_path)))


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "unheard_of"},
        {"model_type": "llama"},
        {"model_type": "blip", "text_config": {}, "vision_config": {}},
    ],
)
def test_what_cannot_be_told_is_said(config, tmp_path):
    with pytest.raises(ModelError):
        described(tmp_path, config)


def test_a_family_without_an_entry_is_told(tmp_path):
    config = {"model_type": "blip", "text_config": {}, "vision_config": {}}
    with pytest.raises(ModelError, match="no entry for this model family"):
        described(tmp_path, config)


def test_text_is_counted_by_the_tokenizer_or_by_its_length():
    counted = TextCounter(WORLD / "tokenizer.json")("A. baker\nB. judge")
    assert counted == 6
    assert TextCounter(None)("twelve chars") == 3


@pytest.mark.slow  # seconds of a core; parts of it are tested quickly
def test_sizes_are_read_without_a_weight():
    """13 thousand million parameters in a process that may take little memory."""
    code = (
        "import resource\nfrom pulse_unlearn.config import ModelSettings\n"
        "from pulse_unlearn.estimate.sizes import describe\n"
        f"print(describe(ModelSettings(source={LLAVA_13B!r})).parameters)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    counted, kilobytes = map(int, done.stdout.split())
    assert counted > 13e9
    assert kilobytes < 2e6


# --- packing

LLAVA = known_configs()[LLAVA_7B]
OTHER_TEXTS = {
    "llava": (LLAVA, ""),
    "qwen": (known_configs()[QWEN], "M-RoPE"),
    "layers": (
        {
            "text_config": {
                "model_type": "qwen2",
                "layer_types": ["full_attention", "sliding_attention"],
                "num_hidden_layers": 2,
            }
        },
        "do not all see the whole sequence",
    ),
    "window": (
        {"text_config": {"model_type": "mistral", "sliding_window": 4096}},
        "slides over the sequence",
    ),
    # Qwen2's files hold a window that is switched off; for others one that is there is used.
    "switched off": (
        {
            "text_config": {
                "model_type": "qwen2",
                "sliding_window": 4096,
                "use_sliding_window": False,
            }
        },
        "",
    ),
}


@pytest.mark.parametrize("name", list(OTHER_TEXTS))
def test_packing_is_foretold_from_the_config(name):
    config, reason = OTHER_TEXTS[name]
    read = AutoConfig.for_model(**{**LLAVA, **config})
    said = packing_obstacle(read, FAMILIES.get(read.model_type), AUTO)
    assert (reason in said) if reason else said == ""
    off = SpeedSettings(packing="off")
    assert "off" in packing_obstacle(read, FAMILIES.get(read.model_type), off)


def test_a_family_that_cannot_be_packed_says_so_itself():
    family = replace(FAMILIES.get("llava"), unpackable="one picture becomes several pieces")
    said = packing_obstacle(AutoConfig.for_model(**LLAVA), family, AUTO)
    assert said == family.unpackable


# --- a step


@pytest.mark.parametrize(
    ("name", "width", "layers"),
    [
        (LLAVA_7B, 4096, 32),
        # The same family with wider and more layers.
        pytest.param(LLAVA_13B, 5120, 40, marks=pytest.mark.slow),
    ],
)
def test_a_step_of_full_size_has_the_shapes_and_gradients_that_are_planned_for(name, width, layers):
    """Two pictures, 64 words each, LoRA on projector and language model; no number in memory."""
    lora = LoraSettings(rank=128, alpha=256.0)
    scope = "projector+llm"
    base = describe(ModelSettings(source=name, dtype="bfloat16")).module
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
    assert sum(map(torch.numel, trained.values())) == known(name).trained(scope, 128)
    gradients = [key for key, tensor in made.model.named_parameters() if tensor.grad is not None]
    assert set(gradients) == set(trained)
    assert all(tensor.is_meta for tensor in made.model.parameters())
