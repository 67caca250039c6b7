"""What training and asking a model take: bytes on its device, and operations. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, fields

from pulse_unlearn.config import ModelSettings, Scope
from pulse_unlearn.models.shapes import Shape, Stack

TRAINED_BYTES = 24
"""Bytes a trained parameter takes, in float32 whatever the model's dtype: weight 4, gradient 4, two
moments of AdamW 8, the last good copy 4, and 4 for the next copy while both are there."""
FROZEN_ADAPTER_BYTES = 4
"""PEFT holds adapters in float32."""
CHECKPOINT_BYTES = 16
"""Weight 4, moments 8, last good copy 4."""
CHECKPOINTS = 3
"""Two are kept while the third is written."""
RESERVE = 0.1
"""Share on top of everything counted: the allocator's gaps and short-lived results."""
LETTERS = (
    "b bytes of a weight, w width, i width inside the MLP, q of all heads, k of key heads, "
    "h heads, l layers, r rank, B sequences at once, T tokens of the longest, A of its answer, "
    "V vocabulary, P trained parameters"
)
FORMULAS = {
    "weights": "parameters x b",
    "frozen adapters": "parameters of every adapter not merged x 4",
    "trained adapter": f"P x {TRAINED_BYTES} (weight 4, gradient 4, AdamW 8, copies 8)",
    "activations": "B x T x (l x (8w + 8 + 3ib + attention + adapters) + 4w + 4)",
    "checkpointed": "B x T x (l x wb + one layer in full + 4w + 4)",
    "layer": "8w + 8 + 3ib + attention + adapters",
    "sdpa": "(2q + 2k)b + 4h",
    "eager": "3qb + hT(4 + b)",
    "adapters": "4 x (5w + q + i) + 28r; in float32, inputs shared, 4 x (2w + q + i) + 28r",
    "answers": "B x (A + 1) x V x (b + 12)",
    "one layer": "B x T x (6w + 3i)b",
    "cache": "B x (T + A) x l x 2kb",
    "asked": "B x V x (b + 12)",
    "pictures": "pictures x patches x (6w + 2i)b, w and i of the tower",
    "reserve": f"{RESERVE:.0%} of all this, for the allocator's gaps",
}
"""How each part of the memory is counted, for printing."""
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class Adapter:
    """The LoRA that is trained."""

    scope: Scope
    rank: int
    dropout: float = 0.0


@dataclass(frozen=True, slots=True)
class Batch:
    """What is on the device at once."""

    sequences: int
    longest: int
    """Tokens of the longest sequence, picture and answer included."""
    pictures: int
    """Tiles, where pictures are cut into tiles."""
    patches: int
    """Patches of one of them, as the tower reads them."""
    answer: int
    """Tokens of the longest answer; for asking, tokens that are generated."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on the device at the peak, by what they are for."""

    weights: int
    frozen_adapters: int = 0
    trained_adapter: int = 0
    activations: int = 0
    answers: int = 0
    pictures: int = 0
    cache: int = 0

    @property
    def counted(self) -> int:
        """Sum of the parts."""
        return (
            self.weights
            + self.frozen_adapters
            + self.trained_adapter
            + self.activations
            + self.answers
            + self.pictures
            + self.cache
        )

    @property
    def total(self) -> int:
        """The parts and the reserve."""
        return round(self.counted * (1 + RESERVE))


def weight_bytes(settings: ModelSettings) -> int:
    """Return the bytes of one weight."""
    return _BYTES[settings.dtype]


def training_memory(
    shape: Shape,
    settings: ModelSettings,
    *,
    adapter: Adapter,
    frozen: int,
    batch: Batch,
) -> Memory:
    """Return the peak of a training step; `frozen` counts the parameters of unmerged adapters."""
    width = weight_bytes(settings)
    return Memory(
        weights=shape.parameters * width,
        frozen_adapters=frozen * FROZEN_ADAPTER_BYTES,
        trained_adapter=shape.adapter(adapter.scope, adapter.rank) * TRAINED_BYTES,
        activations=_activations(shape, settings, adapter=adapter, batch=batch),
        # Logits, their float32 copy, log-probabilities and the gradient.
        answers=batch.sequences * (batch.answer + 1) * shape.vocabulary * (width + 12),
        pictures=_pictures(shape.tower, settings, batch),
    )


def asking_memory(shape: Shape, settings: ModelSettings, *, frozen: int, batch: Batch) -> Memory:
    """Return the peak of generating answers: a layer's results, keys and values of all layers."""
    width, text = weight_bytes(settings), shape.text
    tokens = batch.sequences * batch.longest
    layer = tokens * (6 * text.width + 3 * text.inner) * width
    if settings.attention == "eager":
        layer += batch.sequences * text.heads * batch.longest**2 * (4 + width)
    kept = 2 * text.layers * text.kv_heads * text.head_width * width
    return Memory(
        weights=shape.parameters * width,
        frozen_adapters=frozen * FROZEN_ADAPTER_BYTES,
        activations=layer,
        answers=batch.sequences * shape.vocabulary * (width + 12),
        pictures=_pictures(shape.tower, settings, batch),
        cache=batch.sequences * (batch.longest + batch.answer) * kept,
    )


def layer_bytes(
    stack: Stack, tokens: int, *, width: int, attention: str, adapter: Adapter | None
) -> int:
    """Return what one layer keeps of one sequence for the backward pass, no checkpointing.

    `width` is the bytes of a weight; weights are frozen, so that a layer's input is kept for its
    adapter only. `adapter` None: gradients merely pass through.
    """
    wide, narrow = stack.heads * stack.head_width, stack.kv_heads * stack.head_width
    # Both norms keep their input in float32, and one number a token.
    each = 2 * (4 * stack.width + 4)
    each += (3 if stack.gated else 1) * stack.inner * width
    if attention == "eager":
        each += 3 * wide * width
    else:
        each += (2 * wide + 2 * narrow) * width + 4 * stack.heads
    if adapter is not None:
        ways_up = 2 if stack.gated else 1
        inputs = (3 + ways_up) * stack.width + wide + stack.inner
        # In float32 layers share their input; else each adapter keeps a float32 copy of its own.
        kept = inputs if width < 4 else 2 * stack.width + wide + stack.inner
        each += 4 * kept + 4 * (5 + ways_up) * adapter.rank
        # Of dropout the mask, a byte for each number dropped or not.
        each += inputs if adapter.dropout else 0
    squared = stack.heads * (4 + (width if width < 4 else 0)) if attention == "eager" else 0
    return tokens * each + tokens**2 * squared


def stack_bytes(
    stack: Stack, tokens: int, settings: ModelSettings, *, adapter: Adapter | None
) -> int:
    """Return what all layers keep of one sequence, checkpointed if the settings say so."""
    width = weight_bytes(settings)
    layer = layer_bytes(stack, tokens, width=width, attention=settings.attention, adapter=adapter)
    # The last norm, and the sines and cosines of the positions.
    ends = tokens * (4 * stack.width + 4 + 2 * stack.head_width * width)
    if settings.gradient_checkpointing:
        return stack.layers * tokens * stack.width * width + layer + ends
    return stack.layers * layer + ends


def _activations(shape: Shape, settings: ModelSettings, *, adapter: Adapter, batch: Batch) -> int:
    parts = shape.parts(adapter.scope)
    inside = adapter if shape.language in parts else None
    kept = batch.sequences * stack_bytes(shape.text, batch.longest, settings, adapter=inside)
    if shape.vision in parts:
        eyes = stack_bytes(shape.tower, batch.patches, settings, adapter=adapter)
        kept += batch.pictures * eyes
    return kept


def _pictures(tower: Stack, settings: ModelSettings, batch: Batch) -> int:
    """Return what the tower's forward pass holds at once, its weights being frozen."""
    width = weight_bytes(settings)
    each = batch.patches * (6 * tower.width + 2 * tower.inner) * width
    if settings.attention == "eager":
        each += tower.heads * batch.patches**2 * (4 + width)
    return batch.pictures * each


@dataclass(frozen=True, slots=True)
class Asked:
    """Sums over many questions."""

    questions: float = 0.0
    tokens: float = 0.0
    """Of the language model."""
    squares: float = 0.0
    """Sum of each sequence's tokens, squared."""
    answers: float = 0.0
    """Tokens at which the output head is applied."""
    pictures: float = 0.0
    """Tiles, where pictures are cut into tiles."""
    patches: float = 0.0
    patch_squares: float = 0.0
    """Sum of each picture's (or tile's) patches, squared."""

    def __add__(self, other: Asked) -> Asked:
        return Asked(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Asked)))

    def times(self, factor: float) -> Asked:
        """Return all sums multiplied."""
        return Asked(*(factor * getattr(self, f.name) for f in fields(Asked)))


def forward_operations(shape: Shape, asked: Asked) -> float:
    """Return the floating-point operations of one forward pass, two a multiplication.

    Attention counts its full square, as its kernels for masks compute it.
    """
    text, tower = shape.text, shape.tower
    wide = text.heads * text.head_width
    language = 2 * shape.language.products * asked.tokens + 4 * text.layers * wide * asked.squares
    head = 2 * text.width * shape.vocabulary * asked.answers
    eyes = 2 * shape.vision.products * asked.patches
    eyes += 4 * tower.layers * tower.width * asked.patch_squares
    return language + head + eyes


def training_operations(
    shape: Shape, asked: Asked, *, adapter: Adapter, checkpointing: bool
) -> float:
    """Return the operations of forward and backward passes through frozen weights with adapters.

    Backward costs as much as forward (no gradient of a frozen weight); with checkpointing the
    forward pass is done again; an adapter's own products count three times, four likewise. A tower
    that is not in the scope is passed forward once.
    """
    passes = 3 if checkpointing else 2
    seen = forward_operations(shape, asked)
    eyes = forward_operations(
        shape, Asked(patches=asked.patches, patch_squares=asked.patch_squares)
    )
    parts = shape.parts(adapter.scope)
    eye_passes = passes if shape.vision in parts else 1
    own = 2 * (passes + 1) * shape.language.adapter(adapter.rank) * asked.tokens
    own *= shape.language in parts
    return passes * (seen - eyes) + eye_passes * eyes + own


NOTHING = Asked()
