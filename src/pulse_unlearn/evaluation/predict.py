"""Asking the model: greedy answers and letter log-probabilities from the same pass.

One of the two rooms that spend model time; what it returns can be scored without a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.models.forward import Reader, Reply, answered
from pulse_unlearn.records import Example, Prediction

T = TypeVar("T")


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

    def reply(batch: list[Example]) -> list[Reply]:
        return reader.replies(batch, max_new_tokens=max_new_tokens)

    for chosen in _chunks(_by_likeness(examples), batch_size):
        batch = [examples[index] for index in chosen]
        for index, example, one in zip(chosen, batch, fitting(reply, batch), strict=True):
            found[index] = _prediction(example, one, reader.encoder.letter_ids(example))
        on_batch(len(found), len(examples))
    return [found[index] for index in range(len(examples))]


def fitting(work: Callable[[list[Example]], list[T]], batch: list[Example]) -> list[T]:
    """Do work on a batch, in halves if it does not fit into the device's memory.

    Raises ModelError if a single example is too much.
    """
    try:
        return work(batch)
    except torch.OutOfMemoryError as error:
        if len(batch) == 1:
            raise ModelError(
                Problem(
                    "one question does not fit into the device's memory",
                    batch[0].id,
                    got=str(error),
                    fix="a smaller model dtype or a larger device",
                )
            ) from error
    torch.cuda.empty_cache()
    half = len(batch) // 2
    return fitting(work, batch[:half]) + fitting(work, batch[half:])


def greedy_accuracy(reader: Reader, examples: Sequence[Example], *, batch_size: int) -> float:
    """Return the share of examples whose greedy answer would be exactly right, without generating.

    Teacher forcing decides this exactly: greedy decoding reproduces the answer if and only if each
    of its tokens is the most likely one given those before. Used by stop rules.
    """
    model = reader.model
    was_training = model.training
    model.eval()
    hits = 0

    def right(batch: list[Example]) -> list[bool]:
        found: list[bool] = answered(reader.answers(batch, tokens="with_end")).tolist()
        return found

    with torch.no_grad():
        for chosen in _chunks(_by_likeness(examples), batch_size):
            hits += sum(fitting(right, [examples[index] for index in chosen]))
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
