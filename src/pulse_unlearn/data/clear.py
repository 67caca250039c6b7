"""CLEAR people: TOFU's fictional authors with faces, and real faces, to individuals.

Source: CLEAR (Findings of ACL 2025, arXiv 2410.18057), Hub data set therem/CLEAR (once faces_v1).
`full` holds a row for each picture, `*_perturbed` wrong captions and names for some of them,
`full+tofu` TOFU's questions in text only, `real_faces` celebrities, `real_world` general questions.

`scored_picture: own` asks for name and caption of one picture, which is trained on too, as in the
benchmark. `other_pose` asks for the name on a picture that is not, and trains on the others; a
caption, which is true of one picture only, then is not asked. CLEAR does not say of whom TOFU's
questions are: they go by the name, or by the twenty they stand among.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulse_unlearn.data.checks import Problems, check_question, check_text, clean
from pulse_unlearn.data.configs import Configs, shards
from pulse_unlearn.data.drafts import CELEBRITY_PREFIX, Draft, Pair, build_people, one_sided, weed
from pulse_unlearn.data.images import Album, check_pictures
from pulse_unlearn.data.naming import mentions, plain
from pulse_unlearn.data.options import choose
from pulse_unlearn.data.source import Dataset, Source, digest
from pulse_unlearn.data.tables import Row, json_rows
from pulse_unlearn.errors import DataError
from pulse_unlearn.records import Option, Question

HUB = "therem/CLEAR"
FULL = ("full", "train")
"""`train` is the default config, in the folder `data`."""
SPLITS = (("forget01", "retain99"), ("forget05", "retain95"), ("forget10", "retain90"))
PERTURBED = tuple(
    f"{stem}_perturbed" for stem in ("retain", *(name for pair in SPLITS for name in pair))
)
TEXT = (("full+tofu",), *(tuple(f"{name}+tofu" for name in pair) for pair in SPLITS))
"""Configs of TOFU's questions in text only; the first of which all are there is read."""
REAL_FACES = "real_faces"
REAL_WORLD = "real_world"
TOFU = "tofu"
"""Folder for TOFU's own files with perturbed answers, such as `forget10_perturbed.json`."""
AUTHOR = 20
"""Questions TOFU asks of each author, one after the other."""
NAME_QUESTION = "What is the name of the person in the image?"
CAPTION_QUESTION = "What can you see in this picture?"

_WRONG = ("perturbed_answer", "perturbed_answers")


def load_clear(root: Path, source: Source) -> Dataset:
    """Read authors and real faces, whichever are there; raises DataError with every problem."""
    problems = Problems()
    configs = Configs(root, problems, hub=HUB)
    full = configs.first([*((name,) for name in FULL), *SPLITS])
    if not full and not shards(root, REAL_FACES):
        raise DataError(configs.lacking(FULL[0]))
    faces = _Faces(configs, source)
    faces.add_authors(full)
    text = _TextQuestions(configs, source)
    text.add_to(faces.drafts)
    authors = bool(faces.drafts)
    faces.add_real_faces()
    drafts = faces.drafts
    notes = [*weed(drafts), *faces.notes(authors=authors), *text.notes(), *one_sided(drafts)]
    if not drafts and not problems:
        problems.add("there are no people who can be asked", str(root))
    files = [*configs.files, *text.files]
    return build_people(drafts, source, problems, folder=root, files=files, notes=notes)


def load_real_world(root: Path, source: Source) -> Dataset:
    """Read the general questions of `real_world`; raises DataError with every problem."""
    problems = Problems()
    album, configs = Album(root, problems), Configs(root, problems, hub=HUB)
    questions = []
    rows = configs.rows(REAL_WORLD, ("question", "answer", "options"), ("image",))
    for number, row in enumerate(rows, start=1):
        values, identity = row.values, f"{REAL_WORLD}/{number}"
        wrong, cell = _listed(values["options"]), values.get("image")
        options, letter = _chosen(source, clean(values["answer"]), wrong, order=identity)
        question = Question(
            id=identity,
            modality="text_only" if cell is None else "multimodal",
            question=clean(values["question"]),
            options=tuple(options),
            answer=letter,
            picture=None if cell is None else album.picture(cell, row.where),
        )
        problems += check_question(question, row.where)
        questions.append(question)
    problems += check_pictures(album.read)
    problems.raise_any()
    digests = digest(configs.files, root=root) | album.digests
    return Dataset(general=tuple(questions), digests=digests)


class _Faces:
    """Collects people and problems, by name: CLEAR has no ids."""

    def __init__(self, configs: Configs, source: Source) -> None:
        self._configs, self._source = configs, source
        self.drafts: list[Draft] = []
        self._drawn = 0

    def add_authors(self, configs: Sequence[str]) -> None:
        """Take the authors of these configs; one row is one picture."""
        rows = self._named(configs, "name", needed=("image", "caption", "name"))
        perturbed = self._perturbed()
        for name, own in rows.items():
            keys = [(name, clean(row.values["caption"])) for row in own]
            place = next((number for number, key in enumerate(keys) if key in perturbed), 0)
            wrong = perturbed.get(keys[place], {})
            scored = own[place]
            draft = Draft(name, f"{scored.where} name {name}", name=name)
            self._show(draft, scored, [row for row in own if row is not scored])
            self._ask(draft, "name", NAME_QUESTION, name, _listed(wrong.get("perturbed_names")))
            if self._source.scored_picture == "own":
                captions = _listed(wrong.get("perturbed_captions"))
                self._ask(draft, "caption", CAPTION_QUESTION, keys[place][1], captions)
            self.drafts.append(draft)

    def add_real_faces(self) -> None:
        """Take the celebrities, if they are there."""
        taken = {draft.id for draft in self.drafts}
        configs = self._configs.first([(REAL_FACES,)])
        columns = ("image", "answer", "options")
        for name, rows in self._named(configs, "answer", needed=columns).items():
            identity = CELEBRITY_PREFIX + name if name in taken else name
            where = f"{rows[0].where} answer {name}"
            draft = Draft(identity, where, name=name, group="celebrity")
            self._show(draft, rows[0], rows[1:])
            self._ask(draft, "name", NAME_QUESTION, name, _listed(rows[0].values["options"]))
            self.drafts.append(draft)

    def notes(self, *, authors: bool) -> Iterator[str]:
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
            for row in self._configs.rows(config, needed):
                name = clean(row.values[column])
                if not self._configs.problems.take(check_text(column, name, row.where)):
                    people[name].append(row)
        return people

    def _perturbed(self) -> dict[tuple[str, str], dict[str, Any]]:
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for config in PERTURBED:
            if shards(self._configs.folder, config):
                columns = ("perturbed_captions", "perturbed_names")
                for row in self._configs.rows(config, ("name", "caption"), columns):
                    key = (clean(row.values["name"]), clean(row.values["caption"]))
                    found.setdefault(key, row.values)
        return found

    def _show(self, draft: Draft, scored: Row, others: Sequence[Row]) -> None:
        """Put the pictures in their roles; a copy of the scored one is no other view."""
        cell = scored.values["image"]
        draft.cells["image"] = [cell]
        if self._source.scored_picture == "own":
            return
        views = [row.values["image"] for row in others]
        views = [view for view in views if _bytes(view) != _bytes(cell)]
        kept = 1 if len(views) > 1 else 0
        draft.cells["other_images"] = views[:kept]
        draft.cells["training_images"] = views[kept:]

    def _ask(
        self, draft: Draft, attribute: str, question: str, answer: str, wrong: Sequence[str]
    ) -> None:
        entry: dict[str, Any] = {"modality": "multimodal", "question": question, "answer": answer}
        entry["attribute"] = attribute
        order = f"{draft.id}/{attribute}"
        options, letter = _chosen(self._source, answer, wrong, order=order)
        if len(options) > 1:
            entry |= {"options": {one.letter: one.text for one in options}, "answer": letter}
        else:
            self._drawn += 1
        draft.entries.append((entry, f"{draft.where} {attribute}"))


@dataclass(frozen=True, slots=True)
class _TextQuestion:
    question: str
    answer: str
    wrong: tuple[str, ...]
    where: str


class _TextQuestions:
    """TOFU's questions in text only: whose they are, and what they can offer."""

    def __init__(self, configs: Configs, source: Source) -> None:
        self._source, self._counts = source, Counter[str]()
        folder = configs.folder / TOFU
        self.files = [*sorted(folder.glob("*.json")), *sorted(folder.glob("*.jsonl"))]
        """TOFU's own files, which were read."""
        perturbed: dict[str, list[str]] = {}
        for file in self.files:
            for row in json_rows(file, configs.problems):
                perturbed[clean(row.values.get("question"))] = _wrong_answers(row)
        self._asked: list[_TextQuestion] = []
        for config in configs.first(TEXT):
            for row in configs.rows(config, ("question", "answer"), _WRONG):
                question, answer = clean(row.values["question"]), clean(row.values["answer"])
                wrong = (*_wrong_answers(row), *perturbed.get(question, ()))
                if question:
                    self._asked.append(_TextQuestion(question, answer, wrong, row.where))

    def add_to(self, drafts: Sequence[Draft]) -> None:
        """Give each person the questions that name it: to be asked if there are wrong answers."""
        by_name = {draft.name: draft for draft in drafts}
        for asked, owner in zip(self._asked, self._owners(list(by_name)), strict=True):
            if owner is None:
                self._counts["nobody"] += 1
            elif not mentions(asked.question, owner):
                self._counts["unnamed"] += 1
            else:
                self._ask(by_name[owner], asked)

    def notes(self) -> Iterator[str]:
        """Yield how many questions in text only are not asked, and why."""
        why = {
            "nobody": "are of nobody with a face here",
            "unnamed": "do not name the person and are left out",
            "no options": "are trained on in words but not asked, as there are no wrong answers: "
            f"put TOFU's files with perturbed_answer into {TOFU}/",
        }
        for reason, told in why.items():
            if self._counts[reason]:
                yield f"{self._counts[reason]} questions in text only {told}"

    def _owners(self, names: Sequence[str]) -> list[str | None]:
        """Return whose each question is: of whom it speaks, or the twenty it stands among."""
        words = {name: plain(name) for name in names}
        spoken = []
        for asked in self._asked:
            text = plain(f"{asked.question} {asked.answer}")
            spoken.append([name for name, word in words.items() if word.strip() and word in text])
        if len(spoken) % AUTHOR:
            return [found[0] if len(found) == 1 else None for found in spoken]
        owners: list[str | None] = []
        for start in range(0, len(spoken), AUTHOR):
            block = Counter(name for found in spoken[start : start + AUTHOR] for name in found)
            best = block.most_common(2)
            sole = best and (len(best) == 1 or best[0][1] > best[1][1])
            owners += [best[0][0] if sole else None] * AUTHOR
        return owners

    def _ask(self, draft: Draft, asked: _TextQuestion) -> None:
        draft.pairs.append((Pair("text_only", asked.question, asked.answer), asked.where))
        order = f"{draft.id}/{asked.question}"
        options, letter = _chosen(self._source, asked.answer, asked.wrong, order=order)
        if len(options) < 2:
            self._counts["no options"] += 1
            return
        texts = {one.letter: one.text for one in options}
        entry = {"modality": "text_only", "question": asked.question, "answer": letter}
        draft.entries.append(({**entry, "options": texts}, asked.where))


def _chosen(
    source: Source, answer: str, wrong: Sequence[str], *, order: str
) -> tuple[list[Option], str]:
    return choose(answer, wrong, count=source.options, seed=source.options_seed, order=order)


def _wrong_answers(row: Row) -> list[str]:
    return [text for name in _WRONG for text in _listed(row.values.get(name))]


def _listed(value: Any) -> list[str]:
    """Return the texts of a list, or of one text; none of a null."""
    if value is None:
        return []
    return [clean(text) for text in value] if isinstance(value, list | tuple) else [clean(value)]


def _bytes(cell: Any) -> Any:
    return cell.get("bytes") if isinstance(cell, Mapping) else cell
