"""YAML and `--set a.b=c` to a typed Experiment, with every mistake reported at once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from pulse_unlearn.config.base import EMBEDDED
from pulse_unlearn.config.explain import Place, Source, problems_from
from pulse_unlearn.config.scenarios import (
    AuditedModel,
    AuditScenario,
    Scenario,
    ScenarioSettings,
)
from pulse_unlearn.config.schema import Experiment, SourceSettings
from pulse_unlearn.config.tuned import take_tuned
from pulse_unlearn.config.yaml_text import read_yaml
from pulse_unlearn.errors import ConfigError, Problem
from pulse_unlearn.files import home_path, is_update, plain_file
from pulse_unlearn.registry import did_you_mean

AnySource = TypeVar("AnySource", bound=SourceSettings)
Entries = Mapping[str, type[BaseModel]]
"""Registered name -> model of the settings that this entry alone understands."""


@dataclass(frozen=True, slots=True)
class Schemas:
    """What is registered, for checking an experiment against it."""

    methods: Entries
    scenarios: Entries
    evaluations: Entries
    parsers: Collection[str]
    trackers: Collection[str] = ()
    failures: Mapping[str, Problem] = field(default_factory=dict)
    """`KIND NAME` of what a third party registers and cannot be loaded -> why."""


def shipped_experiments() -> dict[str, str]:
    """Return the names of the experiment files in the package and their YAML text."""
    folder = files("pulse_unlearn").joinpath("experiments")
    found = {
        entry.name.removesuffix(".yaml"): entry.read_text(encoding="utf-8")
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    }
    return dict(sorted(found.items()))


def load_experiment(
    name_or_path: str, *, overrides: Sequence[str] = (), schemas: Schemas
) -> Experiment:
    """Read a shipped experiment by name, or a YAML file by path; raises ConfigError."""
    text, where = _read(name_or_path)
    return parse_experiment(text, where=where, overrides=overrides, schemas=schemas)


def parse_experiment(
    text: str, *, where: str, overrides: Sequence[str] = (), schemas: Schemas
) -> Experiment:
    """Turn YAML text and overrides (`a.b=value`, value in YAML) into an Experiment.

    Paths come back in full, so that the record of a run can be read from any folder. Raises
    ConfigError with one Problem for each mistake, in the file and in the overrides.
    """
    source = Source.from_yaml(text, where)
    raw = copy.deepcopy(source.value)
    problems = list(source.problems)
    for override in overrides:
        problems += _apply(raw, override, source)
    problems += take_tuned(raw, schemas.methods, source)
    merged = _merge_method_defaults(raw)
    try:
        experiment = Experiment.model_validate(merged)
    except ValidationError as error:
        problems += problems_from(error, Experiment, source)
        experiment = None
    problems += _entry_problems(merged, schemas, source)
    if problems or experiment is None:
        raise ConfigError(problems)
    return _with_full_paths(_with_full_settings(experiment, schemas))


def dump_experiment(experiment: Experiment) -> str:
    """Return the resolved experiment as YAML that loads to an equal Experiment."""
    data = experiment.model_dump(mode="json")
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)


def _read(name_or_path: str) -> tuple[str, str]:
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        try:
            return plain_file(path).read_text(encoding="utf-8"), str(path)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                Problem("cannot read the experiment file", str(path), str(error))
            ) from error
    shipped = shipped_experiments()
    if name_or_path not in shipped:
        raise ConfigError(
            Problem(
                "unknown experiment",
                got=repr(name_or_path),
                allowed=f"{', '.join(shipped)}, or the path of a .yaml file",
                fix=did_you_mean(name_or_path, shipped),
            )
        )
    return shipped[name_or_path], f"{name_or_path}.yaml"


def _apply(raw: dict[str, Any], override: str, source: Source) -> list[Problem]:
    where = f"--set {override}"
    key, equals, text = override.partition("=")
    parts = tuple(key.strip().split("."))
    if not equals or not all(parts):
        return [Problem("cannot read the override", where, allowed="--set key.subkey=value")]
    try:
        value = read_yaml(text, where)
    except ConfigError as error:
        return list(error.problems)
    node: Any = raw
    for part in parts[:-1]:
        if node.get(part) is None:
            node[part] = {}
        node = node[part]
        if not isinstance(node, dict):
            return [Problem(f"'{part}' is a value and has no keys below it", where)]
    node[parts[-1]] = value
    source.places[parts] = where
    return []


def _merge_method_defaults(raw: dict[str, Any]) -> dict[str, Any]:
    """Put the experiment's `unlearn` defaults below each method entry's own values."""
    merged = copy.deepcopy(raw)
    evaluations = merged.get("evaluations")
    if isinstance(evaluations, dict):
        merged["evaluations"] = {name: value or {} for name, value in evaluations.items()}
    defaults, methods = merged.get("unlearn"), merged.get("methods")
    if not isinstance(methods, dict):
        return merged
    for label, entry in methods.items():
        if entry is None:
            entry = methods[label] = {}
        if not isinstance(entry, dict):
            continue
        entry.setdefault("method", label)
        own = entry.get("unlearn")
        if isinstance(defaults, dict) and (own is None or isinstance(own, dict)):
            entry["unlearn"] = _deep_merge(defaults, own or {})
    return merged


def _deep_merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        both = isinstance(under, Mapping) and isinstance(value, Mapping)
        merged[key] = _deep_merge(under, value) if both else value  # type: ignore[arg-type]
    return merged


def _entry_problems(raw: Mapping[str, Any], schemas: Schemas, source: Source) -> list[Problem]:
    """Return what is wrong with names and settings of registered entries."""
    problems: list[Problem] = []

    def check(kind: str, name: str, place: Place, allowed: Collection[str]) -> list[Problem]:
        """Return a problem if nothing is registered under this name, or cannot be loaded."""
        if name in allowed:
            return []
        where, failed = source.where(place), schemas.failures.get(f"{kind} {name}")
        if failed:
            return [replace(failed, where=f"{where}: {failed.where}")]
        listed, fix = ", ".join(sorted(allowed)), did_you_mean(name, allowed)
        return [Problem(f"unknown {kind}", where, repr(name), listed, fix)]

    for label, entry in _mapping(raw, "methods").items():
        if not isinstance(entry, dict):
            continue
        name = str(entry.get("method"))
        place = ("methods", label, "method") if label != name else ("methods", label)
        problems += check("method", name, place, schemas.methods) or _settings_problems(
            schemas.methods[name], entry.get("settings"), ("methods", label, "settings"), source
        )
        for number, scenario in enumerate(_list(entry.get("scenarios"))):
            here = ("methods", label, "scenarios", number)
            problems += check("scenario", str(scenario), here, schemas.scenarios)
    own = ScenarioSettings.model_fields
    for kind, room, entries in (
        ("scenario", "scenarios", schemas.scenarios),
        ("evaluation", "evaluations", schemas.evaluations),
    ):
        for name, settings in _mapping(raw, room).items():
            if room == "scenarios" and name in own:
                continue
            problems += check(kind, name, (room, name), entries) or _settings_problems(
                entries[name], settings, (room, name), source
            )
    parser = _mapping(raw, "scoring").get("parser")
    if isinstance(parser, str):
        problems += check("parser", parser, ("scoring", "parser"), schemas.parsers)
    for number, tracker in enumerate(_list(raw.get("trackers"))):
        problems += check("tracker", str(tracker), ("trackers", number), schemas.trackers)
    return problems


def _mapping(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = raw.get(key)
    return found if isinstance(found, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _settings_problems(
    schema: type[BaseModel], settings: object, place: Place, source: Source
) -> list[Problem]:
    try:
        schema.model_validate(settings or {})
    except ValidationError as error:
        return problems_from(error, schema, source, prefix=place)
    return []


def _with_full_settings(experiment: Experiment, schemas: Schemas) -> Experiment:
    """Write out the defaults of every entry's own settings, so that the record shows them."""

    def full(schema: type[BaseModel], settings: Mapping[str, Any] | None) -> dict[str, Any]:
        return schema.model_validate(settings or {}).model_dump(mode="json")

    methods = {
        label: entry.model_copy(
            update={"settings": full(schemas.methods[entry.method], entry.settings)}
        )
        for label, entry in experiment.methods.items()
    }
    evaluations = {
        name: full(schemas.evaluations[name], settings)
        for name, settings in experiment.evaluations.items()
    }
    return experiment.model_copy(update={"methods": methods, "evaluations": evaluations})


def _with_full_paths(experiment: Experiment) -> Experiment:
    """Write paths relative to the current folder out in full; a hub id stays as it is."""

    def full(source: AnySource) -> AnySource:
        if source.revision is not None:
            return source
        path = source.path and str(home_path(source.path).absolute())
        return source.model_copy(update={"path": path})

    data = experiment.data.model_copy(
        update={"people": full(experiment.data.people), "general": full(experiment.data.general)}
    )

    def folder(name: str) -> str:
        path = home_path(name)
        return str(path.absolute()) if name not in ("", EMBEDDED) and path.is_dir() else name

    scenarios = experiment.scenarios
    if scenarios.requests is not None:
        file = str(home_path(scenarios.requests.file).absolute())
        named = scenarios.requests.model_copy(update={"file": file})
        scenarios = scenarios.model_copy(update={"requests": named})
    for name in scenarios.chosen():
        own = getattr(scenarios, name)
        if isinstance(own, Scenario) and own.retain_model:
            own = own.model_copy(update={"retain_model": _full_model(own.retain_model, folder)})
        if isinstance(own, AuditScenario):
            models = {label: _full_model(one, folder) for label, one in own.models.items()}
            own = own.model_copy(update={"models": models})
        scenarios = scenarios.model_copy(update={name: own})
    model = experiment.model
    model = model.model_copy(
        update={
            "source": folder(model.source),
            "adapters": tuple(map(folder, model.adapters)),
            "trust_remote_code": tuple(map(folder, model.trust_remote_code)),
        }
    )
    return experiment.model_copy(update={"data": data, "model": model, "scenarios": scenarios})


def _full_model(one: AuditedModel, folder: Callable[[str], str]) -> AuditedModel:
    """Write a model's paths out in full; the folder of an adapter is no folder of weights."""
    source, adapters = folder(one.source), tuple(map(folder, one.adapters))
    if source and is_update(Path(source)):
        source, adapters = "", (source, *adapters)
    return one.model_copy(update={"source": source, "adapters": adapters})
