"""Where a model's files are and what identifies them; looked at without loading a weight."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import file_digest, sha256
from importlib.resources import as_file, files
from pathlib import Path

from pulse_unlearn.config import EMBEDDED, ModelSettings
from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.models.checkpoints import folder_problems

_COMMIT = re.compile("[0-9a-f]{40}")
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


@contextmanager
def model_source(settings: ModelSettings) -> Iterator[str]:
    """Yield the folder or hub id to load from; the embedded model may have to be unpacked.

    Raises ModelError for a folder that is an adapter's, of pickled weights or of Git LFS's
    pointers, and for a hub id without a pinned revision.
    """
    with embedded_or_named(settings) as source:
        if settings.source != EMBEDDED and Path(source).is_dir():
            problems = folder_problems(Path(source)) or _pickles(Path(source))
            if problems:
                raise ModelError(problems)
        missing = missing_revision(settings)
        if missing:
            raise ModelError(missing)
        yield source


@contextmanager
def embedded_or_named(settings: ModelSettings) -> Iterator[str]:
    """Yield the folder or hub id, nothing checked; the embedded model may have to be unpacked."""
    if settings.source == EMBEDDED:
        with as_file(files("pulse_unlearn").joinpath("assets/world/model")) as folder:
            yield str(folder)
        return
    yield settings.source


def missing_revision(settings: ModelSettings) -> Problem | None:
    """Return what is wrong if a hub id has no pinned commit; None otherwise.

    A branch or tag is none: the same experiment would name other weights after the next push.
    """
    named = settings.source == EMBEDDED or Path(settings.source).is_dir()
    if named or _COMMIT.fullmatch(settings.revision or ""):
        return None
    return Problem(
        "a hub model needs a pinned revision",
        "model.revision",
        got=settings.revision or "none",
        allowed="the commit hash of the repository, 40 hex digits",
        fix="--set model.revision=<commit> (`pulse doctor`: --revision <commit>), or name an "
        "existing local folder",
    )


def model_digest(settings: ModelSettings) -> str:
    """Return a SHA-256 over the model folder's files, or over id and revision for a hub model.

    Adapters that belong to the model count as files of it.
    """
    with model_source(settings) as source:
        folder = Path(source)
        lines = (
            _lines(folder, "config.json") if folder.is_dir() else [f"{source}@{settings.revision}"]
        )
    for number, adapter in enumerate(settings.adapters):
        held = _lines(Path(adapter), "adapter_config.json")
        lines += [f"adapter {number} {line}" for line in held]
    return sha256("\n".join(lines).encode()).hexdigest()


def _lines(folder: Path, required: str) -> list[str]:
    """Return name and SHA-256 of each file; raises ModelError unless the required one is there."""
    paths = sorted(path for path in folder.glob("*") if path.is_file())
    if not any(path.name == required for path in paths):
        kind = "a model" if required == "config.json" else "an adapter"
        raise ModelError(
            Problem(f"not {kind} folder", str(folder), f"{len(paths)} files", f"has a {required}")
        )
    lines = []
    for path in paths:
        with path.open("rb") as file:
            lines.append(f"{path.name} {file_digest(file, 'sha256').hexdigest()}")
    return lines


def _pickles(folder: Path) -> list[Problem]:
    has_safetensors = any(folder.glob("*.safetensors"))
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLED)
    if not pickled or has_safetensors:
        return []
    return [
        Problem(
            "pickled weights are never read",
            str(folder),
            got=", ".join(pickled),
            allowed="*.safetensors",
            fix="convert them with transformers' save_pretrained on a machine that trusts them",
        )
    ]
