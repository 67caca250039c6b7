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
from pulse_unlearn.evaluation.scoring import Order, answer_log_probs, average_over
from pulse_unlearn.models.forward import (
    Backend,
    OptionChances,
    Reply,
    answered,
    expand_options,
    joined,
    read_options,
)
from pulse_unlearn.models.memory import SHORTAGES, is_shortage
from pulse_unlearn.ranks import ALONE, Ranks
from pulse_unlearn.records import Example, Prediction, key_of

T = TypeVar("T")


def predict(
    backend: Backend,
    examples: Sequence[Example],
    *,
    batch_size: int,
    max_new_tokens: int,
    on_batch: Callable[[int, int], None],
    on_halved: Callable[[int], None] = lambda size: None,
    ranks: Ranks = ALONE,
) -> list[Prediction]:
    """Answer every example; predictions come back in the order of the examples.

    Examples of one picture and of similar length share a batch. `on_batch` is called after each
    batch with the number done and the total, `on_halved` with the new batch size when memory ran
    out. Several `ranks` ask whole batches each, of about as many tokens, and all get every answer.
    """
    backend.model.eval()
    found: dict[int, Prediction] = {}
    order = _own(examples, batch_size, ranks)

    def reply(batch: list[Example]) -> list[Reply]:
        return backend.generate(batch, max_new_tokens=max_new_tokens)

    for chosen, replies in _in_batches(reply, examples, order, batch_size, on_halved):
        for index, one in zip(chosen, replies, strict=True):
            found[index] = _prediction(examples[index], one)
        on_batch(len(found), len(order))
    return _in_order(found, ranks)


def _own(examples: Sequence[Example], size: int, ranks: Ranks) -> Sequence[int]:
    """Return which examples this rank reads, and in which order.

    By picture and length, so that a batch shares much and pads little.
    """
    order = sorted(range(len(examples)), key=lambda index: examples[index].likeness)
    return order[ranks.share([examples[index] for index in order], size)]


def _in_order(found: dict[int, T], ranks: Ranks) -> list[T]:
    """Return what all ranks found, by the place of the example."""
    parts = [found] if ranks.lockstep else ranks.gather(found)
    every = {index: one for part in parts for index, one in part.items()}
    return [every[index] for index in range(len(every))]


def _in_batches(
    work: Callable[[list[Example]], list[T]],
    examples: Sequence[Example],
    order: Sequence[int],
    size: int,
    on_halved: Callable[[int], None] = lambda size: None,
) -> Iterator[tuple[Sequence[int], list[T]]]:
    """Yield indices and results batch by batch; batches that do not fit are halved from there on.

    Raises ModelError if a single example is too much.
    """
    done = 0
    while done < len(order):
        chosen = order[done : done + size]
        try:
            results = work([examples[index] for index in chosen])
        except SHORTAGES as error:
            if not is_shortage(error):
                raise
            if len(chosen) == 1:
                what = "one question does not fit into the device's memory"
                fix = "a smaller model dtype or a larger device"
                name = examples[chosen[0]].example_id
                raise ModelError(Problem(what, name, got=str(error), fix=fix)) from error
            size = len(chosen) // 2
        else:
            yield chosen, results
            done += len(chosen)
            continue
        # Only here has the error let go of what was in memory.
        torch.cuda.empty_cache()
        on_halved(size)


def greedy_accuracy(
    backend: Backend, examples: Sequence[Example], *, batch_size: int, ranks: Ranks = ALONE
) -> float:
    """Return the share of examples whose greedy answer would be exactly right, without generating.

    Teacher forcing decides this exactly: greedy decoding reproduces the answer if and only if each
    of its tokens is the most likely one given those before. Used by stop rules.
    """

    def right(batch: list[Example]) -> list[bool]:
        hit: list[bool] = answered(backend.answer_log_probs(batch, tokens="with_end")).tolist()
        return hit

    return sum(_without_training(backend, right, examples, batch_size, ranks)) / len(examples)


def likelihood_accuracy(
    backend: Backend, examples: Sequence[Example], *, batch_size: int, ranks: Ranks = ALONE
) -> float:
    """Return the share of examples whose true option is the likeliest, without generating.

    As `scoring` reads by likelihood: the first of equals counts. Used by stop rules.
    """
    found = _option_log_probs(backend, examples, batch_size, ranks)
    hits = [
        log_probs.index(max(log_probs)) == _true_place(example)
        for example, log_probs in zip(examples, found, strict=True)
    ]
    return sum(hits) / len(hits)


def rotated_accuracy(
    backend: Backend, examples: Sequence[Example], *, batch_size: int, ranks: Ranks = ALONE
) -> float:
    """Return the share of questions whose true option is the likeliest over all orders asked.

    As the reading `rotated`: each order's log-probabilities are renormalised over the options and
    averaged by option; of options that tie, each counts its share. Used by stop rules.
    """
    found = _option_log_probs(backend, examples, batch_size, ranks)
    orders: dict[str, list[Order]] = {}
    for example, log_probs in zip(examples, found, strict=True):
        order = Order(example.options, log_probs, (_true_place(example),))
        orders.setdefault(example.question_id, []).append(order)
    return math.fsum(average_over(turned).credit for turned in orders.values()) / len(orders)


def _option_log_probs(
    backend: Backend, examples: Sequence[Example], batch_size: int, ranks: Ranks
) -> list[tuple[float, ...]]:
    """Return the log-probability of each option of each example, a text's with its end of turn."""
    told = [(number, one) for number, of in enumerate(examples) for one in expand_options(of)]
    found = _without_training(
        backend,
        lambda batch: read_options(backend, batch),
        [one for _, one in told],
        batch_size,
        ranks,
    )
    parts: list[list[OptionChances]] = [[] for _ in examples]
    for (number, _), chances in zip(told, found, strict=True):
        parts[number].append(chances)
    return [answer_log_probs(one.log_probs, one.ends) for one in map(joined, parts)]


def _true_place(example: Example) -> int:
    return [option.letter for option in example.options].index(example.letter)


def _without_training(
    backend: Backend,
    work: Callable[[list[Example]], list[T]],
    examples: Sequence[Example],
    size: int,
    ranks: Ranks,
) -> list[T]:
    """Return each example's result, in their order, from the model as it stands in training."""
    model = backend.model
    was_training = model.training
    model.eval()
    found: dict[int, T] = {}
    with torch.no_grad():
        for chosen, results in _in_batches(work, examples, _own(examples, size, ranks), size):
            found |= zip(chosen, results, strict=True)
    model.train(was_training)
    return _in_order(found, ranks)


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
