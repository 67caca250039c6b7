"""YAML from anywhere, with limits: the one place where it is read.

A few lines can stand for billions of values (aliases of aliases), for a value that holds itself, or
for more levels than any reader's stack has. All are seen in the stream of events, before anything
is built.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from pulse_unlearn.errors import ConfigError, Problem

MOST_CHARACTERS = 4_000_000
MOST_LEVELS = 50
MOST_VALUES = 200_000
"""With each alias counted as all that it stands for."""


def read_yaml(text: str, where: str) -> Any:
    """Return the value that a YAML text stands for.

    Raises ConfigError, with the line, for what is no YAML, and for more than the limits allow.
    """
    return parse_yaml(text, where)[0]


def parse_yaml(text: str, where: str) -> tuple[Any, yaml.Node | None]:
    """Return the value and the nodes it was made from, which know their lines; as `read_yaml`."""
    if len(text) > MOST_CHARACTERS:
        allowed = f"{MOST_CHARACTERS:,} characters"
        raise ConfigError(Problem("too long for YAML", where, f"{len(text):,}", allowed))
    try:
        _require_bounded(text, where)
        return yaml.safe_load(text), yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError(Problem("not valid YAML", where, fix=str(error))) from error
    except (ValueError, OverflowError) as error:  # a date that is none, a number too long to read
        raise ConfigError(Problem("not valid YAML", where, got=str(error))) from error


def _require_bounded(text: str, where: str) -> None:
    """Raise ConfigError unless depth and number of values are within the limits."""
    sizes: dict[str, int] = {}
    open_ones: list[tuple[str | None, int]] = []  # anchor, and the count when it began
    count = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        mark = event.start_mark
        line = f"{where}:{mark.line + 1}" if mark else where
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_ones):
                raise ConfigError(Problem("a value holds itself", line, f"*{event.anchor}"))
            count += sizes.get(event.anchor or "", 1)  # of an unknown one YAML itself will complain
        elif isinstance(event, yaml.CollectionStartEvent):
            open_ones.append((event.anchor, count))
            count += 1
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, began = open_ones.pop()
            if anchor:
                sizes[anchor] = count - began
        for problem in _exceeded(len(open_ones), count, line):
            raise ConfigError(problem)


def _exceeded(levels: int, values: int, line: str) -> Iterator[Problem]:
    if levels > MOST_LEVELS:
        yield Problem("nested too deeply", line, allowed=f"{MOST_LEVELS} levels")
    if values > MOST_VALUES:
        allowed = f"{MOST_VALUES:,}, each alias counted as all that it stands for"
        yield Problem("too many values", line, allowed=allowed)
