"""Every family of the table, by one contract: what is asked, what is trained, what is read.

What a family's prompts, tokens and tensors are stands in `golden/families/`, checked by hand
against the form the family documents; the tests here never write there.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tiny_families as tiny
from pulse_unlearn.config import LoraSettings, ModelSettings, OptimiserSettings
from pulse_unlearn.errors import ModelError
from pulse_unlearn.evaluation.predict import predict
from pulse_unlearn.methods import build_method
from pulse_unlearn.models.adapters import (
    AdapterStack,
    add_trainable,
    load_adapters,
    prepare,
    prepare_full,
    reference_view,
    save_trained,
    trainable_names,
)
from pulse_unlearn.models.encode import Encoder
from pulse_unlearn.models.families import FAMILIES
from pulse_unlearn.models.forward import Plain, answer_view, to_device
from pulse_unlearn.models.loading import load_model
from pulse_unlearn.training.guards import StopRule
from pulse_unlearn.training.loop import Watch, train
from pulse_unlearn.training.objectives import Unlearning
from pulse_unlearn.training.references import References
from pulse_unlearn.training.steps import StepData

NAMES = FAMILIES.names()
GOLDEN = Path(__file__).parent / "golden" / "families"
SCOPES = {
    "projector": ("projector",),
    "llm": ("language_model",),
    "projector+llm": ("projector", "language_model"),
    "vision": ("vision_tower",),
    "all": ("vision_tower", "projector", "language_model"),
}
LORA = LoraSettings(rank=2, alpha=4.0)
TOLERANCE = 1e-5

every_family = pytest.mark.parametrize("name", NAMES)


def golden(name):
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def prepared(name, scope, update="lora", below=AdapterStack()):  # noqa: B008
    family = FAMILIES.get(name)
    base = tiny.model(name)
    if update == "full":
        return prepare_full(base, below, family=family, scope=scope)

    def fresh(model):
        return add_trainable(model, family, scope, lora=LORA, seed=0)

    return prepare(base, below, how="merged", fresh=fresh)


def disturb(model, *, seed=1):
    """Give what is trainable other values, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.15 * torch.randn(parameter.shape, generator=generator))


def view(model, encoder, examples=None):
    batch = encoder.answers(examples or tiny.mixed(), tokens="with_end")
    with torch.no_grad():
        return answer_view(model, batch)


def test_every_family_is_built_and_every_built_one_is_in_the_table():
    assert sorted(tiny.FAMILIES) == NAMES


# --- prompts and answers


def runs(tokens):
    """`<image> x9` for nine of them in a row: what a person can read and count."""
    counted = [(token, len(list(group))) for token, group in itertools.groupby(tokens)]
    return [token if count == 1 else f"{token} x{count}" for token, count in counted]


def asked(name):
    """What the golden file says of a question with a picture, and of one without."""
    encoder = tiny.encoder(name)
    found = {"prefix": encoder.chat_template.prefix, "end": encoder.chat_template.end}
    for kind, one in (("picture", tiny.question(0, size=(40, 30))), ("text", tiny.question(0))):
        batch = encoder.answers([one], tokens="with_end")
        ids = batch.inputs["input_ids"][0].tolist()
        count = int(batch.mask.sum())
        tokens = encoder.tokenizer.convert_ids_to_tokens(ids)
        found[kind] = {
            "prompt": encoder.prompt(one),
            "tokens": runs(tokens[:-count]),
            "answer": tokens[-count:],
            "ids": ids,
        }
        assert bool(batch.mask.all())
        assert batch.labels[0].tolist() == ids[-count:]
    return found


@every_family
def test_prompt_tokens_and_answer_are_the_golden_ones(name):
    expected = golden(name)
    assert asked(name) == {key: expected[key] for key in ("prefix", "end", "picture", "text")}


@every_family
def test_only_the_answer_is_marked(name):
    batch = tiny.encoder(name).answers(tiny.mixed(), tokens="with_end")
    tokenizer = tiny.built(name).processor.tokenizer
    for row, one in enumerate(tiny.mixed()):
        marked = batch.labels[row][batch.mask[row]].tolist()
        assert tokenizer.decode(marked[:-1]).strip() == one.answer
        assert tokenizer.convert_ids_to_tokens(marked[-1]) == golden(name)["end"]


@every_family
def test_image_tokens_are_image_features(name):
    batch = tiny.encoder(name).answers(tiny.mixed(), tokens="with_end")
    model = tiny.model(name)
    shown = {
        key: value
        for key, value in batch.inputs.items()
        if key in ("pixel_values", "image_sizes", "image_grid_thw", "pixel_attention_mask")
    }
    features = model.model.get_image_features(**shown).pooler_output
    pieces = features if isinstance(features, list | tuple) else [features]
    config = model.config
    placeholder = getattr(config, "image_token_id", None) or config.image_token_index
    tokens = int((batch.inputs["input_ids"] == placeholder).sum())
    assert tokens == sum(piece.shape[:-1].numel() for piece in pieces) > 0


@every_family
def test_pictures_are_looked_at(name):
    model, encoder = tiny.model(name), tiny.encoder(name)
    shown = tiny.question(0, size=(40, 30))
    elsewhere = replace(shown, picture=tiny.question(1, size=(40, 30)).picture)
    one, other = (view(model, encoder, [example]) for example in (shown, elsewhere))
    words = view(model, encoder, [tiny.question(0)])
    assert float((one.log_probs - other.log_probs).abs().max()) > 1e-3
    assert float((one.log_probs - words.log_probs).abs().max()) > 1e-3


@every_family
def test_what_is_no_text_to_the_model_is_refused_by_name(name):
    encoder = tiny.encoder(name)
    placeholder, end = encoder.processor.image_token, encoder.chat_template.end
    bad = [
        tiny.question(0, words=1),
        replace(tiny.question(1), prompt=f"Who is in {placeholder}?"),
        replace(tiny.question(2), answer=f"B{end}"),
    ]
    for encode in (
        lambda: encoder.answers(bad, tokens="text"),
        lambda: encoder.prompts(bad),
        lambda: encoder.lines(bad, tokens=None),
    ):
        with pytest.raises(ModelError) as caught:
            encode()
        told = [(problem.where, problem.got) for problem in caught.value.problems]
        assert told == [("example e1", placeholder), ("example e2", end)]


# --- batches


def moved_right(batch):
    """The same rows with their padding behind them."""
    shifts = [int(row.argmax()) for row in batch.inputs["attention_mask"]]
    length = batch.inputs["attention_mask"].shape[1]
    inputs = dict(batch.inputs)
    for key, value in inputs.items():
        if value.shape[:2] == (len(shifts), length):
            rows = zip(value, shifts, strict=True)
            inputs[key] = torch.stack([row.roll(-shift, 0) for row, shift in rows])
    return inputs, shifts


@every_family
def test_a_mixed_batch_is_one_by_one_whichever_side_is_padded(name):
    model, encoder, examples = tiny.model(name), tiny.encoder(name), tiny.mixed()
    batch = encoder.answers(examples, tokens="with_end")
    left = answer_view(model, batch)
    inputs, shifts = moved_right(batch)
    with torch.no_grad():
        logits = model(**to_device(inputs, model), use_cache=False).logits.float()
    right = torch.log_softmax(logits, -1)
    assert len(set(shifts)) > 1
    for row, one in enumerate(examples):
        alone = view(model, encoder, [one]).log_probs[0]
        answer = len(alone)
        torch.testing.assert_close(left.log_probs[row, -answer:], alone, atol=TOLERANCE, rtol=0)
        end = logits.shape[1] - shifts[row] - 1
        torch.testing.assert_close(right[row, end - answer : end], alone, atol=TOLERANCE, rtol=0)


@every_family
def test_generation_begins_as_the_answers_do(name):
    model, encoder, examples = tiny.model(name), tiny.encoder(name), tiny.mixed()
    seen = view(model, encoder, examples)
    replies = Plain(model, encoder).generate(examples, max_new_tokens=2)
    for row, reply in enumerate(replies):
        first = seen.log_probs[row, -int(seen.mask[row].sum())]
        expected = first[encoder.letter_ids(examples[row])].tolist()
        assert reply.chances.log_probs == pytest.approx(expected, abs=TOLERANCE)


# --- what is trained


def lora_names(name, scope):
    paths = [path for part in SCOPES[scope] for path in golden(name)["layers"][part]]
    return sorted(
        f"base_model.model.{path}.lora_{side}.trained.weight" for path in paths for side in "AB"
    )


def full_names(name, scope):
    if scope == "all":
        return sorted(key for key, _ in tiny.model(name).named_parameters())
    return sorted(key for part in SCOPES[scope] for key in golden(name)["tensors"][part])


@every_family
@pytest.mark.parametrize("scope", SCOPES)
def test_exactly_the_scope_is_trainable(name, scope):
    assert trainable_names(prepared(name, scope).model) == lora_names(name, scope)
    assert trainable_names(prepared(name, scope, "full").model) == full_names(name, scope)


@every_family
def test_no_tensor_is_in_two_parts_and_few_are_in_none(name):
    parts = [set(tensors) for tensors in golden(name)["tensors"].values()]
    together = set().union(*parts)
    assert len(together) == sum(map(len, parts))
    every = {key for key, _ in tiny.model(name).named_parameters()}
    assert together <= every
    assert every - together <= {"model.image_newline"}


@every_family
@pytest.mark.parametrize("update", ["lora", "full"])
def test_the_reference_is_the_base_bit_for_bit(name, update):
    encoder = tiny.encoder(name)
    expected = view(tiny.model(name), encoder).log_probs
    made = prepared(name, "all", update)
    assert torch.equal(view(made.model, encoder).log_probs, expected)
    disturb(made.model)
    changed = view(made.model, encoder).log_probs
    assert not torch.allclose(changed, expected, atol=1e-3)
    with reference_view(made):
        assert torch.equal(view(made.model, encoder).log_probs, expected)
    assert torch.equal(view(made.model, encoder).log_probs, changed)


@every_family
@pytest.mark.parametrize("update", ["lora", "full"])
def test_saved_and_loaded_it_says_the_same(name, update, tmp_path):
    encoder = tiny.encoder(name)
    made = prepared(name, "projector+llm", update)
    disturb(made.model)
    save_trained(made.model, tmp_path, base="tiny")
    held = load_adapters(tiny.model(name), [tmp_path], how="stacked")
    assert trainable_names(held) == []
    # Torch picks another kernel, with other last bits, for layers that might need gradients.
    made.model.requires_grad_(False)
    expected = view(made.model, encoder).log_probs
    assert torch.equal(view(held, encoder).log_probs, expected)
    merged = load_adapters(tiny.model(name), [tmp_path], how="merged")
    torch.testing.assert_close(view(merged, encoder).log_probs, expected, atol=1e-4, rtol=0)


@every_family
def test_a_folder_of_the_hubs_form_loads_and_says_the_same(name, tmp_path, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", None)
    loaded = load_model(ModelSettings(source=str(tiny.save(name, tmp_path)), device="cpu"))
    assert loaded.family is FAMILIES.get(name)
    found = view(loaded.model, Encoder(loaded.processor, loaded.family)).log_probs
    assert torch.equal(found, view(tiny.model(name), tiny.encoder(name)).log_probs)


# --- one operation, and its scoring


@every_family
@pytest.mark.parametrize("update", ["lora", "full"])
def test_an_operation_and_its_scoring(name, update, tmp_path):
    made, encoder = prepared(name, "projector+llm", update), tiny.encoder(name)
    before = {key: value.detach().clone() for key, value in made.model.named_parameters()}
    reader = Plain(made.model, encoder)
    method = build_method("npo", {"beta": 0.5, "retain_weight": 0.5})
    examples = tiny.mixed()
    steps = [StepData(tuple(examples[:3]), tuple(examples[2:]))] * 2
    outcome = train(
        made.model,
        Unlearning(reader, method, "with_end", References(made, reader), seed=0),
        steps,
        settings=OptimiserSettings(learning_rate=1e-3, batch_size=3, micro_batch_size=3),
        stop=StopRule(1),
        accuracy=lambda: 0.0,
        vocabulary=len(encoder.tokenizer),
        seed=0,
        watch=Watch(tmp_path, 1e9, lambda *_: None, lambda: False, lambda _: None),
    )
    assert (outcome.steps, outcome.flags) == (2, ())
    changed = {k for k, p in made.model.named_parameters() if not torch.equal(p, before[k])}
    trainable = set(trainable_names(made.model))
    assert changed <= trainable
    assert trainable - changed <= {k for k in trainable if ".lora_A." in k or update == "full"}
    found = predict(reader, examples, batch_size=4, max_new_tokens=2, on_batch=lambda *_: None)
    assert [one.example_id for one in found] == [one.example_id for one in examples]
    assert all(len(one.option_log_probs) == 2 for one in found)
    assert found[0].option_log_probs[0] != found[0].option_log_probs[1]
