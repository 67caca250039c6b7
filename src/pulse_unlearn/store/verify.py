"""Is a run folder still what was written?"""

from __future__ import annotations

from pathlib import Path

from pulse_unlearn.errors import Problem, PulseError
from pulse_unlearn.store.atomic import sha256_file
from pulse_unlearn.store.index import INDEX, Index, products, read_index
from pulse_unlearn.store.manifest import MANIFEST, REPAIR, stage_problems
from pulse_unlearn.store.sealed import compare_file, list_files
from pulse_unlearn.store.stages import STAGES, visible_folders

_RESULTS = {"results.csv", "results.json", "report.html"}
_RERUN = "give the `pulse run` command again: it writes the results anew from the stages"


def verify(run: Path) -> list[Problem]:
    """Return everything in a run folder that is not as it was written; empty if all is well.

    Every file of every stage is hashed against its manifest, and the manifests and the run's
    products against `run.json`. A run that was stopped half-way is well if its finished stages are.
    What this cannot show is a change by someone who made all hashes anew: for that, keep the hash
    of `run.json`.
    """
    if not (run / INDEX).exists() and not (run / STAGES).is_dir():
        return [Problem("is not a run folder", str(run), allowed=f"one with {STAGES}/ or {INDEX}")]
    try:
        folders = visible_folders(run)
        present = products(run)
    except PulseError as error:
        return list(error.problems)
    problems = [problem for folder in folders for problem in _stage_problems(folder)]
    return problems + _product_problems(run, present)


def _stage_problems(folder: Path) -> list[Problem]:
    if (folder / MANIFEST).exists():
        return stage_problems(folder)
    try:
        names = list_files(folder)
    except PulseError as error:
        return list(error.problems)
    got = f"{len(names)} files without one"
    return [Problem("the manifest is missing", str(folder / MANIFEST), got, fix=REPAIR)]


def _product_problems(run: Path, present: list[str]) -> list[Problem]:
    path = run / INDEX
    if not path.exists():
        results = [name for name in present if name in _RESULTS]
        got = f"{', '.join(results)} without it"
        missing = Problem("the index of the run is missing", str(path), got, fix=_RERUN)
        return [missing] if results else []
    try:
        index = read_index(run)
    except PulseError as error:
        return list(error.problems)
    problems: list[Problem] = []
    for name in sorted({*present, *index.files}):
        problems += compare_file(run / name, index.files.get(name), fix=_RERUN)
    return problems + _manifest_problems(run, index)


def _manifest_problems(run: Path, index: Index) -> list[Problem]:
    """A whole stage exchanged for another sound one shows only here."""
    problems: list[Problem] = []
    for name, digest in sorted(index.stages.items()):
        path = run / STAGES / name / MANIFEST
        if not path.parent.exists():
            problems.append(Problem("the stage is missing", str(path.parent), fix=_RERUN))
            continue
        if not path.exists():
            continue  # told already, with the stage
        problems += _digest_problems(path, digest)
    return problems


def _digest_problems(path: Path, digest: str) -> list[Problem]:
    try:
        found = sha256_file(path)
    except PulseError as error:
        return list(error.problems)
    if found == digest:
        return []
    what = f"is not the manifest that {INDEX} names"
    return [Problem(what, str(path), f"sha256 {found}", f"sha256 {digest}", _RERUN)]
