"""MLLMU-Bench people: parquet configs to individuals, every malformed row named at once.

Source: MLLMU-Bench (arXiv 2410.22108), Hub data set MLLMMU/MLLMU-Bench. `Full_Set` holds the
fictional people, `Retain_Set` the celebrities; both carry the scored picture and the questions.
`ft_Data` adds pictures and question-answer pairs to train on, `Test_Set` further poses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pulse_unlearn.data.configs import read_rows, shards
from pulse_unlearn.data.mllmu_rows import IMAGE_COLUMNS, IMAGE_PATH, Reader
from pulse_unlearn.records import Individual

CELEBRITIES = "Retain_Set"
FICTIONAL = "Full_Set"
TRAINING = "ft_Data"
OTHER_POSES = "Test_Set"
SPLITS = (("forget_5", "retain_95"), ("forget_10", "retain_90"), ("forget_15", "retain_85"))
"""Pairs that together hold every fictional person's training rows, as `ft_Data` does."""


@dataclass(frozen=True, slots=True)
class Group:
    """The people of one config, and how they were read."""

    individuals: tuple[Individual, ...]
    notes: tuple[str, ...]
    digests: Mapping[str, str]
    """Picture file -> SHA-256, where rows name files."""


def training_configs(folder: Path) -> tuple[str, ...]:
    """Return the configs to take training rows from: `ft_Data`, else the first whole split."""
    whole = (pair for pair in ((TRAINING,), *SPLITS) if all(shards(folder, name) for name in pair))
    return next(whole, ())


def load_people(
    folder: Path, *, config: str, more: bool = True, id_prefix: str = ""
) -> list[Individual]:
    """Read the people of one config, in the order of the file; see `read_group`."""
    return list(read_group(folder, config=config, more=more, id_prefix=id_prefix).individuals)


def read_group(folder: Path, *, config: str, more: bool = True, id_prefix: str = "") -> Group:
    """Read one config and tell how.

    `more` adds pictures to train on and further poses, from whichever of their configs are there.
    People of `Retain_Set` are of group `celebrity`, all others `fictional`. `id_prefix` keeps ids
    of two configs apart. Every picture is decoded once. Raises DataError with every problem of
    every file.
    """
    group = "celebrity" if config == CELEBRITIES else "fictional"
    reader = Reader(folder, group=group, prefix=id_prefix)
    needed, pictures = ("ID", "Classification_Task"), (*IMAGE_COLUMNS, IMAGE_PATH)
    for row in read_rows(
        folder, config, needed=needed, optional=(*pictures, "biography"), problems=reader.problems
    ):
        reader.add_person(row)
    further = [(name, reader.add_training) for name in training_configs(folder)]
    further += [(OTHER_POSES, reader.add_poses)] if shards(folder, OTHER_POSES) else []
    for name, add in further if more else ():
        columns = (*pictures, "metadata", "question", "answer")
        for row in read_rows(
            folder, name, needed=("ID",), optional=columns, problems=reader.problems
        ):
            add(row, name)
    individuals = reader.finish(where=f"{folder}/{config}")
    return Group(tuple(individuals), tuple(reader.notes()), reader.album.digests)
