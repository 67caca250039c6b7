"""Drafts of people to individuals, whatever files the drafts come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pulse_unlearn.data.checks import check_question, check_short_answer, check_text, gathered
from pulse_unlearn.data.images import check_pictures
from pulse_unlearn.data.options import Fact, Pool, too_few
from pulse_unlearn.data.people_pictures import Album
from pulse_unlearn.data.people_rows import Asked, Draft, asked_of
from pulse_unlearn.data.source import Dataset, Source, digest_as_read
from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.records import Individual, Modality, Picture, Question, ShortAnswer


def build_people(
    drafts: Sequence[Draft],
    album: Album,
    source: Source,
    problems: list[Problem],
    *,
    digests: Mapping[str, str],
) -> Dataset:
    """Return the people whom drafts describe; options are drawn where they have none.

    `problems` are those found so far, and `digests` those of the files read. Raises DataError with
    those problems and every further one, pictures included.
    """
    asked = {draft.id: asked_of(draft, problems) for draft in drafts}
    facts = [_fact(draft, one) for draft in drafts for one in asked[draft.id]]
    pool = Pool(fact for fact in facts if fact.attribute and fact.answer)
    individuals = [
        _Person(draft, asked[draft.id], album, pool, source, problems).build() for draft in drafts
    ]
    problems += check_pictures(album.read)
    if problems:
        raise DataError(gathered(problems))
    return Dataset(
        individuals=tuple(individuals),
        digests={**digests, **album.digests, **digest_as_read(individuals)},
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
            short_answers=(
                *(self._short_answer(one) for one in self.asked if one.attribute),
                *self._pairs(),
            ),
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
            self.problems += check_question(
                question, one.where, picture_told="image" in self.draft.cells
            )
        return question

    def _short_answer(self, one: Asked) -> ShortAnswer:
        return self._in_words(f"{one.id}/short", one.modality, one.question, one.text, one.where)

    def _pairs(self) -> Iterator[ShortAnswer]:
        for number, (pair, where) in enumerate(self.draft.pairs, start=1):
            identity = f"{self.draft.id}/{pair.modality}/pair{number}"
            yield self._in_words(identity, pair.modality, pair.question, pair.answer, where)

    def _in_words(
        self, identity: str, modality: Modality, question: str, answer: str, where: str
    ) -> ShortAnswer:
        found = ShortAnswer(identity, modality, question, answer, self.draft.id)
        self.problems += check_short_answer(found, where)
        return found


def _fact(draft: Draft, one: Asked) -> Fact:
    return Fact(draft.id, one.attribute, one.text)
