"""The experiments in the package: flat, commented, and the paper's numbers where they say so."""

from __future__ import annotations

import re

import pytest
import yaml

from pulse_unlearn.config import EMBEDDED, Experiment, load_experiment, shipped_experiments
from pulse_unlearn.data.datasets import DATASETS
from pulse_unlearn.data.prompts import PROFILES
from pulse_unlearn.registries import schemas
from pulse_unlearn.scenarios import Roster, build_plan

SHIPPED = shipped_experiments()
ASKED_FOR = {"demo", "paper", "paper-7b", "qwen2.5-vl", "smolvlm-laptop", "own-people"}
MLLMU = Roster(tuple(f"f{n}" for n in range(500)), tuple(f"c{n}" for n in range(153)))
"""As many people as MLLMU-Bench has."""


def load(name):
    return load_experiment(name, schemas=schemas())


def values_with_comments(text):
    """Yield (dotted key, comment) of every line that sets a value; block style only."""
    above: list[tuple[int, str]] = []
    for line in text.splitlines():
        found = re.fullmatch(r"( *)([\w.-]+):(?: +([^#\s][^#]*?))?(?: +# (.*))?", line)
        if not found:
            assert not line.strip() or line.startswith("#"), f"not flat: {line!r}"
            continue
        indent, key, value, comment = len(found[1]), found[2], found[3], found[4]
        above = [(depth, name) for depth, name in above if depth < indent]
        if value is None:
            above.append((indent, key))
        else:
            yield ".".join([*(name for _, name in above), key]), comment or ""


def leaves(value, path=()):
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    else:
        yield ".".join(path)


def test_the_experiments_asked_for_are_there():
    assert set(SHIPPED) >= ASKED_FOR


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_an_experiment_is_one_commented_file_that_is_valid_by_name_and_by_path(name, tmp_path):
    text = SHIPPED[name]
    experiment = load(name)
    assert experiment.name == name
    assert text.startswith("# ")
    assert not re.search(r"[&*]\w|<<:|\t", re.sub("#.*", "", text)), "no anchors: one flat file"
    copy = tmp_path / "copied.yaml"
    copy.write_text(text, encoding="utf-8")
    assert load(str(copy)) == experiment


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_what_an_experiment_names_is_registered(name):
    experiment = load(name)
    assert experiment.data.people_prompt in PROFILES.names()
    assert experiment.data.general_prompt in PROFILES.names()
    assert experiment.data.general.source in DATASETS.names()
    if experiment.data.people.source == "people" and "people" not in DATASETS.names():
        pytest.skip("data set 'people' is not registered yet")
    assert DATASETS.get(experiment.data.people.source).people is not None


@pytest.mark.parametrize("name", sorted(ASKED_FOR - {"demo", "own-people"}))
def test_mllmu_has_people_enough(name):
    plan = build_plan(load(name), MLLMU)
    assert {stage.kind for stage in plan.stages} >= {"score", "finetune", "unlearn"}


@pytest.mark.parametrize("name", sorted(ASKED_FOR - {"demo"}))
def test_a_hub_model_awaits_its_commit_and_the_file_says_how(name):
    experiment = load(name)
    if experiment.model.source == EMBEDDED:
        return
    assert experiment.model.revision is None, "a commit nobody has checked"
    assert f"hf download {experiment.model.source}" in SHIPPED[name]
    assert "--set model.revision=" in SHIPPED[name]


def test_every_value_of_paper_says_where_it_is_from():
    found = dict(values_with_comments(SHIPPED["paper"]))
    assert set(found) == set(leaves(yaml.safe_load(SHIPPED["paper"])))
    for key, comment in found.items():
        if key not in {"name", "description"}:
            assert re.match(r"(paper|ours): \S", comment), f"{key}: {comment!r}"


def test_every_setting_of_the_schema_stands_in_paper():
    """So that nothing in it is a default that nobody looked at."""
    written = set(leaves(yaml.safe_load(SHIPPED["paper"])))
    missing = {
        path
        for path in schema_leaves(Experiment)
        if path not in written and not any(key.startswith(path + ".") for key in written)
    }
    assert missing == set()


def schema_leaves(schema, prefix=""):
    for name, field in schema.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and hasattr(inner, "model_fields"):
            yield from schema_leaves(inner, f"{prefix}{name}.")
        else:
            yield prefix + name


@pytest.mark.parametrize("name", ["paper", "paper-7b", "qwen2.5-vl", "demo"])
def test_the_scenarios_are_those_of_table_2(name):
    # Table 2: knowledge from | D_unlearn | D_retain | operations | people per operation
    experiment = load(name)
    scenarios = experiment.scenarios
    assert (scenarios.finetuned.forget, scenarios.finetuned.retain) == (50, 50)
    assert (scenarios.pretrained.forget, scenarios.pretrained.retain) == (20, 25)
    assert (scenarios.sustainability.forget, scenarios.sustainability.retain) == (50, 50)
    assert scenarios.sustainability.requests == 5
    assert scenarios.sustainability.forget // scenarios.sustainability.requests == 10
    assert experiment.finetune.individuals == 100
    assert scenarios.pretrained.candidates == 153


def test_paper_is_the_paper_where_it_says_so():
    paper = load("paper")
    assert "llava-1.5-13b" in paper.model.source
    # Table 3: GA with projector and language model, and with the language model alone.
    assert {label: entry.method for label, entry in paper.methods.items()} == {
        "ga": "ga",
        "ga_llm": "ga",
        "ga_klr": "ga_klr",
        "npo": "npo",
    }
    scopes = {label: entry.unlearn.scope for label, entry in paper.methods.items()}
    assert scopes == {
        "ga": "projector+llm",
        "ga_llm": "llm",
        "ga_klr": "projector+llm",
        "npo": "projector+llm",
    }
    assert paper.methods["ga_llm"].scenarios == ("finetuned",)
    # Table 3, before: (78.0 + 76.8) / 2 = 77.4; Figure 4: GA stands at 71 % forgotten.
    assert paper.finetune.target_accuracy == pytest.approx((0.780 + 0.768) / 2, abs=0.005)
    assert paper.unlearn.stop.target_forgetting == 0.71
    assert (paper.data.people.source, paper.data.general.source) == ("mllmu", "mmbench")
    assert len(paper.seeds) == 3


def test_paper_7b_is_paper_on_a_smaller_model():
    paper, small = load("paper"), load("paper-7b")
    own = {"name", "description", "model", "data", "finetune", "unlearn", "methods", "speed"}
    assert small.model_dump(exclude=own) == paper.model_dump(exclude=own)
    assert small.data == paper.data
    differing = {"optimiser"}
    for part in ("finetune", "unlearn"):
        one, other = getattr(paper, part), getattr(small, part)
        assert one.model_dump(exclude=differing) == other.model_dump(exclude=differing)
        assert one.optimiser.batch_size == other.optimiser.batch_size
        assert one.optimiser.learning_rate == other.optimiser.learning_rate
