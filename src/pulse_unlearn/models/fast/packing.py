"""Shared-prefix packing: every sequence of a batch in a few rows, equal beginnings written once.

Five questions on one face, or the four rotations of one question, begin alike. Their sequences form
a tree; a row holds the tree's tokens branch after branch:

    USER: <image x 576> What is her      job? A. ..  -> B </s>
                     \\            \\-----  town? A. ..  -> D </s>
                      \\-- Where was she born? A. ..    -> A </s>

    row       USER: <image> | What is her | job? .. B </s> | town? .. D </s> | Where .. A </s>
    position  0 ...     577 | 578 .. 580  | 581 ..         | 581 ..          | 578 ..
    sees      itself        | + <image>   | + What is her  | + What is her   | + <image>

A token sees its own branch up to itself and the branches above, at the position it has in its own
sequence. For a causal model with plain rotary positions every token's output is that of the
sequence alone: the packing is exact, for gradients too.

Lines without a common beginning share a row as well (a forest), where that leaves less padding and
attention, which grows with the square of a row, stays cheap. Nothing here knows a model: token ids
in, tensors out.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Image:
    """One picture inside a sequence: all tokens its placeholder stands for."""

    digest: str
    """Equal digests are equal pictures; only those may share tokens."""
    tokens: tuple[int, ...] = field(compare=False)


Symbol = int | Image
"""A text token, or a whole picture."""


@dataclass(frozen=True, slots=True)
class Line:
    """One sequence: prompt symbols, then the answer's tokens."""

    prompt: tuple[Symbol, ...]
    answer: tuple[int, ...]

    @property
    def symbols(self) -> tuple[Symbol, ...]:
        """The whole sequence."""
        return self.prompt + self.answer

    @property
    def digest(self) -> str:
        """Digest of the line's first picture; empty without one."""
        return next((symbol.digest for symbol in self.prompt if isinstance(symbol, Image)), "")


@dataclass(frozen=True, slots=True)
class Branch:
    """A stretch of a row; `above` is where the branch it grows from ends (0 for a root)."""

    start: int
    end: int
    above: int


@dataclass(frozen=True, slots=True)
class Row:
    """One row before it becomes tensors."""

    tokens: list[int]
    positions: list[int]
    branches: list[Branch]
    digests: list[str]
    """Pictures in the order of their tokens."""
    paths: list[list[int]]
    """For each line, the place in the row of the last token of each of its symbols."""


@dataclass(frozen=True, slots=True)
class Pack:
    """Rows as a model takes them; R rows of T tokens, N lines."""

    input_ids: Tensor
    """[R, T], padded on the right."""
    position_ids: Tensor
    """[R, T]."""
    sees: Tensor
    """Which token sees which, bool [R, 1, T, T]; padding sees itself."""
    digests: tuple[str, ...]
    """Pictures in the order of their tokens, row after row."""
    rows: tuple[int, ...]
    """Row of each line, [N]."""
    paths: tuple[tuple[int, ...], ...]
    """For each line, the place in its row of the last token of each of its symbols."""


def pack(lines: Sequence[Line], *, budget: int, pad: int) -> Pack:
    """Lay out lines in rows of at most `budget` tokens, or as many as the largest group has.

    The lines of one picture, or of one prompt, stay whole; padded to them, other rows may be as
    long for the same price. Raises ValueError for no lines or for a line without a prompt.
    """
    if not lines or any(not line.prompt for line in lines):
        raise ValueError("every line needs a prompt, and a pack a line")
    bins = _fill(lines, budget)
    laid = [lay_out([lines[index] for index in members]) for members in bins]
    width = max(len(row.tokens) for row in laid)
    ids = np.full((len(laid), width), pad, dtype=np.int64)
    positions = np.zeros((len(laid), width), dtype=np.int64)
    sees = np.zeros((len(laid), 1, width, width), dtype=bool)
    for number, row in enumerate(laid):
        ids[number, : len(row.tokens)] = row.tokens
        positions[number, : len(row.tokens)] = row.positions
        _mark(sees[number, 0], row.branches)
    where = {
        index: (number, tuple(path))
        for number, (members, row) in enumerate(zip(bins, laid, strict=True))
        for index, path in zip(members, row.paths, strict=True)
    }
    return Pack(
        torch.from_numpy(ids),
        torch.from_numpy(positions),
        torch.from_numpy(sees),
        tuple(digest for row in laid for digest in row.digests),
        rows=tuple(where[index][0] for index in range(len(lines))),
        paths=tuple(where[index][1] for index in range(len(lines))),
    )


def lay_out(lines: Sequence[Line]) -> Row:
    """Write the lines' tree into one row, each branch behind the one it grows from."""
    row = Row([], [], [], [], [[] for _ in lines])
    symbols = [line.symbols for line in lines]
    # Members of a branch agree on all symbols before `at`; the last one pushed is laid out next.
    open_branches = [(list(group), 0, 0, 0) for group in _parted(symbols, range(len(lines)), 0)]
    open_branches.reverse()
    while open_branches:
        members, at, above, depth = open_branches.pop()
        first, start = symbols[members[0]], len(row.tokens)
        end = at + _agreement(symbols, members, at)
        places = _write(row, first[at:end], depth)
        for member in members:
            row.paths[member].extend(places)
        row.branches.append(Branch(start, len(row.tokens), above))
        depth += len(row.tokens) - start
        parts = _parted(symbols, [m for m in members if len(symbols[m]) > end], end)
        open_branches += [(part, end, len(row.tokens), depth) for part in reversed(list(parts))]
    return row


def _write(row: Row, symbols: Sequence[Symbol], depth: int) -> list[int]:
    """Append symbols' tokens from position `depth` on; return where each symbol ends in the row."""
    start, places = len(row.tokens), []
    for symbol in symbols:
        if isinstance(symbol, Image):
            row.digests.append(symbol.digest)
            row.tokens.extend(symbol.tokens)
        else:
            row.tokens.append(symbol)
        places.append(len(row.tokens) - 1)
    row.positions.extend(range(depth, depth + len(row.tokens) - start))
    return places


def _agreement(symbols: Sequence[Sequence[Symbol]], members: Sequence[int], at: int) -> int:
    """Return how many symbols from `at` on are the same in all members."""
    shortest = min(len(symbols[member]) for member in members)
    first = symbols[members[0]]
    others = [symbols[member] for member in members[1:]]
    count = at
    while count < shortest and all(other[count] == first[count] for other in others):
        count += 1
    return count - at


def _parted(
    symbols: Sequence[Sequence[Symbol]], members: Sequence[int], at: int
) -> Iterator[list[int]]:
    """Group members by their symbol at `at`, in the order of first appearance."""
    groups: dict[Symbol, list[int]] = {}
    for member in members:
        groups.setdefault(symbols[member][at], []).append(member)
    yield from groups.values()


def _mark(sees: np.ndarray, branches: Sequence[Branch]) -> None:
    """Set what each token of a row sees, [T, T]."""
    np.fill_diagonal(sees, val=True)
    for branch in branches:
        here = slice(branch.start, branch.end)
        if branch.above:
            sees[here, : branch.above] = sees[branch.above - 1, : branch.above]
        length = branch.end - branch.start
        sees[here, here] = np.tri(length, dtype=bool)


def _fill(lines: Sequence[Line], budget: int) -> list[list[int]]:
    """Put lines into rows of like length: those of one picture, or of one prompt, together.

    Of all numbers of rows that keep to the budget the cheapest is taken. Rows are padded to the
    longest, and attention over a row of `budget` tokens costs a sixth of what the tokens cost in
    the rest of a language model of that width: 4 T d operations a token and layer against 24 d^2.
    """
    groups: dict[object, list[int]] = {}
    for index, line in enumerate(lines):
        groups.setdefault(line.digest or line.prompt, []).append(index)
    sized = [
        (len(lay_out([lines[index] for index in members]).tokens), members)
        for members in groups.values()
    ]
    sized.sort(key=lambda pair: -pair[0])
    capacity = max(budget, sized[0][0])
    # What all groups begin with is written once a row: text tokens, as pictures differ.
    firsts = [lines[members[0]].symbols for _, members in sized]
    common = _agreement(firsts, range(len(firsts)), 0) if len(firsts) > 1 else 0
    own = sum(size - common for size, _ in sized)
    fewest = math.ceil(own / max(capacity - common, 1)) or 1
    tried = (_dealt(sized, rows, common) for rows in range(fewest, len(sized) + 1))
    fitting = [deal for deal in tried if deal.width <= capacity]
    cheapest = min(
        fitting, key=lambda deal: len(deal.rows) * deal.width * (6 * budget + deal.width)
    )
    return cheapest.rows


@dataclass(frozen=True, slots=True)
class _Deal:
    """Groups dealt out to rows."""

    rows: list[list[int]]
    width: int
    """Tokens of the longest row; what only some groups begin with is counted in each."""


def _dealt(sized: Sequence[tuple[int, list[int]]], count: int, common: int) -> _Deal:
    """Deal groups, the longest first, each to the row that is shortest by then."""
    rows: list[list[int]] = [[] for _ in range(count)]
    shortest = [(common, number) for number in range(count)]
    for size, members in sized:
        length, number = shortest[0]
        rows[number] += members
        heapq.heapreplace(shortest, (length + size - common, number))
    return _Deal(rows, max(length for length, _ in shortest))
