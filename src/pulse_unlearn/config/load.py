"""YAML and `--set a.b=c` to a typed Experiment, with every mistake reported at once."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from pulse_unlearn.config.explain import Source, problems_from
from pulse_unlearn.config.schema import EMBEDDED, Experiment, SourceSettings
from pulse_unlearn.errors import ConfigError, Problem
from pulse_unlearn.registry import did_you_mean

AnySource = TypeVar("AnySource", bound=SourceSettings)
Schemas = Mapping[str, type[BaseModel]]
"""Method name -> model of the settings that method alone understands."""


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
    merged = _merge_method_defaults(raw)
    try:
        experiment = Experiment.model_validate(merged)
    except ValidationError as error:
        problems += problems_from(error, Experiment, source)
        experiment = None
    problems += _method_problems(merged, schemas, source)
    if problems or experiment is None:
        raise ConfigError(problems)
    return _with_full_paths(_with_full_method_settings(experiment, schemas))


def dump_experiment(experiment: Experiment) -> str:
    """Return the resolved experiment as YAML that loads to an equal Experiment."""
    data = experiment.model_dump(mode="json")
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)


def _read(name_or_path: str) -> tuple[str, str]:
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        try:
            return path.read_text(encoding="utf-8"), str(path)
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
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        return [Problem("the value is not YAML", where, got=text, fix=str(error))]
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


def _method_problems(raw: Mapping[str, Any], schemas: Schemas, source: Source) -> list[Problem]:
    methods = raw.get("methods")
    if not isinstance(methods, dict):
        return []
    problems: list[Problem] = []
    for label, entry in methods.items():
        if not isinstance(entry, dict):
            continue
        name = str(entry.get("method"))
        if name not in schemas:
            place = ("methods", label, "method") if label != name else ("methods", label)
            problems.append(
                Problem(
                    "unknown method",
                    source.where(place),
                    got=repr(name),
                    allowed=", ".join(sorted(schemas)),
                    fix=did_you_mean(name, schemas),
                )
            )
            continue
        settings = entry.get("settings") or {}
        try:
            schemas[name].model_validate(settings)
        except ValidationError as error:
            prefix = ("methods", label, "settings")
            problems += problems_from(error, schemas[name], source, prefix=prefix)
    return problems


def _with_full_method_settings(experiment: Experiment, schemas: Schemas) -> Experiment:
    """Write out the defaults of every method's own settings, so that the record shows them."""
    methods = {
        label: entry.model_copy(
            update={"settings": schemas[entry.method](**entry.settings).model_dump(mode="json")}
        )
        for label, entry in experiment.methods.items()
    }
    return experiment.model_copy(update={"methods": methods})


def _with_full_paths(experiment: Experiment) -> Experiment:
    """Write paths relative to the current folder out in full; a hub id stays as it is."""

    def full(source: AnySource) -> AnySource:
        if source.revision is not None:
            return source
        path = source.path and str(Path(source.path).expanduser().absolute())
        return source.model_copy(update={"path": path})

    data = experiment.data.model_copy(
        update={"people": full(experiment.data.people), "general": full(experiment.data.general)}
    )

    def folder(name: str) -> str:
        path = Path(name).expanduser()
        return str(path.absolute()) if name != EMBEDDED and path.is_dir() else name

    model = experiment.model
    model = model.model_copy(
        update={
            "source": folder(model.source),
            "adapters": tuple(map(folder, model.adapters)),
            "trust_remote_code": tuple(map(folder, model.trust_remote_code)),
        }
    )
    return experiment.model_copy(update={"data": data, "model": model})
