"""A finished run with a chain of requests and an update of whole tensors, made in a few seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

import tiny_models as tiny
from pipeline_cases import make_general, make_people, settings
from pulse_unlearn import registries
from pulse_unlearn.config import load_experiment
from pulse_unlearn.pipeline.run import run_experiment


def exported(root: Path) -> dict[str, Any]:
    """Two requests of low-rank updates, and whole tensors over a low-rank fine-tuning."""
    chosen = settings(root)
    chosen["name"] = "exported"
    chosen["methods"] = {
        "ga": {"scenarios": ["sustainability"]},
        "whole": {
            "method": "ga",
            "scenarios": ["finetuned"],
            "unlearn": {"scope": "llm", "update": "full"},
        },
    }
    chosen["scenarios"]["pretrained"] = None
    chosen["scoring"]["people"] = "vanilla"
    return chosen


def make_run(root: Path) -> Path:
    """Run it in this process; return the run folder."""
    make_people(root / "people")
    make_general(root / "general")
    tiny.base().save_pretrained(root / "model")
    tiny.processor().save_pretrained(root / "model")
    (root / "run.yaml").write_text(yaml.safe_dump(exported(root)), encoding="utf-8")
    experiment = load_experiment(str(root / "run.yaml"), schemas=registries.schemas())
    return run_experiment(experiment, root / "runs").run
