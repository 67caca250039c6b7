"""Models of full size on torch's meta device: shapes and paths, not a number in memory."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

from pulse_unlearn.config import ModelSettings
from pulse_unlearn.estimate.sizes import SizedModel, describe


@cache
def known(name: str, *, dtype: str = "float32") -> SizedModel:
    """A model by the config that the package knows, whatever lies in this machine's cache."""
    settings = ModelSettings(source=name, dtype=dtype, revision="0" * 40)
    return describe(settings)


def parameters(module: nn.Module) -> int:
    return sum(tensor.numel() for tensor in module.parameters())


def llama(layers: int, width: int, inner: int, heads: int, *, dtype: str, attention: str) -> Any:
    """A frozen language model of that size, on whichever device is the default."""
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
    )
    config._attn_implementation = attention
    return LlamaModel(config).to(getattr(torch, dtype)).requires_grad_(False)


def with_lora(model: Any, rank: int, *, dropout: float = 0.0) -> Any:
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    config = LoraConfig(r=rank, target_modules=names, lora_dropout=dropout, bias="none")
    return get_peft_model(model, config)


def kept_bytes(model: Any, tokens: int, width: int) -> int:
    """Bytes autograd keeps of one sequence's forward pass, weights apart, each storage once."""
    own = {tensor.untyped_storage()._cdata for tensor in [*model.parameters(), *model.buffers()]}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in own:
            kept.setdefault(storage, tensor)
        return tensor

    floating = next(iter(model.parameters()))
    made: Any = {"dtype": floating.dtype, "device": floating.device}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        # Held until counted: what is freed may be stored anew under the same name.
        output = model(
            inputs_embeds=torch.zeros(1, tokens, width, requires_grad=True, **made),
            attention_mask=torch.zeros(1, 1, tokens, tokens, **made),
            position_ids=torch.zeros(1, tokens, dtype=torch.long, device=floating.device),
            use_cache=False,
        ).last_hidden_state
    total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del output
    return total
