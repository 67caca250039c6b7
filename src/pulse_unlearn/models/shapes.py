"""A model's sizes: what memory, disk and time follow from. `formulas` and `meta` make them."""

from __future__ import annotations

from dataclasses import dataclass

from pulse_unlearn.config import Scope
from pulse_unlearn.models.families import SCOPE_PARTS


@dataclass(frozen=True, slots=True)
class Linear:
    """`count` linear layers of one size."""

    inputs: int
    outputs: int
    count: int = 1
    bias: bool = False

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return self.count * (self.inputs * self.outputs + self.bias * self.outputs)


@dataclass(frozen=True, slots=True)
class Part:
    """A vision tower, a projector or a language model."""

    linear: tuple[Linear, ...]
    """What LoRA goes on."""
    rest: int = 0
    """Parameters of everything else: embeddings, norms, convolutions."""

    @property
    def parameters(self) -> int:
        """All parameters of the part."""
        return self.rest + sum(layer.parameters for layer in self.linear)

    @property
    def products(self) -> int:
        """Multiplications of its linear layers for one token."""
        return sum(layer.count * layer.inputs * layer.outputs for layer in self.linear)

    def adapter(self, rank: int) -> int:
        """Parameters of a LoRA of that rank on every linear layer: A and B."""
        return sum(rank * layer.count * (layer.inputs + layer.outputs) for layer in self.linear)


@dataclass(frozen=True, slots=True)
class Stack:
    """Transformer layers, all alike."""

    layers: int
    width: int
    inner: int
    """Width inside the MLP."""
    heads: int
    kv_heads: int
    head_width: int
    gated: bool
    """Whether the MLP has a gate beside its way up."""


@dataclass(frozen=True, slots=True)
class PictureRule:
    """How many patches the tower sees of a picture, and how many tokens it becomes."""

    patch: int
    """Pixels along a patch's side."""
    merge: int = 1
    """Patches along the side of what becomes one token."""
    side: int = 0
    """Every picture (or tile) is brought to this many pixels square; 0 keeps its size."""
    extra: int = 0
    """Class tokens beside the patches."""
    keeps_extra: bool = False
    """Whether they become tokens too."""
    tiled_to: int = 0
    """Longer side in pixels before cutting into tiles; 0 for no tiles."""
    pixels: tuple[int, int] = (0, 0)
    """Bounds of a picture that keeps its size."""

    def sides(self, width: int, height: int) -> tuple[int, int, int]:
        """Return (pixels wide, pixels high, how many such pictures or tiles)."""
        if not self.side:
            return (*self._kept(width, height), 1)
        if not self.tiled_to:
            return self.side, self.side, 1
        longer = max(width, height)
        columns, rows = (
            -(-self.tiled_to * edge // (longer * self.side)) for edge in (width, height)
        )
        tiles = columns * rows
        return self.side, self.side, tiles + 1 if tiles > 1 else 1

    def _kept(self, width: int, height: int) -> tuple[int, int]:
        unit, (least, most) = self.patch * self.merge, self.pixels
        scale = 1.0
        if width * height > most:
            scale = (most / (width * height)) ** 0.5
        elif width * height < least:
            scale = (least / (width * height)) ** 0.5
        wide, high = (max(1, round(edge * scale / unit)) * unit for edge in (width, height))
        return wide, high

    def patches(self, width: int, height: int) -> tuple[int, int]:
        """Return (pictures or tiles, patches of each), class tokens included."""
        wide, high, count = self.sides(width, height)
        return count, (wide // self.patch) * (high // self.patch) + self.extra

    def tokens(self, width: int, height: int) -> int:
        """Return how many tokens of the language model the picture takes."""
        wide, high, count = self.sides(width, height)
        unit = self.patch * self.merge
        inside = (wide // unit) * (high // unit) + self.extra * self.keeps_extra
        # A tile stands between two marks of its own.
        return count * (inside + (2 if self.tiled_to else 0))


@dataclass(frozen=True, slots=True)
class Shape:
    """All sizes that memory, disk and time follow from."""

    model_type: str
    vision: Part
    projector: Part
    language: Part
    head: int
    """Parameters of the output head; 0 where it is the input embedding."""
    tower: Stack
    text: Stack
    vocabulary: int
    pictures: PictureRule

    @property
    def parameters(self) -> int:
        """All parameters of the model."""
        parts = (self.vision, self.projector, self.language)
        return self.head + sum(part.parameters for part in parts)

    def adapter(self, scope: Scope, rank: int) -> int:
        """Parameters of a LoRA of that rank on every linear layer of the scope."""
        return sum(part.adapter(rank) for part in self.parts(scope))

    def tensors(self, scope: Scope) -> int:
        """Parameters a full update of the scope trains; the head belongs to the language model."""
        parts = self.parts(scope)
        return sum(part.parameters for part in parts) + self.head * (self.language in parts)

    def parts(self, scope: Scope) -> tuple[Part, ...]:
        """Return the parts a scope adapts."""
        by_name = {
            "vision_tower": self.vision,
            "projector": self.projector,
            "language_model": self.language,
        }
        return tuple(by_name[name] for name in SCOPE_PARTS[scope])
