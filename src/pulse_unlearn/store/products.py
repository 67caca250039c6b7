"""The products of a run: what they were made from, the index that holds their hashes, `verify`."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

from pulse_unlearn.errors import Corrupted, Problem, PulseError, StoreError
from pulse_unlearn.store.atomic import SCRATCH, file_errors, sha256_file, sync_folder
from pulse_unlearn.store.manifest import MANIFEST, REPAIR, stage_problems
from pulse_unlearn.store.sealed import (
    FileTable,
    compare_file,
    describe_files,
    list_files,
    read_sealed,
    table_from_json,
    table_to_json,
    write_sealed,
)
from pulse_unlearn.store.stages import STAGES, stage_folders, visible_folders

INDEX = "run.json"
VERSION = 1

PRODUCTS = (
    "environment.json",
    "experiment.yaml",
    "ledger.jsonl",
    "plan.json",
    "report.html",
    "results.csv",
    "results.json",
    "samples.json",
)
"""The files of a run folder that others read; notes and logs beside them are the user's own."""
FOLDERS = ("failures", "figures", "scores")
"""Folders of products."""


@dataclass(frozen=True, slots=True)
class Index:
    """What a run consisted of when it was last written."""

    files: FileTable
    stages: Mapping[str, str]
    """Stage folder -> SHA-256 of its manifest, which in turn holds those of its files."""


def write_index(run: Path, *, changed: Collection[str] | None = None) -> Path:
    """Write `run.json`, last of all, and return its path.

    `changed` names the products just written, such as `report.html` and `figures`: all others keep
    the hash they had, so that making a report anew does not vouch for results that were edited in
    between. Without it everything is hashed. Raises StoreError.
    """
    if changed is None:
        stages = {
            folder.name: sha256_file(folder / MANIFEST) for folder in sorted(stage_folders(run))
        }
        index = Index(describe_files(run, products(run)), stages)
    else:
        index = _updated(run, read_index(run), changed)
    path = run / INDEX
    content = {
        "version": VERSION,
        "files": table_to_json(index.files),
        "stages": index.stages,
    }
    write_sealed(path, content)
    return path


def drop_index(run: Path) -> None:
    """Remove `run.json`, before anything that it vouches for is changed; raises StoreError."""
    with file_errors(run / INDEX, "remove the index"):
        (run / INDEX).unlink(missing_ok=True)
        sync_folder(run)


def read_index(run: Path) -> Index:
    """Read `run.json`; raises StoreError if there is none, Corrupted if it was changed."""
    path = run / INDEX
    content = read_sealed(path)
    stages = content.get("stages")
    if content.get("version") != VERSION or not isinstance(stages, dict):
        raise Corrupted(Problem("is not an index of this version", str(path)))
    return Index(table_from_json(content.get("files"), path), cast("dict[str, str]", stages))


def products(run: Path) -> list[str]:
    """Return the products that are there, as paths in the run folder; raises StoreError."""
    names = [name for name in PRODUCTS if (run / name).exists()]
    for name in FOLDERS:
        folder = run / name
        if folder.is_dir():
            names += [
                f"{name}/{inner}"
                for inner in list_files(folder)
                if not Path(inner).name.startswith(SCRATCH)
            ]
    return sorted(names)


def _updated(run: Path, index: Index, changed: Collection[str]) -> Index:
    def is_changed(name: str) -> bool:
        return any(name == part or name.startswith(f"{part}/") for part in changed)

    kept = {name: entry for name, entry in index.files.items() if not is_changed(name)}
    written = [name for name in products(run) if is_changed(name)]
    return Index({**kept, **describe_files(run, written)}, index.stages)


_CODE = frozenset({".py", ".j2", ".css"})


def made_before(record: Path, made_from: Mapping[str, object]) -> Mapping[str, object] | None:
    """Return what was noted beside products that are current; None if they must be made again.

    They are if `record` says that they were made from the same and each is the file that was
    written. `made_from` is anything JSON can say.
    """
    try:
        found = read_sealed(record)
        if found.get("made_from") != made_from:
            return None
        outputs = cast("dict[str, str]", found["outputs"])
        intact = file_digests(record.parent, outputs) == outputs
    except StoreError:  # no record yet, or a damaged one
        return None
    return cast("Mapping[str, object]", found["notes"]) if intact else None


def note_made(
    record: Path,
    made_from: Mapping[str, object],
    outputs: Iterable[str],
    *,
    notes: Mapping[str, object] | None = None,
) -> None:
    """Write the record of products that were just made: names of files beside the record."""
    digests = file_digests(record.parent, outputs)
    content = {"made_from": made_from, "outputs": digests, "notes": notes or {}}
    write_sealed(record, content)


def file_digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of those of the named files that are there; raises StoreError."""
    return {name: sha256_file(folder / name) for name in names if (folder / name).is_file()}


@cache
def code_digest() -> str:
    """Return a SHA-256 of the whole package's code and templates; takes 20 ms, once a process."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(path for path in package.rglob("*") if path.suffix in _CODE):
        digest.update(f"{path.relative_to(package).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


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


def require_products(run: Path, names: Iterable[str]) -> None:
    """Raise StoreError, with all problems, unless each product is the one that `run.json` names."""
    index = read_index(run)
    problems: list[Problem] = []
    for name in names:
        if (run / name).exists() or name in index.files:
            problems += compare_file(run / name, index.files.get(name), fix=_RERUN)
    if problems:
        raise Corrupted(problems)


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
