"""What `pulse run` and `pulse report` do, for callers in Python."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pulse_unlearn import store
from pulse_unlearn.config import Experiment, load_experiment, parse_experiment
from pulse_unlearn.errors import Problem, StoreError

if TYPE_CHECKING:
    from pulse_unlearn.report import Report

Overrides = Sequence[str] | Mapping[str, Any]
"""`["finetune.epochs=5"]`, as for `pulse run --set`, or `{"finetune.epochs": 5}`."""


def resolve(
    experiment: str | PathLike[str] | Mapping[str, Any], overrides: Overrides = ()
) -> Experiment:
    """Return the experiment with everything filled in; raises ConfigError."""
    from pulse_unlearn import registries

    changes = (
        tuple(f"{key}={json.dumps(value)}" for key, value in overrides.items())
        if isinstance(overrides, Mapping)
        else tuple(overrides)
    )
    schemas = registries.schemas()
    if isinstance(experiment, Mapping):
        text = yaml.safe_dump(dict(experiment), sort_keys=False, allow_unicode=True)
        where = "the experiment given"
        return parse_experiment(text, where=where, overrides=changes, schemas=schemas)
    return load_experiment(str(experiment), overrides=changes, schemas=schemas)


def write_report(run: Path, *, redraw: bool = False) -> Report:
    """Write a run's report under its lock; raises StoreError if there is nothing to report."""
    from pulse_unlearn.report import build_report

    if not run.is_dir():
        raise StoreError(Problem("there is no such run folder", str(run)))
    with store.RunLock(run):
        built = build_report(run, redraw=redraw)
        store.write_index(run, changed=("report.html", "figures"))
    return built
