"""What a run writes of itself before it begins: experiment, environment and plan."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pulse_unlearn import __version__
from pulse_unlearn.config import dump_experiment
from pulse_unlearn.pipeline.inputs import Inputs
from pulse_unlearn.scenarios import Plan
from pulse_unlearn.store import write_json, write_text

PACKAGES = ("torch", "transformers", "peft", "accelerate", "safetensors", "numpy", "pyarrow")


def write_record(run: Path, inputs: Inputs) -> None:
    """Write what the run is: its experiment in full, versions and plan.

    Without its trackers, which decide nothing: the record is the same with and without them.
    """
    experiment = inputs.experiment.model_copy(update={"trackers": ()})
    write_text(run / "experiment.yaml", dump_experiment(experiment))
    write_json(run / "environment.json", environment())
    write_json(run / "plan.json", plan_record(inputs.plan, inputs))


def plan_record(plan: Plan, inputs: Inputs) -> dict[str, Any]:
    """Return the plan as plain data: stages, their folders, and the operations."""
    return {
        "version": 2,
        "name": plan.name,
        "stages": [
            {
                "number": inputs.keys[stage.name].number,
                "name": stage.name,
                "kind": stage.kind,
                "fingerprint": inputs.keys[stage.name].fingerprint,
                "folder": inputs.keys[stage.name].folder,
                "parents": list(stage.parents),
                **(asdict(stage.cell) if stage.cell else {}),
            }
            for stage in plan.stages
        ],
        "operations": [asdict(operation) for operation in plan.operations],
        "evaluations": [
            {
                **asdict(one.cell),
                "scores": one.scores,
                "compared_to": one.compared_to,
                "only": one.only,
            }
            for one in plan.evaluations
        ],
    }


def environment() -> dict[str, Any]:
    """Return versions and platform; nothing that names the machine or its user."""
    return {
        "pulse": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
