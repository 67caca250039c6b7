"""Trackers: where a run's losses, progress and results are shown besides, write-only.

A tracker decides nothing: no number, fingerprint or stage depends on one, and one that fails is
left out of the rest of the run. Another is one class here, or behind the entry-point group
`pulse_unlearn.trackers`; its package is imported when a run opens it.
"""

from pulse_unlearn.trackers.base import (
    TRACKERS,
    OpenTracker,
    StageEvent,
    TrackedRun,
    Tracker,
    headline,
)
from pulse_unlearn.trackers.tensorboard import Tensorboard
from pulse_unlearn.trackers.wandb_like import Trackio, Wandb

__all__ = [
    "TRACKERS",
    "OpenTracker",
    "StageEvent",
    "Tensorboard",
    "TrackedRun",
    "Tracker",
    "Trackio",
    "Wandb",
    "headline",
]
