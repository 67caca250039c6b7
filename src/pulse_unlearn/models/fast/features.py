"""What a frozen vision tower returns for a picture, computed once and kept.

The tower is most of the work on a short question and never changes while it is frozen. Its outputs
are remembered picture by picture and handed out in its place, so that everything behind it (feature
selection, projector, whatever a family does with image sizes) is still the model's own code.

Kept in memory and not on disk: LLaVA-1.5's tower is 0.4e12 operations a picture, 1 ms on a large
GPU, about what reading its 1.2 MB back would take.

Pictures of one shape are processed together where that changes no bit of any one's output: a
resumed training meets other pictures together than an uninterrupted one, and has to come to the
same weights. Whether it does is tried on the first pictures there are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

from pulse_unlearn.models.fast.passes import patched_forward

KEPT_BYTES = 2 << 30
"""1,800 pictures of LLaVA-1.5 in half precision."""
AT_ONCE = 8
"""Pictures that are seen together at most; fewer are in twos and fours."""

See = Callable[[Sequence[str]], object]
"""Has the model look at the pictures of these digests, together."""


class Features:
    """What towers returned for pictures, in the host's memory; beyond 2 GiB the oldest go.

    Keys name the tower by the digest of its weights: one store serves every stage of a run.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], ModelOutput] = OrderedDict()
        self._bytes = 0
        self.exact: dict[Hashable, bool] = {}
        """By tower, shape and number: whether pictures seen together are as each is alone."""

    def __contains__(self, key: tuple[str, str]) -> bool:
        return key in self._kept

    def __getitem__(self, key: tuple[str, str]) -> ModelOutput:
        self._kept.move_to_end(key)
        return self._kept[key]

    def __setitem__(self, key: tuple[str, str], output: ModelOutput) -> None:
        self._kept[key] = output
        self._bytes += _size(output)

    def trim(self) -> None:
        """Forget the oldest pictures until the limit holds."""
        while self._bytes > KEPT_BYTES:
            self._bytes -= _size(self._kept.popitem(last=False)[1])


class TowerMemory:
    """Stands in for a vision tower, picture by picture."""

    def __init__(
        self, tower: nn.Module, *, layers: Sequence[int] = (), features: Features | None = None
    ) -> None:
        """Remember into `features`; `layers` are the hidden states the family selects, if any."""
        self._tower = tower
        self._forward: Callable[..., Any] = tower.forward
        self._layers = layers
        # Weights that a device map has put elsewhere cannot be told from others.
        if features is not None and any(weight.is_meta for weight in tower.parameters()):
            features = None
        self._features = Features() if features is None else features
        self._name = _digest(tower) if features is not None and self.usable else ""
        self.computed = 0
        """Pictures the tower was really run on."""

    @property
    def usable(self) -> bool:
        """Whether nothing in the tower is trained or adapted, so that every view sees the same."""
        trained = any(parameter.requires_grad for parameter in self._tower.parameters())
        return not trained and not any(
            isinstance(module, BaseTunerLayer) for module in self._tower.modules()
        )

    def missing(self, digests: Sequence[str]) -> list[str]:
        """Return those not remembered, each once."""
        every = dict.fromkeys(digests)
        return [digest for digest in every if (self._name, digest) not in self._features]

    def learn(self, digests: Sequence[str], see: See, *, shape: Hashable) -> None:
        """Run the tower on new pictures of one shape and remember its output for each."""
        left = list(digests)
        while left:
            # Of few sizes, so that few have to be tried.
            count = min(AT_ONCE, 1 << (len(left).bit_length() - 1))
            now, left = left[:count], left[count:]
            for digest, output in zip(now, self._seen(now, see, shape), strict=True):
                self._features[self._name, digest] = output
            self.computed += count

    def _seen(self, digests: Sequence[str], see: See, shape: Hashable) -> list[ModelOutput]:
        """Return the tower's output for each picture, to the last bit as for it alone."""
        if len(digests) == 1:
            return self._at_once(digests, see)
        exact, tried = self._features.exact, (self._name, shape, len(digests))
        together = self._at_once(digests, see) if exact.get(tried, True) else []
        if together and tried in exact:
            return together
        alone = [self._at_once([digest], see)[0] for digest in digests]
        exact[tried] = bool(together) and all(
            torch.equal(mine, own)
            for mine, own in zip(_tensors(tuple(together)), _tensors(tuple(alone)), strict=True)
        )
        return alone

    def _at_once(self, digests: Sequence[str], see: See) -> list[ModelOutput]:
        """Return the tower's output by picture; nothing if it cannot be told apart."""
        outputs: list[ModelOutput] = []

        def run(*args: Any, **kwargs: Any) -> Any:
            outputs.append(self._forward(*args, **kwargs))
            return outputs[-1]

        with patched_forward(self._tower, run):
            see(digests)
        if len(digests) > 1 and len(outputs) > 1:
            return []
        return _parted(_selected(outputs[-1], self._layers), len(digests)) or []

    @contextmanager
    def recalling(self, digests: Sequence[str]) -> Iterator[None]:
        """Answer for the tower inside, with its outputs for these pictures."""
        found = [self._features[self._name, digest] for digest in digests]

        def answer(*args: Any, **kwargs: Any) -> Any:
            device = next(_tensors((args, kwargs))).device
            return _mapped(lambda *tensors: torch.cat(tensors).to(device), found)

        with patched_forward(self._tower, answer):
            yield
        self._features.trim()


def _digest(tower: nn.Module) -> str:
    """Return a SHA-256 over names, types, shapes and values of all weights."""
    digest = sha256()
    for name, tensor in tower.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _selected(output: ModelOutput, layers: Sequence[int]) -> ModelOutput:
    """Leave out the hidden states that the family does not read."""
    states: tuple[Tensor | None, ...] | None = getattr(output, "hidden_states", None)
    if states is None or not layers:
        return output
    chosen = {layer % len(states) for layer in layers}
    kept: dict[str, Any] = {
        "hidden_states": tuple(s if n in chosen else None for n, s in enumerate(states))
    }
    if len(states) - 1 not in chosen:
        kept["last_hidden_state"] = None
    return type(output)(**{**output, **kept})


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors of an output, or of the arguments of a call."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)


def _mapped(function: Callable[..., Tensor], outputs: Sequence[Any]) -> Any:
    """Apply to the tensors at each place of outputs of one form; what is no tensor stays."""
    first = outputs[0]
    if isinstance(first, ModelOutput):
        parts = {key: _mapped(function, [output[key] for output in outputs]) for key in first}
        return type(first)(**parts)
    if isinstance(first, tuple):
        return tuple(_mapped(function, parts) for parts in zip(*outputs, strict=True))
    return function(*outputs) if isinstance(first, Tensor) else first


def _parted(output: ModelOutput, count: int) -> list[ModelOutput] | None:
    """Return each picture's part of an output, in the host's memory; None if it has no equal parts.

    What is in a part twice stays one tensor.
    """
    if count > 1 and any(t.ndim == 0 or len(t) % count for t in _tensors(output)):
        return None

    def part(number: int) -> ModelOutput:
        moved: dict[object, Tensor] = {}

        def move(tensor: Tensor) -> Tensor:
            own = tensor.detach()
            own = own.chunk(count)[number] if count > 1 else own
            # Not a view that holds its whole batch.
            return moved.setdefault(_place(own), own.to("cpu", copy=count > 1))

        found: ModelOutput = _mapped(move, [output])
        return found

    return [part(number) for number in range(count)]


def _place(tensor: Tensor) -> object:
    """Return what tells one tensor in memory from another."""
    return tensor.data_ptr(), tensor.shape


def _size(output: ModelOutput) -> int:
    """Return the bytes of an output; the last hidden state may be in it twice, as one tensor."""
    return sum({_place(tensor): tensor.nbytes for tensor in _tensors(output)}.values())
