"""Families whose weights were published before transformers moved them load by their old names."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import tiny_families as families
from pulse_unlearn.config import ModelSettings
from pulse_unlearn.models.encode import Encoder
from pulse_unlearn.models.forward import answer_view
from pulse_unlearn.models.loading import load_model


def said(model, encoder):
    with torch.no_grad():
        return answer_view(model, encoder.answers(families.mixed(), tokens="with_end")).log_probs


def _llava_like(*more):
    return (
        ("model.language_model.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
        ("model.multi_modal_projector.", "multi_modal_projector."),
        ("model.vision_tower.vision_model.", "vision_tower.vision_model."),
        *more,
    )


_WRAPPED = (("model.vision_tower.", "vision_tower.vision_model."),)
_QWEN = (("model.language_model.", "model."), ("model.visual.", "visual."))
OLD_NAMES = {
    "llava_next": _llava_like(*_WRAPPED, ("model.image_newline", "image_newline")),
    "llava_onevision": _llava_like(*_WRAPPED, ("model.image_newline", "image_newline")),
    "gemma3": _llava_like(*_WRAPPED),
    "paligemma": _llava_like(*_WRAPPED),
    "internvl": _llava_like(("model.vision_tower.", "vision_tower.")),
    "qwen2_vl": _QWEN,
    "qwen2_5_vl": _QWEN,
}
"""Families whose weights were published before transformers moved them: new name -> old name."""


def flatten(path):
    """Qwen's own config.json has the language model's fields beside the vision tower's."""
    config = json.loads(path.read_text(encoding="utf-8"))
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    text.pop("model_type")
    scaling = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    flat = text | config | {"rope_theta": rope["rope_theta"], "rope_scaling": scaling}
    path.write_text(json.dumps(flat), encoding="utf-8")


@pytest.mark.parametrize("name", OLD_NAMES)
def test_other_families_load_by_the_names_they_were_published_with(name, tmp_path):
    families.save(name, tmp_path)
    stored = {}
    for key, value in families.model(name).state_dict().items():
        new, old = next(((n, o) for n, o in OLD_NAMES[name] if key.startswith(n)), ("", ""))
        stored[old + key.removeprefix(new)] = value.clone()
    if families.built(name).config.tie_word_embeddings:
        stored = {key: value for key, value in stored.items() if "lm_head" not in key}
    if OLD_NAMES[name] is _QWEN:
        flatten(tmp_path / "config.json")
    (tmp_path / "model.safetensors").unlink()
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        moved = ("model.language_model.", "model.vision_tower.", "model.visual.")
        assert not [key for key in file.keys() if key.startswith(moved)]  # noqa: SIM118
    loaded = load_model(ModelSettings(source=str(tmp_path), device="cpu"))
    encoder = Encoder(loaded.processor, loaded.family)
    assert torch.equal(said(loaded.model, encoder), said(families.model(name), encoder))
