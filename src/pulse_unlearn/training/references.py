"""What the reference model says of an example: asked once an operation, then remembered.

The reference does not change within an operation, so what comes again need not be asked again. Kept
is what the method looks at, one number an answer token (NPO) or its distribution (KL), and only of
examples that come again: pictures and option orders are drawn anew each epoch, so that in the
demo's operations 1 to 11 percent do. With two options, or short answers in few phrasings, all do.

An example is asked beside those of its batch that are new with it, and the last bits of a number
depend on what it is computed beside. So what is kept goes into checkpoints: a resumed training is
the uninterrupted one bit for bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import torch
from torch import Tensor
from torch.nn.functional import pad

from pulse_unlearn.methods import AnswerView, Extent, losses
from pulse_unlearn.models.adapters import TrainableModel, reference_view
from pulse_unlearn.models.encode import AnswerTokens
from pulse_unlearn.models.forward import Backend
from pulse_unlearn.records import Example
from pulse_unlearn.training.steps import Steps

KEPT_BYTES = 1 << 30
"""Most that is kept of what a reference said: 4,000 answers of two tokens over LLaVA-1.5's
vocabulary, four times what 32 steps of 32 see."""


@dataclass(slots=True)
class References:
    """The reference's answers by example; when they take a gibibyte, no more are kept."""

    prepared: TrainableModel
    backend: Backend
    recurring: Collection[str] | None = None
    """Fingerprints of the examples worth keeping; None keeps all."""
    asked: int = 0
    """Examples the reference was really run on."""
    kept: dict[str, Tensor] = field(default_factory=dict)
    """Fingerprint -> log-probabilities [A, V], right-aligned; V is 1 with extent `answer`. With
    extent `hidden` they are hidden states [A, D]."""

    def view(
        self,
        examples: Sequence[Example],
        current: AnswerView,
        *,
        extent: Extent,
        tokens: AnswerTokens,
        hidden_layer: int | None = None,
    ) -> AnswerView:
        """Return the reference at the answers of which `current` is the model's own view.

        With extent `answer` the vocabulary has one entry, the answer's own token: labels are 0.
        With extent `hidden` it has none, and the view holds hidden states.
        """
        names = [fingerprint(example) for example in examples]
        layer = "" if extent != "hidden" else f"{hidden_layer}"
        keys = [f"{extent}{layer}.{tokens}.{name}" for name in names]
        new = {
            key: example
            for key, example in zip(keys, examples, strict=True)
            if key not in self.kept
        }
        found = self._ask(new, extent, tokens, hidden_layer) if new else {}
        found |= {key: self.kept[key] for key in keys if key in self.kept}
        for key, name in zip(keys, names, strict=True):
            self._keep(key, name, found[key])
        length, device = current.labels.shape[1], current.log_probs.device
        # What a checkpoint gave back may lie on another of a model's devices than the head.
        said = torch.stack([_aligned(found[key].to(device), length) for key in keys])
        if extent == "hidden":
            nothing = said.new_zeros(*said.shape[:2], 0)
            return AnswerView(nothing, current.labels, current.mask, said)
        own = extent == "answer"
        labels = torch.zeros_like(current.labels) if own else current.labels
        return AnswerView(said, labels, current.mask)

    def _ask(
        self,
        new: dict[str, Example],
        extent: Extent,
        tokens: AnswerTokens,
        hidden_layer: int | None,
    ) -> dict[str, Tensor]:
        self.asked += len(new)
        with reference_view(self.prepared):
            view = self.backend.answer_log_probs(
                list(new.values()),
                tokens=tokens,
                hidden_layer=hidden_layer if extent == "hidden" else None,
            )
        said = view.log_probs
        if extent == "hidden":
            said = losses.hidden_of(view)
        elif extent == "answer":
            said = said.gather(-1, view.labels.unsqueeze(-1))
        return dict(zip(new, said, strict=True))

    def _keep(self, key: str, name: str, said: Tensor) -> None:
        wanted = self.recurring is None or name in self.recurring
        if not wanted or key in self.kept:
            return
        if sum(tensor.nbytes for tensor in self.kept.values()) + said.nbytes <= KEPT_BYTES:
            self.kept[key] = said.clone()  # not a view that holds its whole batch


def recurring(steps: Steps) -> frozenset[str]:
    """Return the fingerprints of the examples that steps show more than once."""
    every = (steps[number] for number in range(len(steps)))
    seen = Counter(fingerprint(e) for data in every for e in (*data.forget, *data.retain))
    return frozenset(name for name, count in seen.items() if count > 1)


def fingerprint(example: Example) -> str:
    """Return a SHA-256 of all that a model's view of the answer depends on."""
    digest = example.picture.digest if example.picture else ""
    # Nothing more where there is no system turn: checkpoints hold what is kept under these names.
    system = (example.system,) if example.system else ()
    parts = "\0".join((*system, example.prompt, example.answer, digest))
    return sha256(parts.encode()).hexdigest()


def _aligned(said: Tensor, length: int) -> Tensor:
    """Return the last `length` positions; what is missing in front belongs to no answer."""
    return pad(said, (0, 0, max(length - len(said), 0), 0))[-length:]
