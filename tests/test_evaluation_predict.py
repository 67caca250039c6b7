"""Predictions: option log-probs and texts against a plain forward and plain generation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import tiny_models as tiny
from pulse_unlearn.config import LoraSettings
from pulse_unlearn.data.images import decode
from pulse_unlearn.errors import ModelError
from pulse_unlearn.evaluation.predict import greedy_accuracy, predict
from pulse_unlearn.models.encode import Encoder
from pulse_unlearn.models.forward import Plain
from pulse_unlearn.training.steps import StepData

TALKATIVE = [tiny.example(20 + k, answer=tiny.LETTERS[k], words=5, shown=True) for k in range(2)]
"""What the model of `ending_model` answers with the right letter and a word behind it."""


def ask(model, examples, *, batch_size=3, on_batch=lambda done, total: None):
    return predict(
        Plain(model, tiny.encoder()),
        examples,
        batch_size=batch_size,
        max_new_tokens=4,
        on_batch=on_batch,
    )


@pytest.fixture(scope="module")
def model():
    return tiny.base()


@pytest.fixture(scope="module")
def examples():
    # Long and short, with and without picture, so that the order by length is not their order.
    return [*tiny.mixed()[::-1], tiny.example(5, words=1, options=3), tiny.example(6, shown=True)]


def alone(encoder: Encoder, one):
    images = [decode(one.picture)] if one.picture else None
    return encoder.processor(text=[encoder.prompt(one)], images=images, return_tensors="pt")


def test_letters_log_probs_are_those_of_a_plain_forward(model, examples):
    encoder = tiny.encoder()
    for one, prediction in zip(examples, ask(model, examples), strict=True):
        with torch.no_grad():
            logits = model(**alone(encoder, one), use_cache=False).logits[0, -1].float()
        letters = encoder.tokenizer.convert_tokens_to_ids([o.letter for o in one.options])
        expected = torch.log_softmax(logits, -1)[letters].tolist()
        assert prediction.option_log_probs == pytest.approx(expected, abs=1e-5)
        assert len(prediction.option_log_probs) == len(one.options)


def test_texts_are_those_of_plain_generation(model, examples):
    encoder = tiny.encoder()
    predictions = ask(model, examples)
    for one, prediction in zip(examples, predictions, strict=True):
        inputs = alone(encoder, one)
        output = model.generate(**inputs, max_new_tokens=4, do_sample=False)
        new = output[0, inputs["input_ids"].shape[1] :]
        assert prediction.text == encoder.tokenizer.decode(new, skip_special_tokens=True).strip()
    assert len({prediction.text for prediction in predictions}) > 1


def test_predictions_come_in_the_order_of_the_examples_with_all_their_facts(model, examples):
    told = []
    found = ask(model, examples, on_batch=lambda *progress: told.append(progress))
    assert [one.example_id for one in found] == [one.example_id for one in examples]
    for one, prediction in zip(examples, found, strict=True):
        for name in ("question_id", "individual", "modality", "category", "rotation", "options"):
            assert getattr(prediction, name) == getattr(one, name)
        assert prediction.answer == one.answer
    assert told == [(3, 7), (6, 7), (7, 7)]
    assert ask(model, []) == []


def test_options_in_words_keep_what_belongs_to_each_text(model):
    """Fault: sums, ends or numbers of tokens mixed up, or a bare question taken for a shown one."""
    texts = ("baker", "Lara Hayes .", "black hair")
    one = replace(tiny.in_words(0, texts, true=1), asked_as="words")
    found, other = ask(model, [one, tiny.example(1)])
    assert (found.asked_as, other.asked_as) == ("words", "options")
    assert found.answer == "B"
    assert found.option_tokens == (1, 3, 2)
    assert len(found.end_log_probs) == len(found.option_log_probs) == 3
    assert (other.end_log_probs, other.option_tokens) == ((), ())
    alike = ask(model, [replace(one, option_texts=texts[::-1], options=one.options[::-1])])[0]
    assert alike.option_tokens == (2, 3, 1)
    assert alike.option_log_probs[::-1] == pytest.approx(found.option_log_probs, abs=1e-5)
    assert alike.end_log_probs[::-1] == pytest.approx(found.end_log_probs, abs=1e-5)


def test_batch_size_changes_nothing_but_rounding(model, examples):
    first = ask(model, examples, batch_size=1)
    for size in (2, 4, 7):
        for one, other in zip(first, ask(model, examples, batch_size=size), strict=True):
            assert one.text == other.text
            assert one.option_log_probs == pytest.approx(other.option_log_probs, abs=1e-5)


def test_greedy_accuracy_is_that_of_generation():
    encoder = tiny.encoder()
    model = ending_model(encoder)
    examples = [*tiny.letters(8), *TALKATIVE]
    truth, letters = [], []
    for one in examples:
        inputs = alone(encoder, one)
        output = model.generate(**inputs, max_new_tokens=3, do_sample=False)
        new = output[0, inputs["input_ids"].shape[1] :].tolist()
        letter = encoder.tokenizer.convert_tokens_to_ids(one.answer)
        truth.append(new == [letter, encoder.tokenizer.eos_token_id])
        letters.append(new[0] == letter)
    # Right, right but not ended there, and wrong: all three are among them.
    assert 0 < sum(truth) < sum(letters) < len(truth)
    for size in (1, 5, 12):
        found = greedy_accuracy(Plain(model, encoder), examples, batch_size=size)
        assert found == pytest.approx(sum(truth) / len(truth))


def ending_model(encoder):
    """A model trained for a moment to answer some letters and end there, or to go on talking."""
    made = tiny.prepared("llm")
    objective = tiny.learning(made, encoder)
    longer = [replace(one, answer=f"{one.answer} judge") for one in TALKATIVE]
    data = StepData((), (*tiny.letters(4), *longer))
    optimiser = torch.optim.AdamW(
        [tensor for tensor in made.model.parameters() if tensor.requires_grad], lr=3e-2
    )
    for _ in range(30):
        optimiser.zero_grad()
        objective.terms(data)[0].values.mean().backward()
        optimiser.step()
    return made.model.eval()


@pytest.mark.parametrize("training", [True, False])
def test_greedy_accuracy_leaves_the_mode_as_it_was_and_no_gradients(training):
    made = tiny.prepared("llm")
    made.model.train(training)
    greedy_accuracy(Plain(made.model, tiny.encoder()), tiny.letters(2), batch_size=2)
    assert made.model.training is training
    assert all(tensor.grad is None for tensor in made.model.parameters())


def test_greedy_accuracy_is_measured_without_dropout():
    lora = LoraSettings(rank=2, alpha=4.0, dropout=0.9)
    made = tiny.prepared("llm", lora=lora)
    tiny.randomise(made.model, seed=3)
    made.model.train()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        before = torch.random.get_rng_state()
        greedy_accuracy(Plain(made.model, tiny.encoder()), tiny.letters(2), batch_size=2)
        assert torch.equal(before, torch.random.get_rng_state())


def crowd(monkeypatch, method, room):
    """Make a reader's batches of more than `room` examples run out of memory; note their sizes."""
    real, sizes = getattr(Plain, method), []

    def crowded(self, batch, **knobs):
        sizes.append(len(batch))
        if len(batch) > room:
            raise torch.OutOfMemoryError("no room")
        return real(self, batch, **knobs)

    monkeypatch.setattr(Plain, method, crowded)
    return sizes


def test_batches_that_do_not_fit_are_halved_for_good_and_told(model, examples, monkeypatch):
    expected = ask(model, examples, batch_size=5)
    sizes, halved, told = crowd(monkeypatch, "generate", 2), [], []
    found = predict(
        Plain(model, tiny.encoder()),
        examples,
        batch_size=5,
        max_new_tokens=4,
        on_batch=lambda *progress: told.append(progress),
        on_halved=halved.append,
    )
    assert sizes == [5, 2, 2, 2, 1]
    assert halved == [2]
    assert told == [(2, 7), (4, 7), (6, 7), (7, 7)]
    assert [one.text for one in found] == [one.text for one in expected]
    assert [one.example_id for one in found] == [one.example_id for one in examples]


def test_a_check_of_a_stop_rule_is_halved_too(model, examples, monkeypatch):
    reader = Plain(model, tiny.encoder())
    expected = greedy_accuracy(reader, examples, batch_size=7)
    sizes = crowd(monkeypatch, "answer_log_probs", 3)
    assert greedy_accuracy(reader, examples, batch_size=7) == expected
    assert sizes == [7, 3, 3, 1]


def test_one_question_that_does_not_fit_is_told(model, examples, monkeypatch):
    def crowded(*_, **__):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(Plain, "generate", crowded)
    with pytest.raises(ModelError, match="one question does not fit"):
        ask(model, examples)
