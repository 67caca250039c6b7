"""Which versions each stage was computed with, and what may be put together in one run.

Every stage's manifest notes the versions and the code it was made with; nothing later changes that.
Other versions can give other last bits, so that a run begun with some is continued with others only
on request, and then says which stage is under which.
"""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pulse_unlearn import __version__
from pulse_unlearn.errors import Problem, StoreError
from pulse_unlearn.store import CHECKPOINTS, file_errors, read_manifest, write_json
from pulse_unlearn.store.products import code_digest

PACKAGES = ("torch", "transformers", "peft", "accelerate", "safetensors", "numpy", "pyarrow")
MADE_WITH = "made_with"
"""Note of a manifest; as a file beside checkpoints, what the unfinished stage was begun with."""

Environment = Mapping[str, Any]


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


def made_with() -> dict[str, Any]:
    """Return the environment and a digest of the package's code."""
    return {**environment(), "code": code_digest()}


def begin(partial: Path) -> None:
    """Note beside a stage's checkpoints what it is computed with, unless it has been begun."""
    folder = partial / CHECKPOINTS
    if (folder / f"{MADE_WITH}.json").is_file():
        return
    with file_errors(folder, "make the folder"):
        folder.mkdir(exist_ok=True)
    write_json(folder / f"{MADE_WITH}.json", made_with())


def begun_with(partial: Path) -> Environment | None:
    """Return what an unfinished stage was begun with; None if it has not been."""
    path = partial / CHECKPOINTS / f"{MADE_WITH}.json"
    if not path.is_file():
        return None
    with file_errors(path, "read"):
        found: Environment = json.loads(path.read_text(encoding="utf-8"))
    return found


def notes_of(partial: Path) -> dict[str, Any]:
    """Return what a stage's manifest says of how it was made: both versions where they changed."""
    now, begun = made_with(), begun_with(partial)
    changed = begun is not None and _versions(begun) != _versions(now)
    return {MADE_WITH: now} | ({"begun_with": begun} if changed else {})


def noted(folders: Iterable[Path]) -> dict[Path, Environment]:
    """Return what finished stages were made with; those of early versions do not say."""
    found: dict[Path, Environment] = {}
    for folder in folders:
        note = read_manifest(folder).notes.get(MADE_WITH)
        if isinstance(note, dict):
            found[folder] = note
    return found


def require_same(found: Mapping[Path, Environment]) -> None:
    """Raise StoreError where stages were made with other versions than are installed."""
    now = _versions(environment())
    others: Counter[str] = Counter()
    for made in found.values():
        then = _versions(made)
        differing = [f"{name} {then.get(name)}" for name in now if then.get(name) != now[name]]
        if differing:
            others[", ".join(differing)] += 1
    problems = [
        Problem(
            "stages of this run were computed with other versions, which may round otherwise",
            got=f"{versions} ({count} stages)",
            allowed=", ".join(f"{n.split()[0]} {now[n.split()[0]]}" for n in versions.split(", ")),
            fix="install those versions, take another --runs folder, or mix them with "
            "--accept-env-change: the run then says which stage is under which",
        )
        for versions, count in sorted(others.items())
    ]
    if problems:
        raise StoreError(problems)


def other_code(found: Mapping[Path, Environment]) -> int:
    """Return how many of the stages were made by other code of this package."""
    now = code_digest()
    return sum("code" in made and made["code"] != now for made in found.values())


def environment_record(found: Mapping[Path, Environment]) -> dict[str, Any]:
    """Return `environment.json`: what most stages were made with, and which were with another."""
    plain = {
        folder.name: json.dumps({k: v for k, v in made.items() if k != "code"}, sort_keys=True)
        for folder, made in found.items()
    }
    if not plain:
        return environment()
    (most, _), *rest = Counter(plain.values()).most_common()
    record: dict[str, Any] = json.loads(most)
    if rest:
        record["other_stages"] = {
            name: json.loads(made) for name, made in sorted(plain.items()) if made != most
        }
    return record


def _versions(made: Environment) -> dict[str, Any]:
    """Return what can change a number: versions by package, python and pulse among them."""
    packages = made.get("packages")
    own = {name: made.get(name) for name in ("pulse", "python", "platform")}
    return {**own, **(packages if isinstance(packages, dict) else {})}
