"""`pulse list`: what can be named in an experiment file."""

from __future__ import annotations

from collections.abc import Callable

import click

from pulse_unlearn.cli.wrapped import wrapped


def _methods() -> list[tuple[str, str]]:
    from pulse_unlearn.methods import METHODS

    return [(name, entry.__doc__ or "") for name, entry in METHODS]


def _scenarios() -> list[tuple[str, str]]:
    from pulse_unlearn.scenarios import SCENARIOS

    return [(name, entry.description) for name, entry in SCENARIOS]


def _evaluations() -> list[tuple[str, str]]:
    from pulse_unlearn.scenarios import EVALUATIONS

    return [(name, entry.__doc__ or "") for name, entry in EVALUATIONS]


def _datasets() -> list[tuple[str, str]]:
    from pulse_unlearn.data.datasets import DATASETS

    return [(name, entry.description) for name, entry in DATASETS]


def _families() -> list[tuple[str, str]]:
    from pulse_unlearn.models.families import FAMILIES

    return [(name, f"model_type {entry.model_type}") for name, entry in FAMILIES]


def _metrics() -> list[tuple[str, str]]:
    from pulse_unlearn.evaluation.measures import MEASURES

    return [(name, entry.__doc__ or "") for name, entry in MEASURES]


def _prompts() -> list[tuple[str, str]]:
    from pulse_unlearn.data.prompts import PROFILES

    return [(name, entry.description) for name, entry in PROFILES]


def _parsers() -> list[tuple[str, str]]:
    from pulse_unlearn.evaluation.scoring import parser_descriptions

    return list(parser_descriptions().items())


def _trackers() -> list[tuple[str, str]]:
    from pulse_unlearn.trackers import TRACKERS

    return [(name, entry.__doc__ or "") for name, entry in TRACKERS]


def _experiments() -> list[tuple[str, str]]:
    from pulse_unlearn.config import read_yaml, shipped_experiments

    shipped = shipped_experiments()
    return [(name, read_yaml(text, name).get("description", "")) for name, text in shipped.items()]


LISTINGS: dict[str, Callable[[], list[tuple[str, str]]]] = {
    "experiments": _experiments,
    "scenarios": _scenarios,
    "methods": _methods,
    "evaluations": _evaluations,
    "datasets": _datasets,
    "families": _families,
    "prompts": _prompts,
    "parsers": _parsers,
    "metrics": _metrics,
    "trackers": _trackers,
}
"""What can be listed, in the order of an experiment file."""


@click.command("list")
@click.argument("what", required=False, type=click.Choice(list(LISTINGS)))
def list_entries(what: str | None) -> None:
    """List the experiments there are and what can be named in one; WHAT lists one kind alone."""
    for number, kind in enumerate([what] if what else LISTINGS):
        rows = LISTINGS[kind]()
        if not what:
            click.echo(("\n" if number else "") + click.style(kind, bold=True))
        margin = "" if what else "  "
        width = max(len(name) for name, _ in rows)
        for name, text in rows:
            first = f"{margin}{name:{width}s}  "
            click.echo(wrapped(text.split("\n\n")[0], first=first).rstrip())
        _warn(kind)


def _warn(kind: str) -> None:
    """Say on standard error which third parties' entries of a kind cannot be used."""
    from pulse_unlearn import registries

    group = {"metrics": "measures"}.get(kind, kind)
    if group in registries.GROUPS:
        for problem in registries.registry(group).failures().values():
            click.echo(f"warning: {problem}", err=True)
