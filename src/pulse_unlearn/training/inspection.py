"""What a session looks at without training: activity of neurons, and embeddings of questions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pulse_unlearn.methods import Activity, losses
from pulse_unlearn.models.encode import AnswerTokens
from pulse_unlearn.models.forward import Backend, Plain
from pulse_unlearn.models.parts import inner_model
from pulse_unlearn.records import MODALITIES, Example, Modality


@contextmanager
def evaluated(model: nn.Module) -> Iterator[None]:
    """Read a model without dropout and without gradients inside."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


@dataclass(slots=True)
class _Sums:
    """Sums over positions, [features], in float64."""

    absolute: Tensor
    above: Tensor
    plain: Tensor
    squares: Tensor
    count: int

    @staticmethod
    def of(values: Tensor, above: float) -> _Sums:
        """Add up what stands at some positions, [positions, features]."""
        wide = values.cpu().double()
        sizes = wide.abs()
        over = (sizes > above).double()
        return _Sums(sizes.sum(0), over.sum(0), wide.sum(0), wide.square().sum(0), len(wide))

    def add(self, other: _Sums) -> None:
        self.absolute += other.absolute
        self.above += other.above
        self.plain += other.plain
        self.squares += other.squares
        self.count += other.count

    def activity(self) -> Activity:
        mean, square = self.plain / self.count, self.squares / self.count
        return Activity(
            mean_absolute=self.absolute / self.count,
            frequency=self.above / self.count,
            variance=(square - mean.square()).clamp(min=0.0),
            mean_square=square,
        )


def activations(
    backend: Backend,
    layers: Sequence[str],
    batches: Iterable[Sequence[Example]],
    *,
    tokens: AnswerTokens,
    above: float,
) -> dict[Modality, dict[str, Activity]]:
    """Return the activity of what enters linear layers at answer positions; float64 on the CPU."""
    model = inner_model(backend.model)
    plain = Plain(backend.model, backend.encoder)
    seen: dict[str, Tensor] = {}
    sums: dict[Modality, dict[str, _Sums]] = {}

    def hook_of(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen[name] = inputs[0].detach()

        return hook

    handles = [model.get_submodule(n).register_forward_pre_hook(hook_of(n)) for n in layers]
    try:
        with evaluated(backend.model):
            for examples in batches:
                view = plain.answer_log_probs(examples, tokens=tokens)
                length = view.mask.shape[1]
                for modality in MODALITIES:
                    of = torch.tensor([one.modality == modality for one in examples])
                    if not of.any():
                        continue
                    chosen = view.mask & of.to(view.mask.device).unsqueeze(-1)
                    found = sums.setdefault(modality, {})
                    for name in layers:
                        # Those that predict the answer, as log-probabilities are read there.
                        asked = seen[name][:, -length - 1 : -1]
                        new = _Sums.of(asked[chosen.to(asked.device)], above)
                        if name in found:
                            found[name].add(new)
                        else:
                            found[name] = new
    finally:
        for handle in handles:
            handle.remove()
    return {
        modality: {name: one.activity() for name, one in found.items()}
        for modality, found in sums.items()
    }


def embeddings(
    backend: Backend, batches: Iterable[Sequence[Example]], *, tokens: AnswerTokens, layer: int
) -> dict[str, Tensor]:
    """Return each question's mean hidden state at its answer's positions, [D], float32 on the CPU.

    Over several examples of one question it is the mean of theirs.
    """
    found: dict[str, list[Tensor]] = {}
    with evaluated(backend.model):
        for examples in batches:
            view = backend.answer_log_probs(examples, tokens=tokens, hidden_layer=layer)
            mask = view.mask.unsqueeze(-1)
            states = losses.hidden_of(view).float().masked_fill(~mask, 0.0)
            means = (states.sum(1) / mask.sum(1)).cpu()
            for example, mean in zip(examples, means, strict=True):
                found.setdefault(example.question_id, []).append(mean)
    return {name: torch.stack(means).mean(0) for name, means in found.items()}
