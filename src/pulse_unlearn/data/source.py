"""Where a data set comes from, the choices made in reading it, and what came of it.

Files of the Hugging Face hub are taken at a pinned commit; from its cache when offline.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pulse_unlearn.errors import ConfigError, DataError, Problem
from pulse_unlearn.files import home_path, plain_file
from pulse_unlearn.records import Individual, Question

ScoredPicture = Literal["own", "other_pose"]

_HUB_PATH = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(/(?P<inside>[\w./-]+))?")


@dataclass(frozen=True, slots=True)
class Source:
    """A place, and the choices that decide what is read there."""

    path: str | None = None
    """File or folder; None for embedded data; `owner/name` on the hub if there is a revision."""
    revision: str | None = None
    """Commit of a hub data set."""
    scored_picture: ScoredPicture = "own"
    """`own`: the picture beside the questions; `other_pose`: a further pose is scored instead."""
    options: int = 4
    """How many options a question gets that has only a true answer."""
    options_seed: int = 0
    """Decides which other people's answers become its options."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """What one source holds; parts it doesn't have, or was not asked for, are empty."""

    individuals: tuple[Individual, ...] = ()
    general: tuple[Question, ...] = ()
    """General-ability questions that are scored."""
    general_training: tuple[Question, ...] = ()
    """General-ability questions to train on: replay and retain material, never scored."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """File, relative to the source -> SHA-256 of its bytes, hex; `as read` -> that of the content
    where choices of reading decide about it."""
    notes: tuple[str, ...] = ()
    """What was left out, or could have been read in another way; nothing that makes it unusable."""


def digest(paths: Iterable[Path], *, root: Path) -> dict[str, str]:
    """Return the SHA-256 of each file, by its path relative to `root`."""
    found = {}
    for path in paths:
        with plain_file(path).open("rb") as file:
            sha = hashlib.file_digest(file, "sha256").hexdigest()
        found[path.relative_to(root).as_posix()] = sha
    return found


def digest_as_read(individuals: Iterable[Individual]) -> dict[str, str]:
    """Return one SHA-256 over everything a model can be shown of these people."""
    lines = []
    for person in individuals:
        questions = [
            [
                *(question.id, question.question, question.hint, question.answer),
                [[option.letter, option.text] for option in question.options],
                question.picture.digest if question.picture else "",
            ]
            for question in person.questions
        ]
        pictures = [
            [picture.digest for picture in views]
            for views in (person.training_pictures, person.other_pictures)
        ]
        words = [[one.id, one.question, one.answer] for one in person.short_answers]
        lines.append(json.dumps([person.id, person.group, questions, pictures, words]))
    return {"as read": hashlib.sha256("\n".join(lines).encode()).hexdigest()}


def local_path(source: Source, name: str, what: str, *, patterns: Sequence[str] = ()) -> Path:
    """Return the file or folder a source names, fetched from the hub if it has a revision.

    `owner/name/inside` names a folder inside a hub data set, or a file if it has a suffix; of a
    folder only what matches `patterns` is fetched. Raises ConfigError without a path, DataError if
    the hub's files can't be had; whether a local path exists is for its reader to say.
    """
    if not source.path:
        fix = "set data.<part>.path"
        raise ConfigError(Problem(f"data set '{name}' needs a path", allowed=what, fix=fix))
    if source.revision is None:
        return home_path(source.path)
    found = _HUB_PATH.fullmatch(source.path)
    if not found:
        allowed = "owner/name, or owner/name/path/inside"
        fix = "leave data.<part>.revision out for a local path"
        raise DataError(Problem("not a data set on the hub", source.path, allowed=allowed, fix=fix))
    inside = (found["inside"] or "").strip("/")
    return _fetch(found["repository"], inside, source.revision, patterns)


def _fetch(repository: str, inside: str, revision: str, patterns: Sequence[str]) -> Path:
    # Here, because importing it takes time that local data need not spend.
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError

    is_file = bool(Path(inside).suffix)
    try:
        if is_file:
            return Path(hf_hub_download(repository, inside, repo_type="dataset", revision=revision))
        wanted = [f"{inside}/{pattern}" if inside else pattern for pattern in patterns]
        folder = snapshot_download(
            repository, repo_type="dataset", revision=revision, allow_patterns=wanted or None
        )
    # Offline, a name that does not exist, a closed socket: all of them are OSError or these two.
    except (OSError, EntryNotFoundError, HFValidationError) as error:
        command = ["hf", "download", repository, *([inside] if is_file else [])]
        command += ["--repo-type", "dataset", "--revision", revision]
        where = f"{repository} at {revision}" + (f": {inside}" if inside else "")
        got = " ".join(str(error).split())[:200]
        fix = f"fetch it where there is a network: {shlex.join(command)}; or give a local path"
        raise DataError(Problem("the hub's data set can't be had", where, got, fix=fix)) from error
    return Path(folder) / inside
