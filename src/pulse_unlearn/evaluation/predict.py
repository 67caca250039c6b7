"""Asking the model: greedy answers and letter log-probabilities from the same pass.

One of the two rooms that spend model time; what it returns can be scored without a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from pulse_unlearn.models.forward import Reader, Reply, answered
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

    Examples of one picture and of similar length share a batch. `on_batch` is told how many of how
    many are done after each batch.
    """
    reader.model.eval()
    found: dict[int, Prediction] = {}
    for chosen in _chunks(_by_likeness(examples), batch_size):
        batch = [examples[index] for index in chosen]
        replies = reader.replies(batch, max_new_tokens=max_new_tokens)
        for index, example, reply in zip(chosen, batch, replies, strict=True):
            found[index] = _prediction(example, reply, reader.encoder.letter_ids(example))
        on_batch(len(found), len(examples))
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


def _by_likeness(examples: Sequence[Example]) -> list[int]:
    """Return indices by picture and length, so that a batch shares much and pads little."""
    return sorted(range(len(examples)), key=lambda index: examples[index].likeness)


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
        text=reply.text,
        letter_log_probs=tuple(log_probs),
    )


def _chunks(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]
