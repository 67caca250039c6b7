"""The processes that carry out a stage together, as torchrun, accelerate or Slurm start them.

Each is a rank, and all of them do the same. Where work can be shared each does its part, and the
parts are added up or put together, so that all go on with the same numbers; rank 0 alone writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeVar

from pulse_unlearn.errors import ConfigError, Problem, RankLost
from pulse_unlearn.records import Example

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What a launcher tells each process it starts."""
_PATIENCE = timedelta(hours=6)
"""How long a rank waits for the others: while the first writes results they have nothing to do. One
that died is noticed at once, by its closed connection."""
_BUCKET = 1 << 24
"""Numbers that are added up in one exchange."""
_PICTURE = 2304
"""Characters that a picture counts for: 576 tokens of four."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that carry out a stage together."""

    rank: int = 0
    count: int = 1
    lockstep: bool = False
    """Whether each must read the model as often as the others: its layers are shared out."""

    @property
    def first(self) -> bool:
        """Whether this is rank 0: the one that writes and decides."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.count == 1

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their sums over all ranks, in place; the same ones in each."""
        if self.alone:
            return
        for bucket in _buckets(tensors):
            flat = _flat(bucket)
            self._exchange("all_reduce", flat)
            _scatter(flat, bucket)

    def follow(self, tensors: Iterable[Tensor]) -> None:
        """Give tensors the values they have in the first rank, in place."""
        if self.alone:
            return
        for bucket in _buckets(tensors):
            flat = _flat(bucket)
            self._exchange("broadcast", flat, 0)
            _scatter(flat, bucket)

    def gather(self, value: T) -> list[T]:
        """Return what each rank has here, in their order."""
        if self.alone:
            return [value]
        found: list[Any] = [None] * self.count
        self._exchange("all_gather_object", found, value)
        return found

    def told(self, value: T) -> T:
        """Return what the first rank has here."""
        if self.alone:
            return value
        found = [value]
        self._exchange("broadcast_object_list", found, 0)
        return found[0]

    def any(self, flag: bool) -> bool:
        """Tell whether a flag is set in any rank."""
        return any(self.gather(flag))

    def share(self, examples: Sequence[Example], size: int) -> slice:
        """Return this rank's part of examples that are read in batches of `size`.

        Whole batches, so that each is what it would be in one process; everything in lockstep, as
        batches differ in how often they read the model.
        """
        if self.alone or self.lockstep:
            return slice(0, len(examples))
        costs = reading_costs(examples)
        batches = [sum(costs[start : start + size]) for start in range(0, len(costs), size)]
        own = cut(batches, self.count)[self.rank]
        return slice(own.start * size, own.stop * size)

    def _exchange(self, name: str, *values: Any) -> None:
        import torch.distributed

        try:
            getattr(torch.distributed, name)(*values)
        except RuntimeError as error:
            fix = "what ended it stands in its own output; the same command continues"
            raise RankLost(Problem("another rank has gone", got=str(error), fix=fix)) from error


ALONE = Ranks()


def several() -> bool:
    """Tell whether a launcher has started this process as one of several."""
    value = os.environ.get("WORLD_SIZE", "1")
    return value.isdecimal() and int(value) > 1


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the ranks that a launcher started; alone if it was none, or only this one.

    Takes this rank's GPU, if there are any. Raises ConfigError for a launcher that has not told all
    that is needed.
    """
    if not several():
        yield ALONE
        return
    missing = [
        Problem("a launcher of several processes has not set this", name, fix="use torchrun")
        for name in VARIABLES
        if name not in os.environ
    ]
    if missing:
        raise ConfigError(missing)
    import torch
    import torch.distributed

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group(timeout=_PATIENCE)
    yield Ranks(torch.distributed.get_rank(), torch.distributed.get_world_size())
    # Only if all went well: of ranks that are gone nobody can take leave.
    torch.distributed.destroy_process_group()


def cut(weights: Sequence[float], count: int) -> list[slice]:
    """Cut a row of things into so many runs of about equal weight; some are empty if it is short.

    Each thing goes to the run that its middle lies in.
    """
    ends = list(accumulate(weights))
    total = ends[-1] if ends else 0.0
    middles = [end - weight / 2 for end, weight in zip(ends, weights, strict=True)]
    firsts = [
        next((n for n, middle in enumerate(middles) if middle * count >= total * k), len(middles))
        for k in range(count)
    ]
    return [slice(a, b) for a, b in zip(firsts, [*firsts[1:], len(middles)], strict=True)]


def reading_costs(examples: Sequence[Example]) -> list[float]:
    """Return what reading each of some examples costs, in characters: about four a token.

    The questions on one picture that follow each other see it once, as they do in a pack.
    """
    costs, before = [], ""
    for one in examples:
        digest = one.picture.digest if one.picture else ""
        new = bool(digest) and digest != before
        text = len(one.system) + len(one.prompt) + len(one.answer)
        costs.append(float(text + (_PICTURE if new else 0)))
        before = digest
    return costs


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Yield tensors of one kind together, up to a size."""
    kinds: dict[Any, list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    for of_kind in kinds.values():
        bucket: list[Tensor] = []
        for tensor in of_kind:
            if bucket and sum(one.numel() for one in bucket) + tensor.numel() > _BUCKET:
                yield bucket
                bucket = []
            bucket.append(tensor)
        yield bucket


def _flat(bucket: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.cat([tensor.detach().reshape(-1) for tensor in bucket])


def _scatter(flat: Tensor, bucket: Sequence[Tensor]) -> None:
    start = 0
    for tensor in bucket:
        tensor.detach().copy_(flat[start : start + tensor.numel()].reshape(tensor.shape))
        start += tensor.numel()
