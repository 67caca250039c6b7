"""Model folders: what cannot work is refused with a typed error; nothing in them is executed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

import tiny_models as tiny
from pulse_unlearn.config import ModelSettings
from pulse_unlearn.errors import ModelError
from pulse_unlearn.models.checkpoints import model_digest
from pulse_unlearn.models.encode import Encoder
from pulse_unlearn.models.forward import answer_view
from pulse_unlearn.models.loading import load_model

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "whole"
    tiny.base().save_pretrained(folder)
    tiny.processor().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path, monkeypatch):
    """A copy to be damaged; nothing may reach for the hub."""
    monkeypatch.setattr("socket.socket.connect", _no_network)
    return Path(shutil.copytree(whole, tmp_path / "model"))


def _no_network(*_):
    raise AssertionError("reached for the network")


@pytest.fixture
def no_weights(monkeypatch):
    """Fail as soon as weights are loaded."""
    with tiny.forbidden(AutoModelForImageTextToText, "from_pretrained"):
        yield


def load(folder, **settings):
    return load_model(ModelSettings(source=str(folder), device="cpu", **settings))


def edit(path: Path, change) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def edit_weights(folder: Path, change) -> None:
    """Change one tensor of the language model; return its name below the language model."""
    name = "layers.0.mlp.down_proj.weight"
    tensors = load_file(folder / WEIGHTS)
    (stored,) = (key for key in tensors if key.endswith(name))
    change(tensors, stored)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    return name


def test_a_whole_folder_loads_frozen_and_says_the_same(folder):
    loaded = load(folder)
    assert loaded.family is tiny.LLAVA
    assert not loaded.model.training
    assert not [p for p in loaded.model.parameters() if p.requires_grad]
    batch = Encoder(loaded.processor, loaded.family).answers(tiny.mixed(), tokens="with_end")
    expected = tiny.encoder().answers(tiny.mixed(), tokens="with_end")
    with torch.no_grad():
        found = answer_view(loaded.model, batch).log_probs
        assert torch.equal(found, answer_view(tiny.base(), expected).log_probs)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtype_is_the_one_asked_for(folder, dtype):
    assert load(folder, dtype=dtype).model.dtype == getattr(torch, dtype)


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("name", ["patch_size", "vision_feature_select_strategy"])
def test_missing_processor_fields_are_named_before_weights(folder, name):
    edit(folder / "processor_config.json", lambda content: content.pop(name))
    with pytest.raises(ModelError, match=f"no {name}"):
        load(folder)


@pytest.mark.usefixtures("no_weights")
def test_all_problems_of_a_processor_are_told_at_once(folder):
    edit(folder / "processor_config.json", lambda content: content.pop("patch_size"))
    edit(folder / "tokenizer_config.json", lambda content: content.pop("pad_token"))
    edit(folder / "tokenizer_config.json", lambda content: content.pop("eos_token"))
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelError) as caught:
        load(folder)
    told = " ".join(problem.what for problem in caught.value.problems)
    assert len(caught.value.problems) == 4
    for word in ("patch_size", "pad token", "end-of-turn token", "chat template"):
        assert word in told


@pytest.mark.usefixtures("no_weights")
def test_a_chat_template_of_the_tokenizer_alone_is_no_template(folder):
    template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    (folder / "chat_template.jinja").unlink()
    edit(folder / "tokenizer_config.json", lambda content: content.update(chat_template=template))
    with pytest.raises(ModelError, match=r"no chat template[\s\S]*write the tokenizer's, from"):
        load(folder)


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ broken", "TemplateSyntaxError"),
        ("{{ raise_exception('only one user') }}", "only one user"),
        ("{% for m in messages %}{{ m['role'] }}{% endfor %}", "writes no answer"),
    ],
)
def test_a_template_that_cannot_be_used_is_told_before_weights(folder, template, told):
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    with pytest.raises(ModelError, match=rf"chat template[\s\S]*{told}|{told}"):
        load(folder)


@pytest.mark.usefixtures("no_weights")
def test_a_picture_token_of_another_number_is_told_before_weights(folder):
    edit(folder / "config.json", lambda content: content.update(image_token_index=7))
    with pytest.raises(ModelError, match=r"another number for a picture's token[\s\S]*allowed: 7"):
        load(folder)


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("name", ["config.json", "processor_config.json", "tokenizer.json"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("{")])
def test_missing_or_unreadable_files_are_model_errors(folder, name, damage):
    damage(folder / name)
    with pytest.raises(ModelError):
        load(folder)


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("model_type", ["clip", "nosuch"])
def test_unknown_family_is_refused(folder, model_type):
    edit(folder / "config.json", lambda content: content.update(model_type=model_type))
    with pytest.raises(ModelError, match=model_type):
        load(folder)


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl", "model.ckpt"])
def test_pickled_weights_are_refused(folder, name):
    (folder / WEIGHTS).rename(folder / name)
    with pytest.raises(ModelError, match=f"pickled weights are never read[\\s\\S]*{name}"):
        load(folder)


def test_no_weights_at_all(folder):
    (folder / WEIGHTS).unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(folder)


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("source", ["some/model", "nosuch", "some.org/model-1.5"])
@pytest.mark.parametrize("revision", [None, "main", "v1.0", "0123abc", "0" * 39, "g" * 40])
def test_a_hub_id_needs_a_commit(source, revision, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", _no_network)
    with pytest.raises(ModelError, match=rf"pinned revision[\s\S]*got: {revision or 'none'}"):
        load_model(ModelSettings(source=source, revision=revision, device="cpu"))


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("source", ["/no/such/folder", "build/no/model", "./model", "../model/"])
@pytest.mark.parametrize("revision", [None, "0" * 40])
def test_a_folder_that_is_not_there_is_not_taken_for_a_hub_id(source, revision, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", _no_network)
    with pytest.raises(ModelError, match=rf"no such folder[\s\S]*got: {source}"):
        load_model(ModelSettings(source=source, revision=revision, device="cpu"))


def test_a_missing_tensor_is_not_drawn_at_random(folder):
    edit_weights(folder, lambda tensors, key: tensors.pop(key))
    with pytest.raises(ModelError, match=r"lack weights[\s\S]*layers\.0\.mlp\.down_proj"):
        load(folder)


def test_a_tensor_of_another_size_is_refused(folder):
    edit_weights(folder, lambda tensors, key: tensors.update({key: torch.zeros(3)}))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(folder)


@pytest.mark.parametrize("kept", [0, 1000, -10])
def test_torn_weights_are_refused(folder, kept):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:kept])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(folder)


def test_attention_that_is_not_installed(folder):
    with pytest.raises(ModelError, match=r"FlashAttention2[\s\S]*fix: --set model\.attention=sdpa"):
        load(folder, attention="flash_attention_2")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.usefixtures("no_weights")
def test_cuda_that_is_not_there(folder):
    with pytest.raises(ModelError, match="no CUDA device"):
        load_model(ModelSettings(source=str(folder), device="cuda"))


AUTO_MAP = {
    "AutoConfig": "evil.Config",
    "AutoModelForImageTextToText": "evil.Model",
    "AutoProcessor": "evil.Processor",
    "AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"],
    "AutoImageProcessor": "evil.Pictures",
}
EVIL = """
from transformers import (
    CLIPImageProcessor, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor,
    PreTrainedTokenizerFast,
)
open({marker!r}, "w").write("executed")
class Config(LlavaConfig): pass
class Model(LlavaForConditionalGeneration): pass
class Processor(LlavaProcessor): pass
class Tokenizer(PreTrainedTokenizerFast): pass
class Pictures(CLIPImageProcessor): pass
"""


@pytest.mark.parametrize("model_type", ["llava", "nosuch"])
def test_code_in_a_folder_is_never_executed(folder, tmp_path, model_type, monkeypatch):
    # Even a "yes" at a prompt would come from no one.
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    marker = tmp_path / "marker"
    (folder / "evil.py").write_text(EVIL.format(marker=str(marker)), encoding="utf-8")
    for name in ("config.json", "processor_config.json", "tokenizer_config.json"):
        edit(folder / name, lambda content: content.update(auto_map=AUTO_MAP))
    edit(folder / "config.json", lambda content: content.update(model_type=model_type))
    if model_type == "llava":
        loaded = load(folder)
        assert type(loaded.model).__module__.startswith("transformers.")
        assert type(loaded.processor).__module__.startswith("transformers.")
    else:
        with pytest.raises(ModelError):
            load(folder)
    assert not marker.exists()


def test_the_evil_folder_would_execute_its_code_if_trusted(folder, tmp_path):
    """The test above can fail: the same folder, trusted, leaves the marker."""
    from transformers import AutoConfig

    marker = tmp_path / "marker"
    (folder / "evil.py").write_text(EVIL.format(marker=str(marker)), encoding="utf-8")
    edit(
        folder / "config.json",
        lambda content: content.update(auto_map=AUTO_MAP, model_type="nosuch"),
    )
    AutoConfig.from_pretrained(folder, trust_remote_code=True)
    assert marker.exists()


def test_digest_changes_with_any_file(folder):
    settings = ModelSettings(source=str(folder))
    before = model_digest(settings)
    assert before == model_digest(settings)
    edit(folder / "generation_config.json", lambda content: content.update(max_length=7))
    assert model_digest(settings) != before
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match="not a model folder"):
        model_digest(settings)
