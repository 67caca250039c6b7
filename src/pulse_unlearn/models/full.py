"""Full updates: the changed tensors of a stage in one file, and a frozen copy of what they were.

With low-rank updates the reference model is the same weights seen with fewer adapters. A full
update writes over its own reference, so the tensors it trains are kept beside it as they were: the
memory of the trained tensors again, not of the model, and only for methods that ask a reference.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.models.checkpoints import ADAPTER_CONFIG, ADAPTER_FILE

FULL_FILE = "changed_weights.safetensors"
WRAPPED = "base_model.model."
"""What PEFT writes before the path of a layer."""
_LOW_RANK = ".lora_A.weight"


def is_full(folder: Path) -> bool:
    """Tell whether a stage left whole tensors and not an adapter."""
    return (folder / FULL_FILE).is_file()


def save_full(model: nn.Module, folder: Path) -> None:
    """Write the trained tensors, the same bytes for the same weights."""
    folder.mkdir(parents=True, exist_ok=True)
    trained = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in sorted(model.named_parameters())
        if tensor.requires_grad
    }
    save_file(trained, folder / FULL_FILE, metadata={"format": "pt"})


def load_full(model: nn.Module, folder: Path) -> None:
    """Write a stage's tensors over the model's; raises ModelError if they do not fit it."""
    parameters = dict(model.named_parameters())
    try:
        with safe_open(folder / FULL_FILE, framework="pt") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise does_not_fit("update", folder, f"{type(error).__name__}: {error}") from error
    wrong = [
        name
        for name, tensor in sorted(found.items())
        if name not in parameters or parameters[name].shape != tensor.shape
    ]
    if wrong:
        raise does_not_fit(
            "update", folder, f"{len(wrong)} tensors differ ({', '.join(wrong[:3])})"
        )
    with torch.no_grad():
        for name, tensor in found.items():
            parameters[name].copy_(tensor)


def touched(folder: Path) -> set[str]:
    """Return the names of the tensors that a stage's update, added in, changes."""
    if is_full(folder):
        with safe_open(folder / FULL_FILE, framework="pt") as file:
            return set(file.keys())
    with safe_open(folder / ADAPTER_FILE, framework="pt") as file:
        keys = [key for key in file.keys() if key.endswith(_LOW_RANK)]  # noqa: SIM118
    config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    matrices = set(config.get("target_parameters") or ())
    bare = {name.rpartition(".")[0] for name in matrices}
    paths = {key.removeprefix(WRAPPED).removesuffix(_LOW_RANK) for key in keys}
    return matrices | {f"{path}.weight" for path in paths - bare}


def copies(model: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
    """Return frozen copies of these tensors."""
    parameters = dict(model.named_parameters())
    return {name: parameters[name].detach().clone() for name in names}


@contextmanager
def swapped(model: nn.Module, kept: Mapping[str, Tensor]) -> Iterator[None]:
    """Show the kept values in place of the model's own inside.

    Only the storage is exchanged: a graph recorded before goes on with the values it was made from.
    """
    parameters = dict(_by_plain_name(model))
    own = {name: parameters[name].data for name in kept}
    try:
        for name, value in kept.items():
            parameters[name].data = value
        yield
    finally:
        for name, value in own.items():
            parameters[name].data = value


def _by_plain_name(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield parameters by the names they have without adapters around them."""
    for name, parameter in model.named_parameters():
        if ".lora_" not in name:
            yield name.removeprefix(WRAPPED).replace(".base_layer.", "."), parameter


def does_not_fit(what: str, folder: Path, got: str, *, base: str = "") -> ModelError:
    """Return the error for an adapter or update that was made for another model: `base`."""
    return ModelError(
        Problem(
            f"the {what} does not fit the model",
            str(folder),
            got=got,
            fix=f"use the base model the {what} was trained on{base and f' ({base})'}",
        )
    )
