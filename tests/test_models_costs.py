"""Memory and operations by formula, held against what autograd really keeps, and by hand."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from meta_models import kept_bytes, llama, with_lora
from pulse_unlearn.config import ModelSettings
from pulse_unlearn.models import costs
from pulse_unlearn.models.costs import Adapter, Asked, Batch, Memory
from pulse_unlearn.models.formulas import shape_of
from pulse_unlearn.models.known_configs import known_configs
from pulse_unlearn.models.shapes import Linear, Part, PictureRule, Shape, Stack

SEVEN, THIRTEEN = (
    shape_of(known_configs()[f"llava-hf/llava-1.5-{size}b-hf"]) for size in ("7", "13")
)
WIDE = 4096
TOKENS = 640


def tiny() -> Shape:
    text = Stack(layers=2, width=8, inner=16, heads=2, kv_heads=1, head_width=4, gated=True)
    tower = Stack(layers=1, width=4, inner=8, heads=2, kv_heads=2, head_width=2, gated=False)
    return Shape(
        "tiny",
        vision=Part((Linear(4, 4, 4), Linear(4, 8), Linear(8, 4))),
        projector=Part((Linear(4, 8),)),
        language=Part(
            (
                Linear(8, 8, 2),
                Linear(8, 4, 4),
                Linear(8, 8, 2),
                Linear(8, 16, 4),
                Linear(16, 8, 2),
            ),
            rest=100,
        ),
        head=0,
        tower=tower,
        text=text,
        vocabulary=50,
        pictures=PictureRule(1, side=3),
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("adapted", [True, False])
def test_a_7b_layer_keeps_exactly_what_the_formula_says(dtype, adapted):
    """Three layers of LLaVA-1.5-7B's width on the meta device, eager attention, LoRA of rank 16."""
    with torch.device("meta"):
        model = llama(3, WIDE, 11008, 32, dtype=dtype, attention="eager")
        if adapted:
            model = with_lora(model, 16)
    model.train()
    stack = Stack(3, WIDE, 11008, 32, 32, 128, gated=True)
    settings = ModelSettings(dtype=dtype, attention="eager")
    expected = costs.stack_bytes(
        stack, TOKENS, settings, adapter=Adapter("llm", 16) if adapted else None
    )
    assert kept_bytes(model, TOKENS, WIDE) == expected


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_fused_attention_keeps_what_the_formula_says(dtype):
    """On the meta device fused attention is taken apart, so this one is small and real."""
    model = with_lora(llama(2, 64, 160, 4, dtype=dtype, attention="sdpa"), 4).train()
    stack = Stack(2, 64, 160, 4, 4, 16, gated=True)
    settings = ModelSettings(dtype=dtype, attention="sdpa")
    expected = costs.stack_bytes(stack, 96, settings, adapter=Adapter("llm", 4))
    assert kept_bytes(model, 96, 64) == pytest.approx(expected, rel=0.03)


def test_checkpointing_keeps_one_input_a_layer_and_one_layer_in_full():
    settings = ModelSettings(dtype="bfloat16", gradient_checkpointing=True)
    adapter = Adapter("llm", 16)
    full = costs.layer_bytes(SEVEN.text, 10, width=2, attention="sdpa", adapter=adapter)
    ends = 10 * (4 * 4096 + 4 + 2 * 128 * 2)
    expected = 32 * 10 * 4096 * 2 + full + ends
    assert costs.stack_bytes(SEVEN.text, 10, settings, adapter=adapter) == expected


def test_dropout_keeps_a_byte_for_each_number_it_may_drop():
    stack = tiny().text
    plain, dropping = (
        costs.layer_bytes(stack, 1, width=2, attention="sdpa", adapter=Adapter("llm", 2, dropout))
        for dropout in (0.0, 0.1)
    )
    # Inputs of q, k, v (8 each), o (8), gate and up (8 each), down (16).
    assert dropping - plain == 3 * 8 + 8 + 2 * 8 + 16


def test_training_memory_by_hand():
    shape, settings = tiny(), ModelSettings(dtype="bfloat16", attention="eager")
    batch = Batch(sequences=3, longest=5, pictures=2, patches=10, answer=2)
    memory = costs.training_memory(
        shape, settings, adapter=Adapter("projector", 2), frozen=7, batch=batch
    )
    language = 2 * 64 + 4 * 32 + 2 * 64 + 4 * 128 + 2 * 128 + 100
    assert shape.parameters == language + (4 * 16 + 2 * 32) + 32
    assert memory.weights == 2 * shape.parameters
    assert memory.frozen_adapters == 7 * 4
    trained = 4 * 2 * (4 + 8)
    assert (memory.trained_adapter, memory.gradients) == (trained, trained)
    assert (memory.optimiser, memory.copies) == (2 * trained, 2 * trained)
    # A layer of the language model, gradients passing through, for one sequence of five tokens.
    norms, mlp, qkv = 2 * (4 * 8 + 4), 3 * 16 * 2, 3 * 8 * 2
    layer = 5 * (norms + mlp + qkv) + 25 * 2 * (4 + 2)
    ends = 5 * (4 * 8 + 4 + 2 * 4 * 2)
    assert memory.activations == 3 * (2 * layer + ends)
    assert memory.answers == 3 * 3 * 50 * (2 + 12)
    assert memory.pictures == 2 * (10 * (6 * 4 + 2 * 8) * 2 + 2 * 100 * 6)
    assert memory.cache == 0
    assert memory.total == round(1.1 * memory.counted)


def test_an_adapter_on_the_tower_keeps_the_towers_activations_too():
    shape, settings = tiny(), ModelSettings(dtype="bfloat16")
    batch = Batch(sequences=1, longest=5, pictures=2, patches=10, answer=1)
    of = {
        scope: costs.training_memory(
            shape, settings, adapter=Adapter(scope, 2), frozen=0, batch=batch
        ).activations
        for scope in ("projector", "vision")
    }
    eyes = costs.stack_bytes(shape.tower, 10, settings, adapter=Adapter("vision", 2))
    assert of["vision"] - of["projector"] == 2 * eyes


def test_asking_memory_by_hand():
    shape, settings = tiny(), ModelSettings(dtype="float32")
    batch = Batch(sequences=3, longest=5, pictures=0, patches=0, answer=4)
    memory = costs.asking_memory(shape, settings, frozen=0, batch=batch, generated=6)
    assert memory.cache == 3 * (5 + 6) * 2 * (2 * 4) * 4  # layers x (key and value of one head)
    assert memory.activations == 3 * 5 * (6 * 8 + 3 * 16) * 4
    assert memory.answers == 3 * 4 * 50 * 16
    assert memory.trained_adapter == memory.pictures == 0


def test_memory_counts_each_part_once():
    parts = len(fields(Memory))
    assert Memory(*(2**place for place in range(parts))).counted == 2**parts - 1


@pytest.mark.parametrize(("dtype", "width"), [("bfloat16", 2), ("float32", 4)])
def test_a_full_update_holds_all_in_the_models_dtype_and_no_weight_twice(dtype, width):
    shape, settings = tiny(), ModelSettings(dtype=dtype, attention="eager")
    batch = Batch(sequences=1, longest=5, pictures=0, patches=0, answer=1)
    full = Adapter("llm", 2, update="full")
    found, asked = (
        costs.training_memory(
            shape, settings, adapter=full, frozen=0, batch=batch, reference=reference
        )
        for reference in (False, True)
    )
    # The language model by hand: q and o, k and v, gate and up, down, and the rest.
    tensors = 2 * (2 * 64 + 2 * 32 + 3 * 128) + 100
    assert full.parameters(shape) == tensors
    assert found.weights == shape.parameters * width
    assert (found.trained_adapter, found.gradients) == (0, tensors * width)
    assert (found.optimiser, found.copies) == (2 * tensors * width, 2 * tensors * width)
    assert (found.reference, asked.reference) == (0, tensors * width)
    # Each linear layer's input in the model's dtype (q, k, v share theirs, gate and up too), and
    # what the two norms multiply by their weight.
    frozen = costs.layer_bytes(shape.text, 5, width=width, attention="eager", adapter=None)
    kept = costs.layer_bytes(shape.text, 5, width=width, attention="eager", adapter=full)
    assert kept - frozen == 5 * width * (8 + 8 + 8 + 16 + 2 * 8)


def test_a_full_update_keeps_exactly_what_the_formula_says():
    with torch.device("meta"):
        model = llama(3, WIDE, 11008, 32, dtype="bfloat16", attention="eager")
    model.train().requires_grad_(True)
    stack = Stack(3, WIDE, 11008, 32, 32, 128, gated=True)
    settings = ModelSettings(dtype="bfloat16", attention="eager")
    full = Adapter("llm", 1, update="full")
    expected = costs.stack_bytes(stack, TOKENS, settings, adapter=full)
    assert kept_bytes(model, TOKENS, WIDE) == expected


@pytest.mark.parametrize(("quantise", "each"), [("8bit", 1.0), ("4bit", 0.5625)])
def test_fewer_bits_are_those_of_the_language_models_linear_layers(quantise, each):
    settings = ModelSettings(dtype="bfloat16", quantise=quantise, frozen_adapters="stacked")
    batch = Batch(sequences=1, longest=5, pictures=0, patches=0, answer=1)
    memory = costs.asking_memory(THIRTEEN, settings, frozen=0, batch=batch, generated=4)
    # 40 layers of q, k, v, o and three of the MLP.
    linear = 40 * (4 * 5120**2 + 3 * 5120 * 13824)
    assert memory.weights == 2 * (THIRTEEN.parameters - linear) + round(each * linear)


def test_a_full_update_passes_back_twice():
    """By its inputs and by its weights; with checkpointing forward once more."""
    shape = tiny()
    asked = Asked(questions=1, tokens=10, squares=0, answers=0)
    full = Adapter("llm", 1, update="full")
    forward = costs.forward_operations(shape, asked)
    for checkpointing, passes in ((False, 3), (True, 4)):
        found = costs.training_operations(shape, asked, adapter=full, checkpointing=checkpointing)
        assert found == passes * forward


@pytest.mark.parametrize(("shape", "weights"), [(SEVEN, 14.13), (THIRTEEN, 26.70)])
def test_half_precision_takes_two_bytes_a_parameter(shape, weights):
    settings = ModelSettings(dtype="bfloat16", gradient_checkpointing=True)
    batch = Batch(sequences=8, longest=650, pictures=8, patches=577, answer=2)
    memory = costs.training_memory(
        shape, settings, adapter=Adapter("projector+llm", 128), frozen=0, batch=batch
    )
    assert memory.weights / 1e9 == pytest.approx(weights, abs=0.005)
    assert memory.counted > memory.weights


def test_operations_are_those_torch_counts():
    model = llama(2, 64, 160, 4, dtype="float32", attention="eager")
    tokens = 24
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(inputs_embeds=torch.zeros(1, tokens, 64), use_cache=False)
    stack = Stack(2, 64, 160, 4, 4, 16, gated=True)
    language = Part((Linear(64, 64, 8), Linear(64, 160, 4), Linear(160, 64, 2)))
    nothing = Part(())
    shape = Shape("", nothing, nothing, language, 0, stack, stack, 32, PictureRule(1, side=1))
    counted = counter.get_total_flops()
    expected = costs.forward_operations(shape, Asked(1, tokens, tokens**2))
    # torch counts the products that turn positions to angles as well.
    assert counted == pytest.approx(expected, rel=0.01)


def test_training_passes_once_forward_and_once_back():
    shape = tiny()
    asked = Asked(questions=1, tokens=10, squares=100, answers=2)
    forward = costs.forward_operations(shape, asked)
    products = 2 * 64 + 4 * 32 + 2 * 64 + 4 * 128 + 2 * 128
    assert forward == 2 * products * 10 + 4 * 2 * 8 * 100 + 2 * 8 * 50 * 2
    through, on = (
        costs.training_operations(shape, asked, adapter=Adapter(scope, 3), checkpointing=False)
        for scope in ("projector", "llm")
    )
    assert through == 2 * forward
    assert on - through == 2 * 3 * shape.language.adapter(3) * 10
    again = costs.training_operations(
        shape, asked, adapter=Adapter("projector", 3), checkpointing=True
    )
    assert again == 3 * forward


def test_a_frozen_tower_is_passed_forward_once():
    shape = tiny()
    eyes = Asked(pictures=1, patches=10, patch_squares=100)
    forward = costs.forward_operations(shape, eyes)
    assert forward == 2 * (4 * 16 + 2 * 32) * 10 + 4 * 1 * 4 * 100
    for scope, passes in (("llm", 1), ("vision", 2)):
        adapter = Adapter(scope, 3)
        found = costs.training_operations(shape, eyes, adapter=adapter, checkpointing=False)
        assert found == passes * forward


def test_sums_add_up():
    one = Asked(1, 2, 3, 4, 5, 6, 7)
    assert (one + one) == one.times(2) == Asked(2, 4, 6, 8, 10, 12, 14)
