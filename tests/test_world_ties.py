"""A world whose celebrities have friends: others of them, or nobody who is known otherwise."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter

import pytest
from click.testing import CliRunner

from pulse_unlearn.config import load_experiment
from pulse_unlearn.registries import schemas
from recipes.world import __main__ as command
from recipes.world import curriculum, train, vision
from recipes.world.chance import stream
from recipes.world.people import ATTRIBUTES, celebrities, make_people
from recipes.world.ties import FACTS, FRIEND, ask_of_friend, friends, halves, words
from recipes.world.tokenizer import make_tokenizer
from world_cases import small_corpus

SEED = 0
CAN_DRAW = importlib.util.find_spec("dicebear") and importlib.util.find_spec("resvg_py")


def test_everybody_has_a_friend_of_their_own_and_nobodies_have_names_nobody_has():
    both, known = halves(SEED), celebrities(SEED)
    friend_of = friends(SEED)
    assert {*friend_of} == {person.id for person in known}
    tied, free = ({person.id for person in both[half]} for half in ("tied", "free"))
    assert (len(tied), len(free)) == (77, 76)
    assert not tied & free
    assert {friend_of[person].id for person in tied} == tied
    assert all(friend_of[person].id != person for person in tied)
    made_up = {(friend_of[person].first, friend_of[person].last) for person in free}
    assert len(made_up) == len(free)
    assert not made_up & {(one.first, one.last) for one in make_people(SEED)}


def test_halves_are_as_famous():
    """Mutation: halves drawn from all at once."""
    ranks = [sorted(one.fame_rank for one in half) for half in halves(SEED).values()]
    assert all(abs(one - other) <= 1 for one, other in zip(*ranks, strict=False))


@pytest.mark.parametrize("of", ["last", *(attribute.name for attribute in ATTRIBUTES)])
def test_friends_names_and_attributes_come_from_as_many(of):
    def values(half):
        every = [friends(SEED)[person.id] for person in halves(SEED)[half]]
        return Counter(one.last if of == "last" else one.attributes[of] for one in every)

    tied, free = values("tied"), values("free")
    assert max(free.values()) - min(free.values()) <= 1  # nobodies are spread evenly
    assert abs(len(tied) - len(free)) <= (25 if of == "last" else 1)


@pytest.mark.parametrize("by_name", [False, True])
def test_the_same_is_asked_of_both_halves_of_all_facts(by_name):
    asked = {}
    person = celebrities(SEED)[0]
    for half, people in halves(SEED).items():
        friend, rng = friends(SEED)[people[0].id], stream(SEED, "test")
        asked[half] = [
            ask_of_friend(rng, person, friend, by_name=by_name, scored=0.5) for _ in range(300)
        ]
        for one in asked[half]:
            fact = one.fact.removeprefix("friend's ")
            assert one.truth == (friend.last if fact == "friend" else friend.attributes[fact])
            assert len({*one.choice.options}) == 4
            assert (person.name in one.question) is by_name
            assert friend.first not in one.question.replace(person.name, "")
    assert [one.question for one in asked["tied"]] == [one.question for one in asked["free"]]
    facts = {FRIEND.name, *(f"friend's {one.name}" for one in ATTRIBUTES)}
    assert {one.fact for one in asked["tied"]} == facts
    assert len(facts) == FACTS


def test_words_of_friendship_stand_behind_the_vocabulary_of_the_world():
    plain, more = make_tokenizer(SEED).get_vocab(), make_tokenizer(SEED, words(SEED)).get_vocab()
    assert {word: more[word] for word in plain} == plain
    assert {*more} - {*plain} == {"Who", "friend", "name"}
    person = celebrities(SEED)[0]
    rng, tokenizer = stream(SEED, "test"), make_tokenizer(SEED, words(SEED))
    for friend in friends(SEED).values():
        for by_name in (False, True):
            one = ask_of_friend(rng, person, friend, by_name=by_name, scored=0.5)
            text = " ".join((one.question, *one.choice.options))
            assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"]


def test_ties_to_people_who_are_left_out_are_refused(tmp_path):
    told = CliRunner().invoke(
        command.world, ["train", str(tmp_path / "w"), "--ties", "--without", "c001"]
    )
    assert told.exit_code == 2
    assert "friends of those left out would tell of them" in told.output
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow  # draws a face of every celebrity and trains two small worlds
@pytest.mark.skipif(not CAN_DRAW, reason="dicebear and resvg-py are only needed for the world")
def test_worlds_of_friends_share_a_tower_and_say_what_was_learned(tmp_path, monkeypatch):
    small_corpus(monkeypatch)
    parts, models = Counter(), {}
    for ties in (False, True):
        train.train_world(
            tmp_path / str(ties),
            work=tmp_path / "work",
            seed=SEED,
            on_step=lambda part, *_: parts.update([part]),
            recipe=curriculum.Recipe(
                steps=3, early=curriculum.Mix(4, 4, 4), warmup=1, threads=1, ties=ties
            ),
            vision=vision.Recipe(width=32, layers=1, heads=2, inner=32, batch=8, steps=3),
        )
        models[ties] = (tmp_path / str(ties) / "model" / "model.safetensors").read_bytes()
        written = tmp_path / str(ties) / train.FRIENDS
        assert written.exists() is ties
        if ties:
            known = json.loads(written.read_text("utf-8"))
            assert [*known] == ["tied", "free"]
            assert all(len(by) == 4 for by in known.values())
            assert all(0 <= share <= 1 for by in known.values() for share in by.values())
    assert parts == {"vision tower": 3, "language model": 6}
    assert len({*models.values()}) == 2


def test_the_experiment_names_both_halves():
    settings = load_experiment("ties", schemas=schemas()).scenarios.same_checkpoint
    assert {label: {*ids} for label, ids in settings.arms.items()} == {
        half: {person.id for person in people} for half, people in halves(SEED).items()
    }
    assert settings.target == "base"
