"""PULSE: practical evaluation scenarios for unlearning in large multimodal models.

`run` carries out an experiment, `load_run` reads a finished run: see docs/api.md. Both are imported
when they are asked for, so that importing this package takes no time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pulse_unlearn.api import LoadedRun, load_run, run

__version__ = "0.1.0"

__all__ = ["LoadedRun", "__version__", "load_run", "run"]


def __getattr__(name: str) -> Any:
    """Import what the interface in Python offers; raises AttributeError for anything else."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pulse_unlearn import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
