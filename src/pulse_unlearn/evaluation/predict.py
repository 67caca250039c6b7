"""Asking the model: greedy answers and the options' log-probabilities.

Both come from one pass; unpacked, options in words take passes of their own.
One of the two rooms that spend model time; what it returns can be scored without a model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.evaluation.readings import Order, average_over
from pulse_unlearn.models.forward import (
    OptionChances,
    Reader,
    Reply,
    answered,
    expand_options,
    joined,
    read_options,
)
from pulse_unlearn.records import Example, Prediction, key_of

T = TypeVar("T")


def predict(
    reader: Reader,
    examples: Sequence[Example],
    *,
    batch_size: int,
    max_new_tokens: int,
    on_batch: Callable[[int, int], None],
    on_halved: Callable[[int], None] = lambda size: None,
) -> list[Prediction]:
    """Answer every example; predictions come back in the order of the examples.

    Examples of one picture and of similar length share a batch. `on_batch` is told how many of how
    many are done after each batch, `on_halved` the size of batches that fit into memory from then.
    """
    reader.model.eval()
    found: dict[int, Prediction] = {}

    def reply(batch: list[Example]) -> list[Reply]:
        return reader.generate(batch, max_new_tokens=max_new_tokens)

    for chosen, replies in _in_batches(reply, examples, batch_size, on_halved):
        for index, one in zip(chosen, replies, strict=True):
            found[index] = _prediction(examples[index], one)
        on_batch(len(found), len(examples))
    return [found[index] for index in range(len(examples))]


def _in_batches(
    work: Callable[[list[Example]], list[T]],
    examples: Sequence[Example],
    size: int,
    on_halved: Callable[[int], None] = lambda size: None,
) -> Iterator[tuple[Sequence[int], list[T]]]:
    """Yield indices and results batch by batch; batches that do not fit are halved from there on.

    Raises ModelError if a single example is too much.
    """
    order, done = _by_likeness(examples), 0
    while done < len(order):
        chosen = order[done : done + size]
        try:
            results = work([examples[index] for index in chosen])
        except torch.OutOfMemoryError as error:
            if len(chosen) == 1:
                raise _too_large(examples[chosen[0]], error) from error
            size = len(chosen) // 2
        else:
            yield chosen, results
            done += len(chosen)
            continue
        # Only here has the error let go of what was in memory.
        torch.cuda.empty_cache()
        on_halved(size)


def _too_large(example: Example, error: torch.OutOfMemoryError) -> ModelError:
    return ModelError(
        Problem(
            "one question does not fit into the device's memory",
            example.example_id,
            got=str(error),
            fix="a smaller model dtype or a larger device",
        )
    )


def greedy_accuracy(reader: Reader, examples: Sequence[Example], *, batch_size: int) -> float:
    """Return the share of examples whose greedy answer would be exactly right, without generating.

    Teacher forcing decides this exactly: greedy decoding reproduces the answer if and only if each
    of its tokens is the most likely one given those before. Used by stop rules.
    """

    def right(batch: list[Example]) -> list[bool]:
        hit: list[bool] = answered(reader.answer_log_probs(batch, tokens="with_end")).tolist()
        return hit

    return sum(_without_training(reader, right, examples, batch_size)) / len(examples)


def likelihood_accuracy(reader: Reader, examples: Sequence[Example], *, batch_size: int) -> float:
    """Return the share of examples whose true option is the likeliest, without generating.

    As `scoring` reads by likelihood: the first of equals counts. Used by stop rules.
    """
    found = _option_chances(reader, examples, batch_size)
    hits = [
        options_log_probs(chances).index(max(options_log_probs(chances))) == _true_place(example)
        for example, chances in zip(examples, found, strict=True)
    ]
    return sum(hits) / len(hits)


def rotated_accuracy(reader: Reader, examples: Sequence[Example], *, batch_size: int) -> float:
    """Return the share of questions whose true option is the likeliest over all orders asked.

    As the reading `rotated`: each order's log-probabilities are renormalised over the options and
    averaged by option; of options that tie, each counts its share. Used by stop rules.
    """
    found = _option_chances(reader, examples, batch_size)
    orders: dict[str, list[Order]] = {}
    for example, chances in zip(examples, found, strict=True):
        order = Order(example.options, options_log_probs(chances), (_true_place(example),))
        orders.setdefault(example.question_id, []).append(order)
    return math.fsum(average_over(turned).credit for turned in orders.values()) / len(orders)


def _option_chances(
    reader: Reader, examples: Sequence[Example], batch_size: int
) -> list[OptionChances]:
    told = [(number, one) for number, of in enumerate(examples) for one in expand_options(of)]
    found = _without_training(
        reader, lambda batch: read_options(reader, batch), [one for _, one in told], batch_size
    )
    parts: list[list[OptionChances]] = [[] for _ in examples]
    for (number, _), chances in zip(told, found, strict=True):
        parts[number].append(chances)
    return [joined(of) for of in parts]


def options_log_probs(chances: OptionChances) -> tuple[float, ...]:
    """Return each option's log-probability, a text's with the end of turn behind it."""
    if not chances.ends:
        return chances.log_probs
    return tuple(map(math.fsum, zip(chances.log_probs, chances.ends, strict=True)))


def _true_place(example: Example) -> int:
    return [option.letter for option in example.options].index(example.letter)


def _without_training(
    reader: Reader, work: Callable[[list[Example]], list[T]], examples: Sequence[Example], size: int
) -> list[T]:
    """Return each example's result, in their order, from the model as it stands in training."""
    model = reader.model
    was_training = model.training
    model.eval()
    found: dict[int, T] = {}
    with torch.no_grad():
        for chosen, results in _in_batches(work, examples, size):
            found |= zip(chosen, results, strict=True)
    model.train(was_training)
    return [found[index] for index in range(len(examples))]


def _by_likeness(examples: Sequence[Example]) -> list[int]:
    """Return indices by picture and length, so that a batch shares much and pads little."""
    return sorted(range(len(examples)), key=lambda index: examples[index].likeness)


def _prediction(example: Example, reply: Reply) -> Prediction:
    return Prediction(
        **key_of(example),
        options=example.options,
        answer=example.letter,
        text=reply.text,
        option_log_probs=reply.chances.log_probs,
        end_log_probs=reply.chances.ends,
        option_tokens=reply.chances.tokens,
        cut_off=reply.cut_off,
    )
