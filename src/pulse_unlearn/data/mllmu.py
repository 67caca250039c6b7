"""MLLMU-Bench people: parquet configs to individuals, every malformed row named at once.

Source: MLLMU-Bench (arXiv 2410.22108), Hub data set MLLMMU/MLLMU-Bench. `Full_Set` holds the
fictional people, `Retain_Set` the celebrities; both carry the scored picture and the questions.
`ft_Data` adds pictures and question-answer pairs to train on, `Test_Set` further poses.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pulse_unlearn.data.checks import (
    LETTERS,
    SHOWN,
    Problems,
    check_question,
    check_short_answer,
    check_text,
    clean,
)
from pulse_unlearn.data.configs import SPLITS, Configs, shards
from pulse_unlearn.data.drafts import CELEBRITY_PREFIX, Pair
from pulse_unlearn.data.images import Album, check_pictures, pictures_of, scored_pictures
from pulse_unlearn.data.naming import find_name, mentions, same_id
from pulse_unlearn.data.source import Dataset, Source, digest, digest_as_read
from pulse_unlearn.data.tables import Malformed, Row, structure
from pulse_unlearn.records import Individual, Modality, Option, Picture, Question, ShortAnswer
from pulse_unlearn.registry import did_you_mean

FICTIONAL = "Full_Set"
CELEBRITIES = "Retain_Set"
TRAINING = "ft_Data"
OTHER_POSES = "Test_Set"

_IMAGES = ("image", "images")
_IMAGE_PATH = "image_path"
"""Where JSON lines name a picture file that neither of those names."""
_TASKS: tuple[tuple[Modality, str], ...] = (
    ("multimodal", "Image_Textual_Questions"),
    ("text_only", "Pure_Text_Questions"),
)
_KINDS = (None, "Image_Textual", "Pure_Text")


def load_mllmu(root: Path, source: Source) -> Dataset:
    """Read fictional people and celebrities, whichever are there, and which picture is scored.

    Training rows are those of `ft_Data`, else of the first whole split. Every picture is decoded
    once. Raises DataError with every problem of every file.
    """
    reader = _Reader(root)
    groups = [name for name in (FICTIONAL, CELEBRITIES) if shards(root, name)] or [FICTIONAL]
    reader.add_groups(groups)
    for config in reader.configs.first(((TRAINING,), *SPLITS)):
        reader.add_training(config)
    for config in reader.configs.first([(OTHER_POSES,)]):
        reader.add_poses(config)
    individuals = reader.finish(groups)
    digests = reader.album.digests | digest(reader.configs.files, root=root)
    notes = [*reader.notes()]
    if source.scored_picture == "other_pose":
        individuals = _score_on_other_pose(individuals)
    if notes or source.scored_picture == "other_pose":
        digests |= digest_as_read(individuals)
    notes += [*reader.strangers(), *_asked_twice(individuals)]
    return Dataset(individuals=tuple(individuals), digests=digests, notes=tuple(notes))


@dataclass(slots=True)
class _Draft:
    """A person while the files are being read."""

    id: str
    where: str
    group: str
    name: str = ""
    questions: list[Question] = field(default_factory=list)
    training: dict[str, Picture] = field(default_factory=dict)
    other: dict[str, Picture] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    """Text of a `metadata` cell -> the row it was first seen in; views repeat the same text."""
    pairs: list[tuple[str, str, str]] = field(default_factory=list)
    """Question, answer and row, of rows that have them in columns of their own."""


class _Reader:
    """Collects people and problems; what one row lacks never hides what the next one lacks."""

    def __init__(self, root: Path) -> None:
        self.problems = Problems()
        self.album = Album(root, self.problems)
        self.configs = Configs(root, self.problems, hub="MLLMMU/MLLMU-Bench")
        self._people: dict[tuple[str, str], _Draft] = {}
        """Config and id -> person."""
        self._owners: dict[str, _Draft] = {}
        """Id -> whose further pictures rows of this id hold."""
        self._by_number: dict[str, list[str]] = defaultdict(list)
        self._known: set[str] = set()
        self._respelt: dict[str, Counter[str]] = defaultdict(Counter)
        self._columns_read: Counter[str] = Counter()
        self._silent: Counter[str] = Counter()
        self._strangers: dict[str, list[str]] = defaultdict(list)

    def add_groups(self, configs: Sequence[str]) -> None:
        """Take the rows of people, with the scored picture and the questions.

        Where both groups count from the same number, ids of celebrities get a prefix, and further
        pictures are those of the fictional people.
        """
        needed = ("ID", "Classification_Task")
        optional = (*_IMAGES, _IMAGE_PATH, "biography")
        rows = {config: self.configs.rows(config, needed, optional) for config in configs}
        numbers = [{same_id(clean(row.values["ID"])) for row in rows[name]} for name in configs]
        shared = len(numbers) == 2 and bool(numbers[0] & numbers[1])
        for config in configs:
            apart = shared and config == CELEBRITIES
            for row in rows[config]:
                self._add_person(row, config, apart=apart)

    def add_training(self, config: str) -> None:
        """Take rows with a picture to train on and its question-answer pairs.

        The pairs stand in `metadata`, or one in `question` and `answer` where there is none.
        """
        for draft, row, where in self._further(config):
            draft.training.update({p.digest: p for p in self._pictures(row, where)})
            cell = row.values.get("metadata")
            question, answer = clean(row.values.get("question")), clean(row.values.get("answer"))
            if cell:
                text = cell if isinstance(cell, str) else json.dumps(cell, default=str)
                draft.metadata.setdefault(text, where)
            elif question or answer:
                draft.pairs.append((question, answer, where))
                self._columns_read[config] += 1
            else:
                self._silent[config] += 1

    def add_poses(self, config: str) -> None:
        """Take rows with further poses."""
        for draft, row, where in self._further(config):
            draft.other.update({p.digest: p for p in self._pictures(row, where)})

    def finish(self, groups: Sequence[str]) -> list[Individual]:
        """Return the people; raises DataError if anything was wrong, pictures included."""
        people = self._people.values()
        individuals = [_individual(draft, self._short_answers(draft)) for draft in people]
        for config in groups:
            if not self.problems and not any(of == config for of, _ in self._people):
                self.problems.add("there are no people", f"{self.configs.folder}/{config}")
        self.problems += check_pictures(p for person in individuals for p in pictures_of(person))
        self.problems.raise_any()
        return individuals

    def notes(self) -> Iterator[str]:
        """Yield what was read in another way than the benchmark's own files need."""
        for config, spelt in self._respelt.items():
            yield (
                f"{config}: ids are written otherwise ({next(iter(spelt))}); "
                f"{sum(spelt.values())} rows are matched by number"
            )
        for config, count in self._columns_read.items():
            yield (
                f"{config}: {count} rows have no metadata; "
                "question and answer are read as what is trained on in words"
            )
        for config, count in self._silent.items():
            yield f"{config}: {count} rows hold no question with an answer to train on in words"

    def strangers(self) -> Iterator[str]:
        """Yield rows of further pictures that belong to nobody who is asked anything."""
        for config, ids in self._strangers.items():
            named = ", ".join(sorted(set(ids))[:SHOWN])
            yield f"{config}: {len(ids)} rows are left out, of people in no group: {named}"

    def _add_person(self, row: Row, config: str, *, apart: bool) -> None:
        identity = self._identity(row)
        if not identity:
            return
        where = f"{row.where} ID {identity}"
        before = self._people.get((config, identity))
        if before:
            self.problems.add("the ID stands twice", where, f"also {before.where}")
            return
        pictures = self._pictures(row, where)
        if len(pictures) > 1:
            fix = "name one; further poses go to Test_Set, pictures to train on to ft_Data"
            self.problems.add("more than one scored picture", where, str(len(pictures)), fix=fix)
        group = "celebrity" if config == CELEBRITIES else "fictional"
        draft = _Draft(CELEBRITY_PREFIX + identity if apart else identity, row.where, group)
        try:
            task = structure(row.values["Classification_Task"])
        except Malformed as error:
            self.problems.add("Classification_Task is malformed", where, str(error))
        else:
            picture = pictures[0] if pictures else None
            draft.questions = list(self._questions(draft.id, task, picture, where))
            if not draft.questions:
                self.problems.add("a person of whom nothing is asked", where)
        texts = [q.question for q in draft.questions if q.modality == "text_only"]
        draft.name = find_name(row.values.get("biography"), texts)
        self._people[config, identity] = draft
        self._known.add(same_id(identity))
        if not apart:
            self._owners[identity] = draft
            self._by_number[same_id(identity)].append(identity)

    def _further(self, config: str) -> Iterator[tuple[_Draft, Row, str]]:
        """Yield a config's rows, with whose they are and where.

        Ids that only differ in leading zeros are one, unless they are two among the people.
        """
        columns = (*_IMAGES, _IMAGE_PATH, "metadata", "question", "answer")
        for row in self.configs.rows(config, ("ID",), columns):
            identity = self._identity(row)
            draft = self._owners.get(identity)
            same = self._by_number.get(same_id(identity), [])
            if draft is None and len(same) == 1:
                draft = self._owners[same[0]]
                self._respelt[config][f"{identity} for {same[0]}"] += 1
            if draft is not None:
                yield draft, row, f"{row.where} ID {draft.id}"
            elif same_id(identity) not in self._known:
                self._strangers[config].append(identity)

    def _identity(self, row: Row) -> str:
        identity = clean(row.values["ID"])
        self.problems += check_text("ID", identity, row.where)
        return identity

    def _pictures(self, row: Row, where: str) -> list[Picture]:
        """Return the pictures of a row that has a struct, plain bytes, or a list of either."""
        cells: list[Any] = []
        for column in _IMAGES:
            value = row.values.get(column)
            cells += value if isinstance(value, list) else [] if value is None else [value]
        named = row.values.get(_IMAGE_PATH)
        cells += [named] if named and not cells else []
        pictures = []
        for number, cell in enumerate(cells):
            data = cell.get("bytes") if isinstance(cell, Mapping) else cell
            place = where if len(cells) == 1 else f"{where} picture {number}"
            if isinstance(data, bytes | str):
                picture = self.album.picture(data, place)
                pictures += [picture] if picture else []
                continue
            path = cell.get("path") if isinstance(cell, Mapping) else None
            got = f"path {path!r}" if path else type(data).__name__
            allowed = "the image file itself, in the parquet file"
            self.problems.add("the picture holds no bytes", place, got, allowed)
        return pictures

    def _questions(
        self, identity: str, task: Any, picture: Picture | None, where: str
    ) -> Iterator[Question]:
        columns = [column for _, column in _TASKS]
        given = task if isinstance(task, Mapping) else {}
        for name in given:
            if name not in columns and given[name]:
                allowed, fix = ", ".join(columns), did_you_mean(str(name), columns)
                self.problems.add("unknown kind of question", where, str(name), allowed, fix)
        for modality, column in _TASKS:
            entries = given.get(column)
            if not isinstance(entries, list | None):
                self.problems.add(f"{column} is not a list", where)
                continue
            for number, entry in enumerate(entries or (), start=1):
                place = f"{where} {column} {number}"
                wrong = _no_question(entry)
                if wrong:
                    self.problems.add("not a question", place, wrong)
                    continue
                question = Question(
                    id=f"{identity}/{modality}/{number}",
                    modality=modality,
                    question=clean(entry.get("Question")),
                    options=self._options(entry.get("Options"), place),
                    answer=_letter(entry.get("Correct_Answer")),
                    individual=identity,
                    picture=picture if modality == "multimodal" else None,
                )
                self.problems += check_question(question, place)
                yield question

    def _options(self, value: Any, where: str) -> tuple[Option, ...]:
        """Return the options of a question; null or nothing under a letter is none.

        Parquet unifies structs, so that every question carries every letter any question carries.
        """
        given = value if isinstance(value, Mapping) else {}
        texts = {key: text for key, cell in given.items() if (text := clean(cell))}
        foreign = [str(key) for key in texts if key not in tuple(LETTERS)]
        if foreign:
            got, allowed = ", ".join(foreign), ", ".join(LETTERS)
            self.problems.add("unknown option letter", where, got, allowed)
        return tuple(Option(letter, texts[letter]) for letter in LETTERS if letter in texts)

    def _short_answers(self, draft: _Draft) -> Iterator[ShortAnswer]:
        different: set[Pair] = set()
        for pair, where in self._pairs(draft):
            if pair not in different:
                different.add(pair)
                identity = f"{draft.id}/{pair.modality}/short{len(different)}"
                answer = ShortAnswer(identity, pair.modality, pair.question, pair.answer, draft.id)
                self.problems += check_short_answer(answer, where)
                yield answer

    def _pairs(self, draft: _Draft) -> Iterator[tuple[Pair, str]]:
        for text, where in draft.metadata.items():
            try:
                yield from ((pair, where) for pair in _pairs_of(text, draft.name))
            except Malformed as error:
                self.problems.add("metadata is malformed", where, str(error))
        for question, answer, where in draft.pairs:
            yield _pair(question, answer, draft.name), where


def _individual(draft: _Draft, answers: Iterable[ShortAnswer]) -> Individual:
    """Return a person; a copy of a scored or trained-on picture is no other pose."""
    used = set(draft.training) | {q.picture.digest for q in draft.questions if q.picture}
    return Individual(
        id=draft.id,
        name=draft.name,
        group=draft.group,
        questions=tuple(draft.questions),
        training_pictures=tuple(draft.training.values()),
        other_pictures=tuple(shown for name, shown in draft.other.items() if name not in used),
        short_answers=tuple(answers),
    )


def _pairs_of(metadata: str, name: str) -> list[Pair]:
    """Read the question-answer pairs of a `metadata` cell; raises Malformed.

    A pair may say its `Type` (`Image_Textual` or `Pure_Text`); the public data set's pairs don't.
    """
    entries = structure(metadata)
    if not isinstance(entries, list):
        raise Malformed(f"a {type(entries).__name__}, not a list of Question and Answer")
    wrong: dict[str, list[int]] = defaultdict(list)
    pairs = []
    for number, entry in enumerate(entries):
        if not isinstance(entry, Mapping):
            wrong["is no Question with an Answer"].append(number)
        elif entry.get("Type") not in _KINDS:
            wrong[f"is of unknown Type {entry.get('Type')!r}"].append(number)
        else:
            question, answer = clean(entry.get("Question")), clean(entry.get("Answer"))
            pairs.append(_pair(question, answer, name, kind=entry.get("Type")))
    if wrong:
        told = (f"pair {', '.join(map(str, places))} {what}" for what, places in wrong.items())
        raise Malformed("; ".join(told))
    return pairs


def _pair(question: str, answer: str, name: str, *, kind: str | None = None) -> Pair:
    """Return a pair; a question that names the person needs no picture and is text-only."""
    text_only = kind == "Pure_Text" or (kind is None and mentions(question, name))
    return Pair("text_only" if text_only else "multimodal", question, answer)


def _no_question(entry: Any) -> str:
    """Return what there is in place of a question; empty if it is one."""
    if not isinstance(entry, Mapping):
        return type(entry).__name__
    wrong = [
        f"{name} is a {type(entry[name]).__name__}"
        for name in ("Question", "Correct_Answer")
        if not isinstance(entry.get(name), str | None)
    ]
    return "; ".join(wrong)


def _letter(value: Any) -> str:
    """Return the letter of answers written as `B`, ` b` or `B.`; anything else as it stands."""
    text = clean(value)
    bare = text.rstrip(".):").lstrip("(").upper()
    return bare if len(bare) == 1 else text


def _asked_twice(individuals: Sequence[Individual]) -> Iterator[str]:
    """Tell people who are asked the same in the same modality more than once; each one counts."""
    for person in individuals:
        asked = {(q.modality, q.question) for q in person.questions}
        if len(asked) < len(person.questions):
            twice = len(person.questions) - len(asked)
            yield f"person {person.id} is asked {twice} questions again"


def _score_on_other_pose(people: Sequence[Individual]) -> list[Individual]:
    """Return people whose scored picture is their first further pose.

    The picture beside the questions then may be trained on. A group of whom nobody has further
    poses stays as it is; raises DataError for each other person without one.
    """
    posing = {person.group for person in people if person.other_pictures}
    turned, problems = [], Problems()
    for person in people:
        if person.other_pictures:
            turned.append(_on_first_pose(person))
        elif person.group in posing or not posing:
            where = f"{OTHER_POSES}, person {person.id}"
            fix = "add a pose, or set data.people.scored_picture: own"
            problems.add("there is no further pose to score on", where, fix=fix)
        else:
            turned.append(person)
    problems.raise_any()
    return turned


def _on_first_pose(person: Individual) -> Individual:
    pose, *left = person.other_pictures
    trained = {picture.digest: picture for picture in person.training_pictures}
    return replace(
        person,
        questions=tuple(replace(q, picture=pose) if q.picture else q for q in person.questions),
        training_pictures=tuple((scored_pictures(person) | trained).values()),
        other_pictures=tuple(left),
    )
