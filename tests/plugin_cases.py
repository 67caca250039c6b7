"""Plug-ins made on the fly: a module and the metadata of a distribution, in one folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

LOSS = '''
from pulse_unlearn.config import Settings
from pulse_unlearn.methods import Needs, Term


class {name}(Settings):
    """{name}."""

    @property
    def needs(self):
        return Needs()

    def terms(self, views):
        from pulse_unlearn.methods import losses
{body}
        return (Term("ascent", losses.gradient_ascent(views.forget)),)
'''
PROCEDURE = '''
from pulse_unlearn.config import Settings
from pulse_unlearn.methods import Needs
from pulse_unlearn.methods.ga import GradientAscent


class {name}(Settings):
    """{name}."""

    @property
    def needs(self):
        return Needs()

    def run(self, session):
        import torch
{body}
'''


def loss(name: str, body: str = "") -> str:
    """A loss method that is gradient ascent, after what `body` does with `views`."""
    return LOSS.format(name=name, body=_indented(body))


def procedure(name: str, body: str) -> str:
    """A procedure that does what `body` says with `session`; `GradientAscent` is there."""
    return PROCEDURE.format(name=name, body=_indented(body))


def _indented(body: str) -> str:
    return "\n".join(f"        {line}" for line in body.splitlines())


def install(
    folder: Path, package: str, source: str, entries: Mapping[str, Mapping[str, str]]
) -> Path:
    """Write module `package` and the metadata by which its entry points are found.

    `entries` are entry-point group (without `pulse_unlearn.`) -> name -> object of the module.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{package}.py").write_text(source, encoding="utf-8")
    info = folder / f"{package}-0.1.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1\n", encoding="utf-8"
    )
    lines = []
    for group, named in entries.items():
        lines.append(f"[pulse_unlearn.{group}]")
        lines += [f"{name} = {package}:{value}" for name, value in named.items()]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
