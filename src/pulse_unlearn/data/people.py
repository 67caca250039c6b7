"""Your own people: a folder with `people.jsonl` (or `.csv`, `.parquet`) and their pictures.

A row is a person with a list of `questions`, or one question with the person's fields beside it. A
question has options, or an `attribute` and its true answer; options then are other people's answers
of that attribute. `assets/starter/README.md` describes every field.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pulse_unlearn.data.checks import check_question, check_short_answer, check_text, gathered
from pulse_unlearn.data.images import check_pictures
from pulse_unlearn.data.options import Fact, Pool, too_few
from pulse_unlearn.data.people_pictures import Album
from pulse_unlearn.data.people_rows import Asked, Draft, asked_of, drafts_of
from pulse_unlearn.data.records_file import SUFFIXES, read_records
from pulse_unlearn.data.source import Dataset, Source, digest, digest_as_read
from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.records import Individual, Picture, Question, ShortAnswer

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
    asked = {draft.id: asked_of(draft, problems) for draft in drafts}
    facts = [_fact(draft, one) for draft in drafts for one in asked[draft.id]]
    pool = Pool(fact for fact in facts if fact.attribute and fact.answer)
    individuals = [
        _Person(draft, asked[draft.id], album, pool, source, problems).build() for draft in drafts
    ]
    problems += check_pictures(album.read)
    if problems:
        raise DataError(gathered(problems))
    digests = {**digest([file], root=folder), **album.digests, **digest_as_read(individuals)}
    return Dataset(individuals=tuple(individuals), digests=digests)


def people_file(folder: Path) -> Path:
    """Return the one file of people in a folder; raises DataError if there is none, or several."""
    wanted = [f"{STEM}{suffix}" for suffix in SUFFIXES]
    found = [folder / name for name in wanted if (folder / name).is_file()]
    if len(found) == 1:
        return found[0]
    got = ", ".join(path.name for path in found)
    if not found:
        there = sorted(path.name for path in folder.iterdir())[:12] if folder.is_dir() else None
        got = "no such folder" if there is None else ", ".join(there) or "an empty folder"
    raise DataError(
        Problem(
            "a folder of people has one file of people",
            str(folder),
            got=got,
            allowed=f"one of {', '.join(wanted)}",
            fix="`pulse data init FOLDER` writes an example",
        )
    )


@dataclass(slots=True)
class _Person:
    """One person while it is put together; what is wrong goes to `problems`."""

    draft: Draft
    asked: list[Asked]
    album: Album
    pool: Pool
    source: Source
    problems: list[Problem]

    def build(self) -> Individual:
        draft = self.draft
        scored = self.album.pictures(draft, "image")
        if len(scored) > 1:
            fix = "name one; further ones go to training_images and other_images"
            self.problems.append(
                Problem("more than one scored picture", draft.where, str(len(scored)), fix=fix)
            )
        if not self.asked:
            self.problems.append(Problem("a person of whom nothing is asked", draft.where))
        if draft.name:
            self.problems += check_text("name", draft.name, draft.where)
        questions = [self._question(one, scored[0] if scored else None) for one in self.asked]
        return Individual(
            id=draft.id,
            name=draft.name,
            group=draft.group,
            questions=tuple(questions),
            training_pictures=self.album.pictures(draft, "training_images"),
            other_pictures=self.album.pictures(draft, "other_images"),
            short_answers=tuple(self._short_answer(one) for one in self.asked if one.attribute),
        )

    def _question(self, one: Asked, picture: Picture | None) -> Question:
        options, answer = list(one.options), one.answer
        if not options and one.attribute:
            fact = _fact(self.draft, one)
            options, answer = self.pool.draw(
                fact, count=self.source.options, seed=self.source.options_seed, order=one.id
            )
            self.problems += too_few(options, fact, one.where)
        question = Question(
            id=one.id,
            modality=one.modality,
            question=one.question,
            options=tuple(options),
            answer=answer,
            individual=self.draft.id,
            hint=one.hint,
            picture=picture if one.modality == "multimodal" else None,
        )
        # Where nothing could be drawn, or nothing was there to draw by, that has been told already.
        if len(options) > 1 or one.options:
            told = "image" in self.draft.cells
            self.problems += check_question(question, one.where, picture_told=told)
        return question

    def _short_answer(self, one: Asked) -> ShortAnswer:
        answer = ShortAnswer(
            id=f"{one.id}/short",
            modality=one.modality,
            question=one.question,
            answer=one.text,
            individual=self.draft.id,
        )
        self.problems += check_short_answer(answer, one.where)
        return answer


def _fact(draft: Draft, one: Asked) -> Fact:
    return Fact(draft.id, one.attribute, one.text)
