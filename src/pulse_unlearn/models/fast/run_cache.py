"""What the stages of one run share: processed pictures and their features."""

from __future__ import annotations

from dataclasses import dataclass, field

from pulse_unlearn.models.encode import Encoder
from pulse_unlearn.models.fast.features import Features
from pulse_unlearn.models.loading import LoadedModel


@dataclass(slots=True)
class RunCache:
    """Lives as long as a run in one process; all its stages load one model, by one set of settings.

    Changes no bit of a result: pictures are processed, and seen by a tower, one at a time.
    """

    features: Features = field(default_factory=Features)
    _encoder: Encoder | None = None

    def encoder(self, loaded: LoadedModel) -> Encoder:
        """Return the run's encoder; the first model loaded brings it."""
        if self._encoder is None:
            self._encoder = Encoder(loaded.processor, loaded.family)
        return self._encoder
