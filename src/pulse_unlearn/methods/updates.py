"""What procedures do between two updates of the trained tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from pulse_unlearn.methods.base import Session, Tensors

if TYPE_CHECKING:
    from torch import Tensor

Change = Callable[[str, "Tensor", "Tensor"], "Tensor"]
"""A tensor's name, what it was before an update and what it is after -> what it shall be."""


class Rewritten:
    """Puts something else in place of each update of some tensors.

    `gradient` and `update` are hooks of one phase of training, and belong together. What was there
    before an update is read off the session before the first and kept from then on: a copy of these
    tensors, and nothing that an interruption could lose.
    """

    def __init__(self, session: Session, names: Iterable[str], change: Change) -> None:
        self._session, self._names, self._change = session, tuple(names), change
        self._before: dict[str, Tensor] = {}

    def gradient(self, _gradients: dict[str, Tensor]) -> None:
        """Note what is there before the first update."""
        if not self._before:
            now = self._session.current
            self._before = {name: now[name] for name in self._names}

    def update(self, tensors: Tensors) -> None:
        """Change the tensors, and note what they are now."""
        for name in self._names:
            tensors[name].copy_(self._change(name, self._before[name], tensors[name]))
            self._before[name].copy_(tensors[name])
