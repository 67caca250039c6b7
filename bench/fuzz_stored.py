"""What a run leaves behind, fuzzed: adapters, and everything that reads a run folder."""

from __future__ import annotations

import copy
import json
import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import fuzz_inputs as make
from fuzz_guard import Guard, Outcome
from fuzz_kinds import Place, as_json, as_yaml
from hypothesis import strategies as st

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def add_command(name: str, work: Any) -> None:
    """Give `pulse` a command of ours, so that it ends as every command does."""
    from pulse_unlearn.cli import pulse

    argument = click.Argument(["path"], type=click.Path(path_type=Path))
    pulse.add_command(click.Command(name, params=[argument], callback=work))


# --- adapters


class Adapters:
    """An adapter's folder with a changed config, header, tensors or bytes: planned and loaded."""

    def __init__(self, place: Place, guard: Guard) -> None:
        from pulse_unlearn.config import ModelSettings
        from pulse_unlearn.models.loading import load_model

        self.place, self.guard = place, guard
        self.base = next((place.world / "runs" / "tiny" / "stages").glob("*finetune-*")) / "adapter"
        self.config = json.loads((self.base / CONFIG).read_text(encoding="utf-8"))
        self.header, self.body = split_safetensors((self.base / WEIGHTS).read_bytes())
        self.model = load_model(ModelSettings(source=str(place.world / "model"))).model
        add_command("load-adapter", self._load)
        self.inputs = st.fixed_dictionaries(
            {
                "config": st.one_of(st.just([]), make.tree_changes),
                "config bytes": st.one_of(st.just([]), st.just([]), make.byte_changes),
                "header": st.one_of(st.just([]), make.tree_changes),
                "tensors": st.sampled_from(
                    ("", "", "", "nan", "inf", "rename", "drop", "magnitude", "zero", "pickle")
                ),
                "bytes": st.one_of(st.just([]), st.just([]), make.byte_changes),
                "thing": st.sampled_from(("", "", "", "", "", "", *make.THINGS)),
                "name": st.sampled_from((CONFIG, WEIGHTS)),
                "plan": st.booleans(),
            }
        )

    def run(self, drawn: dict[str, Any]) -> Iterator[Outcome]:
        """Plan on the changed adapter, or put it on a model."""
        folder = self.place.fresh("adapter")
        config = as_json(make.change_tree(self.config, drawn["config"])).encode()
        (folder / CONFIG).write_bytes(make.change_bytes(config, drawn["config bytes"]))
        header, body = _changed_tensors(self.header, self.body, drawn["tensors"])
        told = as_json(make.change_tree(header, drawn["header"])).encode()
        data = struct.pack("<Q", len(told)) + told + body
        if drawn["tensors"] == "pickle":
            (folder / "adapter_model.bin").write_bytes(make.PICTURES["pickle"]())
        (folder / WEIGHTS).write_bytes(make.change_bytes(data, drawn["bytes"]))
        if drawn["thing"]:
            make.put(folder / drawn["name"], drawn["thing"], self.place.outside / "canary.txt")
        if drawn["plan"]:
            named = f"model.adapters=[{folder}]"
            where = ("--runs", self.place.inside / "runs", "--set", named, "--brief")
            yield self.guard.pulse("plan", self.place.world / "tiny.yaml", *where)
        else:
            yield self.guard.pulse("load-adapter", folder)

    def _load(self, path: Path) -> None:
        """Merge the adapter, as stages do; a model with values that are none must not come back."""
        from pulse_unlearn.models.adapters import load_adapters

        for how in ("merged", "stacked"):
            model = load_adapters(copy.deepcopy(self.model), [path], how=how)
            odd = [name for name, one in model.named_parameters() if not one.isfinite().all()]
            if odd:
                raise AssertionError(f"not finite, and loaded {how}: {odd[:3]}")


def split_safetensors(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the header and the values of a safetensors file."""
    (size,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def _changed_tensors(header: dict[str, Any], body: bytes, how: str) -> tuple[dict[str, Any], bytes]:
    header = dict(header)
    names = [name for name in header if name != "__metadata__"]
    match how:
        case "nan" | "inf":
            value = struct.pack("<f", float(how))
            body = body[:4000] + value + body[4004:]
        case "zero":
            body = bytes(len(body))
        case "rename":
            header = {name.replace("language_model", "llm"): one for name, one in header.items()}
        case "drop":
            header = {name: one for name, one in header.items() if name != names[0]}
        case "magnitude":
            header = {
                **header,
                names[0].replace("lora_A", "lora_magnitude_vector"): header[names[0]],
            }
    return header, body


# --- run folders


class RunFolders:
    """A finished run with anything in it changed or exchanged, read by what reads runs."""

    def __init__(self, place: Place, guard: Guard) -> None:
        self.place, self.guard = place, guard
        self.finished = place.world / "runs" / "tiny"
        self.run_folder = place.inside / "run"
        shutil.rmtree(self.run_folder, ignore_errors=True)
        shutil.copytree(self.finished, self.run_folder)
        self.saved = {
            path.relative_to(self.finished): path.read_bytes()
            for path in sorted(self.finished.rglob("*"))
            if path.is_file()
        }
        self.state = self._look()
        add_command("look-at", _look_at)
        no_pictures()
        names = [path.as_posix() for path in self.saved if not path.name.endswith(".lock")]
        # Those that are read without their hash being asked for.
        often = [name for name in names if "/" not in name or name.endswith(".parquet")]
        folders = sorted(
            {parent for name in names for parent in map(str, Path(name).parents)} - {"."}
        )
        trees = [name for name in names if name.endswith((".json", ".yaml"))]
        change = st.one_of(
            st.tuples(st.just("bytes"), st.sampled_from(names), make.byte_changes),
            st.tuples(st.just("bytes"), st.sampled_from(often), make.byte_changes),
            st.tuples(st.just("tree"), st.sampled_from(trees), make.tree_changes),
            st.tuples(
                st.just("tree"),
                st.sampled_from([name for name in trees if name in often]),
                make.tree_changes,
            ),
            st.tuples(st.just("put"), st.sampled_from(names + folders), make.things),
            st.tuples(st.just("put"), st.sampled_from(often), make.things),
            st.tuples(
                st.just("cells"), st.just("results.csv"), st.lists(_cells, min_size=1, max_size=3)
            ),
            st.tuples(st.just("other"), st.sampled_from(names), st.sampled_from(names)),
        )
        self.inputs = st.tuples(
            st.lists(change, min_size=1, max_size=2), st.sampled_from(sorted(COMMANDS))
        )

    def run(self, drawn: tuple[list[tuple[str, str, Any]], str]) -> Iterator[Outcome]:
        """Change the run, give it to one command and to `verify`, and put it back."""
        changes, command = drawn
        try:
            for how, name, what in changes:
                self._change(how, self.run_folder / name, what)
            told = [part.replace("RUN", str(self.run_folder)) for part in COMMANDS[command]]
            told = [part.replace("WHOLE", str(self.finished)) for part in told]
            damaged = self._damage()
            verified = self.guard.pulse("verify", self.run_folder)
            if damaged and not verified.fault and verified.code == 0:
                verified = Outcome(0, "", verified.seconds, "undetected", ", ".join(damaged))
            yield verified
            if command != "verify":
                yield self.guard.pulse(*told)
        finally:
            self._restore()

    def _change(self, how: str, path: Path, what: Any) -> None:
        if not path.exists() and not path.is_symlink():
            return  # the change before took it away
        if how == "put":
            outside = self.place.outside
            make.put(path, what, outside if path.is_dir() else outside / "canary.txt")
            return
        if not path.is_file() or path.is_symlink():
            return
        # Bytes go over whatever the change before left; cells and trees have to be readable.
        data = self.saved[path.relative_to(self.run_folder)]
        if how == "bytes":
            data = make.change_bytes(path.read_bytes(), what)
        elif how == "other":
            data = self.saved[Path(what)]
        elif how == "cells":
            rows = [line.split(",") for line in data.decode().splitlines()]
            for line, column, text in what:
                row = rows[line % len(rows)]
                row[column % len(row)] = text
            data = "\n".join(map(",".join, rows)).encode("utf-8", "surrogatepass")
        else:
            import yaml

            text = data.decode()
            tree = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
            tree = make.change_tree(tree, what)
            data = as_json(tree).encode() if path.suffix == ".json" else as_yaml(tree)
        path.write_bytes(data)

    def _damage(self) -> list[str]:
        """Return the files that differ from the finished run's and that `verify` must name."""
        found = []
        for name, data in self.saved.items():
            path = self.run_folder / name
            if name.parts[0] == "logs" or any(part.startswith(".") for part in name.parts):
                continue  # what a log says of times is no result
            whole = path.is_file() and not path.is_symlink() and path.read_bytes() == data
            if not whole:
                found.append(name.as_posix())
        return found

    def _look(self) -> dict[Path, tuple[int, ...]]:
        found = {}
        for path in self.run_folder.rglob("*"):
            told = path.lstat()
            if not (path.is_dir() and not path.is_symlink()):
                found[path.relative_to(self.run_folder)] = (
                    *(told.st_ino, told.st_mtime_ns, told.st_size, told.st_mode),
                )
        return found

    def _restore(self) -> None:
        """Put back what differs; anything is exchanged for the file it was."""
        run, now = self.run_folder, self._look()
        for folder in {run, *((run / name).parent for name in self.saved)}:
            if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
                folder.unlink()
        for name in now.keys() - self.saved.keys():
            make.put(run / name, "missing", run) if os.path.lexists(run / name) else None
        for name, data in self.saved.items():
            path = run / name
            if now.get(name) != self.state.get(name) or not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                if os.path.lexists(path):
                    make.put(path, "missing", run)
                path.write_bytes(data)
                told = path.lstat()
                self.state[name] = (*(told.st_ino, told.st_mtime_ns, told.st_size, told.st_mode),)


_cells = st.tuples(
    st.integers(0, 2**12), st.integers(0, 20), st.one_of(make.texts, make.scalars.map(str))
)
_REQUEST = ("--request", "1", "--scenario", "sustainability", "--method", "npo")
COMMANDS = {
    "verify": ("verify", "RUN"),
    "report": ("report", "RUN"),
    "redraw": ("report", "RUN", "--redraw"),
    "diff": ("diff", "WHOLE", "RUN", "--json", "diff.json", "--html", "diff.html"),
    "diff back": ("diff", "RUN", "WHOLE"),
    "tables": ("tables", "RUN"),
    "latex": ("tables", "RUN", "--format", "latex"),
    "score": ("score", "RUN"),
    "parser": ("score", "RUN", "--parser", "first_character"),
    "certificate": ("certificate", "RUN", *_REQUEST, "--out", "certificates"),
    "look-at": ("look-at", "RUN"),
}
"""Commands that read run folders; `look-at` asks what the page of `pulse view` asks."""


def _look_at(path: Path) -> None:
    from pulse_unlearn.view.answers import Filters
    from pulse_unlearn.view.library import Library, Page

    library = Library(path.parent)
    library.runs()
    library.overview(path.name)
    library.results(path.name, Filters(), Page())
    library.answers(path.name, Filters(), Page())


def no_pictures() -> None:
    """Take out what draws: it costs seconds, and no input reaches it but by numbers."""
    import matplotlib.figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    def draw_nothing(_: object, target: Any, *, format: str, **__: object) -> None:
        empty = '<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>'
        target.write(empty if format == "svg" else empty.encode())

    matplotlib.figure.Figure.savefig = draw_nothing  # type: ignore[method-assign]
    ConstrainedLayoutEngine.execute = lambda *_: None  # type: ignore[method-assign]
