"""Where a value stands in the YAML text, and pydantic's complaints in our words."""

from __future__ import annotations

import types
import typing
from dataclasses import dataclass, field
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from pulse_unlearn.config.yaml_text import parse_yaml
from pulse_unlearn.errors import ConfigError, Problem
from pulse_unlearn.registry import did_you_mean

Place = tuple[str | int, ...]


@dataclass
class Source:
    """Parsed YAML with the line of every key, so that errors can point at it."""

    name: str
    value: dict[str, Any]
    places: dict[Place, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @classmethod
    def from_yaml(cls, text: str, name: str) -> Source:
        """Parse YAML text; raises ConfigError if it is not a YAML mapping."""
        value, node = parse_yaml(text, name)
        if not isinstance(value, dict):
            raise ConfigError(
                Problem("not an experiment", name, type(value).__name__, "a mapping of settings")
            )
        source = cls(name, value)
        source._walk(node, ())
        return source

    def where(self, place: Place) -> str:
        """Return `file:line key.path`, falling back to the nearest key that stands in the file."""
        key = ".".join(map(str, place))
        for length in range(len(place), 0, -1):
            found = self.places.get(place[:length])
            if found:
                return found if found.startswith("--set") else f"{found} {key}"
        return f"{self.name} {key}".rstrip()

    def _walk(self, node: yaml.Node | None, place: Place) -> None:
        if isinstance(node, yaml.MappingNode):
            for key_node, value_node in node.value:
                here = (*place, str(key_node.value))
                line = f"{self.name}:{key_node.start_mark.line + 1}"
                if here in self.places:
                    self.problems.append(
                        Problem("the key stands twice", f"{line} {'.'.join(map(str, here))}")
                    )
                self.places[here] = line
                self._walk(value_node, here)
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.places[(*place, index)] = f"{self.name}:{item.start_mark.line + 1}"
                self._walk(item, (*place, index))


def problems_from(
    error: ValidationError, schema: type[BaseModel], source: Source, *, prefix: Place = ()
) -> list[Problem]:
    """Turn each pydantic complaint into a Problem with place, allowed values and a suggestion."""
    return [
        _problem(detail, schema, source, prefix)
        for detail in error.errors()
        if not _inherited(tuple(detail["loc"]), source)
    ]


def _inherited(place: Place, source: Source) -> bool:
    """Tell a mistake in the shared `unlearn` defaults, told once already, from a method's own."""
    if len(place) < 4 or place[0] != "methods" or place[2] != "unlearn":
        return False
    return place not in source.places and place[2:] in source.places


def _problem(detail: Any, schema: type[BaseModel], source: Source, prefix: Place) -> Problem:
    place: Place = tuple(detail["loc"])
    where = source.where((*prefix, *place))
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        fields = _fields_at(schema, place[:-1])
        return Problem(
            "unknown setting",
            where,
            got=repr(str(place[-1])),
            allowed=", ".join(sorted(fields)),
            fix=did_you_mean(str(place[-1]), fields),
        )
    if kind == "missing":
        return Problem("a setting is missing", where)
    if kind == "literal_error":
        allowed = str(context["expected"]).replace(" or ", ", ").replace("'", "")
        got = str(detail["input"])
        return Problem(
            "value not allowed", where, repr(got), allowed, did_you_mean(got, allowed.split(", "))
        )
    if place[-1:] == ("[key]",):
        allowed = "a letter, digit or _ first, then also spaces and . , ( ) + % -, at most 80"
        return Problem(
            "name not allowed", source.where((*prefix, *place[:-1])), repr(place[-2]), allowed
        )
    if kind == "value_error":
        return Problem(str(context["error"]), where)
    return Problem("value not allowed", where, repr(detail["input"]), detail["msg"])


def _fields_at(schema: type[BaseModel], place: Place) -> list[str]:
    """Return the field names of the settings model found by following `place` from `schema`."""
    current: Any = schema
    for part in place:
        if isinstance(current, type) and issubclass(current, BaseModel):
            info = current.model_fields.get(str(part))
            current = info.annotation if info else None
        elif typing.get_origin(current) is dict:
            current = typing.get_args(current)[1]
        current = _model_in(current)
    if isinstance(current, type) and issubclass(current, BaseModel):
        return list(current.model_fields)
    return []


def _model_in(annotation: Any) -> Any:
    """Unwrap Annotated and Optional down to the model or dict inside."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _model_in(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        inner = [arg for arg in typing.get_args(annotation) if arg is not types.NoneType]
        return _model_in(inner[0]) if len(inner) == 1 else annotation
    return annotation
