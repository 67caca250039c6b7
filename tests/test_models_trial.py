"""Families without an entry: a working model or a message, no traceback and no wrong numbers."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as EVERY,
)

import tiny_families as tiny
import unlisted_families as unlisted
from pulse_unlearn.config import LoraSettings, ModelSettings
from pulse_unlearn.errors import ModelError
from pulse_unlearn.models import backends
from pulse_unlearn.models.adapters import AdapterStack, add_trainable, prepare, trainable_names
from pulse_unlearn.models.backends import require_working
from pulse_unlearn.models.encode import Encoder
from pulse_unlearn.models.families import FAMILIES, Family
from pulse_unlearn.models.forward import Plain, answer_view
from pulse_unlearn.models.loading import load_model
from pulse_unlearn.models.parts import family_for

WORKING = ["aya_vision", "deepseek_vl", "glm4v", "idefics2", "janus", "vipllava"]


def load(name, folder, **settings):
    source = unlisted.save(name, folder)
    return load_model(ModelSettings(source=str(source), device="cpu", **settings))


def log_probs(model, encoder, examples):
    with torch.no_grad():
        return answer_view(model, encoder.answers(examples, tokens="with_end")).log_probs


@pytest.mark.parametrize("name", WORKING)
def test_a_family_that_works_does_so_in_every_way_that_is_asked_of_it(name, tmp_path, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", None)
    loaded = load(name, tmp_path)
    encoder = Encoder(loaded.processor, loaded.family)
    examples = tiny.mixed()
    together = log_probs(loaded.model, encoder, examples)
    replies = Plain(loaded.model, encoder).generate(examples, max_new_tokens=1)
    for row, one in enumerate(examples):
        alone = log_probs(loaded.model, encoder, [one])[0]
        torch.testing.assert_close(together[row, -len(alone) :], alone, atol=1e-5, rtol=0)
        letters = alone[0, encoder.letter_ids(one)].tolist()
        assert replies[row].chances.log_probs == pytest.approx(letters, abs=1e-5)
    shown = examples[0]
    elsewhere = replace(shown, picture=tiny.question(1, size=(40, 30)).picture)
    one, other = (log_probs(loaded.model, encoder, [example]) for example in (shown, elsewhere))
    assert float((one - other).abs().max()) > 1e-4

    def fresh(model):
        lora = LoraSettings(rank=2, alpha=4.0)
        return add_trainable(model, loaded.family, "projector+llm", lora=lora, seed=0)

    trained = trainable_names(
        prepare(loaded.model, AdapterStack(), how="merged", fresh=fresh).model
    )
    roots = [loaded.family.projector, loaded.family.language_model]
    for root in roots:
        assert any(name.startswith(f"base_model.model.{root}.") for name in trained)
    assert all(name.startswith(tuple(f"base_model.model.{r}." for r in roots)) for name in trained)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        # Its cross-attention is left out where no picture is in a batch, and run where one is.
        ("mllama", r"asked together are not answered as each is alone[\s\S]*Family\(model_type"),
        ("florence2", "an encoder reads the question"),
        ("blip_2_t5", "an encoder reads the question"),
        ("pixtral", r"PixtralProcessor[\s\S]*allowed: LlavaProcessor"),
        (
            "got_ocr2",
            r"scaled_dot_product_attention[\s\S]*fix: --set model\.attention=sdpa, or eager",
        ),
    ],
)
def test_a_family_that_cannot_be_used_is_refused_saying_why(name, told, tmp_path):
    with pytest.raises(ModelError, match=told):
        load(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("got_ocr2", "Nested images are only supported"),
        ("blip_2", "Number of elements of source < number of ones in mask"),
    ],
)
def test_a_processor_that_goes_its_own_way_with_pictures_is_refused(name, told, tmp_path):
    with pytest.raises(ModelError, match=rf"trial of three questions ended[\s\S]*{told}"):
        load(name, tmp_path, attention="eager")


# --- what the trial finds


def without_entry(name):
    family = FAMILIES.get(name)
    return Family(
        model_type=f"not-{name}",
        vision_tower=family.vision_tower,
        projector=family.projector,
        language_model=family.language_model,
    )


def tried(name, model=None, family=None):
    require_working(
        model or tiny.model(name), tiny.built(name).processor, family or without_entry(name)
    )


@pytest.mark.parametrize("name", ["llava", "llava_next", "qwen2_vl", "gemma3", "internvl"])
def test_a_model_that_reads_as_asked_is_let_pass(name):
    tried(name)


def test_pictures_that_reach_nothing_are_found():
    model = tiny.model("llava")
    with torch.no_grad():
        model.model.multi_modal_projector.linear_2.weight.zero_()
    with pytest.raises(ModelError, match=r"another picture changes nothing[\s\S]*\"not-llava\""):
        tried("llava", model)


def test_an_answer_that_sees_its_own_end_is_found():
    """PaliGemma's prompt sees itself whole; not told where it ends, it takes the answer for it."""
    with pytest.raises(ModelError, match="the beginning of an answer sees its end"):
        tried("paligemma")


def test_neighbours_that_are_not_left_alone_are_found():
    model = tiny.model("llava")
    model.lm_head.register_forward_hook(
        lambda module, inputs, logits: logits + 0.1 * logits.mean(0, keepdim=True).roll(1, -1)
    )
    with pytest.raises(ModelError, match="asked together"):
        tried("llava", model)


def test_generation_that_begins_elsewhere_is_found(monkeypatch):
    replies = Plain.generate

    def shifted(self, examples, **options):
        found = replies(self, examples, **options)
        turned = [(*one.chances.log_probs[1:], one.chances.log_probs[0]) for one in found]
        return [
            replace(one, chances=replace(one.chances, log_probs=values))
            for one, values in zip(found, turned, strict=True)
        ]

    monkeypatch.setattr(backends.Plain, "generate", shifted)
    with pytest.raises(ModelError, match="generated answers do not begin"):
        tried("llava")


def test_numbers_that_are_none_are_found():
    model = tiny.model("llava")
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(ModelError, match="are not numbers"):
        tried("llava", model)


@pytest.mark.parametrize("error", [ValueError, KeyError, IndexError, RuntimeError, AssertionError])
def test_what_a_model_raises_is_told(error, monkeypatch):
    model = tiny.model("llava")

    def fail(**inputs):
        raise error("no such input")

    monkeypatch.setattr(model, "forward", fail)
    with pytest.raises(ModelError, match=rf"ended in {error.__name__}: '?no such input"):
        tried("llava", model)


# --- every family there is


@pytest.mark.parametrize("model_type", EVERY)
def test_every_family_of_transformers_is_inferred_or_refused(model_type):
    config = AutoConfig.for_model(model_type)
    with contextlib.suppress(ModelError):
        family = family_for(config, "folder")
        assert family.model_type == config.model_type
        assert len({family.vision_tower, family.projector, family.language_model}) == 3
