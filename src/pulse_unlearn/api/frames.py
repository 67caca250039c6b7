"""Rows as a frame of whichever library the reader uses: pandas, polars, or a pyarrow table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal, get_args

from pulse_unlearn.errors import ConfigError, Problem
from pulse_unlearn.registry import did_you_mean

Frame = Literal["pandas", "polars", "arrow"]
FRAMES: tuple[Frame, ...] = get_args(Frame)


def choose_frame(asked: str | None) -> Frame:
    """Return the kind of frame: as asked, or pandas, else polars, else arrow, by what is installed.

    Raises ConfigError for an unknown kind, and for one whose library is not there.
    """
    if asked is None:
        return next((name for name in FRAMES[:2] if find_spec(name)), "arrow")
    found = next((name for name in FRAMES if name == asked), None)
    if found is None:
        fix = did_you_mean(asked, FRAMES)
        raise ConfigError(Problem("unknown frame", "frame", repr(asked), ", ".join(FRAMES), fix))
    if found != "arrow" and find_spec(found) is None:
        fix = f"pip install {found}, or frame='arrow', which needs nothing more"
        raise ConfigError(Problem(f"{found} is not installed", "frame", repr(asked), fix=fix))
    return found


def make_frame(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[tuple[str, Any]], kind: Frame
) -> Any:
    """Return rows as a frame with these columns, (name, Arrow type); an absent value is null."""
    import pyarrow as pa

    schema = pa.schema(list(columns))
    held = list(rows)
    table = pa.table({name: [row.get(name) for row in held] for name in schema.names}, schema)
    if kind == "pandas":
        return table.to_pandas()
    return import_module("polars").from_arrow(table) if kind == "polars" else table
