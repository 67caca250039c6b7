"""The embedded world's files, each held to the hash that its recipe wrote before anything reads it.

`assets/world/manifest.json` is the one list; `python -m recipes.world` writes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import file_digest
from importlib.resources import as_file, files
from pathlib import Path

from pulse_unlearn.errors import Problem, PulseError
from pulse_unlearn.files import home_path

_MANIFEST = "manifest.json"
_REINSTALL = "install pulse-unlearn again, with pip's --force-reinstall --no-deps"
_REBUILD = "build that world again: python -m recipes.world"


@contextmanager
def world(part: str, error: type[PulseError], *, path: str | None = None) -> Iterator[Path]:
    """Yield the world's folder once a part (`model/`, one file) is seen to be as it was written.

    `path` names the folder of a rebuilt world instead. Raises `error` with every file that was
    changed, is missing, or lies beside those the manifest lists.
    """
    if path:
        root = home_path(path)
        _check(root, part, error, _REBUILD)
        yield root
        return
    with as_file(files("pulse_unlearn").joinpath("assets/world")) as root:
        _check(root, part, error, _REINSTALL)
        yield root


def _check(root: Path, part: str, error: type[PulseError], fix: str) -> None:
    manifest = root / _MANIFEST
    try:
        listed: dict[str, str] = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        wanted = {name: known for name, known in listed.items() if name.startswith(part)}
        found = {name: _sha256(root / name) for name in wanted}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as damage:
        what = "the embedded world is not complete"
        raise error(Problem(what, str(manifest), repr(damage), fix=fix)) from damage
    problems = [
        Problem("the embedded file was changed", str(root / name), found[name], known, fix)
        for name, known in wanted.items()
        if found[name] != known
    ]
    # A reader takes all that lies in its folder: a further shard, another chat template.
    problems += [
        Problem("this file does not belong to the embedded world", str(root / name), fix=fix)
        for name in _names(root, part)
        if name not in wanted
    ]
    if not wanted:
        problems.append(Problem("the manifest does not list this part", str(manifest), part))
    if problems:
        raise error(problems)


def _names(root: Path, part: str) -> list[str]:
    """Return what lies in a part's folder; none for a part that is one file."""
    inside = sorted((root / part).rglob("*")) if part.endswith("/") else []
    paths = [path for path in inside if path.is_file() and not path.name.startswith(".")]
    return [path.relative_to(root).as_posix() for path in paths]


def _sha256(path: Path) -> str:
    state = path.stat()
    return _read(path, state.st_size, state.st_mtime_ns, state.st_ino)


@cache
def _read(path: Path, *state: int) -> str:
    """Return a file's SHA-256; read once by a process, unless its size or times change."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
