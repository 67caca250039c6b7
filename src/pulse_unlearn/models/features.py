"""What a frozen vision tower sees in a picture, computed once and kept.

The tower is most of the work on a short question and never changes while it is frozen. Its outputs
are remembered picture by picture and handed out in its place, so that everything behind it (feature
selection, projector, whatever a family does with image sizes) is still the model's own code.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

KEPT_BYTES = 2 << 30


class TowerMemory:
    """Stands in for a vision tower; the oldest features go when they take more than 2 GiB."""

    def __init__(self, tower: nn.Module) -> None:
        self._tower = tower
        self._forward: Callable[..., Any] = tower.forward
        self._kept: OrderedDict[str, ModelOutput] = OrderedDict()
        self._bytes = 0
        self.computed = 0
        """Pictures the tower was really run on."""

    @property
    def usable(self) -> bool:
        """Whether nothing in the tower is trained or adapted, so that every view sees the same."""
        return not any(
            isinstance(module, BaseTunerLayer) for module in self._tower.modules()
        ) and not any(parameter.requires_grad for parameter in self._tower.parameters())

    def missing(self, digests: Sequence[str]) -> list[str]:
        """Return those not remembered, each once."""
        return [digest for digest in dict.fromkeys(digests) if digest not in self._kept]

    @contextmanager
    def learning(self, digest: str) -> Iterator[None]:
        """Run the tower as it is inside, and remember what it returns for this picture."""

        def run(*args: Any, **kwargs: Any) -> Any:
            output = self._forward(*args, **kwargs)
            self._remember(digest, output)
            return output

        with self._as_forward(run):
            yield

    @contextmanager
    def recalling(self, digests: Sequence[str]) -> Iterator[None]:
        """Answer for the tower inside, with what it said of these pictures."""
        found = [self._kept[digest] for digest in digests]

        def answer(*_: Any, **__: Any) -> Any:
            return _joined(found)

        with self._as_forward(answer):
            yield

    def trim(self) -> None:
        """Forget the oldest pictures until the limit holds."""
        while self._bytes > KEPT_BYTES:
            self._bytes -= _size(self._kept.popitem(last=False)[1])

    @contextmanager
    def _as_forward(self, forward: Callable[..., Any]) -> Iterator[None]:
        own = self._tower.__dict__
        before = own.get("forward")  # set only where a device map has put a hook
        self._tower.forward = forward
        try:
            yield
        finally:
            if before is None:
                del self._tower.forward
            else:
                self._tower.forward = before

    def _remember(self, digest: str, output: ModelOutput) -> None:
        self.computed += 1
        self._kept[digest] = _mapped(output, torch.Tensor.detach)
        self._bytes += _size(self._kept[digest])


def _mapped(output: ModelOutput, change: Callable[[Tensor], Tensor]) -> ModelOutput:
    def apply(value: Any) -> Any:
        if isinstance(value, Tensor):
            return change(value)
        return tuple(apply(part) for part in value) if isinstance(value, tuple) else value

    return type(output)(**{key: apply(value) for key, value in output.items()})


def _joined(outputs: Sequence[ModelOutput]) -> ModelOutput:
    def join(values: Sequence[Any]) -> Any:
        if isinstance(values[0], Tensor):
            return torch.cat(list(values))
        if isinstance(values[0], tuple):
            return tuple(join(parts) for parts in zip(*values, strict=True))
        return values[0]

    first = outputs[0]
    return type(first)(**{key: join([one[key] for one in outputs]) for key in first})


def _size(output: ModelOutput) -> int:
    total = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal total
        total += tensor.nbytes
        return tensor

    _mapped(output, count)
    return total
