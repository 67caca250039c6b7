"""A local page over many runs: their state, results, and every stored answer; changes nothing."""

from pulse_unlearn.view.server import ViewServer

__all__ = ["ViewServer"]
