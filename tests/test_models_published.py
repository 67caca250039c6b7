"""LLaVA-1.5 as its repositories really look: the nearest to its weights that can be had here."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoModelForImageTextToText

import published_llava as published
import tiny_families as families
from meta_models import known
from pulse_unlearn.config import ModelSettings, SpeedSettings
from pulse_unlearn.data.prompts import PROFILES
from pulse_unlearn.errors import ModelError
from pulse_unlearn.estimate.sizes import describe
from pulse_unlearn.models.backends import select_backend
from pulse_unlearn.models.encode import Encoder
from pulse_unlearn.models.fast.packed import Packed
from pulse_unlearn.models.forward import answer_view
from pulse_unlearn.models.loading import load_model
from tiny_models import forbidden


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return published.save(tmp_path_factory.mktemp("published"))


@pytest.fixture
def folder(whole, tmp_path, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", None)
    return Path(shutil.copytree(whole, tmp_path / "model"))


def load(folder, **settings):
    return load_model(ModelSettings(source=str(folder), device="cpu", **settings))


def said(model, encoder):
    with torch.no_grad():
        return answer_view(model, encoder.answers(families.mixed(), tokens="with_end")).log_probs


def test_the_fixture_has_the_old_names(whole):
    index = json.loads((whole / "model.safetensors.index.json").read_text(encoding="utf-8"))
    names = set(index["weight_map"])
    assert "language_model.model.layers.0.self_attn.q_proj.weight" in names
    assert "language_model.lm_head.weight" in names
    assert "multi_modal_projector.linear_1.weight" in names
    assert "vision_tower.vision_model.encoder.layers.2.mlp.fc1.weight" in names
    assert not [name for name in names if name.startswith(("model.", "lm_head"))]
    assert len(set(index["weight_map"].values())) == published.SHARDS


@pytest.mark.parametrize("template", ["chat_template.json", "chat_template.jinja"])
def test_old_names_and_old_config_load_to_the_same_model(folder, template):
    if template == "chat_template.jinja":
        (folder / "chat_template.json").unlink()
        (folder / template).write_text(published.TEMPLATE, encoding="utf-8")
    loaded, expected = load(folder), published.model()
    tensors = dict(loaded.model.named_parameters())
    assert tensors.keys() == dict(expected.named_parameters()).keys()
    for name, tensor in expected.named_parameters():
        assert torch.equal(tensors[name], tensor), name
    encoder = Encoder(loaded.processor, loaded.family)
    assert torch.equal(said(loaded.model, encoder), said(expected, encoder))


def test_what_the_old_config_leaves_out_is_what_it_meant(folder):
    loaded = load(folder)
    config, tokenizer = loaded.model.config, loaded.processor.tokenizer
    assert (config.image_token_id, tokenizer.convert_tokens_to_ids("<image>")) == (32000, 32000)
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<pad>", 32001)
    head, words = (
        loaded.model.get_output_embeddings().weight,
        loaded.model.get_input_embeddings().weight,
    )
    assert head.shape == words.shape == (32064, 16)
    assert head is not words
    assert config.vision_feature_layer == -2
    assert config.text_config.rms_norm_eps == 1e-5


def test_text_is_read_as_the_files_say_and_the_picture_stands_where_it_should(folder):
    """Against `tokenizers` itself, which knows nothing of transformers' own classes."""
    loaded = load(folder)
    encoder = Encoder(loaded.processor, loaded.family)
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    examples = families.mixed()
    batch = encoder.answers(examples, tokens="with_end")
    for row, one in enumerate(examples):
        shown = "<image>\n" if one.picture else ""
        text = f"USER: {shown}{one.prompt} ASSISTANT: {one.answer}</s>"
        expected = []
        for token in backend.encode(text).ids:
            expected += [token] * (published.PATCHES if token == published.IMAGE else 1)
        found = batch.inputs["input_ids"][row][batch.inputs["attention_mask"][row].bool()]
        assert found.tolist() == expected
        answer = batch.labels[row][batch.mask[row]].tolist()
        assert backend.decode(answer).strip() == one.answer
        assert answer[-1] == 2
    assert encoder.letter_ids(examples[0]) == [backend.token_to_id(f"▁{c}") for c in "AB"]


def test_the_system_sentence_stands_where_vicuna_v1_has_it(folder):
    """LLaVA's own text: the sentence, one blank, the first role; then as without it."""
    loaded = load(folder)
    encoder = Encoder(loaded.processor, loaded.family)
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for one in families.mixed()[:2]:
        shown = "<image>\n" if one.picture else ""
        asked = replace(one, system=PROFILES.get("mmbench_llava_vicuna").system)
        text = (
            "A chat between a curious user and an artificial intelligence assistant. The "
            "assistant gives helpful, detailed, and polite answers to the user's questions. "
            f"USER: {shown}{one.prompt} ASSISTANT:"
        )
        assert encoder.prompt(asked) == text
        assert text.endswith(encoder.prompt(one))
        found = encoder.prompts([asked])["input_ids"][0].tolist()
        assert [token for token in found if token != published.IMAGE] == [
            token for token in backend.encode(text).ids if token != published.IMAGE
        ]
        assert encoder.letters(asked) == encoder.letters(one)


def test_the_features_are_those_of_the_layer_before_the_last_without_the_class_token(folder):
    """By hand: the tower run without transformers' LLaVA around it."""
    loaded = load(folder)
    inputs = Encoder(loaded.processor, loaded.family).prompts(families.mixed()[:1])
    pixels = inputs["pixel_values"]
    with torch.no_grad():
        states = loaded.model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
        expected = loaded.model.model.multi_modal_projector(states[-2][:, 1:])
        found = loaded.model.model.get_image_features(pixels).pooler_output
    assert torch.equal(torch.cat(list(found)), expected.reshape(-1, 16))
    assert expected.shape == (1, published.PATCHES, 16)


def test_its_questions_are_packed(folder):
    loaded = load(folder)
    told = []
    backend = select_backend(
        loaded.model,
        Encoder(loaded.processor, loaded.family),
        speed=SpeedSettings(),
        examples=families.mixed(),
        warn=told.append,
    )
    assert isinstance(backend, Packed)
    assert told == []


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_the_files_own(folder, dtype):
    loaded = load(folder, dtype=dtype)
    tensors = dict(loaded.model.named_parameters())
    for name, tensor in published.model().named_parameters():
        assert torch.equal(tensors[name], tensor.to(getattr(torch, dtype))), name
    assert said(loaded.model, Encoder(loaded.processor, loaded.family)).isfinite().all()


def test_buffers_that_older_files_hold_are_passed_over(folder):
    first = folder / f"model-00001-of-{published.SHARDS:05}.safetensors"
    more = {
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
        "vision_tower.vision_model.embeddings.position_ids": torch.arange(5)[None],
    }
    save_file(load_file(first) | more, first, metadata={"format": "pt"})
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    index["weight_map"] |= dict.fromkeys(more, first.name)
    path.write_text(json.dumps(index), encoding="utf-8")
    loaded = load(folder)
    encoder = Encoder(loaded.processor, loaded.family)
    assert torch.equal(said(loaded.model, encoder), said(published.model(), encoder))


@pytest.mark.parametrize(
    "name", ["language_model.lm_head.weight", "multi_modal_projector.linear_2.bias"]
)
def test_a_weight_that_is_absent_under_its_old_name_is_missed(folder, name):
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    shard = folder / index["weight_map"].pop(name)
    path.write_text(json.dumps(index), encoding="utf-8")
    left = {key: value for key, value in load_file(shard).items() if key != name}
    save_file(left, shard, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lack weights"):
        load(folder)


# --- the first revisions: neither fields, nor template, nor pad token


def mended(folder, problem):
    """Do what a problem's fix says; return whether it named a field and a value to write."""
    found = re.search(r'write ("(\w+)": .+) into (\w+\.json)', problem.fix)
    if not found:
        return False
    path = folder / found[3]
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps(content | json.loads(f"{{{found[1]}}}")), encoding="utf-8")
    return True


def test_the_first_revisions_are_told_all_their_faults_and_the_mends_mend_them(tmp_path):
    folder = published.save(tmp_path, mended=False)
    with (
        forbidden(AutoModelForImageTextToText, "from_pretrained"),
        pytest.raises(ModelError) as caught,
    ):
        load(folder)
    told = [
        re.sub(r".* (no|processor's) ", "", p.what.split(",")[0]) for p in caught.value.problems
    ]
    assert told == [
        "patch_size",
        "vision_feature_select_strategy",
        "num_additional_image_tokens is not what the model's config implies",
        "pad token",
        "chat template",
    ]
    *written, template = caught.value.problems
    for problem in written:
        assert mended(folder, problem), problem.fix
    assert "chat_template.jinja" in template.fix
    (folder / "chat_template.jinja").write_text(published.TEMPLATE, encoding="utf-8")
    loaded = load(folder)
    assert loaded.processor.tokenizer.pad_token_id == published.PAD
    encoder = Encoder(loaded.processor, loaded.family)
    assert torch.equal(said(loaded.model, encoder), said(published.model(), encoder))


# --- the published sizes, without weights


SEVEN = {
    "_name_or_path": "lmsys/vicuna-7b-v1.5",
    "architectures": ["LlamaForCausalLM"],
    "max_position_embeddings": 4096,
    "model_type": "llama",
    "rms_norm_eps": 1e-05,
    "torch_dtype": "float16",
    "vocab_size": 32064,
}
"""The language model of LLaVA-1.5-7B: no width, no depth, as Llama's own are meant."""
THIRTEEN = {
    **SEVEN,
    "_name_or_path": "lmsys/vicuna-13b-v1.5",
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_attention_heads": 40,
    "num_hidden_layers": 40,
    "num_key_value_heads": 40,
}
FULL_EYES = {
    "hidden_size": 1024,
    "image_size": 336,
    "intermediate_size": 4096,
    "model_type": "clip_vision_model",
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "projection_dim": 768,
    "vocab_size": 32000,
}


@pytest.mark.parametrize(("size", "text"), [("7b", SEVEN), ("13b", THIRTEEN)])
def test_the_published_configs_are_the_models_that_are_planned_for(size, text, tmp_path):
    config = {**published.CONFIG, "text_config": text, "vision_config": FULL_EYES}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    model = describe(ModelSettings(source=str(tmp_path)))
    planned = known(f"llava-hf/llava-1.5-{size}-hf")
    sizes = {name: tensor.shape for name, tensor in planned.module.named_parameters()}
    assert {name: tensor.shape for name, tensor in model.module.named_parameters()} == sizes
    assert model.pictures == planned.pictures
    assert not model.config.tie_word_embeddings
    assert model.module.get_output_embeddings().weight.shape[0] == 32064
