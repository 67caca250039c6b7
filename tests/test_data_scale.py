"""Checks of many people: the pairs that an index finds are those that looking at all would find."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_cases import encoded, person, question
from pulse_unlearn.data import leaks, likeness
from pulse_unlearn.data.datasets import load_people
from pulse_unlearn.data.images import picture_from_bytes, pictures_of
from pulse_unlearn.data.leaks import about_people, find_duplicates
from pulse_unlearn.data.naming import is_variant, plain, variant_pairs, words_of
from pulse_unlearn.data.options import Fact, Pool
from pulse_unlearn.data.starter import write_starter

# Few words, so that many names resemble one another; initials, suffixes and commas among them.
PARTS = [
    "ann",
    "abe",
    "ann,",
    "a",
    "a.",
    "b",
    "bo",
    "bo,",
    "Bó",
    "cy",
    "c.",
    "jr",
    "Jr.",
    "sr",
    "ii",
]
NAMES = st.lists(st.sampled_from(PARTS), max_size=5).map(" ".join)
SOMEBODY = person("p", seed=1)


@given(st.lists(NAMES, max_size=12))
@settings(max_examples=400)
def test_variants_of_names_are_those_among_all_pairs(names):
    every = {
        (i, j)
        for (i, one), (j, other) in combinations(enumerate(names), 2)
        if words_of(one) & words_of(other) and is_variant(one, other)
    }
    assert {(i, j) for i, j in variant_pairs(names) if is_variant(names[i], names[j])} == every


@given(st.text(st.characters(max_codepoint=127), max_size=30))
def test_plain_letters_are_read_as_any_others(text):
    # A space without width is dropped; only text with such signs is read one by one.
    assert plain(text) == plain(text + "\u200b")


def shown(pixels):
    image = Image.fromarray(np.asarray(pixels).clip(0, 255).astype(np.uint8))
    return picture_from_bytes(encoded(image), "")


def gallery(seed):
    """Noise and soft shapes, cuts and mirror images, and mixtures at every distance of them."""
    draw = np.random.default_rng(seed)
    noise = [draw.normal(128, 50, (48, 48, 3)) for _ in range(12)]
    coarse = [np.kron(draw.normal(128, 50, (4, 4, 3)), np.ones((12, 12, 1))) for _ in range(12)]
    made = [*noise, *coarse]
    for one, other in pairwise(made[:]):
        made += [one + share * (other - one) for share in draw.uniform(0.1, 0.5, 3)]
    made += [one[:, ::-1] + draw.normal(0, 20, one.shape) for one in made[:30]]
    made += [one[3:, :45] for one in made[:30]] + [one[5:43, 5:43] for one in made[:30]]
    made += [np.full((20, 20, 3), 90.0)]
    return [shown(made[place]) for place in draw.permutation(len(made))]


@pytest.mark.parametrize(("seed", "block", "tile"), [(0, 128, 512), (1, 7, 5), (2, 16, 64)])
def test_pictures_sought_out_are_those_among_all_pairs(monkeypatch, seed, block, tile):
    monkeypatch.setattr(likeness, "_BLOCK", block)
    monkeypatch.setattr(likeness, "_TILE", tile)
    pictures = gallery(seed)
    views = {
        n: seen for n, one in enumerate(pictures) if (seen := likeness._views(one)) is not None
    }
    wholes = np.stack([seen[0] for seen in views.values()])
    numbers = np.array([*views])
    apart = np.stack([((seen[:, None] - wholes) ** 2).sum(-1).min(0) for seen in views.values()])
    near = np.minimum(apart, apart.T) <= likeness._SOUGHT**2
    every = {(int(numbers[i]), int(numbers[j])) for i, j in np.argwhere(np.triu(near, 1))}
    every = {(min(pair), max(pair)) for pair in every}
    assert len(every) > 60
    assert set(likeness._sought(pictures)) == every
    # Of mixtures some are just near enough, and some just not.
    assert (np.abs(apart**0.5 - likeness._SOUGHT) < 0.02).any()


def test_pictures_that_were_checked_are_not_decoded_again(monkeypatch, tmp_path):
    """Mutation: `build_people` without its `Glance`."""
    write_starter(tmp_path / "mine")
    monkeypatch.setattr(likeness, "_BLOCK", 3)
    likeness._kept.clear()
    people = load_people("people", str(tmp_path / "mine")).individuals
    pictures = {p.digest: p for one in people for p in pictures_of(one)}
    assert likeness._kept.keys() == pictures.keys()
    monkeypatch.setattr(likeness, "decode", None)
    glanced = likeness._sketches([*pictures.values()])
    monkeypatch.undo()
    likeness._kept.clear()
    for one, other in zip(glanced, likeness._sketches([*pictures.values()]), strict=True):
        assert np.allclose(one.views, other.views, atol=1e-5)
        assert np.allclose(one.whole, other.whole, atol=1e-5)


def test_a_sketch_never_tells_apart_what_is_alike():
    pictures = gallery(3)
    made = [sketch for sketch in likeness._sketches(pictures) if sketch]
    views = np.stack([seen for one in pictures if (seen := likeness._views(one)) is not None])
    told = np.einsum("ivk,jvk->ijv", *[np.stack([sketch.views for sketch in made])] * 2)
    few = likeness._FEW
    first = np.stack([sketch.views[..., : few + 1] for sketch in made])
    assert np.allclose((first**2).sum(-1), 1, atol=1e-5)
    whole = told - np.einsum("iv,jv->ijv", *[first[..., few]] * 2)
    alike = np.einsum("ivd,jvd->ijv", views, views)
    assert (np.einsum("ivk,jvk->ijv", first, first) >= alike - likeness._SLACK).all()
    assert (whole >= alike - likeness._SLACK).all()
    assert len(made) == len(views) == len(pictures) - 1


@given(st.lists(NAMES, max_size=6), st.lists(NAMES, max_size=6))
def test_questions_that_name_somebody_are_those_among_all(names, texts):
    people = [replace(SOMEBODY, id=f"p{n}", name=name) for n, name in enumerate(names)]
    general = [replace(question(f"g{n}"), question=text) for n, text in enumerate(texts)]
    every = {
        asked.id
        for asked in general
        for who in people
        if len(words_of(who.name)) > 1 and plain(who.name) in plain(asked.question)
    }
    assert set(about_people(people, general)) == every


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["x", "X.", "y", "z"]))))
def test_an_answer_is_lonely_if_no_option_can_be_drawn(given_answers):
    facts = [Fact(who, "attribute", answer) for who, answer in given_answers]
    pool = Pool(facts)
    for fact in [*facts, Fact("c", "attribute", "x"), Fact("a", "other", "x")]:
        options, _ = pool.draw(fact, count=4, seed=0, order="")
        assert pool.is_lonely(fact) == (len(options) == 1)


def test_people_are_not_compared_each_with_each(monkeypatch):
    count = 300
    people = [
        # Seventeen share each first name and each last one, nobody both.
        replace(person(f"p{n}", seed=4 * n), name=f"First{n % 17} Middle{n} Last{n // 17}")
        for n in range(count)
    ]
    compared = []
    monkeypatch.setattr(leaks, "is_variant", lambda *names: compared.append(names))
    looked = []
    search = likeness._near

    def counted(*arguments):
        found = search(*arguments)
        looked.extend(found[0].tolist())
        return found

    monkeypatch.setattr(likeness, "_near", counted)
    begun = []
    monkeypatch.setattr(likeness, "_start", lambda *pair: begun.append(pair))
    assert find_duplicates(people) == []
    assert len(compared) < count
    assert len(looked) < count
    assert len(begun) < count
