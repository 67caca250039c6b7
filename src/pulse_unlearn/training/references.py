"""What the reference model says of each example: asked once, then remembered.

The reference does not change within an operation, so its numbers belong to an example and not to a
step. Kept is what the method looks at: one number an answer token (NPO), or its distribution (KL).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pulse_unlearn.methods import AnswerView, Extent
from pulse_unlearn.models.adapters import Prepared, reference_view
from pulse_unlearn.models.encode import AnswerTokens
from pulse_unlearn.models.forward import Reader
from pulse_unlearn.records import Example

KEPT_BYTES = 1 << 30

Key = tuple[str, str, str, str, Extent]


@dataclass(slots=True)
class References:
    """The reference's answers by example; the oldest go when they take more than a gibibyte."""

    prepared: Prepared
    reader: Reader
    asked: int = 0
    """Examples the reference was really run on."""
    _kept: OrderedDict[Key, tuple[Tensor, Tensor]] = field(default_factory=OrderedDict)
    _bytes: int = 0

    def view(
        self, examples: Sequence[Example], *, extent: Extent, tokens: AnswerTokens
    ) -> AnswerView:
        """Return the reference at the examples' answers.

        With extent `answer` the vocabulary has one entry, the answer's own token: labels are 0.
        """
        keys = [_key(example, extent) for example in examples]
        found = self._missing(examples, keys, extent, tokens)
        found |= {key: self._kept[key] for key in keys if key not in found}
        self._keep(found)
        longest = max(len(found[key][1]) for key in keys)
        first = found[keys[0]][0]
        log_probs = first.new_zeros(len(keys), longest, first.shape[-1])
        labels = torch.zeros(len(keys), longest, dtype=torch.long, device=first.device)
        mask = torch.zeros(len(keys), longest, dtype=torch.bool, device=first.device)
        for number, key in enumerate(keys):
            values, tokens_of = found[key]
            log_probs[number, longest - len(tokens_of) :] = values
            labels[number, longest - len(tokens_of) :] = tokens_of
            mask[number, longest - len(tokens_of) :] = True
        return AnswerView(log_probs, labels, mask)

    def _missing(
        self,
        examples: Sequence[Example],
        keys: Sequence[Key],
        extent: Extent,
        tokens: AnswerTokens,
    ) -> dict[Key, tuple[Tensor, Tensor]]:
        """Run the reference on the examples that are not kept; [A, V or 1] and labels [A] each."""
        new = {
            key: example
            for key, example in zip(keys, examples, strict=True)
            if key not in self._kept
        }
        if not new:
            return {}
        self.asked += len(new)
        with reference_view(self.prepared):
            view = self.reader.answers(list(new.values()), tokens=tokens)
        log_probs, labels = view.log_probs, view.labels
        if extent == "answer":
            log_probs = log_probs.gather(-1, labels.unsqueeze(-1))
            labels = torch.zeros_like(labels)
        return {
            key: (values[mask], own[mask])
            for key, values, own, mask in zip(new, log_probs, labels, view.mask, strict=True)
        }

    def _keep(self, found: dict[Key, tuple[Tensor, Tensor]]) -> None:
        for key, (values, labels) in found.items():
            if key not in self._kept:
                self._bytes += values.nbytes + labels.nbytes
            self._kept[key] = (values, labels)
            self._kept.move_to_end(key)
        while self._bytes > KEPT_BYTES:
            values, labels = self._kept.popitem(last=False)[1]
            self._bytes -= values.nbytes + labels.nbytes


def _key(example: Example, extent: Extent) -> Key:
    """Return all that the reference's answer to this example depends on."""
    digest = example.picture.digest if example.picture else ""
    return (example.id, example.prompt, example.answer, digest, extent)
