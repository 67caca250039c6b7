"""What pre-training sees: pictures as one array, and what can be asked about them.

No fictional person enters here. Which picture belongs to training and which to the shipped test
questions is decided by the picture itself (`is_test_scene`, `is_test_face`), so the two sides are
disjoint by construction and neither has to be compared with the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .chance import stream
from .faces import Face, draw_faces, render, strangers
from .people import Person, Pronoun, celebrities, make_people
from .questions import Query, face_queries, scene_queries
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
class Corpus:
    """All pre-training pictures with what can be asked about them."""

    scenes: tuple[Scene, ...]
    faces: tuple[Face, ...]
    """Strangers, then celebrities in all views."""
    images: Pixels
    """RGB, shape (N, 48, 48, 3): scenes, then faces."""
    by_category: Mapping[str, Sequence[tuple[int, Query]]]
    """Category -> (image index, question) pairs."""
    views: Mapping[str, Sequence[int]]
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


def load_corpus(work: Path, *, seed: int, without: Collection[str] = ()) -> Corpus:
    """Draw everything that pre-training sees; the faces, which take minutes, are kept in `work`.

    Nothing of the celebrities `without` names is in it, and all else is as it is with them.
    """
    drawn, everyone = tuple(training_scenes(seed)), training_faces(seed, STRANGER_COUNT)
    count = len(PRETRAINING_VIEWS)
    stay = [place for place, one in enumerate(celebrities(seed)) if one.id not in without]
    rows = [*range(STRANGER_COUNT)]
    rows += [STRANGER_COUNT + count * place + view for place in stay for view in range(count)]
    faces = draw_faces_of(everyone, work / f"faces-{seed}.npy")[rows]
    pairs = [everyone[row] for row in rows]
    asked = [scene_queries(scene) for scene in drawn]
    asked += [face_queries(face) for face, _ in pairs[:STRANGER_COUNT]]
    by_category: dict[str, list[tuple[int, Query]]] = {}
    for index, queries in enumerate(asked):
        for query in queries:
            by_category.setdefault(query.category, []).append((index, query))
    people = tuple(celebrities(seed)[place] for place in stay)
    return Corpus(
        scenes=drawn,
        faces=tuple(face for face, _ in pairs),
        images=np.concatenate([np.stack([scene.pixels for scene in drawn]), faces]),
        by_category=by_category,
        views={
            person.id: range(len(asked) + count * place, len(asked) + count * (place + 1))
            for place, person in enumerate(people)
        },
        people=people,
    )


def draw_faces_of(pairs: Sequence[tuple[Face, int]], cache: Path) -> Pixels:
    """Render (face, view) pairs, or read them from `cache`."""
    if cache.exists():
        known: Pixels = np.load(cache, allow_pickle=False)
        if len(known) == len(pairs):
            return known
    with ProcessPoolExecutor(2) as pool:
        images = np.stack(list(pool.map(_render_pair, pairs, chunksize=64)))
    cache.parent.mkdir(parents=True, exist_ok=True)
    np.save(cache, images)
    return images


def _render_pair(pair: tuple[Face, int]) -> Pixels:
    return render(*pair)
