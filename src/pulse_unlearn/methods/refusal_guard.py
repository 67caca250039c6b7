"""A guard in front of an unchanged model: questions about forgotten people are refused (CURaTE)."""

from __future__ import annotations

from typing import ClassVar

from pulse_unlearn.methods.base import METHODS, Needs, Serves, Session
from pulse_unlearn.methods.served import Gated


@METHODS.register("refusal_guard")
class RefusalGuard(Gated):
    """No weight is changed: what is like a forget request is answered by a refusal.

    After CURaTE (2026), which compares sentence embeddings of a model trained for that; here the
    base model's own are whitened, so that faces are compared, too. The store identifies people who
    asked to be forgotten, and the weights still know everything: see `adapter_off`.
    """

    serves: ClassVar[Serves] = "refusal"

    @property
    def needs(self) -> Needs:
        """Retain batches, by whose views the threshold is set."""
        return Needs(retain=True)

    def run(self, session: Session) -> None:
        """Add this request's gate to those of earlier requests."""
        session.serve(self.serves, self._gates(session), layer=self.layer)
