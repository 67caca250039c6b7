"""A run's stages carried out side by side: by processes of this machine, or by a Ray cluster.

The store alone decides what is done. An engine only starts stages somewhere and says how each went,
so results depend neither on where stages ran nor on their order.
"""

from pulse_unlearn.launch.coordinator import Coordinator
from pulse_unlearn.launch.devices import Fleet, Machine, Memory
from pulse_unlearn.launch.engines import Engine, Job, Outcome, WorkerLost
from pulse_unlearn.launch.places import Check, engine_of, fleet_of, launched

__all__ = [
    "Check",
    "Coordinator",
    "Engine",
    "Fleet",
    "Job",
    "Machine",
    "Memory",
    "Outcome",
    "WorkerLost",
    "engine_of",
    "fleet_of",
    "launched",
]
