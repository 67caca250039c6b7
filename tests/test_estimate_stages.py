"""What each stage will take, counted by hand on plans small enough for it."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from PIL import Image

from pulse_unlearn.config import load_experiment
from pulse_unlearn.data.starter import write_starter
from pulse_unlearn.estimate import questions
from pulse_unlearn.estimate.counts import NOTHING, Adapter, training_operations
from pulse_unlearn.estimate.placeholders import (
    ASSUMED_SIDE,
    OPTION,
    QUESTION,
    placeholder_inputs,
    still_missing,
)
from pulse_unlearn.estimate.questions import TEMPLATE_TOKENS, picture_size
from pulse_unlearn.estimate.sizes import describe
from pulse_unlearn.estimate.stages import estimate_stages
from pulse_unlearn.pipeline.inputs import read_inputs
from pulse_unlearn.records import Picture
from pulse_unlearn.registries import schemas


def load(name, *overrides):
    return load_experiment(name, overrides=overrides, schemas=schemas())


def estimate(experiment):
    inputs = (
        placeholder_inputs(experiment) if still_missing(experiment) else read_inputs(experiment)
    )
    stages = estimate_stages(inputs, describe(experiment.model))
    return {stage.name: stage for stage in stages}


@pytest.fixture(scope="module")
def paper():
    return estimate(load("paper", "seeds=[0]"))


def test_paper_has_the_steps_and_questions_of_its_file(paper):
    # 100 people x 10 questions x 10 epochs in batches of 16.
    assert paper["seed0/finetune"].steps == 625
    assert paper["seed0/finetune"].trained.questions == 10_000
    assert paper["seed0/finetuned/ga/unlearn"].steps == 160
    assert paper["seed0/finetuned/ga/unlearn"].trained.questions == 160 * 16
    # 125 people x 10 questions in four orders and in words; every rotation of MMBench: 1002 x 4 +
    # 162 x 2.
    assert paper["seed0/target/score"].asked.questions == pytest.approx(1250 * 5 + 4332)
    # 45 chosen and 25 unseen celebrities x 10.
    assert paper["seed0/pretrained/ga/score"].asked.questions == pytest.approx(700 * 5 + 4332)
    assert paper["seed0/select"].tokens == 0


def test_a_probe_asks_by_letter_and_of_those_it_learns_from_too():
    """And is read off the prompt: nothing is generated, nothing asked in words."""
    probing = "evaluations={retain_model: {}, probing: {depths: [0.5]}}"
    found = estimate(load("smoke", "seeds=[0]", "scenarios.pretrained=null", probing))
    probes = [one for one in found.values() if one.kind == "probe"]
    assert probes
    assert all(one.operations > 0 and one.memory for one in probes)
    probe = found["seed0/finetuned/ga/probe50"]
    # Four to forget and, to learn from, four of D_retain and two unseen celebrities; each ten
    # questions in four orders.
    assert probe.asked.questions == pytest.approx((4 + 4 + 2) * 10 * 4)
    assert probe.asked.answers == pytest.approx(0)


@pytest.mark.slow  # several plans
def test_each_reading_has_its_price_and_can_be_turned_off():
    """Orders and words are told apart, so that a big run may choose; in operations, unpacked."""
    every = estimate(load("paper", "seeds=[0]"))["seed0/target/score"].forms
    assert set(every) == {"file", "orders", "words"}
    # Three orders more than the file's of 1250 + 1002 questions, one more of 162; all as long.
    assert every["orders"] / every["file"] == pytest.approx((3 * 2252 + 162) / 2414, rel=0.05)
    for off, left in (
        (("scoring.words=none",), {"file", "orders"}),
        (("scoring.people=vanilla", "scoring.general=vanilla"), {"file", "words"}),
        ((*ONE_ORDER[1:3], "scoring.general=vanilla"), {"file"}),
    ):
        found = estimate(load("paper", "seeds=[0]", *off))["seed0/target/score"].forms
        assert set(found) == left
        assert found["file"] == pytest.approx(every["file"])


def test_a_retain_batch_and_a_reference_are_counted(paper):
    """GA+KLR passes forget and retain forward and back, and asks the reference about retain."""
    ga, klr, npo = (paper[f"seed0/finetuned/{name}/unlearn"] for name in ("ga", "ga_klr", "npo"))
    batch = 160 * 16
    # Checks: one before and one every four steps, of 200 questions.
    checks = (1 + 160 // 4) * 200
    assert ga.asked.questions == pytest.approx(checks)
    assert klr.trained.questions == 2 * batch
    assert klr.asked.questions == pytest.approx(checks + batch)
    assert npo.trained.questions == batch
    assert npo.asked.questions == pytest.approx(checks + batch)
    assert (ga.batch.sequences, klr.batch.sequences) == (8, 16)


def test_other_forms_of_forget_questions_are_counted_as_they_are_passed():
    """In batches of forget examples: the question itself and everything asked beside it."""
    methods = {
        "dpo": (2, 2),  # the other answer, and the reference on both
        "alt_po": (3, 2),
        "idk": (3, 0),
        "llmu": (3, 1),
        "jensun": (3, 1),
        "levelled": (2, 2),
        "pdu": (2, 0),
        "safe_eraser": (3, 0),
        "df_mcq": (1 + 3 + 4 + 1, 0),  # three more orders, four texts, a retain batch
        "pulse": (1 + 4 + 1 + 1, 1),  # four texts, another answer, a retain batch and its reference
    }
    one = "methods.flat={method: df_mcq, settings: {orders: one, words_weight: 0.0}}"
    named = [f"methods.{name}={{method: {name}}}" for name in methods]
    alone = ("scenarios.pretrained=null", "scenarios.sustainability=null")
    found = estimate(load("paper", "seeds=[0]", *alone, one, *named))
    batch, checks = 160 * 16, (1 + 160 // 4) * 200
    for name, (trained, asked) in (methods | {"flat": (2, 0)}).items():
        stage = found[f"seed0/finetuned/{name}/unlearn"]
        assert stage.trained.questions == pytest.approx(trained * batch), name
        assert stage.asked.questions == pytest.approx(checks + asked * batch), name
        assert stage.batch.sequences == 8 * trained, name
    ga, idk, df_mcq = (found[f"seed0/finetuned/{name}/unlearn"] for name in ("ga", "idk", "df_mcq"))
    # A letter and the end; "I have no information about this person." at four characters a token
    # and the end; an option of 24 characters and the end.
    assert [one.batch.answer for one in (ga, idk, df_mcq)] == [2, 40 // 4 + 1, 24 // 4 + 1]
    # Bare questions are shorter than those with their options.
    assert 5 * ga.trained.tokens < df_mcq.trained.tokens < 9 * ga.trained.tokens


def test_paper_asks_questions_of_the_length_it_should(paper):
    # Ten questions of 60 characters and four options of 24: 576 tokens for the picture, the text
    # by four characters a token, the template, a letter and the end.
    assert (len(QUESTION), len(OPTION)) == (60, 24)
    text = 60 + 4 * len("A: " + OPTION) + len("\n") * 5
    text += len("Just give ONE letter representing the answer directly.")
    longest = 576 + round(text / 4) + TEMPLATE_TOKENS + 2
    assert paper["seed0/finetune"].batch.longest == longest
    # MMBench's paragraphs make its questions the longest: 1980 characters and a line end more, and
    # LLaVA's own last line and system sentence; behind them the four letters.
    text = 1980 - 1 + 1 + 60 + 4 * len("A. " + OPTION) + len("\n") * 5
    text += len("Answer with the option's letter from the given choices directly.")
    text += len("A chat between a curious user and an artificial intelligence assistant. ")
    text += len(
        "The assistant gives helpful, detailed, and polite answers to the user's questions."
    )
    scored = paper["seed0/target/score"].batch.longest
    assert scored == pytest.approx(576 + text / 4 + TEMPLATE_TOKENS + 4, abs=1)
    assert paper["seed0/finetune"].trained.pictures == 5000
    assert paper["seed0/finetune"].trained.patches == 5000 * 577


ONE_ORDER = (
    "seeds=[0]",
    "scoring.people=vanilla",
    "scoring.words=none",
    "scenarios.unseen.celebrities=0",
)
IN_WORDS = (
    *ONE_ORDER,
    "data.people_prompt=statement",
    "data.general_prompt=statement",
    "scoring.general=vanilla",
    "scoring.batch_size=16",
)


def test_every_option_is_counted_where_it_is_read(paper):
    """Options of 24 characters, 7 tokens with their end; 1002 general questions have four."""
    # What follows the prompt and each letter; general questions in every rotation.
    letters = estimate(load("paper", *ONE_ORDER))["seed0/target/score"]
    assert letters.asked.answers == pytest.approx(8 * (1000 + 4 * 1002) + 4 * 2 * 162, rel=0.01)
    assert letters.batch.answer == 4 * 2
    # With every order and in words: four letters four times, four texts and what follows each.
    every = paper["seed0/target/score"].asked.answers - 4 * 2 * (1002 * 4 + 81 * 2)
    assert every == pytest.approx(1250 * (4 * 8 + 4 * 8), rel=0.01)
    packed, apart = (
        estimate(load("paper", *IN_WORDS, f"speed.packing={packing}"))["seed0/target/score"]
        for packing in ("auto", "off")
    )
    four, two = 1000 + 1002, 162
    assert packed.asked.answers == pytest.approx(4 * 8 * four + 2 * 8 * two, rel=0.01)
    assert packed.asked.pictures == pytest.approx(500 + 1164)
    assert packed.batch.answer == 4 * 8
    # Unpacked, what is said is generated, and each option is read behind a prompt of its own.
    assert apart.asked.answers == pytest.approx(5 * 7 * four + 3 * 7 * two, rel=0.01)
    assert apart.asked.pictures == pytest.approx(5 * (500 + 1002) + 3 * 162, rel=0.01)
    assert apart.asked.questions == packed.asked.questions == pytest.approx(1000 + 1164)
    assert apart.batch.answer == 7
    assert apart.batch.longest == packed.batch.longest - 3 * 7
    assert packed.memory["options"] == 16 * 32 * 32064 * (2 + 12)


@pytest.mark.slow  # several plans
def test_a_stop_rule_by_likelihood_reads_all_options():
    """200 questions a check, of 60 characters; packed behind one prompt, unpacked behind four."""
    checks, prompt = (1 + 160 // 4) * 200, 60 // 4 + TEMPLATE_TOKENS
    pictures = {}
    for parser, packing, prompts, heads in (
        ("strict", "auto", 1, 7),
        ("likelihood", "auto", 1, 28),
        ("likelihood", "off", 4, 28),
    ):
        chosen = (f"scoring.parser={parser}", f"speed.packing={packing}")
        found = estimate(load("paper", *IN_WORDS, *chosen))["seed0/finetuned/ga/unlearn"].asked
        assert found.questions == pytest.approx(checks)
        assert found.answers == pytest.approx(checks * heads)
        texts = found.tokens - 576 * found.pictures
        assert texts == pytest.approx(checks * (prompts * prompt + heads))
        pictures[parser, packing] = found.pictures / prompts
    assert len(set(pictures.values())) == 1


@pytest.mark.slow  # seconds of a core; parts of it are tested quickly
def test_what_a_reference_said_is_counted_on_the_device_and_in_checkpoints(paper):
    """160 steps of 16 draw 500 questions five times; answers of two tokens."""
    state = 3 * 16 * paper["seed0/finetune"].trained_parameters
    for method, answer in (("ga", 0), ("npo", 2 * 4), ("ga_klr", 2 * 4 * 32064)):
        stage = paper[f"seed0/finetuned/{method}/unlearn"]
        assert stage.references == stage.memory["references kept"] == 160 * 16 // 2 * answer, method
        assert stage.passing_bytes == state + 3 * stage.references
    few, many = (
        estimate(load("paper", "seeds=[0]", f"unlearn.stop.max_steps={steps}"))
        for steps in (40, 1600)
    )
    # 640 draws: 140 behind the first epoch. And no more than is kept at all.
    assert few["seed0/finetuned/npo/unlearn"].references == 140 * 2 * 4
    assert many["seed0/finetuned/ga_klr/unlearn"].references == 1 << 30


@pytest.mark.slow  # several plans
def test_adapters_pile_up_only_where_they_are_held_apart():
    stacked = estimate(load("paper", "seeds=[0]"))
    merged = estimate(load("paper", "seeds=[0]", "model.frozen_adapters=merged"))
    adapter = stacked["seed0/finetune"].trained_parameters
    for number in range(1, 6):
        name = f"seed0/sustainability/ga/request{number}/unlearn"
        # The fine-tuned adapter and those of the requests before.
        assert stacked[name].memory["frozen adapters"] == 4 * number * adapter
        # The original reference carries the fine-tuned one alone, so the others stay apart.
        assert merged[name].memory["frozen adapters"] == 4 * (number - 1) * adapter
    assert stacked["seed0/target/score"].memory["frozen adapters"] == 4 * adapter
    assert merged["seed0/target/score"].memory["frozen adapters"] == 0


def test_a_continued_adapter_is_held_twice_if_the_last_request_is_the_reference():
    found = estimate(
        load(
            "paper", "seeds=[0]", "unlearn.adapter=continued", "unlearn.reference=previous_request"
        )
    )
    adapter = found["seed0/finetune"].trained_parameters
    names = [f"seed0/sustainability/ga/request{n}/unlearn" for n in (1, 2)]
    assert [found[name].memory["frozen adapters"] / 4 / adapter for name in names] == [1, 2]


def largest(stages):
    return max(sum(stage.memory.values()) for stage in stages.values() if stage.memory)


@pytest.mark.slow  # seconds of a core; parts of it are tested quickly
def test_paper_fits_the_card_its_description_names(paper):
    most = largest(paper)
    assert 40e9 < most < 80e9
    small = estimate(load("paper-7b", "seeds=[0]"))
    assert largest(small) < 40e9
    qwen = estimate(load("qwen2.5-vl", "seeds=[0]"))
    assert largest(qwen) < 48e9
    laptop = estimate(load("smolvlm-laptop"))
    assert largest(laptop) < 12e9


def test_disk_is_adapters_answers_and_three_checkpoints(paper):
    stage = paper["seed0/finetune"]
    # By hand in test_estimate_sizes: 500 720 640 parameters and the projector's.
    assert stage.trained_parameters == 128 * (40 * (4 * 10240 + 3 * 18944) + 6144 + 10240)
    assert stage.kept_bytes == 4 * stage.trained_parameters
    assert stage.passing_bytes == 3 * 16 * stage.trained_parameters
    assert paper["seed0/target/score"].kept_bytes == pytest.approx(100 * (6250 + 4332))


@pytest.mark.slow  # several plans
def test_replay_takes_its_share_and_real_files_are_measured():
    experiment = load("demo")
    found = estimate(experiment)
    stage = found["seed0/finetune"]
    # Batches of 40, a fifth replayed: 100 people x 10 questions x 20 epochs / 32.
    assert stage.steps == 625
    assert stage.trained.questions == pytest.approx(625 * 40)
    # 48 x 48 pixels in patches of 12, and the class token.
    assert stage.batch.patches == 17
    model = describe(experiment.model)
    spent = training_operations(
        model, stage.trained, adapter=Adapter("projector+llm", 64), checkpointing=False
    )
    assert stage.asked == NOTHING
    assert stage.operations == spent


def test_some_of_many_people_stand_for_all(tmp_path, monkeypatch):
    """Mutations: counts of the sample left as they are; the longest question looked for in it."""
    write_starter(tmp_path / "mine")
    rows = (tmp_path / "mine" / "people.jsonl").read_text(encoding="utf-8").splitlines()
    rows[-1] = rows[-1].replace("?", f", {'and how ' * 40}?", 1)
    (tmp_path / "mine" / "people.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    whole, some = [], []
    for found, many in ((whole, 400), (some, 4)):
        monkeypatch.setattr(questions, "SURVEYED", many)
        monkeypatch.setattr(questions, "LONGEST", 1)
        with monkeypatch.context() as here:
            here.chdir(tmp_path / "mine")
            found += estimate(load("experiment.yaml", "seeds=[0]")).values()
    assert [one.name for one in some] == [one.name for one in whole]
    for one, other in zip(some, whole, strict=True):
        assert one.steps == other.steps
        assert one.asked.questions == pytest.approx(other.asked.questions)
        assert one.trained.tokens == pytest.approx(other.trained.tokens, rel=0.05)
        assert one.asked.tokens == pytest.approx(other.asked.tokens, rel=0.05)
        assert one.batch == other.batch
    assert some[0].batch.longest > 100


def test_what_is_missing_is_named_with_the_way_to_get_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    missing = still_missing(load("paper"))
    assert [problem.where for problem in missing] == [
        "data.people.path",
        "data.general.path",
        "model.revision",
    ]
    assert all(problem.fix for problem in missing)
    assert still_missing(load("demo")) == []
    (tmp_path / "MLLMU-Bench").mkdir()
    (tmp_path / "MMBench_DEV_EN.tsv").touch()
    assert still_missing(load("paper", "model.revision=" + "a" * 40)) == []


def test_what_is_there_is_read_even_if_the_rest_is_not():
    experiment = load("demo", "model.source=owner/name")
    inputs = placeholder_inputs(experiment)
    assert inputs.keys == {}
    assert len(inputs.people) == 273


def test_a_stand_in_has_the_people_the_plan_asks_for():
    inputs = placeholder_inputs(load("paper"))
    groups = [person.group for person in inputs.people.values()]
    assert (groups.count("fictional"), groups.count("celebrity")) == (100, 153)
    assert {len(person.questions) for person in inputs.people.values()} == {10}
    few = placeholder_inputs(load("paper", "data.general_questions=7"))
    assert len(few.general) == 7


def test_a_pictures_size_is_read_from_its_head():
    file = io.BytesIO()
    Image.new("RGB", (30, 20)).save(file, format="PNG")
    picture = Picture(file.getvalue(), "0", "here")
    assert picture_size(picture) == (30, 20)
    assert picture_size(replace(picture, data=b"")) == (ASSUMED_SIDE, ASSUMED_SIDE)


@pytest.mark.slow  # several plans
def test_full_updates_are_counted_as_such():
    """Numbers in bfloat16; adapters below a full update are in the weights, those above beside."""
    found = estimate(load("paper", "seeds=[0]", "finetune.update=full"))
    model = describe(load("paper").model)
    tensors = model.trained("projector+llm")
    stage = found["seed0/finetune"]
    assert (stage.trained_parameters, stage.number_bytes) == (tensors, 2)
    assert (stage.kept_bytes, stage.passing_bytes) == (2 * tensors, 3 * 4 * 2 * tensors)
    assert stage.memory["reference"] == 0, "fine-tuning asks no reference"
    assert found["seed0/target/score"].memory["frozen adapters"] == 0
    second = found["seed0/sustainability/ga/request2/unlearn"]
    assert second.memory["frozen adapters"] == 4 * second.trained_parameters
    full = estimate(load("paper", "seeds=[0]", "unlearn.update=full"))
    ga, npo = (full[f"seed0/sustainability/{name}/request2/unlearn"] for name in ("ga", "npo"))
    assert ga.memory["frozen adapters"] == ga.memory["reference"] == 0
    assert ga.memory["trained adapter"] == 0
    assert npo.memory["reference"] == 2 * tensors
    assert full["seed0/sustainability/ga/request2/score"].memory["frozen adapters"] == 0


def test_choices_of_reading_are_made_before_the_model_is_there(tmp_path):
    write_starter(tmp_path / "own")
    people = f"data.people={{source: people, path: {tmp_path / 'own'}, options: 3}}"
    inputs = placeholder_inputs(load("own-people", people, "model.source=owner/name"))
    sizes = {
        len(question.options)
        for person in inputs.people.values()
        for question in person.questions
        if question.question != "What color is the shirt?"
    }
    assert sizes == {3}
