"""Your own people: a folder with `people.jsonl` (or `.csv`, `.parquet`) and their pictures.

A row is a person with a list of `questions`, or one question with the person's fields beside it. A
question has options, or an `attribute` and its true answer; options then are other people's answers
of that attribute. `assets/starter/README.md` describes every field.
"""

from __future__ import annotations

from pathlib import Path

from pulse_unlearn.data.configs import contents
from pulse_unlearn.data.people_build import build_people
from pulse_unlearn.data.people_pictures import Album
from pulse_unlearn.data.people_rows import drafts_of
from pulse_unlearn.data.records_file import SUFFIXES, read_records
from pulse_unlearn.data.source import Dataset, Source, digest
from pulse_unlearn.errors import DataError, Problem

STEM = "people"


def load_folder(folder: Path, *, source: Source) -> Dataset:
    """Read the people of a folder; raises DataError with every problem of every row."""
    file = people_file(folder)
    problems: list[Problem] = []
    drafts = drafts_of(read_records(file, problems), problems)
    if not drafts and not problems:
        problems.append(Problem("there are no people", str(file)))
    if source.scored_picture != "own":
        problems.append(
            Problem(
                "further poses are scored of MLLMU-Bench only",
                "data.people.scored_picture",
                source.scored_picture,
                "own",
                "name the pose to score under image",
            )
        )
    album = Album(folder, problems)
    return build_people(drafts, album, source, problems, digests=digest([file], root=folder))


def people_file(folder: Path) -> Path:
    """Return the one file of people in a folder; raises DataError if there is none, or several."""
    wanted = [f"{STEM}{suffix}" for suffix in SUFFIXES]
    found = [folder / name for name in wanted if (folder / name).is_file()]
    if len(found) == 1:
        return found[0]
    got = ", ".join(path.name for path in found)
    if not found:
        got = contents(folder)
    raise DataError(
        Problem(
            "a folder of people has one file of people",
            str(folder),
            got=got,
            allowed=f"one of {', '.join(wanted)}",
            fix="`pulse data init FOLDER` writes an example",
        )
    )
