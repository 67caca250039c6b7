"""The embedded world pre-trained without some celebrities: the retain model of what it teaches."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from pulse_unlearn.errors import ConfigError, DataError
from recipes.world import __main__ as command
from recipes.world import corpus, curriculum, train, vision
from recipes.world.chance import stream
from recipes.world.people import celebrities
from world_cases import small_corpus

pytestmark = pytest.mark.skipif(
    not (importlib.util.find_spec("dicebear") and importlib.util.find_spec("resvg_py")),
    reason="dicebear-core, dicebear-styles and resvg-py are only needed to rebuild the world",
)
SEED = 0
GONE = ("c005", "c001", "c153")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    small_corpus(monkeypatch)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Where faces are kept, which take the time."""
    return tmp_path_factory.mktemp("work")


@pytest.mark.slow  # draws a face of every celebrity
def test_nothing_of_those_left_out_is_in_the_corpus_and_all_else_is_as_with_them(work):
    whole = corpus.load_corpus(work, seed=SEED)
    without = corpus.load_corpus(work, seed=SEED, without=GONE)
    stay = [person.id for person in celebrities(SEED) if person.id not in GONE]
    assert [person.id for person in without.people] == [*without.views] == stay
    for person in stay:
        ours, theirs = list(without.views[person]), list(whole.views[person])
        assert np.array_equal(without.images[ours], whole.images[theirs])
    seen = {picture.tobytes() for picture in without.images}
    for person in GONE:
        assert whole.images[whole.views[person][0]].tobytes() not in seen
    assert (
        len(whole.images) - len(without.images)
        == len(GONE)
        == len(whole.faces) - len(without.faces)
    )
    assert without.by_category == whole.by_category
    # Fame is what it was: the others are asked about more often, in the same proportions.
    asked = {
        item.person
        for by_name in (True, False)
        for item in curriculum.celebrity_questions(
            without, stream(SEED, "test"), 4000, by_name=by_name, scored=0.5
        )
    }
    assert asked < {*stay}
    assert len(asked) > 100
    pair = [curriculum.general_questions(one, stream(SEED, "test"), 50) for one in (whole, without)]
    assert pair[0] == pair[1]


def trained(out: Path, work: Path, without=GONE, *, stop_at=("", 0)):
    """Train for three steps each; raises KeyboardInterrupt after a step of a part."""

    def on_step(part, done, total, losses):
        if (part, done) == stop_at:
            raise KeyboardInterrupt

    train.train_world(
        out,
        work=work,
        seed=SEED,
        without=without,
        on_step=on_step,
        recipe=curriculum.Recipe(
            steps=3, early=curriculum.Mix(4, 4, 4), warmup=1, save_every=1, threads=1
        ),
        vision=vision.Recipe(width=32, layers=1, heads=2, inner=32, batch=8, steps=3, save_every=1),
    )
    return load_file(out / "model" / "model.safetensors")


@pytest.mark.slow  # trains six small worlds
def test_a_stopped_training_goes_on_to_the_same_model_and_other_people_have_another(work, tmp_path):
    torch.manual_seed(1)
    for name in (f"{kind}-{SEED}.npy" for kind in ("faces", "extra-faces", "heldout-faces")):
        if (work / name).exists():
            (tmp_path / "w").mkdir(exist_ok=True)
            (tmp_path / "w" / name).write_bytes((work / name).read_bytes())
    once = trained(tmp_path / "once", work)
    for stop_at in (("vision tower", 2), ("language model", 2)):
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "again", tmp_path / "w", stop_at=stop_at)
    again = trained(tmp_path / "again", tmp_path / "w")
    assert once.keys() == again.keys()
    assert all(torch.equal(once[name], again[name]) for name in once)
    # The folder of drawn faces is shared, what was trained is not.
    others = trained(tmp_path / "others", tmp_path / "w", GONE[:2])
    whole = trained(tmp_path / "whole", tmp_path / "w", ())
    tower = next(name for name in once if "patch_embedding" in name)
    assert not torch.equal(once[tower], others[tower])
    assert not torch.equal(once[tower], whole[tower])
    assert (tmp_path / "once" / train.LEFT_OUT).read_text("utf-8") == "c001\nc005\nc153\n"
    assert not (tmp_path / "whole" / train.LEFT_OUT).exists()
    assert train.LEFT_OUT in json.loads((tmp_path / "once" / "manifest.json").read_text())["files"]


def test_who_is_left_out_may_be_ids_a_file_or_a_run(tmp_path):
    listed = tmp_path / "who.txt"
    listed.write_text("c001\nc002\n", "utf-8")
    run = tmp_path / "run"
    run.mkdir()

    def write(**chosen):
        sets = {f"pretrained/{seed}": {"forget": ids} for seed, ids in chosen.items()}
        sets["finetuned/0"] = {"forget": ["f001"]}
        (run / "results.json").write_text(json.dumps({"sets": sets}), "utf-8")

    write(a=["c001", "c002"], b=["c001", "c002"])
    for named in ("c001,c002", str(listed), str(run)):
        assert command._left_out(named) == ("c001", "c002")
    for chosen in ({}, {"a": ["c001"], "b": ["c002"]}):
        write(**chosen)
        with pytest.raises(DataError, match="one choice of people"):
            command._left_out(str(run))
    (run / "results.json").unlink()
    with pytest.raises(DataError, match="no finished run"):
        command._left_out(str(run))


def test_whom_pre_training_never_shows_cannot_be_left_out_of_it(tmp_path):
    asked = ["train", str(tmp_path / "out"), "--without", "c001,f001,c999"]
    result = CliRunner().invoke(command.world, asked)
    assert isinstance(result.exception, ConfigError)
    assert [problem.got for problem in result.exception.problems] == ["f001", "c999"]
    assert not (tmp_path / "out").exists()
