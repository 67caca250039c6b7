"""The kinds of input that are fuzzed: how one is made, and the commands it is given to."""

from __future__ import annotations

import base64
import csv
import io
import json
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import fuzz_inputs as make
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from fuzz_guard import PROCESSOR_SECONDS, Guard, Outcome
from hypothesis import strategies as st

Runs = Iterator[Outcome]
FULL_SIZE_SECONDS = 60.0
"""Of a plan of a shipped experiment as it is: some take ten seconds, all of them work."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where inputs lie, and the valid ones they are made from."""

    world: Path
    """A tiny experiment and its finished run (`pipeline_cases.make_experiment`)."""
    inside: Path
    """The working directory: the only folder that may be written to."""
    outside: Path
    """What links lead to; it must stay as it is."""

    def fresh(self, name: str) -> Path:
        """Return an empty folder."""
        folder = self.inside / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder


# --- experiment files


class Experiments:
    """Shipped experiments and the tiny one, changed as trees and as text, given to `plan`."""

    def __init__(self, place: Place, guard: Guard) -> None:
        from pulse_unlearn.config import shipped_experiments

        self.place, self.guard = place, guard
        tiny = yaml.safe_load((place.world / "tiny.yaml").read_text(encoding="utf-8"))
        shipped = [yaml.safe_load(text) for text in shipped_experiments().values()]
        self.bases = [tiny, *shipped]
        places = [
            f"{key}.{at}" for key, held in tiny.items() if isinstance(held, dict) for at in held
        ]
        settings = st.builds("{}={}".format, st.sampled_from(sorted(places)), make.texts)
        self.inputs = st.fixed_dictionaries(
            {
                # The tiny one more often: what passes is planned on seven people.
                "base": st.one_of(st.just(0), st.integers(0, len(shipped))),
                "tree": st.one_of(make.tree_changes, make.tree_changes, st.just([])),
                "text": st.one_of(st.just([]), st.just([]), make.byte_changes),
                "set": st.one_of(st.just([]), st.lists(settings, max_size=2)),
                "brief": st.booleans(),
            }
        )

    def run(self, drawn: dict[str, Any]) -> Runs:
        """Plan the changed experiment."""
        data = as_yaml(make.change_tree(self.bases[drawn["base"]], drawn["tree"], cycles=True))
        path = self.place.inside / "experiment.yaml"
        path.write_bytes(make.change_bytes(data, drawn["text"]))
        more = [part for one in drawn["set"] if "\x00" not in one for part in ("--set", one)]
        more += ["--brief"] if drawn["brief"] else []
        limit = FULL_SIZE_SECONDS if drawn["base"] else PROCESSOR_SECONDS
        where = self.place.inside / "runs"
        yield self.guard.pulse("plan", path, "--runs", where, *more, limit=limit)


def as_yaml(tree: Any) -> bytes:
    """Return YAML of any tree, with aliases where a value stands twice or holds itself."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)  # to write what the program must refuse to read
    try:
        text = yaml.safe_dump(tree, allow_unicode=True, sort_keys=False)
    finally:
        sys.setrecursionlimit(limit)
    return text.encode("utf-8", "surrogatepass")


def as_json(tree: Any) -> str:
    """Return JSON of any tree, what JSON cannot hold as text."""
    try:
        return json.dumps(tree, default=str)
    except (ValueError, TypeError):  # a number too long, a key that is none
        return json.dumps(repr(type(tree)))


# --- people


class People:
    """The starter's folder with changed rows and pictures, as each kind of table."""

    def __init__(self, place: Place, guard: Guard) -> None:
        from pulse_unlearn.data.starter import write_starter

        self.place, self.guard = place, guard
        self.base = place.fresh("starter")
        write_starter(self.base)
        lines = (self.base / "people.jsonl").read_text(encoding="utf-8").splitlines()
        self.rows = [json.loads(line) for line in lines[:5]]
        self.pictures = sorted(
            path.name for path in (self.base / "images").iterdir() if path.name < "p06"
        )
        picture = st.tuples(st.sampled_from(self.pictures), st.one_of(make.pictures, make.things))
        self.inputs = st.fixed_dictionaries(
            {
                "kind": st.sampled_from(("jsonl", "jsonl", "csv", "parquet")),
                "tree": st.one_of(st.just([]), make.tree_changes),
                "bytes": st.one_of(st.just([]), st.just([]), make.byte_changes),
                "pictures": st.lists(picture, max_size=2),
                "table": st.one_of(st.just(""), st.just(""), st.just(""), make.things),
            }
        )

    def run(self, drawn: dict[str, Any]) -> Runs:
        """Check the changed folder."""
        folder = self.place.fresh("people")
        (folder / "images").mkdir()
        for name in self.pictures:
            shutil.copy(self.base / "images" / name, folder / "images" / name)
        rows = make.change_tree(self.rows, drawn["tree"])
        path = folder / f"people.{drawn['kind']}"
        path.write_bytes(make.change_bytes(as_table(rows, drawn["kind"]), drawn["bytes"]))
        if drawn["table"]:
            make.put(path, drawn["table"], self.place.outside)
        for name, picture in drawn["pictures"]:
            target = folder / "images" / name
            if isinstance(picture, bytes):
                make.put(target, "missing", self.place.outside)
                target.write_bytes(picture)
            else:
                make.put(target, picture, self.place.outside / "canary.txt")
        yield self.guard.pulse("data", "check", folder)


def as_table(rows: Any, kind: str) -> bytes:
    """Return rows as JSON lines, CSV or parquet; what a kind cannot hold becomes text."""
    rows = rows if isinstance(rows, list) else [rows]
    if kind == "jsonl":
        return "\n".join(map(as_json, rows)).encode("utf-8", "surrogatepass")
    rows = [row if isinstance(row, dict) else {"id": str(row)} for row in rows]
    if kind == "parquet":
        return as_parquet(rows)
    names = list(dict.fromkeys(name for row in rows for name in map(str, row)))
    told = io.StringIO()
    writer = csv.writer(told)
    writer.writerow(names)
    for row in rows:
        cells = {str(name): value for name, value in row.items()}
        found = [cells.get(name, "") for name in names]
        writer.writerow([one if isinstance(one, str) else as_json(one) for one in found])
    return told.getvalue().encode("utf-8", "surrogatepass")


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    """Return a parquet file; columns that no type fits become text."""
    columns: dict[str, Any] = {}
    for name in dict.fromkeys(str(name) for row in rows for name in row):
        cells = [row.get(name) for row in rows]
        columns[name] = as_column(cells)
    return parquet_bytes(columns)


def as_column(cells: list[Any]) -> Any:
    """Return the cells as a column, as text if no type fits them."""
    try:
        return pa.array(cells)
    except (pa.ArrowException, OverflowError, ValueError, TypeError, RecursionError):
        return pa.array([as_json(cell) for cell in cells])


def parquet_bytes(columns: dict[str, Any]) -> bytes:
    """Return the columns as a file, without those that parquet cannot hold."""
    buffer = io.BytesIO()
    try:
        names = [name.encode("utf-8", "replace").decode() for name in columns]
        pq.write_table(pa.table(list(columns.values()), names=names), buffer)
    except (pa.ArrowException, ValueError):
        buffer = io.BytesIO()
        pq.write_table(pa.table({"ID": [str(name) for name in columns]}), buffer)
    return buffer.getvalue()


# --- general questions, and answers to them


class Tsv:
    """An MMBench file with changed cells, pictures and bytes; and others' answers to it."""

    def __init__(self, place: Place, guard: Guard) -> None:
        self.place, self.guard = place, guard
        source = place.world / "general" / "mmbench_world.tsv"
        with source.open(encoding="utf-8", newline="") as file:
            self.rows = list(csv.reader(file, delimiter="\t"))
        self.answers = [
            {"question_id": int(row[0]), "round_id": 0, "text": "A"} for row in self.rows[1:]
        ]
        cell = st.tuples(
            st.integers(0, len(self.rows) - 1),
            st.integers(0, len(self.rows[0]) - 1),
            st.one_of(make.texts, make.scalars.map(str), make.pictures, make.byte_changes),
        )
        self.inputs = st.fixed_dictionaries(
            {
                "cells": st.lists(cell, max_size=3),
                "bytes": st.one_of(st.just([]), make.byte_changes),
                "thing": st.sampled_from(("", "", "", "", "", *make.THINGS)),
                "tree": st.one_of(st.just([]), make.tree_changes),
                "answers": st.one_of(st.just([]), make.byte_changes),
                "kind": st.sampled_from(("check", "check", "jsonl", "tsv", "csv")),
            }
        )

    def run(self, drawn: dict[str, Any]) -> Runs:
        """Check the changed questions, or judge changed answers by them."""
        rows = [list(row) for row in self.rows]
        for line, column, value in drawn["cells"]:
            rows[line][column] = _cell(rows[line][column], value)
        told = io.StringIO()
        csv.writer(told, delimiter="\t", lineterminator="\n").writerows(rows)
        data = told.getvalue().encode("utf-8", "surrogatepass")
        path = self.place.fresh("general") / "general.tsv"
        path.write_bytes(make.change_bytes(data, drawn["bytes"]))
        if drawn["thing"]:
            make.put(path, drawn["thing"], self.place.outside / "canary.txt")
        if drawn["kind"] == "check":
            yield self.guard.pulse("data", "check", path)
            return
        answers = make.change_tree(self.answers, drawn["tree"])
        rows = answers if isinstance(answers, list) else [answers]
        if drawn["kind"] != "jsonl":
            rows = [
                {"index": row.get("question_id"), "prediction": row.get("text")}
                for row in rows
                if isinstance(row, dict)
            ]
        data = as_table(rows, "jsonl" if drawn["kind"] == "jsonl" else "csv")
        data = data.replace(b",", b"\t") if drawn["kind"] == "tsv" else data
        said = path.with_name(f"answers.{drawn['kind']}")
        said.write_bytes(make.change_bytes(data, drawn["answers"]))
        out = self.place.inside / "judged.json"
        yield self.guard.pulse("score", "--answers", said, "--general", path, "--json", out)


def _cell(before: str, value: Any) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list):
        return make.change_bytes(before.encode("utf-8", "surrogatepass"), value).decode(
            "utf-8", "surrogateescape"
        )
    return str(value)[:100_000]


# --- parquet


_TYPES: dict[str, Callable[[Any], Any]] = {
    "binary": lambda cells: pa.array([str(cell).encode() for cell in cells]),
    "text": lambda cells: pa.array([str(cell) for cell in cells]),
    "large text": lambda cells: pa.array([str(cell) for cell in cells], pa.large_string()),
    "dictionary": lambda cells: pa.array([str(cell) for cell in cells]).dictionary_encode(),
    "number": lambda cells: pa.array(range(len(cells))),
    "float": lambda cells: pa.array([float("nan")] * len(cells)),
    "null": lambda cells: pa.nulls(len(cells)),
    "list": lambda cells: pa.array([[str(cell)] for cell in cells]),
    "empty list": lambda cells: pa.array([[]] * len(cells), pa.list_(pa.string())),
    "struct": lambda cells: pa.array([{"a": str(cell)} for cell in cells]),
    "map": lambda cells: pa.array([[("a", 1)]] * len(cells), pa.map_(pa.string(), pa.int8())),
    "time": lambda cells: pa.array([2**62] * len(cells), pa.timestamp("us")),
    "date": lambda cells: pa.array([2**31 - 1] * len(cells), pa.date32()),
    "decimal": lambda cells: pa.array([Decimal(7)] * len(cells)),
    "duration": lambda cells: pa.array([2**62] * len(cells), pa.duration("us")),
    "bytes": lambda cells: pa.array([b"\xff\xfe"] * len(cells)),
    "bad text": lambda cells: _bad_text(len(cells)),
}
"""Type -> a column of it in the place of another."""


def _bad_text(count: int) -> Any:
    """Return text that is no UTF-8, as some writers leave it."""
    size = struct.pack(f"<{count + 1}i", *range(0, 2 * count + 2, 2))
    buffers = [None, pa.py_buffer(size), pa.py_buffer(b"\xff\xfe" * count)]
    return pa.StringArray.from_buffers(count, buffers[1], buffers[2])


class Parquet:
    """An MLLMU-Bench folder with other columns, types, rows and bytes in its tables."""

    def __init__(self, place: Place, guard: Guard) -> None:
        self.place, self.guard = place, guard
        self.base = place.world / "people"
        self.files = sorted(
            path.relative_to(self.base).as_posix() for path in self.base.rglob("*.parquet")
        )
        self.tables = {name: pq.read_table(self.base / name) for name in self.files}
        change = st.tuples(
            st.sampled_from(("type", "drop", "rename", "rows", "tree", "tree", "none")),
            st.integers(0, 40),
            st.sampled_from(sorted(_TYPES)),
            make.texts,
            make.tree_changes,
        )
        file = st.tuples(
            st.sampled_from(self.files),
            st.lists(change, max_size=2),
            st.one_of(st.just([]), make.byte_changes),
            st.sampled_from(("", "", "", "", "", *make.THINGS)),
        )
        self.inputs = st.lists(file, min_size=1, max_size=2)

    def run(self, drawn: list[Any]) -> Runs:
        """Check the folder with the changed tables."""
        folder = self.place.inside / "mllmu"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.base, folder)
        for name, changes, changed, thing in drawn:
            path, table = folder / name, self.tables[name]
            columns = dict(zip(table.column_names, table.columns, strict=True))
            for change in changes:
                columns = _changed_columns(columns, *change)
            make.put(path, "missing", self.place.outside)
            path.write_bytes(make.change_bytes(parquet_bytes(columns), changed))
            if thing:
                make.put(path, thing, self.place.outside / "canary.txt")
        yield self.guard.pulse("data", "check", folder)


def _cells_of(column: Any) -> list[Any]:
    try:
        cells: list[Any] = column.to_pylist()
    except (OverflowError, ValueError):  # a time that Python cannot tell, text that is none
        cells = [None] * len(column)
    return cells


def _changed_columns(
    columns: dict[str, Any], how: str, at: int, kind: str, text: str, tree: list[make.TreeChange]
) -> dict[str, Any]:
    if not columns:
        return columns
    name = list(columns)[at % len(columns)]
    match how:
        case "type":
            return {**columns, name: _TYPES[kind](_cells_of(columns[name]))}
        case "drop":
            return {key: value for key, value in columns.items() if key != name}
        case "rename":
            return {text if key == name else key: value for key, value in columns.items()}
        case "rows":
            return {key: value.slice(at) for key, value in columns.items()}
        case "tree":
            cells = make.change_tree(_cells_of(columns[name]), tree)
            count = len(columns[name])
            cells = (cells if isinstance(cells, list) else [cells])[:count]
            cells += [None] * (count - len(cells))
            return {**columns, name: as_column(cells)}
    return columns


KINDS: dict[str, Callable[[Place, Guard], Any]] = {
    "experiments": Experiments,
    "people": People,
    "tsv": Tsv,
    "parquet": Parquet,
}
"""Kinds that need no torch; `fuzz_stored` adds what a run leaves behind."""
