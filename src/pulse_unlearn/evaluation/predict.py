"""Asking the model: greedy answers and letter log-probabilities from the same pass.

One of the two rooms that spend model time; what it returns can be scored without a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from pulse_unlearn.models.forward import Plain, Reader, Reply, answered
from pulse_unlearn.records import Example, Prediction


def predict(
    reader: Reader,
    examples: Sequence[Example],
    *,
    batch_size: int,
    max_new_tokens: int,
    on_batch: Callable[[int, int], None],
) -> list[Prediction]:
    """Answer every example; predictions come back in the order of the examples.

    Examples of one picture and of similar length share a batch. What a reader cannot answer without
    generating is generated at the end, together. `on_batch` is told how many of how many are done
    after each batch.
    """
    reader.model.eval()
    found: dict[int, Prediction] = {}
    unspoken: list[int] = []
    for chosen in _chunks(_by_likeness(examples), batch_size):
        batch = [examples[index] for index in chosen]
        replies = reader.replies(batch, max_new_tokens=max_new_tokens)
        for index, example, reply in zip(chosen, batch, replies, strict=True):
            found[index] = _prediction(example, reply, reader.encoder.letter_ids(example))
            if reply.text is None:
                unspoken.append(index)
        on_batch(len(found) - len(unspoken), len(examples))
    plain = Plain(reader.model, reader.encoder)
    for chosen in _chunks(_by_likeness(examples, unspoken), batch_size):
        generated = plain.replies(
            [examples[index] for index in chosen], max_new_tokens=max_new_tokens
        )
        for index, reply in zip(chosen, generated, strict=True):
            found[index] = replace(found[index], text=reply.text or "")
        unspoken = [index for index in unspoken if index not in set(chosen)]
        on_batch(len(found) - len(unspoken), len(examples))
    return [found[index] for index in range(len(examples))]


def greedy_accuracy(reader: Reader, examples: Sequence[Example], *, batch_size: int) -> float:
    """Return the share of examples whose greedy answer would be exactly right, without generating.

    Teacher forcing decides this exactly: greedy decoding reproduces the answer if and only if each
    of its tokens is the most likely one given those before. Used by stop rules.
    """
    model = reader.model
    was_training = model.training
    model.eval()
    hits = 0
    with torch.no_grad():
        for chosen in _chunks(_by_likeness(examples), batch_size):
            view = reader.answers([examples[index] for index in chosen], tokens="with_end")
            hits += int(answered(view).sum())
    model.train(was_training)
    return hits / len(examples)


def _by_likeness(examples: Sequence[Example], chosen: Sequence[int] | None = None) -> list[int]:
    """Return indices by picture and length, so that a batch shares much and pads little."""
    indices = range(len(examples)) if chosen is None else chosen
    return sorted(indices, key=lambda index: examples[index].likeness)


def _prediction(example: Example, reply: Reply, letters: Sequence[int]) -> Prediction:
    log_probs: list[float] = reply.log_probs[list(letters)].tolist()
    return Prediction(
        example_id=example.id,
        question_id=example.question_id,
        individual=example.individual,
        modality=example.modality,
        category=example.category,
        rotation=example.rotation,
        options=example.options,
        answer=example.answer,
        text=reply.text or "",
        letter_log_probs=tuple(log_probs),
    )


def _chunks(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]
