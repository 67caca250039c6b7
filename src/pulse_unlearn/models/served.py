"""A served system: which request a question is taken by, and what answers it then.

A stage of a method that serves leaves `served.json` and `served.safetensors`, with the gates of all
requests so far; its adapter, if it has one, lies beside them as that of any other method.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.methods import Serves
from pulse_unlearn.methods.gates import Fitted, Gate, margins
from pulse_unlearn.models.adapter_folder import attach_adapter
from pulse_unlearn.models.adapters import AnyModel, activate, adapter_names
from pulse_unlearn.models.forward import Backend
from pulse_unlearn.records import Example

INDEX, TENSORS = "served.json", "served.safetensors"
VERSION = 1
_PARTS = ("centre", "directions", "damping", "store", "threshold")


@dataclass(frozen=True, slots=True)
class Entry:
    """One request of a served system."""

    stage: str
    """The stage that carried it out, and that left its adapter if it has one."""
    gates: Mapping[str, Fitted]
    """By kind of question, `pictured` or `named`; a kind without one is never taken."""


@dataclass(frozen=True, slots=True)
class ServedSystem:
    """The requests of a sequence so far, first to last."""

    serves: Serves
    layer: int
    """Of the language model, whose output the gates look at."""
    entries: tuple[Entry, ...] = ()

    def with_entry(self, entry: Entry) -> ServedSystem:
        """Return the system with one more request."""
        return replace(self, entries=(*self.entries, entry))

    def taken_by(self, states: Tensor, pictured: Sequence[bool]) -> list[int | None]:
        """Return the place of the request that each question is taken by; None for the base.

        Of several that would take it the one whose threshold it is furthest above, the first of
        equals.
        """
        best: list[tuple[float, int | None]] = [(0.0, None)] * len(pictured)
        for place, entry in enumerate(self.entries):
            for kind, fitted in entry.gates.items():
                rows = [n for n, shown in enumerate(pictured) if shown is (kind == "pictured")]
                if not rows:
                    continue
                above = margins(fitted.gate, states[rows]).tolist()
                for row, margin in zip(rows, above, strict=True):
                    if margin > best[row][0]:
                        best[row] = (margin, place)
        return [place for _, place in best]

    def tensors(self) -> bytes:
        """Return the gates as `served.safetensors` holds them."""
        return save(
            {
                f"{place}.{kind}.{part}": getattr(fitted.gate, part).float().cpu().contiguous()
                for place, entry in enumerate(self.entries)
                for kind, fitted in entry.gates.items()
                for part in _PARTS
            }
        )

    def index(self) -> dict[str, Any]:
        """Return what `served.json` says: which stage's adapter is whose, and what gates take."""
        requests = [
            {
                "stage": entry.stage,
                "gates": {
                    kind: {
                        "people": len(fitted.gate.store),
                        "threshold": float(fitted.gate.threshold),
                        "caught": fitted.caught,
                        "taken": fitted.taken,
                        "calibrated_on": fitted.calibrated_on,
                    }
                    for kind, fitted in entry.gates.items()
                },
            }
            for entry in self.entries
        ]
        return {
            "version": VERSION,
            "serves": self.serves,
            "layer": self.layer,
            "requests": requests,
        }


def read_served(folder: Path) -> ServedSystem:
    """Return the system that a stage left; raises ModelError if its files cannot be read."""
    try:
        told = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        tensors = load_file(folder / TENSORS)
        if told["version"] != VERSION:
            raise ValueError(f"version {told['version']}, not {VERSION}")
        entries = tuple(
            Entry(
                request["stage"],
                {
                    kind: Fitted(
                        Gate(*(tensors[f"{place}.{kind}.{part}"].double() for part in _PARTS)),
                        gate["caught"],
                        gate["taken"],
                        gate["calibrated_on"],
                    )
                    for kind, gate in request["gates"].items()
                },
            )
            for place, request in enumerate(told["requests"])
        )
        return ServedSystem(told["serves"], told["layer"], entries)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        problem = "the served system cannot be read"
        got = f"{type(error).__name__}: {error}"
        raise ModelError(Problem(problem, str(folder / INDEX), got)) from error


@dataclass(frozen=True, slots=True)
class Switched:
    """A target model with an adapter a request beside it, all of them off."""

    model: AnyModel
    base: tuple[str, ...] = ()
    """Adapters of the target model itself, always on."""
    of_request: tuple[str, ...] = ()

    def switch(self, request: int | None) -> None:
        """Let the target model answer, with one request's adapter or none."""
        if isinstance(self.model, PeftModel):
            own = () if request is None else (self.of_request[request],)
            activate(self.model, (*self.base, *own))


def beside(model: AnyModel, folders: Sequence[Path]) -> Switched:
    """Put the adapters of requests beside a target model and switch them off."""
    base = tuple(adapter_names(model)) if isinstance(model, PeftModel) else ()
    names = tuple(f"request{number}" for number in range(1, len(folders) + 1))
    for name, folder in zip(names, folders, strict=True):
        model = attach_adapter(model, folder, name=name)
    switched = Switched(model, base, names)
    switched.switch(None)
    return switched


def states_of(
    backend: Backend, examples: Sequence[Example], *, layer: int, batch_size: int
) -> Tensor:
    """Return the embeddings of examples by a backend's model as it is, [N, D].

    Questions on one picture share a batch, so that it is paid for once.
    """
    order = sorted(range(len(examples)), key=lambda n: examples[n].likeness)
    found: list[Tensor] = [torch.empty(0)] * len(examples)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        states = backend.prompt_states([examples[n] for n in chosen], layer=layer)
        for n, state in zip(chosen, states, strict=True):
            found[n] = state
    return torch.stack(found) if found else torch.empty(0, 0, dtype=torch.float64)
