"""What training and asking a model take: bytes on its device, and operations. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, fields

from pulse_unlearn.config import ModelSettings, Scope, Update
from pulse_unlearn.models.shapes import Shape, Stack

NUMBERS = {"trained adapter": 1, "gradients": 1, "optimiser": 2, "copies": 2}
"""Numbers held for each trained parameter, of 4 bytes for an adapter: PEFT holds it in float32
whatever the model's dtype. AdamW has two moments; copies are the last good one and, while both are
there, the next. A full update holds them in the model's dtype, and the weights themselves already.
"""
ADAPTER_BYTES = 4
"""Of a parameter of an adapter, in memory and on disk."""
CHECKPOINT_NUMBERS = 4
"""Weight, two moments, last good copy."""
CHECKPOINTS = 3
"""Two are kept while the third is written."""
QUANTISED_BYTES = {"8bit": 1.0, "4bit": 0.5 + 4 / 64}
"""Of a weight of the language model's linear layers; nf4 has a float32 scale for each 64."""
KEPT_BYTES = 1 << 30
"""Most that is kept of what a reference said: 4,000 answers of two tokens over LLaVA-1.5's
vocabulary, four times what 32 steps of 32 see."""
RESERVE = 0.1
"""Share on top of everything counted: the allocator's gaps and short-lived results."""
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class Adapter:
    """What is trained: a LoRA, or every tensor of the scope."""

    scope: Scope
    rank: int
    dropout: float = 0.0
    update: Update = "lora"

    def parameters(self, shape: Shape) -> int:
        """Count what is trained."""
        if self.update == "full":
            return shape.tensors(self.scope)
        return shape.adapter(self.scope, self.rank)

    def number_bytes(self, settings: ModelSettings) -> int:
        """Return the bytes of a trained number, its gradient and its moments."""
        return weight_bytes(settings) if self.update == "full" else ADAPTER_BYTES


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
    """Tokens of the longest answer; for asking, places where a question's options are read."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on the device at the peak, by what they are for."""

    weights: int
    frozen_adapters: int = 0
    trained_adapter: int = 0
    gradients: int = 0
    optimiser: int = 0
    copies: int = 0
    reference: int = 0
    kept: int = 0
    activations: int = 0
    answers: int = 0
    pictures: int = 0
    cache: int = 0

    @property
    def counted(self) -> int:
        """Sum of the parts."""
        return sum(int(getattr(self, part.name)) for part in fields(Memory))

    @property
    def total(self) -> int:
        """The parts and the reserve."""
        return round(self.counted * (1 + RESERVE))


def weight_bytes(settings: ModelSettings) -> int:
    """Return the bytes of one weight."""
    return _BYTES[settings.dtype]


def _held(shape: Shape, settings: ModelSettings) -> int:
    """Return the bytes of the model's own weights; embeddings, head and eyes keep their dtype."""
    width = weight_bytes(settings)
    if settings.quantise == "none":
        return shape.parameters * width
    fewer = QUANTISED_BYTES[settings.quantise]
    return round(shape.parameters * width - shape.language.products * (width - fewer))


def training_memory(
    shape: Shape,
    settings: ModelSettings,
    *,
    adapter: Adapter,
    frozen: int,
    batch: Batch,
    reference: bool = False,
    kept: int = 0,
) -> Memory:
    """Return the peak of a training step; `frozen` counts the parameters of unmerged adapters.

    `reference`: a full update keeps what its tensors were, to be asked; `kept` are the bytes of
    what the reference said.
    """
    width = weight_bytes(settings)
    trained = adapter.parameters(shape)
    number, full = trained * adapter.number_bytes(settings), adapter.update == "full"
    return Memory(
        weights=_held(shape, settings),
        frozen_adapters=frozen * ADAPTER_BYTES,
        trained_adapter=0 if full else number * NUMBERS["trained adapter"],
        gradients=number * NUMBERS["gradients"],
        optimiser=number * NUMBERS["optimiser"],
        copies=number * NUMBERS["copies"],
        reference=trained * width if full and reference else 0,
        kept=kept,
        activations=_activations(shape, settings, adapter=adapter, batch=batch),
        # Logits, their float32 copy, log-probabilities and the gradient.
        answers=batch.sequences * (batch.answer + 1) * shape.vocabulary * (width + 12),
        pictures=_pictures(shape.tower, settings, batch),
    )


def asking_memory(
    shape: Shape, settings: ModelSettings, *, frozen: int, batch: Batch, generated: int
) -> Memory:
    """Return the peak of generating answers: a layer's results, keys and values of all layers."""
    width, text = weight_bytes(settings), shape.text
    tokens = batch.sequences * batch.longest
    layer = tokens * (6 * text.width + 3 * text.inner) * width
    if settings.attention == "eager":
        layer += batch.sequences * text.heads * batch.longest**2 * (4 + width)
    kept = 2 * text.layers * text.kv_heads * text.head_width * width
    return Memory(
        weights=_held(shape, settings),
        frozen_adapters=frozen * ADAPTER_BYTES,
        activations=layer,
        answers=batch.sequences * batch.answer * shape.vocabulary * (width + 12),
        pictures=_pictures(shape.tower, settings, batch),
        cache=batch.sequences * (batch.longest + generated) * kept,
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
        each += _inputs_bytes(stack, adapter, width)
    squared = stack.heads * (4 + (width if width < 4 else 0)) if attention == "eager" else 0
    return tokens * each + tokens**2 * squared


def _inputs_bytes(stack: Stack, adapter: Adapter, width: int) -> int:
    """Return what the linear layers keep of one token to get their own gradients."""
    wide, ways_up = stack.heads * stack.head_width, 2 if stack.gated else 1
    shared = 2 * stack.width + wide + stack.inner
    if adapter.update == "full":
        # The two norms keep what they multiply by their weight.
        return width * (shared + 2 * stack.width)
    inputs = (3 + ways_up) * stack.width + wide + stack.inner
    # In float32 layers share their input; else each adapter keeps a float32 copy of its own.
    kept = ADAPTER_BYTES * (inputs if width < ADAPTER_BYTES else shared)
    kept += ADAPTER_BYTES * (5 + ways_up) * adapter.rank
    # Of dropout the mask, a byte for each number dropped or not.
    return kept + (inputs if adapter.dropout else 0)


def stack_bytes(
    stack: Stack, tokens: int, settings: ModelSettings, *, adapter: Adapter | None
) -> int:
    """Return what all layers keep of one sequence, checkpointed if the settings say so."""
    width = weight_bytes(settings)
    layer = layer_bytes(stack, tokens, width=width, attention=settings.attention, adapter=adapter)
    # The last norm, and the sines and cosines of the positions.
    ends = tokens * (4 * stack.width + 4 + 2 * stack.head_width * width)
    if adapter is not None and adapter.update == "full":
        ends += tokens * stack.width * width
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
    forward pass is done again; an adapter's own products count three times, four likewise. A full
    update's weights take a gradient, which is one pass more. A tower that is not in the scope is
    passed forward once.
    """
    passes = 3 if checkpointing else 2
    seen = forward_operations(shape, asked)
    eyes = forward_operations(
        shape, Asked(patches=asked.patches, patch_squares=asked.patch_squares)
    )
    parts = shape.parts(adapter.scope)
    eye_passes = passes if shape.vision in parts else 1
    own = 2 * (passes + 1) * shape.language.adapter(adapter.rank) * asked.tokens
    if adapter.update == "full":
        own = 2 * shape.language.products * asked.tokens
        eye_passes += shape.vision in parts
    own *= shape.language in parts
    return passes * (seen - eyes) + eye_passes * eyes + own


NOTHING = Asked()
