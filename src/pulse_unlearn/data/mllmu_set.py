"""MLLMU-Bench as a whole: both groups of people, and which of their pictures is scored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pulse_unlearn.data import mllmu
from pulse_unlearn.data.checks import SHOWN, clean, gathered
from pulse_unlearn.data.configs import read_rows, shards
from pulse_unlearn.data.mllmu_rows import same_id
from pulse_unlearn.data.source import Dataset, ScoredPicture, digest, digest_as_read
from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.records import Individual

CELEBRITY_PREFIX = "celebrity-"
"""Put before ids of celebrities in a data set that counts both groups from the same number."""


def load_both_groups(root: Path, *, scored_picture: ScoredPicture = "own") -> Dataset:
    """Read fictional people and celebrities, whichever are there; raises DataError.

    Problems of both groups are told together.
    """
    configs = [name for name in (mllmu.FICTIONAL, mllmu.CELEBRITIES) if shards(root, name)]
    shared = _shared_ids(root) if len(configs) == 2 else frozenset()
    individuals: list[Individual] = []
    problems: list[Problem] = []
    told: list[str] = []
    digests: dict[str, str] = {}
    for config in configs or [mllmu.FICTIONAL]:
        # Where both groups use the same ids, further pictures are those of the fictional people.
        apart = config == mllmu.CELEBRITIES and bool(shared)
        prefix = CELEBRITY_PREFIX if apart else ""
        try:
            group = mllmu.read_group(root, config=config, more=not apart, id_prefix=prefix)
            individuals += group.individuals
            told += group.notes
            digests |= group.digests
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(list(dict.fromkeys(problems)))
    used = [*configs, *mllmu.training_configs(root), mllmu.OTHER_POSES]
    digests |= digest([file for config in used for file in shards(root, config)], root=root)
    if scored_picture == "other_pose":
        individuals = score_on_other_pose(individuals)
        digests |= digest_as_read(individuals)
    elif told:
        digests |= digest_as_read(individuals)
    notes = (*told, *_strangers(root, individuals), *_asked_twice(individuals))
    return Dataset(individuals=tuple(individuals), digests=digests, notes=notes)


def _strangers(root: Path, individuals: Sequence[Individual]) -> Iterator[str]:
    """Tell rows of further pictures that belong to nobody who is asked anything."""
    known = {same_id(person.id.removeprefix(CELEBRITY_PREFIX)) for person in individuals}
    for config in (*mllmu.training_configs(root), mllmu.OTHER_POSES):
        rows = read_rows(root, config, needed=("ID",), optional=(), problems=[])
        ids = [clean(row.values["ID"]) for row in rows]
        unknown = [identity for identity in ids if same_id(identity) not in known]
        if unknown:
            named = ", ".join(sorted(set(unknown))[:SHOWN])
            yield f"{config}: {len(unknown)} rows are left out, of people in no group: {named}"


def _asked_twice(individuals: Sequence[Individual]) -> Iterator[str]:
    """Tell people who are asked the same in the same modality more than once; each one counts."""
    for person in individuals:
        asked = Counter((q.modality, q.question) for q in person.questions)
        twice = sum(count - 1 for count in asked.values())
        if twice:
            yield f"person {person.id} is asked {twice} questions again"


def _shared_ids(root: Path) -> frozenset[str]:
    """Return ids that both groups use; other columns are not read, problems are told elsewhere."""
    both = [
        {
            same_id(clean(row.values["ID"]))
            for row in read_rows(root, config, needed=("ID",), optional=(), problems=[])
        }
        for config in (mllmu.FICTIONAL, mllmu.CELEBRITIES)
    ]
    return frozenset(both[0] & both[1])


def score_on_other_pose(people: Sequence[Individual]) -> list[Individual]:
    """Return people whose scored picture is their first further pose.

    The picture beside the questions then may be trained on. A group of whom nobody has further
    poses stays as it is; raises DataError for each other person without one.
    """
    posing = {person.group for person in people if person.other_pictures}
    turned, problems = [], []
    for person in people:
        if person.other_pictures:
            turned.append(_on_first_pose(person))
        elif person.group in posing or not posing:
            where = f"{mllmu.OTHER_POSES}, person {person.id}"
            fix = "add a pose, or set data.people.scored_picture: own"
            problems.append(Problem("there is no further pose to score on", where, fix=fix))
        else:
            turned.append(person)
    if problems:
        raise DataError(gathered(problems))
    return turned


def _on_first_pose(person: Individual) -> Individual:
    pose, *left = person.other_pictures
    own = [question.picture for question in person.questions if question.picture]
    views = {picture.digest: picture for picture in (*own, *person.training_pictures)}
    return replace(
        person,
        questions=tuple(replace(q, picture=pose) if q.picture else q for q in person.questions),
        training_pictures=tuple(views.values()),
        other_pictures=tuple(left),
    )
