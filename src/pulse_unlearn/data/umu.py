"""UMU-Bench people: Python literals in parquet cells to individuals, every fault at once.

Source: UMU-Bench (NeurIPS 2025, Datasets and Benchmarks), Hub data set linbojunzi/UMU-bench.
`Classify` holds one question for each modality under `unimodal` and `muitimodal` (sic), `MM_QA` and
`UM_QA` what is trained on in words. `Cloze` and `Generation` are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pulse_unlearn.data.checks import check_text, clean
from pulse_unlearn.data.configs import first_config, missing_config, read_rows, shards
from pulse_unlearn.data.mllmu_rows import same_id
from pulse_unlearn.data.mllmu_set import CELEBRITY_PREFIX
from pulse_unlearn.data.naming import find_name, same_answer
from pulse_unlearn.data.parquet import Row
from pulse_unlearn.data.people_build import build_people
from pulse_unlearn.data.people_pictures import Album
from pulse_unlearn.data.people_rows import Draft
from pulse_unlearn.data.public import one_sided, shown, weed
from pulse_unlearn.data.source import Dataset, Source, digest, with_notes
from pulse_unlearn.data.structures import Malformed, Pair, literal
from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.records import Modality

HUB = "linbojunzi/UMU-bench"
FICTIONAL = ("Full_Set", "full_data", "full_set")
CELEBRITIES = ("Real_Person_Set", "real_person", "real_person_set")
SPLITS = (("forget_5", "retain_95"), ("forget_10", "retain_90"), ("forget_15", "retain_85"))

_NEEDED = ("ID", "image", "Classify")
_OPTIONAL = ("Biography", "MM_QA", "UM_QA")
_KEYS: tuple[tuple[Modality, tuple[str, ...]], ...] = (
    ("multimodal", ("muitimodal", "multimodal")),
    ("text_only", ("unimodal",)),
)
_ANSWER = re.compile(r"\(?([A-Ha-h])\)?(?:\s*[.:)]\s*(.*))?", re.DOTALL)


def load_umu(root: Path, *, source: Source) -> Dataset:
    """Read fictional and real people, whichever are there; raises DataError with every problem."""
    fictional = first_config(root, FICTIONAL)
    configs = [(fictional, "fictional")] if shards(root, fictional) else []
    if not configs:
        pairs = (pair for pair in SPLITS if all(shards(root, name) for name in pair))
        configs = [(name, "fictional") for name in next(pairs, ())]
    real = first_config(root, CELEBRITIES)
    configs += [(real, "celebrity")] if shards(root, real) else []
    if not configs:
        raise DataError(missing_config(root, FICTIONAL[0], hub=HUB))
    reader = _Reader()
    for config, group in configs:
        for row in read_rows(
            root,
            config,
            needed=_NEEDED,
            optional=_OPTIONAL,
            problems=reader.problems,
            hub=HUB,
        ):
            reader.add(row, group)
    drafts = [*reader.drafts.values()]
    notes = [*weed(drafts), *reader.notes()]
    if not drafts and not reader.problems:
        reader.problems.append(Problem("there are no people who can be asked", str(root)))
    files = [file for config, _ in configs for file in shards(root, config)]
    digests = digest(files, root=root)
    album = Album(root, reader.problems)
    found = build_people(drafts, album, source, reader.problems, digests=digests)
    return with_notes(found, [*notes, *one_sided(found.individuals)])


class _Reader:
    """Collects people and problems; what one cell lacks never hides what the next one lacks."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.drafts: dict[str, Draft] = {}
        self._numbers: dict[tuple[str, str], str] = {}
        self._differing: list[str] = []

    def add(self, row: Row, group: str) -> None:
        """Take the row of a person."""
        identity = clean(row.values["ID"])
        wrong = check_text("ID", identity, row.where)
        self.problems += wrong
        if wrong:
            return
        where = f"{row.where} ID {identity}"
        number = same_id(identity)
        if (group, number) in self._numbers:
            got = f"also {self._numbers[group, number]}"
            self.problems.append(Problem("the ID stands twice", where, got=got))
            return
        self._numbers[group, number] = row.where
        apart = group == "celebrity" and ("fictional", number) in self._numbers
        draft = Draft(CELEBRITY_PREFIX + identity if apart else identity, where, group=group)
        cell = row.values["image"]
        draft.cells["image"] = [] if cell is None else cell if isinstance(cell, list) else [cell]
        self._take_questions(draft, row.values["Classify"])
        self._take_pairs(draft, "multimodal", "MM_QA", row)
        self._take_pairs(draft, "text_only", "UM_QA", row)
        named = [
            str(entry["question"]) for entry, _ in draft.entries if _in_text(entry["modality"])
        ]
        named += [pair.question for pair, _ in draft.pairs if _in_text(pair.modality)]
        draft.name = find_name(self._biography(row), named)
        self.drafts[draft.id] = draft

    def notes(self) -> Iterator[str]:
        """Yield where the public evaluation would score by another answer."""
        if self._differing:
            yield (
                f"{len(self._differing)} questions with a picture have another true option than "
                "the same question in text only, by which the public evaluation scores both; "
                f"their own is taken: {shown(self._differing)}"
            )

    def _biography(self, row: Row) -> Any:
        value = row.values.get("Biography")
        try:
            return literal(value)
        except Malformed:
            return value

    def _take_questions(self, draft: Draft, cell: Any) -> None:
        where = f"{draft.where} Classify"
        try:
            task = literal(cell)
        except Malformed as error:
            self.problems.append(Problem("Classify is malformed", where, str(error)))
            return
        known = [key for _, keys in _KEYS for key in keys]
        given = task if isinstance(task, Mapping) else {}
        if not set(given) & set(known):
            got = ", ".join(map(str, given)) or type(task).__name__
            allowed = "unimodal and muitimodal"
            self.problems.append(Problem("Classify has no questions", where, got[:80], allowed))
            return
        asked = {
            modality: self._asked(next((given[key] for key in keys if key in given), None), where)
            for modality, keys in _KEYS
        }
        truths = {
            modality: [
                self._truth(entry, f"{where} {modality} {number}")
                for number, entry in enumerate(entries, start=1)
            ]
            for modality, entries in asked.items()
        }
        for modality, entries in asked.items():
            for number, entry in enumerate(entries):
                place = f"{where} {modality} {number + 1}"
                answer = truths[modality][number]
                other = (truths["text_only"][number:] or [answer])[0]
                if modality == "multimodal" and not answer:
                    answer = other
                elif modality == "multimodal" and answer != other:
                    self._differing.append(draft.id)
                options = entry.get("options")
                kept = {"modality": modality, "question": clean(entry.get("question"))}
                draft.entries.append(({**kept, "options": options, "answer": answer}, place))

    def _asked(self, value: Any, where: str) -> list[Mapping[str, Any]]:
        entries = list(_entries(value))
        for entry in entries:
            if not isinstance(entry.get("options"), Mapping):
                got = type(entry.get("options")).__name__
                allowed = "options under letters"
                self.problems.append(Problem("the question has no options", where, got, allowed))
        return [entry for entry in entries if isinstance(entry.get("options"), Mapping)]

    def _truth(self, entry: Mapping[str, Any], where: str) -> str:
        """Return the true option's letter of `B` and `B. text`; anything else as it stands."""
        text = clean(entry.get("answer"))
        found = _ANSWER.fullmatch(text)
        if not found:
            return text
        letter, said = found[1].upper(), same_answer(found[2] or "")
        meant = [
            str(key)
            for key, option in entry["options"].items()
            if same_answer(clean(option)) == said
        ]
        if said and meant and letter not in meant:
            self.problems.append(
                Problem(
                    "the answer's letter and its text are two options",
                    where,
                    got=f"{text[:60]}, but that text is {meant[0]}",
                    allowed="B, or B. and the text of option B",
                )
            )
        return letter

    def _take_pairs(self, draft: Draft, modality: Modality, column: str, row: Row) -> None:
        where = f"{draft.where} {column}"
        cell = row.values.get(column)
        if cell is None:
            return
        try:
            entries = list(_entries(literal(cell)))
        except Malformed as error:
            self.problems.append(Problem(f"{column} is malformed", where, str(error)))
            return
        if not entries:
            allowed = "question and answer"
            self.problems.append(Problem(f"{column} has no questions", where, "", allowed))
        for entry in entries:
            pair = Pair(modality, clean(entry.get("question")), clean(entry.get("answer")))
            draft.pairs.append((pair, where))


def _in_text(modality: Any) -> bool:
    return bool(modality == "text_only")


def _entries(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield questions: a single one, a list, under keys, or every field under the same keys."""
    if isinstance(value, list | tuple):
        yield from (entry for entry in value if isinstance(entry, Mapping))
    elif isinstance(value, Mapping) and isinstance(value.get("question"), Mapping):
        for key in value["question"]:
            fields = {
                name: cells.get(key) for name, cells in value.items() if isinstance(cells, Mapping)
            }
            yield fields
    elif isinstance(value, Mapping) and isinstance(value.get("question"), list):
        lists = {name: cells for name, cells in value.items() if isinstance(cells, list)}
        for place in range(len(value["question"])):
            yield {name: cells[place] for name, cells in lists.items() if place < len(cells)}
    elif isinstance(value, Mapping) and "question" in value:
        yield value
    elif isinstance(value, Mapping):
        yield from (entry for entry in value.values() if isinstance(entry, Mapping))
