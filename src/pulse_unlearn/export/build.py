"""One stage's model as a folder: written beside its place, checked, described, then renamed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pulse_unlearn import __version__
from pulse_unlearn.errors import Problem, StoreError
from pulse_unlearn.export.finished import ChosenModel, FinishedRun, choose_model, open_run
from pulse_unlearn.pipeline.provenance import environment
from pulse_unlearn.report.load import load_run
from pulse_unlearn.store import file_errors, sha256_file, write_json, write_text
from pulse_unlearn.store.atomic import removed_on_failure, scratch_beside, sync_file, sync_folder
from pulse_unlearn.store.sealed import list_files

Form = Literal["adapter", "merged"]
RECORD = "pulse_export.json"
"""What an export was made from, what is in it and how it was checked."""
CARD = "README.md"
QUESTIONS = 250
"""Stored questions an export is asked before it counts."""


def export_model(
    run: Path,
    stage: str,
    *,
    form: Form,
    dtype: str | None = None,
    out: Path | None = None,
    questions: int = QUESTIONS,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Export the model of a stage, with the whole chain of updates it carries; return its folder.

    `dtype` is that of a merged model's weights, and what an adapter is checked in; by default the
    run's. Raises before any work if the place is taken or cannot be written; ModelError if the
    model cannot be exported in this form or the export fails its check; nothing is left then.
    """
    found = open_run(run)
    model = choose_model(found, stage)
    results = load_run(run)
    folder = out or Path(f"{run.resolve().name}-{model.named.name.replace('/', '-')}-{form}")
    scratch = _scratch(folder)
    found.check(model.stages)
    # Only here: the first import takes seconds.
    from pulse_unlearn.export.card import model_card
    from pulse_unlearn.export.check import check_export
    from pulse_unlearn.export.weights import require_exportable, write_adapter, write_merged
    from pulse_unlearn.models.adapter_base import note_base
    from pulse_unlearn.pipeline.stage_context import update_folder

    settings = found.inputs.experiment.model
    chosen = dtype or settings.dtype
    steps = [None] * (len(model.score.chain) - 1) + [model.score.step]
    updates = [
        found.folder_of(name) / update_folder(step)
        for name, step in zip(model.score.chain, steps, strict=True)
    ]
    require_exportable(settings, updates, adapter=form == "adapter")
    with removed_on_failure(scratch):
        with file_errors(folder, "write the export"):
            scratch.mkdir()
            count = f"{len(updates)} update{'s' * (len(updates) > 1)}"
            say(f"writing {count}: {', '.join(model.score.chain)}")
            if form == "merged":
                written = write_merged(settings, updates, scratch, dtype=chosen)
            else:
                written = write_adapter(settings, updates, scratch, final=folder.resolve())
                note_base(scratch, found.inputs.bases[model.score.model])
        say("loading it in a fresh process and asking what was scored")
        checked = check_export(found, model, scratch, written, dtype=chosen, questions=questions)
        say(f"{checked.equal} of {checked.questions} answers are the stored ones")
        record = _record(found, model, scratch, form, chosen, written.base) | {
            "check": asdict(checked)
        }
        write_json(scratch / RECORD, record)
        write_text(scratch / CARD, model_card(found, model, results, record))
        _publish(scratch, folder)
    return folder


def _scratch(folder: Path) -> Path:
    """Return a name beside the export's place; raises StoreError if the place cannot be used."""
    if folder.exists() or folder.is_symlink():
        fix = "name another folder with --out, or move this one away"
        raise StoreError(Problem("there is something here already", str(folder), fix=fix))
    scratch = scratch_beside(folder)
    with file_errors(folder, "write the export"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch.mkdir()
        scratch.rmdir()
    return scratch


def _record(
    run: FinishedRun, model: ChosenModel, folder: Path, form: Form, dtype: str, base: str
) -> dict[str, Any]:
    inputs = run.inputs
    files = {name: sha256_file(folder / name) for name in list_files(folder)}
    return {
        "version": 1,
        "pulse": __version__,
        "environment": environment(),
        "run": inputs.experiment.name,
        "form": form,
        "dtype": dtype,
        "base": base or inputs.experiment.model.source,
        "revision": inputs.experiment.model.revision,
        "base_sha256": inputs.digests["model"],
        "stage": model.named.name,
        "chain": {name: inputs.keys[name].fingerprint for name in model.score.chain},
        "scored_by": {model.score.name: inputs.keys[model.score.name].fingerprint},
        "files": files,
    }


def _publish(scratch: Path, folder: Path) -> None:
    """Rename a finished export into its place; raises StoreError if that was taken meanwhile."""
    with file_errors(folder, "write the export"):
        for name in list_files(scratch):
            # Weights are written for their owner alone; the card has the usual mode.
            shutil.copymode(scratch / CARD, scratch / name)
            sync_file(scratch / name)
        if folder.exists():
            raise StoreError(Problem("there is something here already", str(folder)))
        scratch.rename(folder)
        sync_folder(folder.parent)
