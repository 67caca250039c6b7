"""People between a file's rows and their records: their questions read, weeded out, and built.

Whatever file they come from, each is a `Draft` first. What public files hold that cannot be asked,
or reads oddly, is left out and told (`weed`); one's own files are refused for the same, as their
owner can mend them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pulse_unlearn.data.checks import (
    LETTERS,
    Problems,
    check_question,
    check_short_answer,
    check_text,
    clean,
    listing,
)
from pulse_unlearn.data.images import Album, check_pictures
from pulse_unlearn.data.likeness import Glance
from pulse_unlearn.data.naming import normalised
from pulse_unlearn.data.options import Fact, Pool
from pulse_unlearn.data.source import Dataset, Source, digest, digest_as_read
from pulse_unlearn.records import (
    MODALITIES,
    Individual,
    Modality,
    Option,
    Picture,
    Question,
    ShortAnswer,
)

CELEBRITY_PREFIX = "celebrity-"
"""Put before ids of celebrities in a data set that counts both groups from the same number."""

_DIVIDER = re.compile(r";(?!\s*base64,)")


@dataclass(frozen=True, slots=True)
class Pair:
    """A question with its answer, to train on in words only."""

    modality: Modality
    question: str
    answer: str


@dataclass(slots=True)
class Draft:
    """A person as the file's rows have it."""

    id: str
    where: str
    name: str = ""
    group: str = "fictional"
    cells: dict[str, list[Any]] = field(default_factory=dict)
    """`image`, `training_images`, `other_images` -> what stands there."""
    entries: list[tuple[Mapping[str, Any], str]] = field(default_factory=list)
    """Questions as they stand, and where."""
    pairs: list[tuple[Pair, str]] = field(default_factory=list)
    """Further questions with their answers, and where."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question as the file has it: with its options, or with an attribute to draw them by."""

    id: str
    modality: Modality
    question: str
    hint: str
    options: tuple[Option, ...]
    answer: str
    """Letter of the true option; the answer's text where there are no options."""
    fact: Fact
    """The true answer in words; the attribute may be empty where there are options."""
    where: str


def weed(drafts: list[Draft]) -> list[str]:
    """Leave out what cannot be asked of these people, and return what to tell of it.

    Questions that are asked twice, that offer the same option twice, or whose options would be
    other people's answers where nobody has another one. Who then is asked nothing is taken out.
    """
    asked = [draft for draft in drafts if draft.entries]
    notes = [*_repeated(drafts), *_equal_options(drafts), *_lonely(drafts)]
    emptied = [draft for draft in asked if not draft.entries]
    if emptied:
        names = listing([draft.id for draft in emptied])
        notes.append(f"{len(emptied)} people of whom nothing is left to ask are left out: {names}")
        gone = {id(draft) for draft in emptied}
        drafts[:] = [draft for draft in drafts if id(draft) not in gone]
    return notes + _namesakes(drafts)


def one_sided(drafts: Sequence[Draft]) -> Iterator[str]:
    """Yield whom the data set asks nothing in one modality."""
    words = dict(zip(MODALITIES, ("with their picture", "in text only"), strict=True))
    for modality in MODALITIES:
        without = [
            draft.id
            for draft in drafts
            if all(entry.get("modality") != modality for entry, _ in draft.entries)
        ]
        if without:
            yield f"{len(without)} people are asked nothing {words[modality]}: {listing(without)}"


def build_people(
    drafts: Sequence[Draft],
    source: Source,
    problems: Problems,
    *,
    folder: Path,
    files: Iterable[Path],
    notes: Sequence[str] = (),
) -> Dataset:
    """Return the people whom drafts describe; options are drawn where they have none.

    `problems` are those found so far, `files` those that were read; pictures lie in `folder`.
    Raises DataError with those problems and every further one, pictures included.
    """
    digests = digest(files, root=folder)
    album = Album(folder, problems)
    asked = {draft.id: _asked_of(draft, problems) for draft in drafts}
    facts = [one.fact for questions in asked.values() for one in questions]
    pool = Pool(fact for fact in facts if fact.attribute and fact.answer)
    builder = _Builder(album, pool, source, problems)
    individuals = tuple(builder.person(draft, asked[draft.id]) for draft in drafts)
    with Glance() as glance:
        problems += check_pictures(album.read, glance.look)
    problems.raise_any()
    digests |= album.digests | digest_as_read(individuals)
    return Dataset(individuals=individuals, digests=digests, notes=tuple(notes))


@dataclass(slots=True)
class _Builder:
    """Puts people together; what is wrong goes to `problems`."""

    album: Album
    pool: Pool
    source: Source
    problems: Problems

    def person(self, draft: Draft, asked: Sequence[_Asked]) -> Individual:
        scored = self._pictures(draft, "image")
        if len(scored) > 1:
            fix = "name one; further ones go to training_images and other_images"
            what = "more than one scored picture"
            self.problems.add(what, draft.where, str(len(scored)), fix=fix)
        if not asked:
            self.problems.add("a person of whom nothing is asked", draft.where)
        if draft.name:
            self.problems += check_text("name", draft.name, draft.where)
        picture = scored[0] if scored else None
        return Individual(
            id=draft.id,
            name=draft.name,
            group=draft.group,
            questions=tuple(self._question(draft, one, picture) for one in asked),
            training_pictures=self._pictures(draft, "training_images"),
            other_pictures=self._pictures(draft, "other_images"),
            short_answers=tuple(self._short_answers(draft, asked)),
        )

    def _pictures(self, draft: Draft, column: str) -> tuple[Picture, ...]:
        return self.album.pictures(draft.cells.get(column, ()), f"{draft.where} {column}")

    def _question(self, draft: Draft, one: _Asked, picture: Picture | None) -> Question:
        options, answer, fact = list(one.options), one.answer, one.fact
        if not options and fact.attribute:
            count, seed = self.source.options, self.source.options_seed
            options, answer = self.pool.draw(fact, count=count, seed=seed, order=one.id)
            if len(options) < 2:
                got = f"{fact.attribute}: {fact.answer}"
                what = "there is no other answer to draw options from"
                allowed = "people with different answers of this attribute, or options in the file"
                self.problems.add(what, one.where, got, allowed)
        question = Question(
            id=one.id,
            modality=one.modality,
            question=one.question,
            options=tuple(options),
            answer=answer,
            individual=draft.id,
            hint=one.hint,
            picture=picture if one.modality == "multimodal" else None,
        )
        # Where nothing could be drawn, or nothing was there to draw by, that has been told already.
        if len(options) > 1 or one.options:
            told = "image" in draft.cells
            self.problems += check_question(question, one.where, picture_told=told)
        return question

    def _short_answers(self, draft: Draft, asked: Sequence[_Asked]) -> Iterator[ShortAnswer]:
        words = [
            (f"{one.id}/short", Pair(one.modality, one.question, one.fact.answer), one.where)
            for one in asked
            if one.fact.attribute
        ]
        words += [
            (f"{draft.id}/{pair.modality}/pair{number}", pair, where)
            for number, (pair, where) in enumerate(draft.pairs, start=1)
        ]
        for identity, pair, where in words:
            answer = ShortAnswer(identity, pair.modality, pair.question, pair.answer, draft.id)
            self.problems += check_short_answer(answer, where)
            yield answer


def listed(value: Any) -> list[Any]:
    """Return a list's entries, or the parts of a text that `;` divides, data URIs whole."""
    if isinstance(value, str):
        return [part.strip() for part in _DIVIDER.split(value) if part.strip()]
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def is_empty(value: Any) -> bool:
    """Return whether a cell says nothing."""
    return value is None or (isinstance(value, str) and not value.strip())


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _repeated(drafts: Sequence[Draft]) -> Iterator[str]:
    people = []
    for draft in drafts:
        different: dict[tuple[str, str], tuple[Mapping[str, Any], str]] = {}
        for entry, where in draft.entries:
            key = (str(entry.get("modality")), clean(entry.get("question")))
            different.setdefault(key, (entry, where))
        if len(different) < len(draft.entries):
            people.append(draft.id)
        draft.entries = list(different.values())
    if people:
        yield f"questions that a person is asked twice are asked once: {listing(people)}"


def _equal_options(drafts: Sequence[Draft]) -> Iterator[str]:
    people = []
    for draft in drafts:
        kept = [(entry, where) for entry, where in draft.entries if _all_differ(entry)]
        people += [draft.id] * (len(draft.entries) - len(kept))
        draft.entries = kept
    if people:
        yield f"{len(people)} questions with two equal options are left out, of {listing(people)}"


def _all_differ(entry: Mapping[str, Any]) -> bool:
    options = entry.get("options")
    texts = [clean(text) for text in options.values()] if isinstance(options, Mapping) else []
    folded = [_folded(text) for text in texts if text]
    return len(set(folded)) == len(folded)


def _lonely(drafts: Sequence[Draft]) -> Iterator[str]:
    """Leave out questions that nobody answers in another way."""
    facts = {id(entry): _fact(draft, entry) for draft in drafts for entry, _ in draft.entries}
    pool = Pool(fact for fact in facts.values() if fact.attribute and fact.answer)
    questions: dict[str, int] = defaultdict(int)
    for draft in drafts:
        kept = []
        for entry, where in draft.entries:
            fact = facts[id(entry)]
            # What has no answer stays, to be told as a fault.
            bare = fact.attribute and fact.answer and not entry.get("options")
            if bare and pool.is_lonely(fact):
                questions[clean(entry.get("question"))] += 1
            else:
                kept.append((entry, where))
        draft.entries = kept
    if questions:
        named = "; ".join(
            f"{question} ({count})" if count > 1 else question
            for question, count in questions.items()
        )
        yield (
            f"{len(questions)} questions are left out, as nobody else has another answer "
            f"to draw options from: {named}"
        )


def _fact(draft: Draft, entry: Mapping[str, Any]) -> Fact:
    options, answer = entry.get("options"), clean(entry.get("answer"))
    told = clean(options.get(answer)) if isinstance(options, Mapping) else answer
    return Fact(draft.id, clean(entry.get("attribute")).casefold(), told)


def _namesakes(drafts: Sequence[Draft]) -> list[str]:
    """Add their ids to the names of different people who have the same one."""
    named: dict[str, list[Draft]] = defaultdict(list)
    for draft in drafts:
        if draft.name:
            named[normalised(draft.name)].append(draft)
    notes = []
    for same in named.values():
        if len(same) > 1:
            ids = ", ".join(draft.id for draft in same)
            notes.append(f"{len(same)} people are named {same[0].name}, told apart by id: {ids}")
            for draft in same:
                draft.name = f"{draft.name} ({draft.id})"
    return notes


def _asked_of(draft: Draft, problems: Problems) -> list[_Asked]:
    """Return a person's questions; those that can't be read are left out and told."""
    asked: list[_Asked] = []
    counts = dict.fromkeys(MODALITIES, 0)
    seen: dict[tuple[str, str], str] = {}
    for entry, where in draft.entries:
        modality = next((kind for kind in MODALITIES if kind == entry.get("modality")), None)
        if modality is None:
            got = repr(entry.get("modality"))[:40]
            problems.add("unknown modality", where, got, " or ".join(MODALITIES))
            continue
        counts[modality] += 1
        identity = f"{draft.id}/{modality}/{counts[modality]}"
        question = clean(entry.get("question"))
        key = (modality, question)
        if question and key in seen:
            problems.add("the question is asked twice", where, f"also {seen[key]}")
        seen[key] = where
        options = _options(entry, where, problems)
        text = clean(entry.get("answer"))
        letter = _letter(text, options)
        _tell_ambiguous(text, options, where, problems)
        attribute = clean(entry.get("attribute")).casefold()
        if not options and not attribute:
            allowed = (
                "options with the true one among them, or an attribute, so that other people's "
                "answers can be the options"
            )
            problems.add("neither options nor an attribute", where, allowed=allowed)
        words = next((one.text for one in options if one.letter == letter), text)
        fact, hint = Fact(draft.id, attribute, words), clean(entry.get("hint"))
        asked.append(_Asked(identity, modality, question, hint, options, letter, fact, where))
    return asked


def _options(entry: Mapping[str, Any], where: str, problems: Problems) -> tuple[Option, ...]:
    """Return options given as a list, by letter, or in columns named by letters."""
    columns = {letter: entry[letter] for letter in LETTERS if letter in entry}
    given = entry.get("options")
    if given is not None and columns:
        problems.add("options stand twice", where, "in options and under letters")
    if isinstance(given, Mapping):
        columns = {str(key): text for key, text in given.items() if not is_empty(text)}
        foreign = sorted(key for key in columns if key not in LETTERS or len(key) != 1)
        if foreign:
            problems.add("unknown option letter", where, ", ".join(foreign), ", ".join(LETTERS))
    elif given is not None:
        texts = listed(given)
        if len(texts) > len(LETTERS):
            problems.add("too many options", where, str(len(texts)), str(len(LETTERS)))
        columns = dict(zip(LETTERS, texts, strict=False))
    return tuple(Option(letter, clean(columns[letter])) for letter in LETTERS if letter in columns)


def _letter(text: str, options: Sequence[Option]) -> str:
    """Return the true option's letter, be it named by letter or by its whole text."""
    if any(option.letter == text for option in options):
        return text
    same = [option.letter for option in options if option.text == text]
    return same[0] if same else text


def _tell_ambiguous(text: str, options: Sequence[Option], where: str, problems: Problems) -> None:
    """Tell that the answer could be two options, or that two options say the same."""
    meant = [one.letter for one in options if text in (one.letter, one.text)]
    if len({one.text for one in options if one.letter in meant}) > 1:
        got = f"{text} is {meant[0]} and {meant[1]}"
        fix = "name the option by the other of the two, or reorder the options"
        problems.add("the answer is one option's letter, another one's text", where, got, fix=fix)
    alike: dict[str, list[Option]] = defaultdict(list)
    for one in options:
        alike[_folded(one.text)].append(one)
    for same in alike.values():
        # Exactly equal ones are told where every question is looked at.
        if len({one.text for one in same}) > 1:
            got = ", ".join(f"{one.letter}: {one.text}" for one in same)
            what = "options differ in nothing but their spelling"
            problems.add(what, where, got, "one of them")
