"""Memory and operations of training a model and of asking it, counted by torch.

One layer of the language model and one of the vision tower are run forward and backward on the meta
device, with placeholder inputs of two lengths; torch counts the operations, and what autograd keeps
is added up. Both grow with the length and its square, so two lengths tell them for every other.
"""

from __future__ import annotations

import inspect
from copy import deepcopy
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from pulse_unlearn.config import ModelSettings, Scope, Update
from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.estimate.sizes import SizedModel, Stack
from pulse_unlearn.models.families import SCOPE_PARTS
from pulse_unlearn.models.parts import FAILURES

TOKENS = 64
"""Of the shorter placeholder; the longer one has twice as many. Kernels pad to multiples of 32."""
ADAPTER_BYTES = 4
"""Of a parameter of an adapter, in memory and on disk: PEFT holds it in float32 whatever the
model's dtype. A full update holds it in the model's dtype."""
QUANTISED_BYTES = {"8bit": 1.0, "4bit": 0.5 + 4 / 64}
"""Of a weight of the language model's linear layers; nf4 has a float32 scale for each 64."""
RESERVE = 0.1
"""Share on top of everything counted: the allocator's gaps and short-lived results."""

Memory = dict[str, int]
"""Bytes on the device at the peak, by what they are for; `FORMULAS` says how each is counted."""
LETTERS = (
    "b bytes of a weight, w width, k width of all key heads, l layers, B sequences at once, "
    "T tokens of the longest, A of its answer, V vocabulary, P trained parameters"
)
FORMULAS = {
    "weights": "parameters x b; of the language model's linear layers in 8bit x 1, in 4bit x 0.56",
    "frozen adapters": "parameters of every adapter not merged x 4",
    "trained adapter": "P x t, t bytes of a trained number: 4, in a full update b",
    "gradients": "P x t",
    "optimiser": "P x 2t, AdamW's moments",
    "copies": "P x 2t, the last good state and the next",
    "reference": "P x b, what the weights were before a full update",
    "references kept": "E x A x 4 (NPO) or E x A x V x 4 (KL), at most 1 GiB: what the reference "
    "said of E examples that come again",
    "activations": "B x T x (l x wb + 4w + 4) + one layer, as torch counts it; all layers without "
    "checkpointing",
    "one layer": "B x what a layer's forward pass holds, as torch counts it",
    "keys and values": "B x (T + tokens generated) x l x 2kb",
    "answers": "B x (A + 1) x V x (b + 12)",
    "options": "B x O x V x (b + 12), O places where a question's options are read",
    "pictures": "pictures x what a layer of the tower holds, as torch counts it",
    "reserve": f"{RESERVE:.0%} of all this, for the allocator's gaps",
}


@dataclass(frozen=True, slots=True)
class Adapter:
    """What is trained: a LoRA, or every tensor of the scope."""

    scope: Scope
    rank: int
    dropout: float = 0.0
    update: Update = "lora"

    def number_bytes(self, settings: ModelSettings) -> int:
        """Return the bytes of a trained number, its gradient and its moments."""
        return weight_bytes(settings) if self.update == "full" else ADAPTER_BYTES


@dataclass(frozen=True, slots=True)
class Batch:
    """What is on the device at once."""

    sequences: int = 1
    longest: int = 0
    """Tokens of the longest sequence, picture and answer included."""
    answer: int = 0
    """Tokens of the longest answer; for asking, places where a question's options are read."""
    pictures: int = 0
    """Of each sequence; tiles, where pictures are cut into tiles."""
    patches: int = 0
    """Patches of one of them, as the tower reads them."""


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


NOTHING = Asked()


@dataclass(frozen=True, slots=True)
class Curve:
    """A count that grows with a sequence's tokens, and with their square."""

    linear: float
    square: float

    def __call__(self, tokens: float, squares: float | None = None) -> float:
        """Return the count for one sequence, or for many by their sums."""
        return self.linear * tokens + self.square * (tokens**2 if squares is None else squares)


@dataclass(frozen=True, slots=True)
class LayerCounts:
    """What one layer takes of one sequence."""

    forward: Curve
    """Floating-point operations, two a multiplication."""
    backward: Curve
    """Likewise: gradients of the layer's input, and of what is trained in it."""
    kept: Curve
    """Bytes autograd keeps for the backward pass."""


def weight_bytes(settings: ModelSettings) -> int:
    """Return the bytes of one weight."""
    dtype: torch.dtype = getattr(torch, settings.dtype)
    return dtype.itemsize


@cache
def trained_parameters(model: SizedModel, adapter: Adapter) -> int:
    """Count what is trained."""
    return model.trained(adapter.scope, adapter.rank if adapter.update == "lora" else None)


@cache
def count_layer(stack: Stack, adapter: Adapter | None) -> LayerCounts:
    """Count one layer of a stack; `adapter` None: gradients merely pass through it.

    Raises ModelError for a layer that cannot be run by itself.
    """
    layer: Any = deepcopy(stack.layer).train()
    if adapter is not None and adapter.update == "full":
        layer.requires_grad_(True)
    elif adapter is not None:
        paths = [path for path, module in layer.named_modules() if isinstance(module, nn.Linear)]
        config = LoraConfig(
            r=adapter.rank, target_modules=paths, lora_dropout=adapter.dropout, bias="none"
        )
        with torch.device("meta"):
            get_peft_model(layer, config)
    try:
        once, twice = (_run(layer, stack.width, tokens) for tokens in (TOKENS, 2 * TOKENS))
    except FAILURES as error:
        problem = "a layer of the model cannot be run by itself, to be counted"
        name = type(stack.layer).__name__
        raise ModelError(Problem(problem, name, got=str(error))) from error
    squares = [(two - 2 * one) / (2 * TOKENS**2) for one, two in zip(once, twice, strict=True)]
    return LayerCounts(
        *(
            Curve(one / TOKENS - each * TOKENS, each)
            for one, each in zip(once, squares, strict=True)
        )
    )


def _run(layer: nn.Module, width: int, tokens: int) -> tuple[float, float, float]:
    """Return operations forward and backward, and bytes kept, of one sequence."""
    made: Any = {"dtype": next(layer.parameters()).dtype, "device": "meta"}
    takes = inspect.signature(layer.forward).parameters
    # Towers that take pictures of any size write them behind each other, without a first dimension.
    before = () if "cu_seqlens" in takes else (1,)
    angles = tuple(torch.zeros(*before, tokens, _head_width(layer), **made) for _ in range(2))
    mask = torch.zeros(1, 1, tokens, tokens, **made)
    given = {
        "attention_mask": mask,
        "position_ids": torch.zeros(1, tokens, dtype=torch.long, device="meta"),
        "position_embeddings": angles,
        "cu_seqlens": torch.tensor([0, tokens]),
    }
    inputs = torch.zeros(*before, tokens, width, requires_grad=True, **made)
    # Weights are counted elsewhere; mask and angles are there once for all layers.
    elsewhere = [*layer.parameters(), *layer.buffers(), *angles, mask]
    free = {tensor.untyped_storage()._cdata for tensor in elsewhere}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        # What has no dimension is a kernel's random state.
        if storage not in free and tensor.dim():
            kept.setdefault(storage, tensor)
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with FlopCounterMode(display=False) as counter, _Fused(), hooks:
        output = layer(inputs, **{name: value for name, value in given.items() if name in takes})
        output = output[0] if isinstance(output, tuple) else output
        forward = counter.get_total_flops()
        output.sum().backward()
    # Counted while all is held: what is freed may be stored anew under the same name.
    total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    return forward, counter.get_total_flops() - forward, total


def _head_width(layer: nn.Module) -> int:
    """Return the width of an attention head."""
    found: Any = next((module for module in layer.modules() if hasattr(module, "head_dim")), None)
    return int(found.head_dim) if found else 1


class _Fused(TorchFunctionMode):
    """Attention and dropout in one kernel each, as devices have them, and not taken apart."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if func is torch.nn.functional.dropout and named["training"] and named["p"]:
            return torch.ops.aten.native_dropout(args[0], named["p"], True)[0]
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **named)
        query, *shared = args
        heads = query.shape[1]
        key, value = (held.repeat_interleave(heads // held.shape[1], 1) for held in shared)
        mask = named.get("attn_mask")
        mask = None if mask is None else mask.expand(*query.shape[:-1], key.shape[-2])
        fused = torch.ops.aten._scaled_dot_product_efficient_attention
        return fused(query, key, value, mask, compute_log_sumexp=True)[0]


def stack_bytes(stack: Stack, tokens: int, settings: ModelSettings, adapter: Adapter | None) -> int:
    """Return what all layers keep of one sequence, checkpointed if the settings say so."""
    width = weight_bytes(settings)
    layer = count_layer(stack, adapter).kept(tokens)
    # The last norm keeps its input in float32, and one number a token; in a full update what it
    # multiplies by its weight, too. The angles of the positions are there once for all layers, as
    # is the mask that fused attention keeps.
    ends = tokens * (4 * stack.width + 4 + 2 * _head_width(stack.layer) * width)
    ends += 0 if settings.attention == "eager" else tokens**2 * width
    if adapter is not None and adapter.update == "full":
        ends += tokens * stack.width * width
    if settings.gradient_checkpointing:
        return round(stack.count * tokens * stack.width * width + layer + ends)
    return round(stack.count * layer + ends)


def training_memory(
    model: SizedModel,
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
    width, full = weight_bytes(settings), adapter.update == "full"
    trained = trained_parameters(model, adapter)
    number = trained * adapter.number_bytes(settings)
    adapted = SCOPE_PARTS[adapter.scope]
    inside = adapter if "language_model" in adapted else None
    activations = stack_bytes(model.language, batch.longest, settings, inside)
    if "vision_tower" in adapted:
        activations += batch.pictures * stack_bytes(model.tower, batch.patches, settings, adapter)
    parts = {
        "trained adapter": 0 if full else number,
        "gradients": number,
        "optimiser": 2 * number,
        "copies": 2 * number,
        "reference": trained * width if full and reference else 0,
        "references kept": kept,
        "activations": batch.sequences * activations,
        # Logits, their float32 copy, log-probabilities and the gradient.
        "answers": batch.sequences * (batch.answer + 1) * model.text.vocab_size * (width + 12),
    }
    return _with_model(parts, model, settings, frozen=frozen, batch=batch)


def asking_memory(
    model: SizedModel, settings: ModelSettings, *, frozen: int, batch: Batch, generated: int
) -> Memory:
    """Return the peak of generating answers: a layer's results, keys and values of all layers."""
    width, text, sequences = weight_bytes(settings), model.text, batch.sequences
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    keys = 2 * model.language.count * heads * _head_width(model.language.layer) * width
    parts = {
        "one layer": round(sequences * count_layer(model.language, None).kept(batch.longest)),
        "keys and values": sequences * (batch.longest + generated) * keys,
        "options": sequences * batch.answer * text.vocab_size * (width + 12),
    }
    return _with_model(parts, model, settings, frozen=frozen, batch=batch)


def _with_model(
    parts: Memory, model: SizedModel, settings: ModelSettings, *, frozen: int, batch: Batch
) -> Memory:
    """Add the model's own weights, adapters not merged into them, the frozen tower, the reserve.

    Embeddings, head and tower keep their dtype where the rest is in fewer bits.
    """
    width = weight_bytes(settings)
    fewer = QUANTISED_BYTES.get(settings.quantise, width)
    pictures = batch.sequences * batch.pictures * count_layer(model.tower, None).kept(batch.patches)
    found = {
        "weights": round(model.parameters * width - model.quantised * (width - fewer)),
        "frozen adapters": frozen * ADAPTER_BYTES,
        **parts,
        "pictures": round(pictures),
    }
    found["reserve"] = round(sum(found.values()) * RESERVE)
    return found


def forward_operations(model: SizedModel, asked: Asked) -> float:
    """Return the floating-point operations of one forward pass, two a multiplication.

    Attention counts its full square, as its kernels for masks compute it.
    """
    text = count_layer(model.language, None).forward(asked.tokens, asked.squares)
    return model.language.count * text + picture_operations(model, asked) + _head(model, asked)


def picture_operations(model: SizedModel, asked: Asked) -> float:
    """Return the operations of looking at pictures once."""
    layer = count_layer(model.tower, None)
    return model.tower.count * layer.forward(asked.patches, asked.patch_squares)


def training_operations(
    model: SizedModel, asked: Asked, *, adapter: Adapter, checkpointing: bool
) -> float:
    """Return the operations of forward and backward passes.

    With checkpointing the layers are passed forward once more. A tower that is not in the scope is
    passed forward alone.
    """
    adapted, again = SCOPE_PARTS[adapter.scope], 2 if checkpointing else 1
    inside = adapter if "language_model" in adapted else None
    layer = count_layer(model.language, inside)
    text = again * layer.forward(asked.tokens, asked.squares)
    text += layer.backward(asked.tokens, asked.squares)
    eyes = picture_operations(model, asked)
    if "vision_tower" in adapted:
        layer = count_layer(model.tower, adapter)
        eyes = again * layer.forward(asked.patches, asked.patch_squares)
        eyes = model.tower.count * (eyes + layer.backward(asked.patches, asked.patch_squares))
    # Of the head's weights a full update of the language model takes the gradient, too.
    passes = 3 if adapter.update == "full" and inside else 2
    return model.language.count * text + eyes + passes * _head(model, asked)


def _head(model: SizedModel, asked: Asked) -> float:
    return float(2 * model.language.width * model.text.vocab_size * asked.answers)
