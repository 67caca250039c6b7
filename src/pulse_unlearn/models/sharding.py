"""A model too large for one device: each rank holds a part of every language layer (FSDP2).

A layer is put together where it is read and let go of behind it, so all ranks must read it equally
often. Vision tower, projector, embeddings and head, a few percent of the weights, are whole in all.
"""

from __future__ import annotations

from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.models.adapters import TrainableModel
from pulse_unlearn.models.families import Family
from pulse_unlearn.models.parts import language_layers
from pulse_unlearn.ranks import Ranks


def shard_layers(model: nn.Module, family: Family, ranks: Ranks) -> None:
    """Leave each rank its part of the frozen weights of every language layer, and of trained ones.

    Adapters stay whole in all ranks: they are small, and whole they are what procedures work on.
    Raises ModelError for a model without layers to share out.
    """
    layers = language_layers(model, family)
    if not layers:
        what = "the language model has no layers to share out among ranks"
        raise ModelError(Problem(what, family.model_type, fix="set speed.sharding to none"))
    device = next(model.parameters()).device.type
    mesh = init_device_mesh(device, (ranks.count,))
    for layer in layers:
        adapters = {one for name, one in layer.named_parameters() if ".lora_" in name}
        # Each on its own: packed questions are read without going through the whole model.
        part = fully_shard(layer, mesh=mesh, ignored_params=adapters)
        # A step's loss is a mean over all its examples already: gradients are added, not averaged.
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)


def require_shardable(
    prepared: TrainableModel, ranks: Ranks, *, batch_size: int, procedure: bool
) -> None:
    """Raise ModelError for a training that cannot be done with layers that are shared out."""
    if batch_size % ranks.count:
        what = "ranks that share layers out take equally many examples each"
        allowed = f"a multiple of {ranks.count}"
        raise ModelError(Problem(what, "optimiser.batch_size", f"{batch_size}", allowed))
    if procedure and not isinstance(prepared.model, PeftModel):
        what = "a procedure looks at whole tensors, of which each rank has a part only"
        raise ModelError(Problem(what, fix="update: lora, or speed.sharding: none"))
    if prepared.kept:
        fix = "a method without a reference, update: lora, or speed.sharding: none"
        what = "a model whose layers are shared out keeps no copy of weights for its reference"
        raise ModelError(Problem(what, got=f"{len(prepared.kept)} tensors", fix=fix))


def is_sharded(model: nn.Module) -> bool:
    """Tell whether layers are shared out among ranks."""
    return any(isinstance(module, FSDPModule) for module in model.modules())


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor put together from all ranks, which must all ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return every trained tensor whole, on the CPU; all ranks must ask for it."""
    return {
        name: whole(tensor.detach()).cpu()
        for name, tensor in model.named_parameters()
        if tensor.requires_grad
    }


def part_like(value: Tensor, own: Tensor) -> Tensor:
    """Return a whole tensor as `own` is held: this rank's part of it, or all, on its device."""
    if isinstance(own, DTensor) and not isinstance(value, DTensor):
        return distribute_tensor(value.to(own.device), own.device_mesh, own.placements)
    return value.to(own.device)


def local(tensor: Tensor) -> Tensor:
    """Return what this rank holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def held_in_parts(tensor: Tensor) -> bool:
    """Tell whether a rank holds a part of this tensor only."""
    return isinstance(tensor, DTensor)
