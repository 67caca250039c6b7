"""What a run writes of itself before it begins: experiment, environment and plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pulse_unlearn.config import dump_experiment
from pulse_unlearn.pipeline.inputs import Inputs
from pulse_unlearn.scenarios import Plan
from pulse_unlearn.store import write_text
from pulse_unlearn.store.fingerprint import readable_text


def record_of(inputs: Inputs, environment: Mapping[str, Any]) -> dict[str, str]:
    """Return what a run is, as files by name: its experiment in full, versions and plan.

    Without its trackers, which decide nothing: the record is the same with and without them.
    """
    experiment = inputs.experiment.model_copy(update={"trackers": ()})
    plan = plan_record(inputs.plan, inputs)
    return {
        "experiment.yaml": dump_experiment(experiment),
        "environment.json": readable_text(environment, where="environment.json"),
        "plan.json": readable_text(plan, where="plan.json"),
    }


def write_record(run: Path, record: Mapping[str, str]) -> None:
    """Write the files of a record."""
    for name, text in record.items():
        write_text(run / name, text)


def is_recorded(run: Path, record: Mapping[str, str]) -> bool:
    """Tell whether a run's record is this one."""
    paths = {run / name: text for name, text in record.items()}
    return all(
        path.is_file() and path.read_bytes() == text.encode() for path, text in paths.items()
    )


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
                "taught": one.taught,
                "never_knew": one.control,
            }
            for one in plan.evaluations
        ],
    }
