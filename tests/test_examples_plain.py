"""The example of a model that PULSE did not make: its script is plain, and its README works."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline_cases import environment, make_model, result_rows
from pulse_unlearn.cli import pulse
from pulse_unlearn.data.starter import write_starter

EXAMPLE = Path(__file__).parents[1] / "examples" / "plain-unlearning"
SCRIPT = EXAMPLE / "unlearn.py"


def test_the_script_is_short_and_imports_nothing_of_pulse():
    text = SCRIPT.read_text(encoding="utf-8")
    assert "pulse" not in "".join(re.findall(r"^(?:import|from).*$", text, re.M))
    assert len(text.splitlines()) < 70


@pytest.mark.slow  # the script and an audit
def test_a_model_that_the_script_made_is_audited(tmp_path):
    model, people = make_model(tmp_path / "model"), tmp_path / "people"
    write_starter(people)
    command = [sys.executable, str(SCRIPT), str(model), str(people), "--forget", "p01,p02"]
    command += ["--out", str(tmp_path / "unlearned"), "--steps", "1"]
    subprocess.run(command, check=True, env=environment(), capture_output=True, timeout=300)
    ended = CliRunner().invoke(
        pulse,
        [
            *("audit", "--base", str(model), "--unlearned", str(tmp_path / "unlearned")),
            *("--people", str(people), "--forget", "p01,p02", "--prompt", "short"),
            *("--set", "scoring={words: none, people: vanilla, max_new_tokens: 2}"),
            *("--runs", str(tmp_path / "runs")),
        ],
    )
    assert ended.exit_code == 0, ended.output
    rows = result_rows(tmp_path / "runs" / "audit")
    people_asked = {row["set"]: row["individuals"] for row in rows if row["modality"] == "all"}
    assert people_asked == {"forget": "2", "retain": "10"}


@pytest.mark.slow(reason="trains the starter's people, exports and audits: about two minutes")
def test_every_command_of_the_readme_does_what_it_says(tmp_path):
    text = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    found = [
        line for block in re.findall(r"```\n(.*?)```", text, re.S) for line in block.split("\n")
    ]
    (tmp_path / "unlearn.py").write_bytes(SCRIPT.read_bytes())
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for line in filter(None, found):
        ended = subprocess.run(
            shlex.split(line),
            check=False,
            cwd=tmp_path,
            env={**environment(), "PATH": path},
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert ended.returncode == 0, f"{line}\n{ended.stdout}{ended.stderr}"
    assert re.search(r"audit +unlearned", ended.stdout)
    assert (tmp_path / "runs" / "plain" / "report.html").is_file()
