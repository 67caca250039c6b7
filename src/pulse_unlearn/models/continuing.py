"""Going on from what a pass over packs has left: greedy answers without reading a prompt again."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache


def go_on(
    model: Any,
    cache: Any,
    starts: Sequence[tuple[int, Tensor]],
    first: Tensor,
    *,
    max_new_tokens: int,
    ends: Sequence[int],
) -> list[list[int]]:
    """Return the greedy tokens of each answer, up to `max_new_tokens` and without an end of turn.

    `cache` (a DynamicCache) holds the keys and values of rows of packs; a start is a prompt's row
    and its tokens' places there; `first` [N] are the tokens that follow the prompts.
    """
    device = first.device
    longest = max(len(places) for _, places in starts)
    past = _of_prompts(cache, starts, longest)
    lengths = torch.tensor([len(places) for _, places in starts], device=device)
    seen = torch.arange(longest, device=device) >= longest - lengths.unsqueeze(1)
    said = [first]
    stops = torch.tensor(list(ends), device=device)
    ended = torch.isin(first, stops)
    for step in range(max_new_tokens - 1):
        if bool(ended.all()):
            break
        seen = torch.cat([seen, seen.new_ones(len(starts), 1)], dim=1)
        hidden = model.model(
            input_ids=said[-1].unsqueeze(1),
            attention_mask=seen.long(),
            position_ids=(lengths + step).unsqueeze(1),
            past_key_values=past,
            use_cache=True,
        ).last_hidden_state
        following = model.get_output_embeddings()(hidden[:, -1]).argmax(-1)
        said.append(torch.where(ended, said[-1], following))
        ended |= torch.isin(following, stops)
    tokens = torch.stack(said, dim=1).tolist()
    return [list(takewhile(lambda token: token not in ends, row)) for row in tokens]


def _of_prompts(cache: Any, starts: Sequence[tuple[int, Tensor]], longest: int) -> DynamicCache:
    """Return each prompt's own keys and values, [N, heads, longest, D], padded on the left."""
    rows = torch.tensor([row for row, _ in starts]).unsqueeze(1)
    places = torch.stack([pad(places, (longest - len(places), 0)) for _, places in starts])
    past = DynamicCache()
    for number, layer in enumerate(cache.layers):
        device = layer.keys.device
        at = (rows.to(device), slice(None), places.to(device))
        # Indexed dimensions come first: [N, longest, heads, D].
        past.update(layer.keys[at].transpose(1, 2), layer.values[at].transpose(1, 2), number)
    return past
