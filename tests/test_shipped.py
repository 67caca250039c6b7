"""The embedded world's files are those of its recipe, or nothing reads them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pulse_unlearn
from pulse_unlearn import shipped
from pulse_unlearn.config import ModelSettings
from pulse_unlearn.data.datasets import load_general, load_general_training, load_people
from pulse_unlearn.errors import DataError, ModelError
from pulse_unlearn.models.checkpoints import model_digest

PACKAGE = Path(pulse_unlearn.__file__).parent
WORLD = PACKAGE / "assets" / "world"
LISTED = json.loads((WORLD / "manifest.json").read_text(encoding="utf-8"))["files"]
PARTS = {
    "model": lambda: model_digest(ModelSettings()),
    "people": lambda: load_people("world"),
    "general": lambda: load_general_training("world"),
}


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """A copy of the package's files, which the code takes for its own; return its world."""
    shutil.copytree(WORLD, tmp_path / "assets" / "world", copy_function=os.symlink)
    monkeypatch.setattr(shipped, "files", lambda _: tmp_path)
    return tmp_path / "assets" / "world"


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 1
    path.unlink()  # it may be a link to the real one
    path.write_bytes(data)


def refusal(load):
    with pytest.raises((DataError, ModelError)) as error:
        load()
    return error


def test_every_shipped_file_is_listed():
    there = {path.relative_to(WORLD).as_posix() for path in WORLD.rglob("*") if path.is_file()}
    assert there == {*LISTED, "manifest.json"}
    assert {name.split("/")[0] for name in LISTED} == {*PARTS}


@pytest.mark.parametrize("name", LISTED)
def test_a_changed_byte_of_any_file_is_refused_by_name(name, installed):
    """Mutation: `world` yields without `_check`: the run goes on with other weights or people."""
    flip(installed / name, 997)
    part = name.split("/")[0]
    error = refusal(PARTS[part])
    assert error.type is (ModelError if part == "model" else DataError)
    (problem,) = error.value.problems
    assert problem.where == str(installed / name)
    assert problem.allowed == LISTED[name]
    assert "--force-reinstall" in problem.fix


def test_all_that_is_wrong_with_a_part_is_told_at_once_and_other_parts_load(installed):
    for name in ("model/config.json", "model/tokenizer.json"):
        flip(installed / name, 5)
    refused = refusal(PARTS["model"]).value
    assert [Path(p.where).name for p in refused.problems] == ["config.json", "tokenizer.json"]
    assert load_general("world").general


@pytest.mark.parametrize("name", ["model/adapter_config.json", "people/ft_Data/z.parquet"])
def test_a_file_put_beside_the_shipped_ones_is_refused(name, installed):
    """Mutation: `_names` returns nothing: transformers and the readers take the file."""
    (installed / name).write_text("{}", encoding="utf-8")
    (problem,) = refusal(PARTS[name.split("/")[0]]).value.problems
    assert problem.where == str(installed / name)
    assert "does not belong" in problem.what


@pytest.mark.parametrize("text", ["", "[]", '{"files": []}', '{"files": {"model/nothing": "0"}}'])
def test_a_damaged_list_is_refused(text, installed):
    (installed / "manifest.json").unlink()
    (installed / "manifest.json").write_text(text, encoding="utf-8")
    assert "not complete" in refusal(PARTS["model"]).value.problems[0].what


def test_files_are_read_once_by_a_process_unless_they_change(installed, monkeypatch):
    """Mutation: `_read` without its cache, or a cache by name alone."""
    read = []
    real = shipped.file_digest
    monkeypatch.setattr(shipped, "file_digest", lambda *args: read.append(1) or real(*args))
    for _ in range(3):
        load_general("world")
    assert len(read) == 1
    flip(installed / "general" / "mmbench_world.tsv", 9)
    refusal(lambda: load_general("world"))


OPENED = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
from pulse_unlearn.cli import main
code = 0
try:
    main()
except SystemExit as ending:
    code = ending.code
if any("assets/world" in path for path in opened) or "torch" in sys.modules:
    raise SystemExit("the world was read")
raise SystemExit(code)
"""


def command(*argv, code="from pulse_unlearn.cli import main; main()", package=PACKAGE):
    environment = {**os.environ, "PYTHONPATH": str(package.parent), "OMP_NUM_THREADS": "1"}
    made = [sys.executable, "-c", code, *argv]
    return subprocess.run(made, env=environment, capture_output=True, text=True, check=False)


def test_help_and_reports_do_not_pay(bench, tmp_path):
    """Mutation: the check at import of the package."""
    for argv in (["--help"], ["report", str(bench.copied(tmp_path))]):
        done = command(*argv, code=OPENED)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "name", ["model/model.safetensors", "people/Test_Set/train-00000-of-00001.parquet"]
)
def test_a_run_on_changed_files_ends_before_it_begins(name, tmp_path):
    """Mutations: `world` without `_check`; the check at import of the package (a traceback)."""
    package = tmp_path / "pulse_unlearn"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    path = package / "assets" / "world" / name
    flip(path, 123_456)
    ended = command("run", "smoke", "--runs", str(tmp_path / "runs"), package=package)
    assert ended.returncode == 1
    assert f"{path}: the embedded file was changed" in ended.stderr
    assert "--force-reinstall" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not list((tmp_path / "runs").rglob("*.safetensors"))
