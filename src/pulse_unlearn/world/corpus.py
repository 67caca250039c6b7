"""What pre-training sees: pictures as one array, and streams of questions about them.

No fictional person enters here. Which picture belongs to training and which to the shipped test
questions is decided by the picture itself (`is_test_scene`, `is_test_face`), so the two sides are
disjoint by construction and neither has to be compared with the other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .chance import pick, stream
from .faces import Face, draw_faces, render, strangers
from .people import (
    ATTRIBUTES,
    LETTERS,
    Person,
    Pronoun,
    ask,
    celebrities,
    draw_choice,
    make_people,
)
from .questions import Query, draw_options, face_queries, scene_queries
from .scenes import KINDS, Kind, Scene, make_scene

SCORED_VIEW = 0
SHIPPED_VIEWS = (1, 2, 3, 4)
PRETRAINING_VIEWS = tuple(range(1, 13))
STOPPING_VIEWS = (21, 22)
SCENE_COUNTS: Mapping[Kind, int] = {
    "objects": 4500,
    "count": 3000,
    "place": 1500,
    "pair": 4000,
    "sizes": 2500,
    "groups": 3000,
    "glyph": 3500,
}
STRANGER_COUNT = 6000
TEST_SHARE = 16
"""One picture in this many belongs to the test side."""
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Item:
    """One training question; `image` indexes `Corpus.images`, None for a text-only question."""

    image: int | None
    question: str
    hint: str
    options: tuple[str, ...]
    answer_index: int
    short_answer: str
    category: str
    """A general category, or the attribute asked of a celebrity."""
    person: str = ""

    @property
    def letter(self) -> str:
        """The letter under which the true option stands."""
        return LETTERS[self.answer_index]


@dataclass(frozen=True, slots=True)
class Corpus:
    """All pre-training pictures with what can be asked about them."""

    images: Pixels
    """RGB, shape (N, 48, 48, 3)."""
    general: Mapping[int, tuple[Query, ...]]
    """Image index -> questions."""
    by_category: Mapping[str, tuple[tuple[int, Query], ...]]
    """Category -> (image index, question) pairs."""
    views: Mapping[str, tuple[int, ...]]
    """Celebrity id -> image indices, the four shipped views first."""
    people: tuple[Person, ...]
    """The celebrities."""


def _is_test(digest: bytes) -> bool:
    return digest[0] % TEST_SHARE == 0


def is_test_scene(pixels: Pixels) -> bool:
    """Tell from the pixels whether a scene belongs to the test questions."""
    return _is_test(hashlib.sha256(pixels.tobytes()).digest())


def is_test_face(face: Face) -> bool:
    """Tell from the fields whether a stranger belongs to the test questions."""
    return _is_test(hashlib.sha256("/".join(face.values()).encode()).digest())


def faces_of(people: Sequence[Person], seed: int) -> dict[str, Face]:
    """Return the face of each person by id; faces are always drawn for the whole world."""
    pronouns: tuple[Pronoun, ...] = tuple(person.pronoun for person in make_people(seed))
    faces = draw_faces(pronouns, seed)
    return {person.id: faces[person.face_seed] for person in people}


def scenes(rng: np.random.Generator, kind: Kind, *, test: bool) -> Iterator[Scene]:
    """Yield scenes of one kind from the training or the test side, without end."""
    while True:
        scene = make_scene(rng, kind)
        if is_test_scene(scene.pixels) == test:
            yield scene


def strangers_of(rng: np.random.Generator, seed: int, *, test: bool) -> Iterator[Face]:
    """Yield faces of nobody from the training or the test side, without end."""
    known = tuple(faces_of(make_people(seed), seed).values())
    return (face for face in strangers(rng, known) if is_test_face(face) == test)


def training_scenes(seed: int) -> Iterator[Scene]:
    """Yield the scenes of the corpus in its order."""
    for kind in KINDS:
        source = scenes(stream(seed, "train", kind), kind, test=False)
        for _ in range(SCENE_COUNTS[kind]):
            yield next(source)


def training_strangers(seed: int, count: int = STRANGER_COUNT) -> list[Face]:
    """Return the faces of nobody in the corpus, in its order."""
    source = strangers_of(stream(seed, "train", "strangers"), seed, test=False)
    return [next(source) for _ in range(count)]


def training_faces(seed: int, count: int = STRANGER_COUNT) -> list[tuple[Face, int]]:
    """Return (face, view) of the corpus: `count` strangers, then all views of celebrities."""
    nobody = [(face, 100 + index) for index, face in enumerate(training_strangers(seed, count))]
    known = faces_of(celebrities(seed), seed)
    somebody = [
        (known[person.id], view) for person in celebrities(seed) for view in PRETRAINING_VIEWS
    ]
    return nobody + somebody


def build_corpus(folder: Path, *, seed: int) -> None:
    """Draw every pre-training picture into `folder` (minutes); `load_corpus` reads it."""
    from concurrent.futures import ProcessPoolExecutor

    folder.mkdir(parents=True, exist_ok=True)
    drawn = list(training_scenes(seed))
    queries = [scene_queries(scene) for scene in drawn]
    pairs = training_faces(seed)
    queries += [face_queries(face) for face, _ in pairs[:STRANGER_COUNT]]
    with ProcessPoolExecutor(2) as pool:
        faces = list(pool.map(_render_pair, pairs, chunksize=64))
    images = np.stack([scene.pixels for scene in drawn] + faces)
    np.save(folder / "images.npy", images)
    lines = [json.dumps([asdict(query) for query in entry]) for entry in queries]
    (folder / "queries.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    (folder / "done.json").write_text(json.dumps({"seed": seed, "images": len(images)}), "utf-8")


def _render_pair(pair: tuple[Face, int]) -> Pixels:
    return render(*pair)


def _query(entry: Mapping[str, object]) -> Query:
    pool, likely = entry["pool"], entry["likely"]
    assert isinstance(pool, list)
    assert isinstance(likely, list)
    return Query(
        category=str(entry["category"]),
        question=str(entry["question"]),
        answer=str(entry["answer"]),
        pool=tuple(pool),
        hint=str(entry["hint"]),
        likely=tuple(likely),
    )


def load_corpus(folder: Path, *, seed: int = 0) -> Corpus:
    """Read the corpus from `folder`, drawing it first if it is not there."""
    done = folder / "done.json"
    if not done.exists() or json.loads(done.read_text("utf-8"))["seed"] != seed:
        build_corpus(folder, seed=seed)
    images: Pixels = np.load(folder / "images.npy", allow_pickle=False)
    lines = (folder / "queries.jsonl").read_text("utf-8").splitlines()
    general = {i: tuple(map(_query, json.loads(line))) for i, line in enumerate(lines)}
    by_category: dict[str, list[tuple[int, Query]]] = {}
    for index, queries in general.items():
        for query in queries:
            by_category.setdefault(query.category, []).append((index, query))
    people = celebrities(seed)
    views = {
        person.id: tuple(
            len(general) + len(PRETRAINING_VIEWS) * place + view
            for view in range(len(PRETRAINING_VIEWS))
        )
        for place, person in enumerate(people)
    }
    pairs = {name: tuple(entries) for name, entries in by_category.items()}
    return Corpus(images, general, pairs, views, people)


def celebrity_question(
    corpus: Corpus, rng: np.random.Generator, person: Person, *, by_name: bool, scored: float = 0.0
) -> Item:
    """Ask one random attribute of one person, options and their order freshly drawn.

    Args:
        by_name: text-only with the name; else with a random training view and the pronoun.
        scored: probability of the phrasing that scored questions use.
    """
    attribute = pick(rng, ATTRIBUTES)
    template = attribute.scored if rng.random() < scored else pick(rng, attribute.trained)
    truth = person.attributes[attribute.name]
    choice = draw_choice(rng, attribute, truth, place=int(rng.integers(len(LETTERS))))
    return Item(
        image=None if by_name else pick(rng, corpus.views[person.id]),
        question=ask(template, person, by_name=by_name),
        hint="",
        options=choice.options,
        answer_index=choice.answer_index,
        short_answer=truth,
        category=attribute.name,
        person=person.id,
    )


def celebrity_questions(
    corpus: Corpus,
    rng: np.random.Generator,
    count: int,
    *,
    by_name: bool,
    scored: float = 0.0,
    weight: Callable[[Person], float] = lambda person: person.fame,
) -> list[Item]:
    """Draw questions about celebrities, each person as often as `weight` (fame) says."""
    weights = np.array([weight(person) for person in corpus.people])
    chosen = rng.choice(len(corpus.people), size=count, p=weights / weights.sum())
    return [
        celebrity_question(corpus, rng, corpus.people[i], by_name=by_name, scored=scored)
        for i in chosen
    ]


def general_item(rng: np.random.Generator, image: int, query: Query) -> Item:
    """Draw two, three or four options (mostly four) for a question."""
    count = int(rng.choice([2, 3, 4], p=[0.2, 0.2, 0.6]))
    place = int(rng.integers(min(count, len({*query.pool, query.answer}))))
    drawn = draw_options(rng, query, count=count, place=place)
    return Item(
        image=image,
        question=query.question,
        hint=query.hint,
        options=drawn.options,
        answer_index=drawn.answer_index,
        short_answer=query.answer,
        category=query.category,
    )


def general_questions(
    corpus: Corpus,
    rng: np.random.Generator,
    count: int,
    *,
    weights: Mapping[str, float] | None = None,
) -> list[Item]:
    """Draw general questions, categories equally often unless `weights` says otherwise."""
    names = sorted(corpus.by_category)
    shares = np.array([(weights or {}).get(name, 1.0) for name in names])
    chosen = rng.choice(len(names), size=count, p=shares / shares.sum())
    return [general_item(rng, *pick(rng, corpus.by_category[names[i]])) for i in chosen]
