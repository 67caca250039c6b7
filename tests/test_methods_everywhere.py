"""Every registered method through all three scenarios of `smoke`, with its defaults."""

from __future__ import annotations

import csv
import json

import pytest
import yaml

from pipeline_cases import in_own_process
from pulse_unlearn.config import UnlearnSettings, shipped_experiments
from pulse_unlearn.methods import METHODS, Checked

KINDS = ({}, {"adapter": "continued"}, {"update": "full"})
"""Updates to try, in this order; a method that works with none says so in its problems."""


def kind_of(method):
    built = METHODS.get(method)()
    for kind in KINDS:
        settings = UnlearnSettings(**kind)
        if not isinstance(built, Checked) or not list(built.problems(settings)):
            return kind
    raise AssertionError(f"{method} works with no update")


def test_there_are_as_many_methods_as_promised_and_each_has_an_update():
    names = METHODS.names()
    assert len(names) >= 32
    kinds = {name: kind_of(name) for name in names}
    assert kinds["npo"] == {}
    assert kinds["gradient_projection"] == {"adapter": "continued"}
    assert kinds["manu"] == {"update": "full"}


def test_every_method_has_its_section_in_the_docs():
    from pathlib import Path

    text = (Path(__file__).parents[1] / "docs" / "methods.md").read_text(encoding="utf-8")
    heads = " ".join(line for line in text.splitlines() if line.startswith("###"))
    listed = "".join(line for line in text.splitlines() if line.startswith("* `"))
    missing = [n for n in METHODS.names() if n not in heads.replace(",", " ").split()]
    assert [name for name in missing if f"`{name}`" not in listed] == []


@pytest.mark.slow  # several minutes: 35 methods, four operations each
def test_every_method_runs_all_three_scenarios_of_smoke(tmp_path):
    experiment = yaml.safe_load(shipped_experiments()["smoke"])
    experiment["scoring"] |= {"people": "vanilla", "general": "vanilla", "words": "none"}
    experiment["unlearn"]["stop"] = {"max_steps": 2}
    experiment["methods"] = {name: {"unlearn": kind_of(name)} for name in METHODS.names()}
    path = tmp_path / "everything.yaml"
    path.write_text(yaml.safe_dump(experiment), encoding="utf-8")
    done = in_own_process("run", str(path), "--runs", str(tmp_path), limit=3600)
    assert done.returncode == 0, done.stderr[-3000:]
    run = tmp_path / "smoke"
    with (run / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = {(r["method"], r["scenario"], r["request"]) for r in rows if r["condition"] == "plain"}
    cells = [("finetuned", "1"), ("pretrained", "1"), ("sustainability", "1")]
    cells.append(("sustainability", "2"))
    assert {(name, *cell) for name in METHODS.names() for cell in cells} <= found
    flags = json.loads((run / "results.json").read_text(encoding="utf-8"))["flags"]
    assert not [flag for flag in flags if flag["flag"] == "diverged"]
