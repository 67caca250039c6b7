"""How likely a model says each option is, with gradients: by letters in every order, and in words.

Columns are the options in the order of the example they are asked for, however they were shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor
from torch.nn.functional import pad

from pulse_unlearn.data.examples import Turned
from pulse_unlearn.methods import AnswerView, OptionView, losses
from pulse_unlearn.models.forward import Backend, expand_options
from pulse_unlearn.records import Example


def letter_options(
    backend: Backend, own: AnswerView, turned: Sequence[Sequence[Turned]]
) -> OptionView:
    """Return the options' letters in the orders of each example, [B, R, O].

    `own` is what the model says at the first of its orders, which is not asked again.
    """
    others = [one.example for orders in turned for one in orders[1:]]
    more = iter(())
    if others:
        more = iter(_beginnings(backend.answer_log_probs(others, tokens="text")))
    rows = []
    for orders, first in zip(turned, _beginnings(own), strict=True):
        said = (first, *islice(more, len(orders) - 1))
        rows.append([_by_option(backend, *pair) for pair in zip(orders, said, strict=True)])
    return _padded(rows, own.log_probs)


def word_options(backend: Backend, asked: Sequence[Example | None], like: AnswerView) -> OptionView:
    """Return the options' texts as answers to bare questions, [B, 1, O]; none where None."""
    told = [expand_options(one) if one else [] for one in asked]
    every = [one for texts in told for one in texts]
    sums = iter(())
    if every:
        view = backend.answer_log_probs(every, tokens="text")
        sums = iter(-losses.sum_nll(view))
    rows = [[torch.stack([*islice(sums, len(texts))])] if texts else [] for texts in told]
    return _padded(rows, like.log_probs)


def letters_of(backend: Backend, examples: Sequence[Example], like: AnswerView) -> Tensor:
    """Return which vocabulary entries begin a letter of each example's options, [B, V] bool."""
    size, _, vocabulary = like.log_probs.shape
    letters = torch.zeros(size, vocabulary, dtype=torch.bool)
    for row, example in enumerate(examples):
        letters[row, backend.encoder.letter_ids(example)] = True
    return letters.to(like.mask.device)


def _beginnings(view: AnswerView) -> Tensor:
    """Return what is said where each answer begins, [B, V]."""
    rows = torch.arange(len(view.mask), device=view.mask.device)
    return view.log_probs[rows, view.mask.int().argmax(-1)]


def _by_option(backend: Backend, one: Turned, said: Tensor) -> Tensor:
    """Return the letters' log-probabilities, [O], each under the option that it stood for."""
    letters = backend.encoder.letter_ids(one.example)
    ids = [letters[one.order.index(option)] for option in range(len(letters))]
    return said[ids]


def _padded(rows: Sequence[Sequence[Tensor]], like: Tensor) -> OptionView:
    """Put rows of options together, [B, R, O]; what is missing is masked."""
    forms = max(1, *(len(of) for of in rows))
    options = max((len(one) for of in rows for one in of), default=1)
    nothing = like.new_zeros(options)
    values, mask = [], []
    for of in rows:
        values += [pad(one, (0, options - len(one))) for one in of]
        mask += [[place < len(one) for place in range(options)] for one in of]
        values += [nothing] * (forms - len(of))
        mask += [[False] * options] * (forms - len(of))
    shape = (len(rows), forms, options)
    held = torch.tensor(mask, device=like.device).view(shape)
    return OptionView(torch.stack(values).view(shape), held)
