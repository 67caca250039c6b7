"""Secrets of the machine, which no run is to write down."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from pipeline_cases import environment

TOKEN = "hf_PlantedTokenThatNobodyShouldSee"
MAIN = [sys.executable, "-c", "from pulse_unlearn.cli import main; main()", "--debug"]


@pytest.mark.slow  # processes of their own, as the token is in their environment
def test_a_token_is_in_no_output_of_a_run_nor_of_one_that_crashes(bench, tmp_path):
    run = bench.copied(tmp_path)
    shutil.rmtree(next(run.glob("stages/*request2.score-*")))
    env = environment() | {"HF_TOKEN": TOKEN, "WANDB_API_KEY": TOKEN, "HF_HUB_OFFLINE": "1"}
    crash = ("model.source=owner/name", f"model.revision={'0' * 40}")
    told = ""
    for more, code in (((), 0), (("--set", crash[0], "--set", crash[1]), 1)):
        argv = [*MAIN, *bench.command(tmp_path, *more)]
        ended = subprocess.run(argv, check=False, env=env, capture_output=True, text=True)
        assert ended.returncode == code, ended.stderr
        told += ended.stdout + ended.stderr
    assert "Traceback" in told
    assert TOKEN not in told
    files = [path for path in run.rglob("*") if path.is_file()]
    assert len(files) > 50
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]
