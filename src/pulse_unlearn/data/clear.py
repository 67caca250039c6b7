"""CLEAR people: TOFU's fictional authors with faces, and real faces, to individuals.

Source: CLEAR (Findings of ACL 2025, arXiv 2410.18057), Hub data set therem/CLEAR (once faces_v1).
`full` holds a row for each picture, `*_perturbed` wrong captions and names for some of them,
`full+tofu` TOFU's questions in text only, `real_faces` celebrities, `real_world` general questions.

`scored_picture: own` asks for name and caption of one picture, which is trained on too, as in the
benchmark. `other_pose` asks for the name on a picture that is not, and trains on the others; a
caption, which is true of one picture only, then is not asked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pulse_unlearn.data.checks import check_question, check_text, clean, gathered
from pulse_unlearn.data.clear_text import TextQuestions
from pulse_unlearn.data.configs import first_config, missing_config, read_rows, shards
from pulse_unlearn.data.images import check_pictures
from pulse_unlearn.data.mllmu_set import CELEBRITY_PREFIX
from pulse_unlearn.data.options import choose
from pulse_unlearn.data.parquet import Row
from pulse_unlearn.data.people_build import build_people
from pulse_unlearn.data.people_pictures import Album
from pulse_unlearn.data.people_rows import Draft
from pulse_unlearn.data.public import listed, one_sided, weed
from pulse_unlearn.data.source import Dataset, Source, digest, with_notes
from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.records import Question

HUB = "therem/CLEAR"
FULL = ("full", "train")
"""`train` is the default config, in the folder `data`."""
SPLITS = (("forget01", "retain99"), ("forget05", "retain95"), ("forget10", "retain90"))
PERTURBED = tuple(
    f"{stem}_perturbed" for stem in ("retain", *(name for pair in SPLITS for name in pair))
)
REAL_FACES = "real_faces"
REAL_WORLD = "real_world"
NAME_QUESTION = "What is the name of the person in the image?"
CAPTION_QUESTION = "What can you see in this picture?"


def load_clear(root: Path, *, source: Source) -> Dataset:
    """Read authors and real faces, whichever are there; raises DataError with every problem."""
    full = first_config(root, FULL)
    pairs = (pair for pair in ((full,), *SPLITS) if all(shards(root, name) for name in pair))
    configs = next(pairs, ())
    if not configs and not shards(root, REAL_FACES):
        raise DataError(missing_config(root, FULL[0], hub=HUB))
    reader = _Reader(root, source)
    reader.add_authors(configs)
    text = TextQuestions(root, source, reader.problems, hub=HUB)
    text.add_to(reader.drafts)
    authors = list(reader.drafts)
    reader.add_real_faces()
    notes = [*weed(reader.drafts), *reader.notes(authors), *text.notes()]
    if not reader.drafts and not reader.problems:
        reader.problems.append(Problem("there are no people who can be asked", str(root)))
    used = [*configs, *(name for name in (*PERTURBED, REAL_FACES) if shards(root, name))]
    files = [*(file for config in used for file in shards(root, config)), *text.files]
    digests = digest(files, root=root)
    album = Album(root, reader.problems)
    found = build_people(reader.drafts, album, source, reader.problems, digests=digests)
    return with_notes(found, [*notes, *one_sided(found.individuals)])


class _Reader:
    """Collects people and problems, by name: CLEAR has no ids."""

    def __init__(self, root: Path, source: Source) -> None:
        self._root, self._source = root, source
        self.problems: list[Problem] = []
        self.drafts: list[Draft] = []
        self._drawn = 0

    def add_authors(self, configs: Sequence[str]) -> None:
        """Take the authors of these configs; one row is one picture."""
        rows = self._named(configs, "name", needed=("image", "caption", "name"))
        perturbed = self._perturbed() if rows else {}
        for name, own in rows.items():
            keys = [(name, clean(row.values["caption"])) for row in own]
            place = next((number for number, key in enumerate(keys) if key in perturbed), 0)
            wrong = perturbed.get(keys[place], {})
            scored = own[place]
            draft = Draft(name, f"{scored.where} name {name}", name=name)
            self._show(draft, scored, [row for row in own if row is not scored])
            self._ask(draft, "name", NAME_QUESTION, name, listed(wrong.get("perturbed_names")))
            if self._source.scored_picture == "own":
                captions = listed(wrong.get("perturbed_captions"))
                self._ask(draft, "caption", CAPTION_QUESTION, keys[place][1], captions)
            self.drafts.append(draft)

    def add_real_faces(self) -> None:
        """Take the celebrities, if they are there."""
        if not shards(self._root, REAL_FACES):
            return
        taken = {draft.id for draft in self.drafts}
        columns = ("image", "answer", "options")
        for name, rows in self._named([REAL_FACES], "answer", needed=columns).items():
            identity = CELEBRITY_PREFIX + name if name in taken else name
            where = f"{rows[0].where} answer {name}"
            draft = Draft(identity, where, name=name, group="celebrity")
            self._show(draft, rows[0], rows[1:])
            self._ask(draft, "name", NAME_QUESTION, name, listed(rows[0].values["options"]))
            self.drafts.append(draft)

    def notes(self, authors: Sequence[Draft]) -> Iterator[str]:
        """Yield where options come from if not from the file, and what is not asked."""
        if self._drawn:
            yield (
                f"{self._drawn} questions with a picture have no wrong answers in the files; "
                "their options are other people's answers"
            )
        if authors and self._source.scored_picture == "other_pose":
            yield "captions are not asked, as one is true of one picture only"

    def _named(
        self, configs: Sequence[str], column: str, *, needed: Sequence[str]
    ) -> dict[str, list[Row]]:
        people: dict[str, list[Row]] = defaultdict(list)
        for config in configs:
            for row in self._rows(config, needed):
                name = clean(row.values[column])
                wrong = check_text(column, name, row.where)
                self.problems += wrong
                if not wrong:
                    people[name].append(row)
        return people

    def _perturbed(self) -> dict[tuple[str, str], dict[str, Any]]:
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for config in PERTURBED:
            if shards(self._root, config):
                columns = ("perturbed_captions", "perturbed_names")
                for row in self._rows(config, ("name", "caption"), columns):
                    key = (clean(row.values["name"]), clean(row.values["caption"]))
                    found.setdefault(key, row.values)
        return found

    def _rows(self, config: str, needed: Sequence[str], optional: Sequence[str] = ()) -> list[Row]:
        return read_rows(
            self._root,
            config,
            needed=needed,
            optional=optional,
            problems=self.problems,
            hub=HUB,
        )

    def _show(self, draft: Draft, scored: Row, others: Sequence[Row]) -> None:
        """Put the pictures in their roles; a copy of the scored one is no other view."""
        cell = scored.values["image"]
        draft.cells["image"] = [cell]
        if self._source.scored_picture == "own":
            return
        views = [
            row.values["image"] for row in others if _bytes(row.values["image"]) != _bytes(cell)
        ]
        kept = 1 if len(views) > 1 else 0
        draft.cells["other_images"] = views[:kept]
        draft.cells["training_images"] = views[kept:]

    def _ask(
        self, draft: Draft, attribute: str, question: str, answer: str, wrong: Sequence[str]
    ) -> None:
        entry: dict[str, Any] = {"modality": "multimodal", "question": question, "answer": answer}
        entry["attribute"] = attribute
        source = self._source
        options, letter = choose(
            answer,
            wrong,
            count=source.options,
            seed=source.options_seed,
            order=f"{draft.id}/{attribute}",
        )
        if len(options) > 1:
            entry |= {"options": {one.letter: one.text for one in options}, "answer": letter}
        else:
            self._drawn += 1
        draft.entries.append((entry, f"{draft.where} {attribute}"))


def load_real_world(root: Path, *, source: Source) -> Dataset:
    """Read the general questions of `real_world`; raises DataError with every problem."""
    problems: list[Problem] = []
    album = Album(root, problems)
    needed, optional = ("question", "answer", "options"), ("image",)
    rows = read_rows(root, REAL_WORLD, needed=needed, optional=optional, problems=problems, hub=HUB)
    questions = []
    for number, row in enumerate(rows, start=1):
        values, identity = row.values, f"{REAL_WORLD}/{number}"
        options, letter = choose(
            clean(values["answer"]),
            listed(values["options"]),
            count=source.options,
            seed=source.options_seed,
            order=identity,
        )
        cell = values.get("image")
        picture = None if cell is None else album.picture(cell, row.where)
        question = Question(
            id=identity,
            modality="text_only" if cell is None else "multimodal",
            question=clean(values["question"]),
            options=tuple(options),
            answer=letter,
            picture=picture,
        )
        problems += check_question(question, row.where)
        questions.append(question)
    problems += check_pictures(album.read)
    if problems:
        raise DataError(gathered(problems))
    return Dataset(
        general=tuple(questions),
        digests=digest(shards(root, REAL_WORLD), root=root) | album.digests,
    )


def _bytes(cell: Any) -> Any:
    return cell.get("bytes") if isinstance(cell, Mapping) else cell
