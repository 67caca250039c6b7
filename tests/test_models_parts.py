"""Families without an entry, and what is checked of any family before a weight is loaded."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
import transformers as hf
from torch import nn
from transformers import AutoModelForImageTextToText
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as EVERY,
)

import tiny_families as tiny
from data_cases import noise
from pulse_unlearn.config import LoraSettings, ModelSettings
from pulse_unlearn.errors import ModelError
from pulse_unlearn.models import loading, parts
from pulse_unlearn.models.adapters import AdapterStack, add_trainable, prepare, trainable_names
from pulse_unlearn.models.chat_template import ChatTemplate
from pulse_unlearn.models.encode import Encoder
from pulse_unlearn.models.families import FAMILIES, NEEDS_TORCHVISION, UNREADABLE, Family
from pulse_unlearn.models.forward import Plain, answer_view
from pulse_unlearn.models.loading import load_model
from pulse_unlearn.models.parts import family_for, infer_family, targets, tensor_names
from tiny_models import forbidden
from unlisted_families import vipllava


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Write a model nobody made an entry for."""
    monkeypatch.setattr("socket.socket.connect", None)
    made = vipllava()
    torch.manual_seed(0)
    AutoModelForImageTextToText.from_config(made.config).save_pretrained(tmp_path)
    made.processor.save_pretrained(tmp_path)
    return tmp_path


def load(folder, **settings):
    return load_model(ModelSettings(source=str(folder), device="cpu", **settings))


def agrees(model, encoder):
    """A mixed batch says what its examples say alone, and generating begins as they do."""
    examples = tiny.mixed()
    with torch.no_grad():
        batch = encoder.answers(examples, tokens="with_end")
        together = answer_view(model, batch).log_probs
        replies = Plain(model, encoder).generate(examples, max_new_tokens=1)
        for row, one in enumerate(examples):
            alone = answer_view(model, encoder.answers([one], tokens="with_end")).log_probs[0]
            length = len(alone)
            torch.testing.assert_close(together[row, -length:], alone, atol=1e-5, rtol=0)
            letters = alone[0, encoder.letter_ids(one)].tolist()
            assert replies[row].chances.log_probs == pytest.approx(letters, abs=1e-5)


def test_a_family_without_an_entry_works_by_its_module_tree(folder):
    loaded = load(folder)
    encoder = Encoder(loaded.processor, loaded.family)
    assert loaded.family == Family(
        model_type="vipllava",
        vision_tower="model.vision_tower",
        projector="model.multi_modal_projector",
        language_model="model.language_model",
        unpackable="its family has no entry",
    )
    assert (encoder.chat_template.prefix, encoder.chat_template.end) == (" ", "</s>")
    agrees(loaded.model, encoder)

    def fresh(model):
        lora = LoraSettings(rank=2, alpha=4.0)
        return add_trainable(model, loaded.family, "projector", lora=lora, seed=0)

    made = prepare(loaded.model, AdapterStack(), how="merged", fresh=fresh)
    assert trainable_names(made.model) == sorted(
        f"base_model.model.model.multi_modal_projector.{layer}.lora_{side}.trained.weight"
        for layer in ("linear_1", "linear_2")
        for side in "AB"
    )


@pytest.mark.parametrize("name", FAMILIES.names())
def test_the_module_tree_says_what_the_table_says(name):
    found, known = infer_family(tiny.model(name), name), FAMILIES.get(name)
    for part in ("vision_tower", "projector", "language_model"):
        assert getattr(found, part) == getattr(known, part)


@pytest.mark.parametrize("name", ["llava_next", "qwen2_vl", "idefics3", "gemma3", "internvl"])
def test_known_families_would_work_without_their_entries(name, tmp_path, monkeypatch):
    source = tiny.save(name, tmp_path)
    for module in (parts, loading):
        monkeypatch.setattr(module, "known_family", lambda model_type: None)
    loaded = load(source)
    assert loaded.family.unpackable == "its family has no entry"
    agrees(loaded.model, Encoder(loaded.processor, loaded.family))


def test_parts_of_other_names_are_refused_saying_which_entry_to_write():
    model = nn.ModuleDict({"eyes": nn.Linear(2, 2), "language_model": nn.Linear(2, 2)})
    with pytest.raises(ModelError) as caught:
        infer_family(model, "seer")
    (problem,) = caught.value.problems
    assert "no vision_tower was found (looked for vision_tower, visual," in problem.what
    assert "no projector was found" in problem.what
    assert "no language_model" not in problem.what
    assert 'Family(model_type="seer"' in problem.fix


@pytest.mark.parametrize("model_type", ["clip", "bert"])
def test_other_models_are_refused_before_anything_is_loaded(model_type):
    config = hf.AutoConfig.for_model(model_type)
    told = rf"folder cannot be built[\s\S]*{model_type}[\s\S]*llava_onevision"
    with pytest.raises(ModelError, match=told):
        family_for(config, "folder")


def test_what_cannot_be_read_is_told_with_its_reason():
    assert not {*UNREADABLE, *NEEDS_TORCHVISION} & set(FAMILIES.names())
    assert {*UNREADABLE, *NEEDS_TORCHVISION} <= set(EVERY)
    assert not set(UNREADABLE) & set(NEEDS_TORCHVISION)
    for model_type, reason in UNREADABLE.items():
        config = hf.PretrainedConfig()
        config.model_type = model_type
        with pytest.raises(ModelError, match=reason):
            family_for(config, "folder")


@pytest.mark.parametrize("model_type", NEEDS_TORCHVISION)
def test_a_family_that_needs_torchvision_is_refused_without_it_saying_so(model_type, monkeypatch):
    monkeypatch.setattr(parts, "find_spec", lambda name: None)
    config = hf.PretrainedConfig()
    config.model_type = model_type
    with pytest.raises(ModelError, match=r"torchvision, which is not installed[\s\S]*fix: install"):
        family_for(config, "folder")


@pytest.mark.parametrize("model_type", sorted({*NEEDS_TORCHVISION} - {"perception_lm"}))
def test_where_torchvision_is_their_parts_are_inferred(model_type, monkeypatch):
    """As far as the module tree goes; their processors could not be run here."""
    monkeypatch.setattr(parts, "find_spec", lambda name: object())
    family = family_for(hf.AutoConfig.for_model(model_type), "folder")
    assert (family.model_type, family.unpackable) == (model_type, "its family has no entry")


@pytest.mark.skipif(find_spec("timm") is not None, reason="timm is installed")
def test_where_torchvision_is_and_timm_is_not_that_is_said(monkeypatch):
    monkeypatch.setattr(parts, "find_spec", lambda name: object())
    with pytest.raises(ModelError, match="requires the timm library"):
        family_for(hf.AutoConfig.for_model("perception_lm"), "folder")


def test_kimi_vl_is_refused_because_its_code_is_its_own(tmp_path):
    """transformers has Kimi K2.5 and not Kimi-VL, whose folders bring Python files."""
    tiny.save("llava", tmp_path)
    code = {"AutoConfig": "configuration_kimi_vl.KimiVLConfig"}
    spoil(tmp_path, "config.json", lambda c: c.update(model_type="kimi_vl", auto_map=code))
    with pytest.raises(ModelError, match=r"Python code of its own[\s\S]*trust_remote_code="):
        load(tmp_path)


# --- processors


def spoil(folder, file, change):
    path = folder / file
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("name", FAMILIES.names())
def test_a_processor_that_disagrees_with_its_model_is_told_before_weights(name, tmp_path):
    """Every field of the table, made one too large: all told at once, with the right value."""
    tiny.save(name, tmp_path)
    facts, config = FAMILIES.get(name).processor_fields, tiny.built(name).config
    assert facts
    for field, implied in facts.items():
        right = implied(config)
        right = right[0] if isinstance(right, list | tuple) else right
        wrong = f"{right}_1" if isinstance(right, str) else right + 1
        inside, _, leaf = field.rpartition(".")
        file = "preprocessor_config.json" if inside else "processor_config.json"
        if name == "paligemma":  # its processor takes the number from its picture part
            file = "preprocessor_config.json"
        spoil(tmp_path, file, lambda content, leaf=leaf, wrong=wrong: content.update({leaf: wrong}))
    with (
        forbidden(AutoModelForImageTextToText, "from_pretrained"),
        pytest.raises(ModelError) as caught,
    ):
        load(tmp_path)
    told = [problem.what.split(" is not")[0] for problem in caught.value.problems]
    assert told == [f"the processor's {field}" for field in facts]
    for problem, (field, implied) in zip(caught.value.problems, facts.items(), strict=True):
        right = implied(config)
        right = right[0] if isinstance(right, list | tuple) else right
        assert problem.allowed == json.dumps(right)
        assert f'"{field.rpartition(".")[2]}": {json.dumps(right)}' in problem.fix


def test_a_processor_without_the_number_of_additional_tokens_does_not_slip_through(tmp_path):
    """LLaVA-1.5's first published processors lacked it: 575 image tokens for 576 features."""
    tiny.save("llava", tmp_path)
    spoil(tmp_path, "processor_config.json", lambda c: c.pop("num_additional_image_tokens"))
    with pytest.raises(ModelError) as caught:
        load(tmp_path)
    (problem,) = caught.value.problems
    assert "num_additional_image_tokens" in problem.what
    assert (problem.got, problem.allowed) == ("0", "1")


def test_absent_template_and_pad_token_come_with_the_mend(tmp_path):
    tiny.save("qwen2_vl", tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}),
        encoding="utf-8",
    )
    with pytest.raises(ModelError) as caught:
        load(tmp_path)
    fixes = " ".join(problem.fix for problem in caught.value.problems)
    assert '"pad_token": "<|im_end|>"' in fixes
    assert "chat_template.jinja" in fixes


def test_smolvlm_writes_pictures_as_idefics3_does(monkeypatch):
    """Its own processor wants num2words, for videos; ours is Idefics3's in its place."""
    from transformers.models.smolvlm import processing_smolvlm as own

    monkeypatch.setattr(own, "num2words", str)
    processor = tiny.built("smolvlm").processor
    kind = tiny.without_videos(hf.SmolVLMProcessor)
    theirs = kind(processor.image_processor, processor.tokenizer, None, image_seq_len=4)
    texts = ["<|im_start|>User:<image>Who?<end_of_utterance>\nAssistant:"] * 2
    for size in ((40, 30), (20, 64), (8, 8)):
        pictures = [[noise(1, size=size)], [noise(2, size=(30, 30))]]
        found, expected = (
            one(text=texts, images=pictures, padding=True, return_tensors="pt")
            for one in (processor, theirs)
        )
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in found)


# --- turns and letters


def test_a_template_that_hides_the_answer_is_refused_naming_the_entry():
    processor = tiny.built("llava").processor
    kept = processor.chat_template
    processor.chat_template = (
        "{{ messages | length }} turns{% if add_generation_prompt %}:{% endif %}"
    )
    try:
        with pytest.raises(ModelError, match=r"writes no answer[\s\S]*answer_prefix"):
            ChatTemplate(processor, FAMILIES.get("llava"))
        entry = replace(FAMILIES.get("llava"), answer_prefix=" ", answer_end="</s>")
        assert ChatTemplate(processor, entry).prefix == " "
    finally:
        processor.chat_template = kept


USER = "{% for part in messages[-1]['content'] %}{{ part['text'] }}{% endfor %}"
SYSTEM = "Be brief, as a friend's answers are."


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (f"USER: {USER} ASSISTANT:", "'USER: Who\\? ASSISTANT:'"),
        ("{{ raise_exception('System role not supported') }}", "System role not supported"),
        ("{{ messages[0]['content'] + '\n' }}" + USER, "TypeError"),
        ("{{ messages[0]['content'] | trim }} " + USER, r"\[\{"),
        ("{{ messages[0]['content'] | tojson }} " + USER, r"\[\{"),
    ],
    ids=["dropped", "refused", "added to a string", "as a list", "as JSON"],
)
def test_a_template_without_a_place_for_the_system_sentence_is_refused(template, told):
    processor = tiny.built("llava").processor
    kept = processor.chat_template
    turns = ChatTemplate(processor, FAMILIES.get("llava"))
    assert turns.prompt("Who?", pictured=False, system=SYSTEM).count(SYSTEM) == 1
    processor.chat_template = template
    try:
        with pytest.raises(ModelError, match=told) as caught:
            turns.prompt("Who?", pictured=False, system=SYSTEM)
    finally:
        processor.chat_template = kept
    (problem,) = caught.value.problems
    assert "the prompt profile's system sentence" in problem.what
    assert SYSTEM in problem.allowed
    assert "data.general_prompt" in problem.fix


def test_paligemma_takes_no_system_sentence():
    with pytest.raises(ModelError, match="there are no system turns"):
        tiny.encoder("paligemma").prompt(replace(tiny.question(0), system=SYSTEM))


def test_a_placeholder_in_a_system_sentence_is_refused():
    one = replace(tiny.question(0), system="Look at <image>.")
    with pytest.raises(ModelError, match="the system sentence contains what is no text"):
        tiny.encoder("llava").prompts([one])


def test_letters_that_begin_alike_are_refused():
    """Behind a blank of its own, every letter would be told by the same token."""
    apart = replace(FAMILIES.get("llava"), answer_prefix="  ", answer_end="</s>")
    encoder = Encoder(tiny.built("llava").processor, apart)
    with pytest.raises(ModelError, match="begin with the same token"):
        encoder.letters(tiny.question(0))


# --- scopes


def test_a_part_with_nothing_to_adapt_is_refused_not_passed_over():
    family = replace(FAMILIES.get("llava"), projector="model.language_model.norm")
    model = tiny.model("llava")
    for scope in ("projector", "projector+llm", "all"):
        with pytest.raises(ModelError, match="no linear layer in the projector"):
            targets(model, family, scope)
    assert targets(model, family, "llm").layers
    nowhere = replace(FAMILIES.get("llava"), projector="model.nowhere")
    with pytest.raises(ModelError, match="no tensor in the projector"):
        tensor_names(model, nowhere, "projector+llm")


def test_gemmas_bare_matrix_wants_no_dropout():
    lora = LoraSettings(rank=2, alpha=4.0, dropout=0.1)
    with pytest.raises(ModelError, match=r"mm_input_projection_weight[\s\S]*dropout to 0"):
        add_trainable(
            tiny.model("gemma3"), FAMILIES.get("gemma3"), "projector+llm", lora=lora, seed=0
        )
