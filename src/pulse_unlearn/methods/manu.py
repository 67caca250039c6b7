"""MANU: silence the neurons whose part in D_unlearn differs most between the modalities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from pulse_unlearn.config import Settings, Span, UnlearnSettings
from pulse_unlearn.errors import MethodError, Problem
from pulse_unlearn.methods.base import METHODS, Activity, Needs, Part, Session
from pulse_unlearn.records import MODALITIES, Modality

if TYPE_CHECKING:
    from torch import Tensor

_DOWN = ".down_proj.weight"
"""The matrix that a neuron of the gated MLP writes through, in Llama, Qwen and their kin."""
_EPSILON = 1e-8
Weight = Annotated[float, Field(ge=0)]


class ImportanceWeights(Settings):
    """What each of a neuron's four importances counts in their sum."""

    absolute: Weight = 1.0
    frequency: Weight = 1.0
    variance: Weight = 1.0
    root_mean_square: Weight = 1.0

    @model_validator(mode="after")
    def _some_count(self) -> ImportanceWeights:
        if not any((self.absolute, self.frequency, self.variance, self.root_mean_square)):
            raise ValueError("one of the importances must have a weight above 0")
        return self


@METHODS.register("manu")
class NeuronPruning(Settings):
    """MANU (Liu et al. 2025, arXiv 2502.15910): zero the MLP neurons of the highest score.

    The score is a neuron's importance on forget over its importance on retain answers, where the
    importance compares its activity with and without a picture. Nothing is trained.
    """

    share: Annotated[float, Field(gt=0, lt=1), Span(0.005, 0.2)] = 0.02
    """Share of each layer's neurons that are silenced."""
    tau: Annotated[float, Field(ge=0), Span(0.01, 1.0)] = 0.1
    """A neuron is counted as active where its absolute value is above this."""
    weights: ImportanceWeights = ImportanceWeights()
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
            yield Problem("manu edits whole tensors", "unlearn.update", unlearn.update, "full", fix)
        if unlearn.scope in ("projector", "vision"):
            allowed = "llm, projector+llm, all"
            yield Problem("manu edits the language model", "unlearn.scope", unlearn.scope, allowed)

    def run(self, session: Session) -> None:
        """Compare activity and zero the columns that the chosen neurons write through.

        Raises MethodError where either set has examples of one modality alone.
        """
        within = {name for names in session.layers for name in names}
        names = [n for n in session.initial if n in within and n.endswith(_DOWN)]
        if not names:
            problem = "no layer of the language model has a down_proj to write through"
            raise MethodError(Problem(problem, got="another kind of MLP"))
        layers = {name: name.removesuffix(".weight") for name in names}
        activity = {part: self._activity(session, list(layers.values()), part) for part in _PARTS}
        edited = {}
        for name, layer in layers.items():
            forget, retain = (
                importance(
                    activity[part]["multimodal"][layer],
                    activity[part]["text_only"][layer],
                    self.weights,
                )
                for part in _PARTS
            )
            score = forget / (retain + _EPSILON)
            chosen = score.topk(max(1, round(self.share * len(score)))).indices
            weight = session.initial[name].clone()
            weight[:, chosen.to(weight.device)] = 0
            edited[name] = weight
        session.edit(edited)

    def _activity(
        self, session: Session, layers: list[str], part: Part
    ) -> Mapping[Modality, Mapping[str, Activity]]:
        found = session.activations(layers, part, batches=self.batches, above=self.tau)
        missing = [modality for modality in MODALITIES if modality not in found]
        if missing:
            raise MethodError(
                Problem(
                    f"manu compares modalities, and no {part} example is {missing[0]}",
                    "settings.batches",
                    got=f"{self.batches} batches with examples of one modality",
                    allowed="examples of both",
                    fix="raise batches if there are such questions, or take another method",
                )
            )
        return found


_PARTS: tuple[Part, Part] = ("forget", "retain")


def importance(shown: Activity, told: Activity, weights: ImportanceWeights) -> Tensor:
    """Return how differently each neuron takes part with (m) and without (t) a picture, [features].

    The weighted sum of `|m - t| / (m + t)` of the mean absolute value and of the frequency,
    `sqrt(m + t)` of the variance, and the root of `|m - t| / (m + t)` of the mean square.
    """
    return (
        weights.absolute * _contrast(shown.mean_absolute, told.mean_absolute)
        + weights.frequency * _contrast(shown.frequency, told.frequency)
        + weights.variance * (shown.variance + told.variance).sqrt()
        + weights.root_mean_square * _contrast(shown.mean_square, told.mean_square).sqrt()
    )


def _contrast(shown: Tensor, told: Tensor) -> Tensor:
    return (shown - told).abs() / (shown + told + _EPSILON)
