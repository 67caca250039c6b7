"""What is installed is whole: the built wheel alone runs the smoke experiment to its report."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([*build, str(ROOT)], check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel):
    """Unpack the wheel somewhere; its dependencies are those of this environment."""
    target = wheel.with_name("site")
    install = [*PIP, "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    subprocess.run(install, check=True)
    return target


def pulse(installed, work, *arguments):
    command = [sys.executable, "-c", "from pulse_unlearn.cli import main; main()", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(
        command, cwd=work, env=environment, capture_output=True, text=True, check=False
    )


def test_the_wheel_is_small_and_holds_the_package_alone(wheel):
    assert wheel.stat().st_size <= 20e6
    with ZipFile(wheel) as file:
        tops = {name.partition("/")[0] for name in file.namelist()}
    assert {top.removesuffix(".dist-info").partition("-")[0] for top in tops} == {"pulse_unlearn"}


@pytest.mark.slow  # seconds of a core; parts of it are tested quickly
def test_the_wheel_runs_smoke_to_a_report(installed, tmp_path):
    where = [sys.executable, "-c", "import pulse_unlearn; print(pulse_unlearn.__file__)"]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    found = subprocess.run(
        where, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.startswith(str(installed))
    fewer = ("scoring.people=vanilla", "scoring.words=none", "scoring.general=vanilla")
    fewer += ("methods={ga: {}, ga_klr: {}}",)
    settings = [part for setting in fewer for part in ("--set", setting)]  # for time's sake
    done = pulse(installed, tmp_path, "run", "smoke", *settings)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "smoke"
    assert f"report: {Path('runs/smoke/report.html')}" in done.stdout
    assert (run / "report.html").stat().st_size < 3_000_000
    with (run / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["scenario"] for row in rows} == {"finetuned", "pretrained", "sustainability"}
    assert {row["method"] for row in rows} == {"ga", "ga_klr"}
    checked = pulse(installed, tmp_path, "verify", str(run))
    assert checked.returncode == 0, checked.stderr
