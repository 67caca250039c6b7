"""The interface in Python: run an experiment, read a finished run as frames.

Reading a run imports no torch; `run` does only if a stage has to be computed.
"""

from pulse_unlearn.api.folder import Evaluated
from pulse_unlearn.api.loaded import LoadedRun, load_run
from pulse_unlearn.api.running import run

__all__ = ["Evaluated", "LoadedRun", "load_run", "run"]
