"""Greedy decoding from the cache a pass over packs has left, without reading a prompt again.

The answers of one row go on side by side in it, each seeing its own prompt and its own tokens; a
picture's keys and values stay where they are, once for all questions on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache


def greedy_decode(
    model: Any,
    cache: DynamicCache,
    starts: Sequence[tuple[int, Tensor]],
    first: Tensor,
    *,
    max_new_tokens: int,
    ends: Sequence[int],
) -> list[list[int]]:
    """Return the greedy tokens of each answer, up to `max_new_tokens` and without an end of turn.

    `cache` holds the keys and values of rows of packs, R rows of T tokens; a start is a prompt's
    row and which of the row's tokens it sees, bool [T]; `first` [N] are the tokens that follow the
    prompts. The cache is used up.
    """
    device = first.device
    rows = sorted({row for row, _ in starts})
    at = _places([rows.index(row) for row, _ in starts])
    shape = (len(rows), 1 + int(at[:, 1].max()))
    row, column = at.to(device).unbind(1)
    cache.batch_select_indices(torch.tensor(rows, device=device))
    seen = torch.zeros(*shape, len(starts[0][1]), dtype=torch.bool, device=device)
    seen[row, column] = torch.stack([sees for _, sees in starts]).to(device)
    itself = torch.eye(shape[1], dtype=torch.bool, device=device).expand(shape[0], -1, -1)
    positions = seen.sum(-1)
    tokens, ended = first.new_full(shape, ends[0]), first.new_ones(shape, dtype=torch.bool)
    tokens[row, column], ended[row, column] = (
        first,
        torch.isin(first, stops := _tensor(ends, first)),
    )
    said = [tokens]
    for step in range(max_new_tokens - 1):
        if bool(ended.all()):
            break
        seen = torch.cat([seen, itself], dim=-1)
        following = _following(model, cache, tokens, positions + step, seen)
        tokens = torch.where(ended, tokens, following)
        said.append(tokens)
        ended |= torch.isin(tokens, stops)
    spoken = torch.stack(said, dim=-1)[row, column].tolist()
    return [list(takewhile(lambda token: token not in ends, one)) for one in spoken]


def _following(
    model: Any, cache: DynamicCache, tokens: Tensor, positions: Tensor, seen: Tensor
) -> Tensor:
    """Return the most likely tokens behind these, [R, K]; `seen` is [R, K, T]."""
    dtype = next(model.parameters()).dtype
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    hidden = model.model(
        input_ids=tokens,
        attention_mask=mask.masked_fill_(~seen, torch.finfo(dtype).min).unsqueeze(1),
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    following: Tensor = model.get_output_embeddings()(hidden).argmax(-1)
    return following


def _places(rows: Sequence[int]) -> Tensor:
    """Number the members of each row, [N, 2]."""
    return torch.tensor([(row, rows[:index].count(row)) for index, row in enumerate(rows)])


def _tensor(tokens: Sequence[int], like: Tensor) -> Tensor:
    return torch.tensor(list(tokens), device=like.device)
