"""Model folders as they are met in the wild: what they are is told, and nothing is cut."""

from __future__ import annotations

import json
from datetime import date

import pytest
import torch
from transformers import LlamaTokenizer

import tiny_families as families
import tiny_models as tiny
import wild_files as wild
from pulse_unlearn.config import ModelSettings
from pulse_unlearn.errors import ModelError
from pulse_unlearn.estimate.sizes import TextCounter, describe
from pulse_unlearn.models import chat_template
from pulse_unlearn.models.checkpoints import model_digest
from pulse_unlearn.models.encode import Encoder
from pulse_unlearn.models.loading import load_model, look_at_model
from pulse_unlearn.models.processors import processor_problems

LONG = "yes" * 400


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    monkeypatch.setattr("socket.socket.connect", None)


@pytest.fixture
def llava(tmp_path):
    return families.save("llava", tmp_path / "model")


@pytest.fixture
def qwen(tmp_path):
    return families.save("qwen2_vl", tmp_path / "model")


def settings(folder):
    return ModelSettings(source=str(folder), device="cpu")


def load(folder):
    return load_model(settings(folder))


def refused(act, folder):
    with pytest.raises(ModelError) as caught:
        act(settings(folder))
    (problem,) = caught.value.problems
    return problem


# --- folders that are something else


@pytest.mark.parametrize("act", [load_model, describe, model_digest])
def test_an_adapter_given_as_the_model_is_told_with_its_base(act, tmp_path):
    folder = tiny.adapter_folder(tmp_path / "a", seed=1)
    wild.edit(folder / wild.CONFIG, base_model_name_or_path="Some/Base-VL")
    problem = refused(act, folder)
    assert "is an adapter, and no model" in problem.what
    assert f"model.source=Some/Base-VL --set model.adapters=[{folder}]" in problem.fix


@pytest.mark.parametrize("act", [load_model, describe])
def test_an_adapter_inside_a_models_folder_is_not_added_in_silence(act, llava, tmp_path):
    folder = tiny.adapter_folder(tmp_path / "a", seed=1)
    (folder / wild.CONFIG).rename(llava / wild.CONFIG)
    assert "a model and an adapter" in refused(act, llava).what


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "chat_template.jinja", "tokenizer.json"]
)
@pytest.mark.parametrize("act", [load_model, describe])
def test_a_pointer_of_git_lfs_is_told_with_the_command(act, name, llava):
    (llava / name).write_text(wild.POINTER, encoding="utf-8")
    problem = refused(act, llava)
    assert "pointer of Git LFS" in problem.what
    assert problem.got == name
    assert "git lfs pull" in problem.fix


ORIGINAL = {"mm_vision_tower": "openai/clip-vit-large-patch14-336", "mm_hidden_size": 1024}
MISTRAL = {"architectures": ["LlavaMistralForCausalLM"], "image_aspect_ratio": "anyres"}


@pytest.mark.parametrize("act", [load_model, describe])
@pytest.mark.parametrize(
    ("written", "converted"),
    [
        (ORIGINAL | {"hidden_size": 4096}, "llava-hf/llava-1.5-7b-hf"),
        (ORIGINAL | {"hidden_size": 5120}, "llava-hf/llava-1.5-13b-hf"),
        (ORIGINAL | {"hidden_size": 4096} | MISTRAL, "llava-hf/llava-v1.6-mistral-7b-hf"),
        (ORIGINAL | {"hidden_size": 2048}, "convert_llava_weights_to_hf.py"),
        (ORIGINAL | {"model_type": "llava_llama", "hidden_size": 5120}, "llava-1.5-13b-hf"),
        ({"hidden_size": 5120}, "llava-1.5-13b-hf"),
    ],
)
def test_llavas_original_checkpoints_are_never_taken_for_a_7b(act, written, converted, llava):
    (llava / "config.json").write_text(json.dumps({"model_type": "llava"} | written))
    problem = refused(act, llava)
    if written.get("model_type") == "llava_llama" and act is load_model:
        assert "llava_llama" in problem.got
        return
    assert "form of LLaVA's own code" in problem.what
    assert converted in problem.fix


# --- tokenizers


CUT = {"direction": "Right", "max_length": 24, "strategy": "LongestFirst", "stride": 0}
FILL = {
    "strategy": {"Fixed": 64},
    "direction": "Right",
    "pad_to_multiple_of": 16,
    "pad_id": 1,
    "pad_type_id": 0,
    "pad_token": "<pad>",
}


@pytest.mark.parametrize("name", ["llava", "qwen2_vl"])
@pytest.mark.parametrize("asked", [{"truncation": CUT}, {"padding": FILL}])
def test_prompts_are_not_cut_or_filled_up_because_a_tokenizers_file_asks_for_it(
    name, asked, tmp_path
):
    folder = families.save(name, tmp_path)
    if "padding" in asked:
        pad = families.built(name).processor.tokenizer.pad_token
        asked = {"padding": FILL | {"pad_token": pad}}
    wild.edit(folder / "tokenizer.json", **asked)
    loaded = load(folder)
    found, expected = Encoder(loaded.processor, loaded.family), families.encoder(name)
    examples = [families.question(1, words=40, size=(40, 30)), families.question(2)]
    one = found.answers(examples, tokens="with_end").inputs
    two = expected.answers(examples, tokens="with_end").inputs
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert found.lines(examples[1:], tokens=None) == expected.lines(examples[1:], tokens=None)
    (note,) = loaded.notes
    assert "switched off" in note
    assert note in look_at_model(settings(folder)).said
    count = TextCounter(folder / "tokenizer.json")
    assert count(LONG) == len(LONG)
    assert count("a") == 1


def test_cutting_that_the_tokenizers_config_asks_for_is_switched_off_too(llava):
    wild.edit(llava / "tokenizer_config.json", truncation=True, max_length=24)
    loaded = load(llava)
    example = families.question(1, words=40, size=(40, 30))
    found = Encoder(loaded.processor, loaded.family).prompts([example])["input_ids"]
    assert torch.equal(found, families.encoder("llava").prompts([example])["input_ids"])
    assert loaded.notes


def test_a_byte_level_tokenizer_read_by_another_class_is_refused_for_its_spaces(llava):
    tiny_llava = families.FAMILIES["llava"]()
    processor = tiny_llava.processor
    assert not processor_problems(processor, tiny.LLAVA, tiny_llava.config, "here")
    processor.tokenizer = LlamaTokenizer.from_pretrained(
        llava, pad_token="<pad>", image_token="<image>"
    )
    problems = processor_problems(processor, tiny.LLAVA, tiny_llava.config, "here")
    told = next(one for one in problems if "loses the spaces" in one.what)
    assert "'Who is this' comes back as 'Whoisthis'" in told.got.replace("<unk>", "")
    assert "LlamaTokenizer" in told.got
    assert "TokenizersBackend" in told.fix


@pytest.mark.parametrize("kind", ["LlamaTokenizer", "LlamaTokenizerFast"])
def test_a_byte_level_tokenizer_keeps_its_spaces_or_is_refused(kind, llava):
    wild.edit(llava / "tokenizer_config.json", tokenizer_class=kind)
    try:
        loaded = load(llava)
    except ModelError as error:
        assert "loses the spaces" in str(error)  # noqa: PT017
        return
    tokenizer = loaded.processor.tokenizer
    assert tokenizer.decode(tokenizer("Who is this?", add_special_tokens=False)["input_ids"]) == (
        "Who is this?"
    )


@pytest.mark.parametrize("name", ["llava", "qwen2_vl"])
@pytest.mark.parametrize("kind", ["TokenizersBackend", "Qwen2Tokenizer", "LlamaTokenizer"])
def test_a_folder_without_a_vocabulary_is_told_so(name, kind, tmp_path):
    folder = families.save(name, tmp_path)
    (folder / "tokenizer.json").unlink()
    wild.edit(folder / "tokenizer_config.json", tokenizer_class=kind)
    problem = refused(load_model, folder)
    assert problem.what == "the tokenizer's vocabulary is missing"
    assert "tokenizer.json" in problem.allowed


# --- templates


def test_a_template_that_writes_the_date_always_writes_the_same_one(llava, monkeypatch):
    path = llava / "chat_template.jinja"
    template = path.read_text(encoding="utf-8")
    path.write_text("Today is {{ strftime_now('%d %b %Y') }}. " + template, encoding="utf-8")
    loaded = load(llava)
    prompt = Encoder(loaded.processor, loaded.family).prompt(families.question(1))
    assert prompt.startswith("Today is 26 Jul 2024. USER:")
    (note,) = loaded.notes
    assert "2024-07-26" in note
    assert note in look_at_model(settings(llava)).said
    # The test above can fail: another day is written as another day.
    monkeypatch.setattr(chat_template, "TODAY", date(2031, 1, 2))
    loaded = load(llava)
    other = Encoder(loaded.processor, loaded.family).prompt(families.question(1))
    assert other.startswith("Today is 02 Jan 2031.")


def test_a_date_is_written_where_the_template_asks_whether_there_is_a_clock(llava):
    path = llava / "chat_template.jinja"
    asked = (
        "{%- if strftime_now is defined %}{%- set day = strftime_now('%B %d, %Y') %}"
        "{%- else %}{%- set day = 'none' %}{%- endif %}\n  {{ day }} "
    )
    path.write_text(asked + path.read_text(encoding="utf-8"), encoding="utf-8")
    loaded = load(llava)
    prompt = Encoder(loaded.processor, loaded.family).prompt(families.question(1))
    assert prompt.startswith("  July 26, 2024 USER:")


def test_other_templates_leave_no_note(llava):
    assert load(llava).notes == ()


@pytest.mark.parametrize(
    "template",
    [
        # A thinking model's: the generation prompt opens what a finished turn leaves out.
        "{% for m in messages %}[{{ m['role'] }}] {% for p in m['content'] %}{{ p['text'] }}"
        "{% endfor %}</s>{% endfor %}{% if add_generation_prompt %}[assistant] <think>{% endif %}",
        # One that counts its turns at the beginning.
        "{{ messages | length }}{% for m in messages %}[{{ m['role'] }}] "
        "{% for p in m['content'] %}{{ p['text'] }}{% endfor %}</s>{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}",
    ],
)
def test_a_template_that_rewrites_what_stands_before_an_answer_is_refused(template, llava):
    (llava / "chat_template.jinja").write_text(template, encoding="utf-8")
    assert "no answer behind its generation prompt" in refused(load_model, llava).what


# --- pictures


@pytest.mark.parametrize(
    ("size", "meant"),
    [
        ({"longest_edge": 4096}, {"shortest_edge": 3136, "longest_edge": 4096}),
        ({"min_pixels": 256, "max_pixels": 4096}, {"shortest_edge": 256, "longest_edge": 4096}),
    ],
)
def test_a_size_without_its_bounds_is_refused_with_the_line_to_write(size, meant, qwen):
    wild.edit(qwen / "preprocessor_config.json", size=size)
    problem = refused(load_model, qwen)
    assert "no shortest_edge" in problem.what
    assert f'"size": {json.dumps(meant)}' in problem.fix
    wild.edit(qwen / "preprocessor_config.json", size=meant)
    assert load(qwen).processor.image_processor.size["shortest_edge"] == meant["shortest_edge"]


def test_bounds_of_older_files_are_understood(qwen):
    bounds = {"min_pixels": 256, "max_pixels": 4096}
    wild.edit(qwen / "preprocessor_config.json", size=None, **bounds)
    size = load(qwen).processor.image_processor.size
    assert (size["shortest_edge"], size["longest_edge"]) == (256, 4096)


def test_a_size_transformers_refuses_names_its_file(qwen):
    wild.edit(qwen / "preprocessor_config.json", size={"max_pixels": 4096})
    assert "preprocessor_config.json" in refused(load_model, qwen).fix


# --- models with code of their own


@pytest.mark.parametrize("act", [load_model, describe])
def test_advice_to_run_a_models_own_code_is_put_in_our_terms(act, llava):
    auto = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    wild.edit(llava / "config.json", model_type="foreign_vl", auto_map=auto)
    problem = refused(act, llava)
    assert "PULSE runs no code of a model's folder" in problem.what
    assert "trust_remote_code=True" not in str(problem)
    assert f"--set model.trust_remote_code=[{llava}]" in problem.fix


def test_a_family_transformers_does_not_have_is_told_shortly(llava):
    wild.edit(llava / "config.json", model_type="foreign_vl")
    problem = refused(load_model, llava)
    assert "foreign_vl" in problem.got
    assert "pip" not in str(problem)
