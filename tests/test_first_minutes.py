"""`docs/first-ten-minutes.md`: every command on the page, by the real command line, in its order.

A block of commands (```sh) that is added to the page is tested by being there.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pulse_unlearn import registries
from pulse_unlearn.cli import pulse
from pulse_unlearn.config import load_experiment

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "first-ten-minutes.md"
NOT_RUN = "<!-- not run by the test: "
BLOCK = re.compile(rf"((?:{NOT_RUN}[^\n]*-->\n)?)```sh\n(.*?)```", re.DOTALL)


def blocks():
    """Each block of commands and why it is not run; empty if it is."""
    return [
        (mark.removeprefix(NOT_RUN).strip(" ->\n"), text.strip().splitlines())
        for mark, text in BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    ]


COMMANDS = [line for why, lines in blocks() if not why for line in lines]


def test_only_installing_and_serving_are_not_run():
    left_out, served = [lines for why, lines in blocks() if why]
    assert served == ["pulse view"]
    assert all("pip install" in line or line.startswith("git clone") for line in left_out)
    assert len(COMMANDS) > 12


@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_names_commands_and_options_that_there_are(command):
    """Parsed as far as its options; a misspelt one fails here before the slow test runs it."""
    program, *argv = shlex.split(command)
    if program == "python":
        assert argv.pop(0) == "-m"
        program = {"pulse_unlearn": "pulse"}[argv.pop(0)]
    assert program == "pulse"
    ended = CliRunner().invoke(pulse, [*argv, "--help"])
    assert ended.exit_code == 0, ended.output
    settings = [argv[at + 1] for at, word in enumerate(argv) if word == "--set"]
    if argv[0] in ("run", "plan") and "/" not in argv[1]:
        load_experiment(argv[1], overrides=settings, schemas=registries.schemas())


@pytest.mark.slow  # two runs: three minutes of two cores
def test_the_page_can_be_followed_to_its_end(tmp_path):
    """Exit codes only, but for what the page promises of a second run and of a changed setting."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name, argv in (("pulse", "-m pulse_unlearn "), ("python", "")):
        path = bin_folder / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" {argv}"$@"\n', encoding="utf-8")
        path.chmod(0o755)
    environment = {**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), *sys.path[1:]])
    work = tmp_path / "work"
    work.mkdir()

    def follow(command):
        done = subprocess.run(
            command,
            shell=True,
            cwd=work,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    said = {command: follow(command) for command in COMMANDS}
    assert said["pulse --version"] == said["python -m pulse_unlearn --version"]
    assert "32 stages computed, 0 reused" in said["pulse run smoke"]
    assert "0 stages computed, 32 reused" in follow("pulse run smoke")
    assert "250 of 250 answers are the stored ones" in said[COMMANDS[-4]]
    (changed,) = [c for c in COMMANDS if c.startswith("pulse run") and "--set" in c]
    assert "2 stages computed, 6 reused" in said[changed], "one method, unlearnt and scored"
    for run in ("smoke", "own-people"):
        assert (work / "runs" / run / "report.html").is_file()
