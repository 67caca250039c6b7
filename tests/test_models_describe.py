"""A model described from the small files beside its weights, wherever they are."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import AutoConfig

import pulse_unlearn
from pulse_unlearn.config import ModelSettings, SpeedSettings
from pulse_unlearn.errors import ModelError
from pulse_unlearn.models.backends import obstacle
from pulse_unlearn.models.describe import TextCounter, describe, entry_of, packing_obstacle
from pulse_unlearn.models.formulas import shape_of
from pulse_unlearn.models.known_configs import known_configs

WORLD = Path(pulse_unlearn.__file__).parent / "assets" / "world" / "model"
AUTO = SpeedSettings(packing="auto")
QWEN, SMOLVLM = "Qwen/Qwen2.5-VL-7B-Instruct", "HuggingFaceTB/SmolVLM-256M-Instruct"


@pytest.fixture(autouse=True)
def no_cache(monkeypatch, tmp_path):
    """What the hub's cache of this machine holds must not matter."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def folder(root: Path, config, **files) -> Path:
    root.mkdir(parents=True)
    for name, content in {"config": config, **files}.items():
        (root / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return root


def test_the_embedded_model_is_described_by_its_own_files():
    described = describe(ModelSettings())
    assert "in the package" in described.origin
    assert described.counted() == "tokenizer.json"
    assert described.shape.pictures.tokens(48, 48) == 16


def test_a_known_model_that_is_not_here_is_said_to_be_known_only():
    described = describe(ModelSettings(source=QWEN))
    assert described.shape == shape_of(known_configs()[QWEN])
    assert "not here yet" in described.origin
    assert "characters" in described.counted()


def test_a_local_folder_is_preferred_to_what_is_known(tmp_path):
    smaller = json.loads(json.dumps(known_configs()[QWEN]))
    smaller["text_config"]["num_hidden_layers"] = 2
    described = describe(ModelSettings(source=str(folder(tmp_path / "model", smaller))))
    assert described.shape.text.layers == 2
    assert str(tmp_path / "model" / "config.json") in described.origin


def test_the_hubs_cache_is_read(no_cache):
    smaller = json.loads(json.dumps(known_configs()[SMOLVLM]))
    smaller["text_config"]["num_hidden_layers"] = 3
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = no_cache / "models--HuggingFaceTB--SmolVLM-256M-Instruct"
    folder(repository / "snapshots" / commit, smaller)
    described = describe(ModelSettings(source=SMOLVLM, revision=commit))
    assert described.shape.text.layers == 3
    assert "the hub's cache" in described.origin
    assert describe(ModelSettings(source=SMOLVLM, revision="f" * 40)).shape.text.layers == 30


def test_a_processors_bounds_are_taken(tmp_path):
    qwen = folder(
        tmp_path / "qwen", known_configs()[QWEN], preprocessor_config={"max_pixels": 280 * 280}
    )
    assert describe(ModelSettings(source=str(qwen))).shape.pictures.tokens(2800, 2800) == 100
    whole = folder(
        tmp_path / "whole",
        known_configs()[SMOLVLM],
        processor_config={"image_processor": {"do_image_splitting": False}},
    )
    assert describe(ModelSettings(source=str(whole))).shape.pictures.tokens(700, 700) == 64
    half = folder(
        tmp_path / "half",
        known_configs()[SMOLVLM],
        preprocessor_config={"size": {"longest_edge": 1024}},
    )
    assert describe(ModelSettings(source=str(half))).shape.pictures.patches(700, 700)[0] == 5


def test_a_family_without_a_formula_is_counted_on_the_meta_device(tmp_path):
    config = json.loads((WORLD / "config.json").read_text(encoding="utf-8"))
    known = shape_of(config)
    config["text_config"] = {**config["text_config"], "model_type": "mistral"}
    described = describe(ModelSettings(source=str(folder(tmp_path / "model", config))))
    assert "meta device" in described.origin
    assert described.shape.parameters == known.parameters


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


def test_text_is_counted_by_the_tokenizer_or_by_its_length():
    counted = TextCounter(WORLD / "tokenizer.json")("A. baker\nB. judge")
    assert counted == 6
    assert TextCounter(None)("twelve chars") == 3


CONFIGS = {
    "llava": known_configs()["llava-hf/llava-1.5-7b-hf"],
    "qwen": known_configs()[QWEN],
    "layers": {
        "model_type": "llava",
        "vision_config": known_configs()["llava-hf/llava-1.5-7b-hf"]["vision_config"],
        "text_config": {
            "model_type": "qwen2",
            "layer_types": ["full_attention", "sliding_attention"],
            "num_hidden_layers": 2,
        },
    },
    "window": {
        "model_type": "llava",
        "vision_config": known_configs()["llava-hf/llava-1.5-7b-hf"]["vision_config"],
        "text_config": {"model_type": "mistral", "sliding_window": 4096},
    },
}


@pytest.mark.parametrize("name", list(CONFIGS))
def test_packing_is_foretold_as_the_reader_will_see_it(name):
    config = CONFIGS[name]
    said = packing_obstacle(config, AUTO)
    seen = obstacle(AutoConfig.for_model(**config))
    # A family's entry may give another reason than the config.
    assert said == (getattr(entry_of(config["model_type"]), "unpackable", "") or seen)


def test_packing_that_is_off_is_said_to_be_off():
    assert "off" in packing_obstacle(known_configs()[QWEN], SpeedSettings(packing="off"))
    assert "flash" in packing_obstacle(CONFIGS["llava"], AUTO, attention="flash_attention_2")


def test_a_family_that_cannot_be_packed_says_so_itself(monkeypatch):
    entry = SimpleNamespace(model_type="llava", unpackable="one picture becomes several pieces")
    monkeypatch.setattr("pulse_unlearn.models.describe.FAMILIES", [("llava", entry)])
    assert packing_obstacle(CONFIGS["llava"], AUTO) == entry.unpackable


def test_a_family_without_an_entry_is_told(tmp_path):
    config = {"model_type": "blip", "text_config": {}, "vision_config": {}}
    with pytest.raises(ModelError, match="no entry for this model family"):
        describe(ModelSettings(source=str(folder(tmp_path / "model", config))))


def test_a_window_that_is_switched_off_is_no_obstacle():
    text = {"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": False}
    assert packing_obstacle({"model_type": "llava", "text_config": text}, AUTO) == ""


def test_a_family_without_an_entry_is_not_packed():
    """As `parts.infer_family` has it, which is used for such families."""
    assert packing_obstacle({"model_type": "blip-2"}, AUTO) == "its family has no entry"
