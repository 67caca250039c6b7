"""Asking the model: greedy answers and letter log-probabilities from the same pass.

One of the two rooms that spend model time; what it returns can be scored without a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pulse_unlearn.models.encode import Encoder
from pulse_unlearn.models.forward import answer_view, answered, to_device
from pulse_unlearn.records import Example, Prediction


def predict(
    model: nn.Module,
    encoder: Encoder,
    examples: Sequence[Example],
    *,
    batch_size: int,
    max_new_tokens: int,
    on_batch: Callable[[int, int], None],
) -> list[Prediction]:
    """Answer every example; predictions come back in the order of the examples.

    Examples of similar length share a batch, so that little of it is padding. `on_batch` is told
    how many of how many are done after each batch.
    """
    model.eval()
    order = sorted(range(len(examples)), key=lambda index: examples[index].bulk)
    found: dict[int, Prediction] = {}
    for chosen in _chunks(order, batch_size):
        batch = [examples[index] for index in chosen]
        answers = _answer(model, encoder, batch, max_new_tokens)
        found.update(zip(chosen, answers, strict=True))
        on_batch(len(found), len(examples))
    return [found[index] for index in range(len(examples))]


def greedy_accuracy(
    model: nn.Module, encoder: Encoder, examples: Sequence[Example], *, batch_size: int
) -> float:
    """Return the share of examples whose greedy answer would be exactly right, without generating.

    Teacher forcing decides this exactly: greedy decoding reproduces the answer if and only if each
    of its tokens is the most likely one given those before. Used by stop rules.
    """
    was_training = model.training
    model.eval()
    hits = 0
    order = sorted(range(len(examples)), key=lambda index: examples[index].bulk)
    with torch.no_grad():
        for chosen in _chunks(order, batch_size):
            batch = encoder.answers([examples[index] for index in chosen], tokens="with_end")
            hits += int(answered(answer_view(model, batch)).sum())
    model.train(was_training)
    return hits / len(examples)


def _answer(
    model: Any, encoder: Encoder, batch: Sequence[Example], max_new_tokens: int
) -> list[Prediction]:
    inputs = encoder.prompts(batch)
    inputs.pop("position_ids")  # generate derives the same positions from the attention mask
    with torch.no_grad():
        output = model.generate(
            **to_device(inputs, model),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=encoder.tokenizer.pad_token_id,
            eos_token_id=encoder.tokenizer.eos_token_id,
            return_dict_in_generate=True,
            output_logits=True,
        )
    new_tokens = output.sequences[:, inputs["input_ids"].shape[1] :]
    first = torch.log_softmax(output.logits[0].float(), dim=-1)
    texts = encoder.decode(new_tokens)
    return [
        _prediction(example, text, _letters(encoder, example, row))
        for example, text, row in zip(batch, texts, first, strict=True)
    ]


def _letters(encoder: Encoder, example: Example, log_probs: Tensor) -> tuple[float, ...]:
    """Return the log-probability of each option's letter as the first answer token."""
    picked: list[float] = log_probs[encoder.letter_ids(example)].tolist()
    return tuple(picked)


def _prediction(example: Example, text: str, letters: tuple[float, ...]) -> Prediction:
    return Prediction(
        example_id=example.id,
        question_id=example.question_id,
        individual=example.individual,
        modality=example.modality,
        category=example.category,
        rotation=example.rotation,
        options=example.options,
        answer=example.answer,
        text=text,
        letter_log_probs=letters,
    )


def _chunks(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]
