"""Pruning: silence the neurons of the language model that D_unlearn uses more than D_retain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from pulse_unlearn.config import Settings, Span, UnlearnSettings
from pulse_unlearn.errors import Problem
from pulse_unlearn.methods.base import METHODS, Needs, Session

_DOWN = ".down_proj.weight"
"""The matrix that a neuron of the gated MLP writes through, in Llama, Qwen and their kin."""


@METHODS.register("pruning")
class NeuronPruning(Settings):
    """Zero the MLP neurons with the highest ratio of activity on forget to retain answers.

    After MANU (Liu et al. 2025, arXiv 2502.15910), with the root mean square alone as a neuron's
    importance; MANU combines it with mean, frequency and variance by modality.
    """

    share: Annotated[float, Field(gt=0, lt=1), Span(0.001, 0.2)] = 0.02
    """Share of each layer's neurons that are silenced."""
    batches: Annotated[int, Field(ge=1)] = 8
    """Batches of either set whose activations are looked at."""

    @property
    def needs(self) -> Needs:
        """Both sets."""
        return Needs(retain=True)

    def problems(self, unlearn: UnlearnSettings) -> Iterator[Problem]:
        """Refuse low-rank updates and scopes without the language model: neither has neurons."""
        if unlearn.update != "full":
            fix = "add unlearn: {update: full}"
            yield Problem(
                "pruning edits whole tensors", "unlearn.update", unlearn.update, "full", fix
            )
        if unlearn.scope in ("projector", "vision"):
            allowed = "llm, projector+llm, all"
            yield Problem(
                "pruning edits the language model", "unlearn.scope", unlearn.scope, allowed
            )

    def run(self, session: Session) -> None:
        """Compare activations and zero the columns that the chosen neurons write through."""
        edited = {}
        names = [name for name in session.initial if name.endswith(_DOWN)]
        layers = [name.removesuffix(".weight") for name in names]
        forget = session.activations(layers, "forget", batches=self.batches)
        retain = session.activations(layers, "retain", batches=self.batches)
        for name, layer in zip(names, layers, strict=True):
            ratio = forget[layer] / (retain[layer] + 1e-8)
            chosen = ratio.topk(max(1, round(self.share * len(ratio)))).indices
            weight = session.initial[name].clone()
            weight[:, chosen] = 0
            edited[name] = weight
        session.edit(edited)
