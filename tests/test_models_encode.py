"""Examples to tensors: what the mask marks, what the prompt says, and that batching is neutral."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import tiny_models as tiny
from pulse_unlearn.errors import ModelError
from pulse_unlearn.models.encode import Encoder
from pulse_unlearn.models.forward import answer_view, answered

END_ID = 3
GOLDEN = "What does the pilot do?\nA. baker\nB. judge\nC. pilot\nD. nurse\nLetter?\nASSISTANT:"


@pytest.fixture(scope="module")
def encoder():
    return tiny.encoder()


@pytest.fixture(scope="module")
def model():
    return tiny.base()


def ids(encoder, text):
    return encoder.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_prompt_with_and_without_picture_is_this_text(encoder):
    text_only = tiny.example(2, words=1)
    assert encoder.prompt(text_only) == "USER: " + GOLDEN
    assert encoder.prompt(replace(text_only, picture=tiny.face(2))) == "USER: <image>\n" + GOLDEN


@pytest.mark.parametrize("tokens", ["with_end", "text"])
def test_mask_marks_exactly_the_answer(encoder, tokens):
    examples = tiny.mixed()
    batch = encoder.answers(examples, tokens=tokens)
    assert batch.example_ids == tuple(one.example_id for one in examples)
    for row, one in enumerate(examples):
        end = [END_ID] if tokens == "with_end" else []
        assert batch.labels[row][batch.mask[row]].tolist() == ids(encoder, one.answer) + end
        # Right-aligned: false up to the answer, true to the end of the row.
        assert batch.mask[row].int().diff().ge(0).all()
        assert bool(batch.mask[row, -1])
    assert batch.mask.shape[1] == max(int(row.sum()) for row in batch.mask)
    assert not bool(batch.mask.all())


@pytest.mark.parametrize("tokens", ["with_end", "text"])
def test_what_stands_before_the_mask_is_the_prompt(encoder, tokens):
    examples = tiny.mixed()
    inputs = encoder.answers(examples, tokens=tokens)
    for row, one in enumerate(examples):
        count = int(inputs.mask[row].sum())
        kept = inputs.inputs["attention_mask"][row].bool()
        sequence = inputs.inputs["input_ids"][row][kept].tolist()
        image = encoder.processor.image_token_id
        prompt = [token for token in sequence[:-count] if token != image]
        expected = [token for token in ids(encoder, encoder.prompt(one)) if token != image]
        assert prompt == expected
        assert sequence.count(image) == (tiny.PATCHES if one.picture else 0)


def test_every_picture_has_as_many_placeholders_as_features(encoder, model):
    batch = encoder.answers(tiny.mixed(), tokens="with_end")
    pixels = batch.inputs["pixel_values"]
    features = model.model.get_image_features(pixels).pooler_output
    placeholders = (batch.inputs["input_ids"] == encoder.processor.image_token_id).sum()
    assert pixels.shape[0] == 3
    assert int(placeholders) == sum(len(one) for one in features) == 3 * tiny.PATCHES


def test_text_only_batch_has_no_pixels(encoder):
    batch = encoder.answers([tiny.example(0), tiny.example(1)], tokens="with_end")
    assert "pixel_values" not in batch.inputs


def test_positions_count_from_the_first_real_token(encoder):
    inputs = encoder.answers(tiny.mixed(), tokens="with_end").inputs
    for mask, positions in zip(inputs["attention_mask"], inputs["position_ids"], strict=True):
        assert positions[mask.bool()].tolist() == list(range(int(mask.sum())))


@pytest.mark.parametrize("tokens", ["with_end", "text"])
def test_a_mixed_batch_equals_one_by_one(encoder, model, tokens):
    examples = tiny.mixed()
    with torch.no_grad():
        view = answer_view(model, encoder.answers(examples, tokens=tokens))
    expected = tiny.log_probs(model, examples, tokens=tokens)
    assert view.log_probs.dtype == torch.float32
    for row, one in enumerate(expected):
        assert int(view.mask[row].sum()) == len(one)
        torch.testing.assert_close(view.log_probs[row, -len(one) :], one, atol=1e-5, rtol=0)


@settings(max_examples=15)
@given(order=st.permutations(range(5)), size=st.integers(1, 5))
def test_an_example_does_not_see_its_neighbours(encoder, model, order, size):
    examples = tiny.mixed()
    chosen = [examples[place] for place in order[:size]]
    with torch.no_grad():
        together = answer_view(model, encoder.answers(chosen, tokens="with_end"))
        alone = answer_view(model, encoder.answers(chosen[:1], tokens="with_end"))
    length = alone.labels.shape[1]
    torch.testing.assert_close(
        together.log_probs[0, -length:], alone.log_probs[0], atol=1e-5, rtol=0
    )


def test_padding_side_of_the_tokenizer_is_overruled(model):
    processor = tiny.processor()
    processor.tokenizer.padding_side = "right"
    processor.tokenizer.init_kwargs["padding_side"] = "right"
    batch = Encoder(processor, tiny.LLAVA).answers(tiny.mixed(), tokens="with_end")
    assert bool((batch.labels[:, -1] == END_ID).all())


def test_other_pixels_other_log_probs(encoder, model):
    one = tiny.example(0, shown=True)
    other = replace(one, picture=tiny.face(77))
    with torch.no_grad():
        first, second = (
            answer_view(model, encoder.answers([this], tokens="text")).log_probs
            for this in (one, other)
        )
    assert float((first - second).abs().max()) > 1e-3


def test_answered_needs_every_answer_token_and_no_other(encoder, model):
    batch = encoder.answers(tiny.mixed(), tokens="with_end")
    with torch.no_grad():
        view = answer_view(model, batch)
    best = view.log_probs.argmax(-1)
    right = replace(view, labels=torch.where(view.mask, best, best + 1))
    assert answered(right).tolist() == [True] * 5
    for place in range(right.labels.shape[1]):
        changed = right.labels.clone()
        changed[:, place] += 1
        # Wrong exactly where the changed position belongs to the answer.
        assert answered(replace(right, labels=changed)).tolist() == (~view.mask[:, place]).tolist()


def byte_pair_tokenizer():
    """Merges `: B` into one token, as no answer mask could cut."""
    vocabulary = {"<unk>": 0, "<pad>": 1, "</s>": 2, "<image>": 3}
    for piece in "USERAITNB: \n":
        vocabulary.setdefault(piece, len(vocabulary))
    vocabulary |= {" B": len(vocabulary), ": B": len(vocabulary) + 1}
    backend = Tokenizer(models.BPE(vocabulary, [(" ", "B"), (":", " B")], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Sequence([])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>", eos_token="</s>"
    )


def test_a_tokenizer_that_merges_prompt_and_answer_is_refused():
    processor = tiny.processor()
    processor.tokenizer = byte_pair_tokenizer()
    encoder = Encoder(processor, tiny.LLAVA)
    with pytest.raises(ModelError, match="apart"):
        encoder.answers([tiny.example(0, answer="B")], tokens="with_end")
    with pytest.raises(ModelError, match="apart"):
        encoder.letter_ids(tiny.example(0))


def test_an_empty_answer_is_refused(encoder):
    with pytest.raises(ModelError, match="apart"):
        encoder.answers([tiny.example(0, answer="")], tokens="text")


def test_letter_ids_are_the_first_tokens_of_the_letters(encoder):
    found = encoder.letter_ids(tiny.example(0, options=3))
    assert found == [encoder.tokenizer.convert_tokens_to_ids(letter) for letter in "ABC"]


# --- options answered in words


def test_an_option_in_words_is_its_text_and_the_end_of_turn(encoder):
    one = tiny.in_words(0, ("black", "black hair", "judge"))
    convert = encoder.tokenizer.convert_tokens_to_ids
    texts = (["black"], ["black", "hair"], ["judge"])
    assert encoder.option_token_ids(one) == [tuple(convert([*text, tiny.END])) for text in texts]


def test_an_option_by_letter_is_its_letter_alone(encoder):
    one = tiny.example(0, options=3)
    assert encoder.option_token_ids(one) == [(token,) for token in encoder.letter_ids(one)]


def test_a_special_token_in_an_unshown_option_is_refused(encoder):
    one = tiny.in_words(0, ("judge", f"nurse {tiny.END} baker"))
    with pytest.raises(ModelError, match="what is no text"):
        encoder.lines([one], tokens=None)
