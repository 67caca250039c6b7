"""A few random inputs of each kind, always the same, and what the long search has found.

`python bench/fuzz.py` tries ten thousand; the guard and the inputs are the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline_cases import LIMIT, TESTS, environment, make_general, make_people, settings

BENCH = TESTS.parent / "bench"
FUZZ = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(BENCH)!r})
import fuzz
world, work, inputs, *kinds = sys.argv[1:]
for kind in kinds:
    found = fuzz.fuzz(kind, Path(world), Path(work), inputs=int(inputs))
    print(found.line())
    for detail in found.details:
        print(detail)
    assert not found.faults, kind
    assert found.inputs >= int(inputs) and found.accepted and found.refused, kind
"""


def fuzzed(world, work, inputs, *kinds):
    """Fuzz in a process of its own: an audit hook cannot be removed."""
    ended = subprocess.run(
        [sys.executable, "-c", FUZZ, str(world), str(work), str(inputs), *kinds],
        check=False,
        env=environment(),
        capture_output=True,
        text=True,
        errors="replace",
        timeout=LIMIT,
    )
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"


def test_changed_data_are_read_or_refused(tmp_path):
    """Mutation: `plain_file` returns at once: `tsv` hangs at a pipe and at `/dev/zero`."""
    make_people(tmp_path / "people")
    make_general(tmp_path / "general")
    (tmp_path / "tiny.yaml").write_text(json.dumps(settings(tmp_path)), encoding="utf-8")
    (tmp_path / "work").mkdir()
    fuzzed(tmp_path, tmp_path / "work", 40, "people", "tsv", "parquet")


def test_changed_experiments_adapters_and_runs_are_read_or_refused(bench, tmp_path):
    """Mutation: `main` does not catch PulseError: every refusal is a traceback."""
    world = bench.experiment.parent
    fuzzed(world, tmp_path, 20, "experiments", "adapters", "run folders")


# --- what was found


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("spoil", [pipe, endless])
@pytest.mark.parametrize("name", ["general.tsv", "answers.jsonl", "answers.tsv", "e.yaml"])
def test_a_pipe_or_a_device_in_place_of_a_file_is_refused(name, spoil, server, tmp_path):
    """Mutation: `plain_file` returns at once: the command hangs, or fills the memory."""
    general = make_general(tmp_path / "general").rename(tmp_path / "general.tsv")
    victim = tmp_path / name
    if victim != general:
        victim.write_text("{}")
    spoil(victim)
    if name == "e.yaml":
        command = ("plan", victim)
    elif name == "general.tsv":
        command = ("data", "check", general)
    else:
        command = ("score", "--answers", victim, "--general", general)
    ended = server.start(*map(str, command)).wait(20)
    assert ended.code in {1, 2}, ended.output
    assert "a pipe, a socket or a device, not a file" in ended.output
    assert "Traceback" not in ended.output
