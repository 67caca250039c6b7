"""`pulse audit`: models that somebody else unlearned, in every reading; nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pulse_unlearn.cli.experiments import (
    ALLOWS_OTHER_BASE,
    ON,
    OTHER_BASE,
    RUNS,
    SET,
    carry_out,
)
from pulse_unlearn.errors import ConfigError, Problem
from pulse_unlearn.files import home_path, is_update

if TYPE_CHECKING:
    from pulse_unlearn.report.extras import Comparison

_MODEL = "[LABEL=]MODEL"


@click.command()
@click.option(
    "--base",
    required=True,
    metavar="MODEL",
    help="The model before: a folder, or owner/name@commit on the hub.",
)
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    metavar="FOLDER",
    help="An adapter that belongs to the model before, such as one that taught it; repeatable.",
)
@click.option(
    "--unlearned",
    multiple=True,
    required=True,
    metavar=_MODEL,
    help="A model after: a folder, owner/name@commit, or the adapters that make it of --base's own "
    "weights, all of them in order, with commas; repeatable, one row for each.",
)
@click.option("--retain-model", metavar="MODEL", help="One that never learned D_unlearn, likewise.")
@click.option("--people", required=True, metavar="FOLDER", help="Who is asked about; or `world`.")
@click.option("--source", help="What --people is, if not recognised: people, mllmu, umu, ...")
@click.option("--general", metavar="TSV", help="General questions in MMBench's format; or `world`.")
@click.option(
    "--forget",
    metavar="WHO",
    help="D_unlearn: ids with commas, a file with one on each line, or a file of requests. "
    "Without it, all people.",
)
@click.option("--retain", metavar="WHO", help="D_retain, likewise. Without it, all others.")
@click.option("--prompt", help="Prompt profile of people; mllmu, for the embedded model short.")
@click.option("--general-prompt", help="Likewise; mmbench_llava, for the embedded model short.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), default="float32")
@click.option(
    "--attack",
    "attacks",
    multiple=True,
    metavar="NAME",
    help="An evaluation that tries to bring it back, such as relearning; repeatable.",
)
@click.option("--name", default="audit", show_default=True, help="Of the run folder.")
@OTHER_BASE
@SET
@RUNS
@ON
@click.option("--repair", is_flag=True, help="Set damaged stages aside and compute them anew.")
def audit(
    base: str,
    adapters: tuple[str, ...],
    unlearned: tuple[str, ...],
    retain_model: str | None,
    people: str,
    source: str | None,
    general: str | None,
    forget: str | None,
    retain: str | None,
    prompt: str | None,
    general_prompt: str | None,
    dtype: str,
    attacks: tuple[str, ...],
    name: str,
    allow_base_mismatch: bool,
    overrides: tuple[str, ...],
    runs: Path,
    where: str,
    repair: bool,
) -> None:
    """Score models that somebody else unlearned, beside the model they were made from.

    Every reading, paired, with intervals and a verdict for each; several models give a ranking.
    The run folder is like any other: `pulse report`, `verify` and `run RUN/experiment.yaml`.
    """
    import yaml

    from pulse_unlearn.config import EMBEDDED

    embedded = base == EMBEDDED
    experiment = {
        "name": name,
        "description": "models that somebody else unlearned",
        "model": {**_weights(base), "adapters": list(adapters), "dtype": dtype},
        "data": {
            "people": _people(people, source),
            "general": _general(general),
            "people_prompt": prompt or ("short" if embedded else "mllmu"),
            "general_prompt": general_prompt or ("short" if embedded else "mmbench_llava"),
        },
        "scenarios": {
            "audit": {
                "models": _labelled(unlearned),
                "forget": _who(forget, "--forget"),
                "retain": _who(retain, "--retain"),
                "retain_model": _model(retain_model) if retain_model else None,
            }
        },
        "evaluations": {
            **({"retain_model": {}} if retain_model else {}),
            **{attack: {} for attack in attacks},
        },
    }
    from pulse_unlearn import registries
    from pulse_unlearn.config import parse_experiment

    overrides += (ALLOWS_OTHER_BASE,) if allow_base_mismatch else ()
    text = yaml.safe_dump(experiment, sort_keys=False, allow_unicode=True)
    loaded = parse_experiment(
        text, where="pulse audit", overrides=overrides, schemas=registries.schemas()
    )
    carry_out(lambda: loaded, runs, where=where, repair=repair, again="the same command")
    for line in _ranking(runs / name):
        click.echo(line)


def _ranking(run: Path) -> list[str]:
    """Say which model knows least of D_unlearn, and by how much each differs from the one above."""
    from pulse_unlearn.report.load import load_run

    record = load_run(run)
    known = {
        one.cell.method: one.measurement
        for one in record.results
        if (one.cell.request, one.cell.condition) == (1, "plain")
        and one.measurement.set == "forget"
        and (one.measurement.modality, one.measurement.measure) == ("all", "latent_accuracy")
    }
    if len(known) < 2:
        return []
    gaps: dict[frozenset[str], Comparison] = {
        frozenset(one.contrast.label.split(" - ")): one
        for one in record.extras.comparisons
        if (one.set, one.measure) == ("forget", "rotated_accuracy")
    }
    lines = ["", "known of D_unlearn, least first: by the reading that finds most; then the paired"]
    lines.append("difference from the model above, asked in every order of the options")
    above, width = "", max(map(len, known)) + 2
    order = sorted(known, key=lambda label: (known[label].value or 0.0, label))
    for place, label in enumerate(order, start=1):
        told = _percent(known[label].value, known[label].low, known[label].high)
        gap = gaps.get(frozenset((above, label)))
        lines.append(f"{place:3d}. {label:{width}}{told:16}{_difference(gap, label)}".rstrip())
        above = label
    return lines


def _difference(gap: Comparison | None, label: str) -> str:
    """Write how much more a model knows than another, in percentage points."""
    if gap is None or not gap.contrast.by_seed:
        return ""
    one = gap.contrast.by_seed[0]
    sign = 1 if gap.contrast.label.startswith(f"{label} - ") else -1
    ends = (one.low, one.high) if sign > 0 else (_minus(one.high), _minus(one.low))
    chance = "" if one.p_value is None else f"  p {one.p_value:.2g}"
    return _percent(sign * one.value, *ends, sign="+") + chance


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def _percent(value: float | None, low: float | None, high: float | None, *, sign: str = "") -> str:
    told = "n/a" if value is None else f"{100 * value:{sign}.0f}"
    if low is None or high is None:
        return told
    return f"{told} [{100 * low:{sign}.0f},{100 * high:{sign}.0f}]"


def _weights(named: str) -> dict[str, str]:
    """Read a folder, or `owner/name@commit`."""
    if home_path(named).is_dir():
        return {"source": named}
    name, _, commit = named.partition("@")
    return {"source": name, "revision": commit} if commit else {"source": name}


def _model(named: str) -> dict[str, Any]:
    """Read a model, or the adapters that make one of the base's weights."""
    first, *rest = named.split(",")
    if is_update(home_path(first)):
        return {"adapters": [first, *rest]}
    return {**_weights(first), "adapters": rest}


def _labelled(unlearned: Sequence[str]) -> dict[str, Any]:
    """Return models by label: what was given, or the name of the last folder.

    Raises ConfigError if two have the same.
    """
    found: dict[str, Any] = {}
    problems = []
    for text in unlearned:
        label, equals, named = text.partition("=")
        if not equals:
            label, named = Path(text.rpartition(",")[2].partition("@")[0]).name, text
        if label in found:
            what = "two models have one label"
            fix = "--unlearned LABEL=MODEL gives each its own"
            problems.append(Problem(what, "--unlearned", label, fix=fix))
        found[label] = _model(named)
    if problems:
        raise ConfigError(problems)
    return found


def _people(named: str, source: str | None) -> dict[str, Any]:
    from pulse_unlearn.config import EMBEDDED
    from pulse_unlearn.data.review import recognise

    if named == EMBEDDED and source is None:
        return {"source": EMBEDDED}
    return {"source": source or recognise(home_path(named)), "path": named}


def _general(named: str | None) -> dict[str, Any]:
    from pulse_unlearn.config import EMBEDDED

    if named is None:
        return {"source": "none"}
    return {"source": EMBEDDED} if named == EMBEDDED else {"source": "mmbench", "path": named}


def _who(named: str | None, option: str) -> list[str] | None:
    """Read ids from the command line, from a file of ids, or from a file of requests."""
    if named is None:
        return None
    path = home_path(named)
    if not path.is_file():
        return [part.strip() for part in named.split(",") if part.strip()]
    from pulse_unlearn.data.requests import people_in

    return list(people_in(path, retained=option == "--retain"))
