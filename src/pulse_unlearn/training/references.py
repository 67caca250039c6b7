"""What the reference model says of a batch: asked once, then remembered.

The reference does not change within an operation, so a batch that comes again need not be asked
again. Kept is what the method looks at: one number an answer token (NPO), or its distribution (KL).
Whole batches are the unit, because the last bits of a number depend on what it is computed beside,
and a resumed training has to be the uninterrupted one bit for bit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from pulse_unlearn.methods import AnswerView, Extent
from pulse_unlearn.models.adapters import Prepared, reference_view
from pulse_unlearn.models.encode import AnswerTokens
from pulse_unlearn.models.forward import Reader
from pulse_unlearn.records import Example

KEPT_BYTES = 1 << 30


@dataclass(slots=True)
class References:
    """The reference's answers by batch; the oldest go when they take more than a gibibyte."""

    prepared: Prepared
    reader: Reader
    asked: int = 0
    """Examples the reference was really run on."""
    _kept: OrderedDict[object, AnswerView] = field(default_factory=OrderedDict)

    def view(
        self, examples: Sequence[Example], *, extent: Extent, tokens: AnswerTokens
    ) -> AnswerView:
        """Return the reference at the examples' answers.

        With extent `answer` the vocabulary has one entry, the answer's own token: labels are 0.
        """
        key = (extent, tokens, tuple(_identity(example) for example in examples))
        if key not in self._kept:
            self._kept[key] = self._ask(examples, extent, tokens)
        self._kept.move_to_end(key)
        found = self._kept[key]
        while sum(_size(view) for view in self._kept.values()) > KEPT_BYTES:
            self._kept.popitem(last=False)
        return found

    def _ask(self, examples: Sequence[Example], extent: Extent, tokens: AnswerTokens) -> AnswerView:
        self.asked += len(examples)
        with reference_view(self.prepared):
            view = self.reader.answers(examples, tokens=tokens)
        if extent == "distribution":
            return view
        return replace(
            view,
            log_probs=view.log_probs.gather(-1, view.labels.unsqueeze(-1)),
            labels=torch.zeros_like(view.labels),
        )


def _identity(example: Example) -> tuple[str, str, str, str]:
    """Return all that the reference's answer to this example depends on."""
    digest = example.picture.digest if example.picture else ""
    return (example.id, example.prompt, example.answer, digest)


def _size(view: AnswerView) -> int:
    return view.log_probs.nbytes + view.labels.nbytes + view.mask.nbytes
