"""`python -m recipes.lock`: write `constraints-tested.txt` from this environment; `make lock`.

It pins what pulse-unlearn and its `dev` extra need here, what those need, and so on: the versions
that the tests are run with. Not what else lies in the environment, and no hashes: torch alone has
other files for each platform and index, and `pip --require-hashes` refuses any it is not told of.
"""

from __future__ import annotations

import platform
import re
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = "pulse-unlearn"
EXTRAS = ("dev",)
LOCK = Path(__file__).parents[1] / "constraints-tested.txt"
_HEAD = """\
# The versions that the tests are run with: Python {python}, {system} {machine}, CPU.
# Written by `make lock`; not needed to install. The same environment:
#   pip install -c constraints-tested.txt -e '.[dev]'
# Known vulnerabilities of these versions, asked of PyPI:
#   pip-audit --strict --no-deps -r constraints-tested.txt
"""


def versions_here() -> dict[str, str]:
    """Return name -> version of all that the project needs here; raises PackageNotFoundError."""
    versions: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    wanted = [(PROJECT, frozenset(EXTRAS))]
    while wanted:
        name, extras = wanted.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        found = distribution(name)
        if name != PROJECT:
            # The public part: `+cpu` names a build that PyPI does not have.
            versions[name] = Version(found.version).public
        for requirement in map(Requirement, found.requires or ()):
            if _applies(requirement, extras):
                named = canonicalize_name(requirement.name), frozenset(requirement.extras)
                wanted.append(named)
    return dict(sorted(versions.items()))


def lock() -> str:
    """Return the text of the lock."""
    python = re.sub(r"\.\d+$", "", platform.python_version())
    head = _HEAD.format(python=python, system=platform.system(), machine=platform.machine())
    return head + "".join(f"{name}=={version}\n" for name, version in versions_here().items())


def _applies(requirement: Requirement, extras: frozenset[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in (*extras, ""))


if __name__ == "__main__":
    LOCK.write_text(lock(), encoding="utf-8")
