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

from pulse_unlearn.data.checks import Problems, check_text, clean, listing
from pulse_unlearn.data.configs import SPLITS, Configs
from pulse_unlearn.data.drafts import CELEBRITY_PREFIX, Draft, Pair, build_people, one_sided, weed
from pulse_unlearn.data.naming import find_name, same_answer, same_id
from pulse_unlearn.data.source import Dataset, Source
from pulse_unlearn.data.tables import Malformed, Row, literal
from pulse_unlearn.errors import DataError
from pulse_unlearn.records import Modality

FICTIONAL = ("Full_Set", "full_data", "full_set")
CELEBRITIES = ("Real_Person_Set", "real_person", "real_person_set")

_NEEDED = ("ID", "image", "Classify")
_OPTIONAL = ("Biography", "MM_QA", "UM_QA")
_KEYS: tuple[tuple[Modality, tuple[str, ...]], ...] = (
    ("multimodal", ("muitimodal", "multimodal")),
    ("text_only", ("unimodal",)),
)
_ANSWER = re.compile(r"\(?([A-Ha-h])\)?(?:\s*[.:)]\s*(.*))?", re.DOTALL)


def load_umu(root: Path, source: Source) -> Dataset:
    """Read fictional and real people, whichever are there; raises DataError with every problem."""
    reader = _Reader()
    problems = reader.problems
    configs = Configs(root, problems, hub="linbojunzi/UMU-bench")
    fictional = configs.first([*((name,) for name in FICTIONAL), *SPLITS])
    real = configs.first((name,) for name in CELEBRITIES)
    if not fictional and not real:
        raise DataError(configs.lacking(FICTIONAL[0]))
    groups = [(name, "fictional") for name in fictional] + [(name, "celebrity") for name in real]
    for config, group in groups:
        for row in configs.rows(config, _NEEDED, _OPTIONAL):
            reader.add(row, group)
    drafts = [*reader.drafts.values()]
    notes = [*weed(drafts), *reader.notes(), *one_sided(drafts)]
    if not drafts and not problems:
        problems.add("there are no people who can be asked", str(root))
    return build_people(drafts, source, problems, folder=root, files=configs.files, notes=notes)


class _Reader:
    """Collects people and problems; what one cell lacks never hides what the next one lacks."""

    def __init__(self) -> None:
        self.problems = Problems()
        self.drafts: dict[str, Draft] = {}
        self._numbers: dict[tuple[str, str], str] = {}
        self._differing: list[str] = []

    def add(self, row: Row, group: str) -> None:
        """Take the row of a person."""
        identity = clean(row.values["ID"])
        if self.problems.take(check_text("ID", identity, row.where)):
            return
        where = f"{row.where} ID {identity}"
        number = same_id(identity)
        if (group, number) in self._numbers:
            self.problems.add("the ID stands twice", where, f"also {self._numbers[group, number]}")
            return
        self._numbers[group, number] = row.where
        apart = group == "celebrity" and ("fictional", number) in self._numbers
        draft = Draft(CELEBRITY_PREFIX + identity if apart else identity, where, group=group)
        cell = row.values["image"]
        draft.cells["image"] = [] if cell is None else cell if isinstance(cell, list) else [cell]
        self._take_questions(draft, row.values["Classify"])
        self._take_pairs(draft, "multimodal", "MM_QA", row)
        self._take_pairs(draft, "text_only", "UM_QA", row)
        entries = (entry for entry, _ in draft.entries if entry["modality"] == "text_only")
        named = [str(entry["question"]) for entry in entries]
        named += [pair.question for pair, _ in draft.pairs if pair.modality == "text_only"]
        draft.name = find_name(_biography(row), named)
        self.drafts[draft.id] = draft

    def notes(self) -> Iterator[str]:
        """Yield where the public evaluation would score by another answer."""
        if self._differing:
            yield (
                f"{len(self._differing)} questions with a picture have another true option than "
                "the same question in text only, by which the public evaluation scores both; "
                f"their own is taken: {listing(self._differing)}"
            )

    def _take_questions(self, draft: Draft, cell: Any) -> None:
        where = f"{draft.where} Classify"
        try:
            task = literal(cell)
        except Malformed as error:
            self.problems.add("Classify is malformed", where, str(error))
            return
        given = task if isinstance(task, Mapping) else {}
        if not any(key in given for _, keys in _KEYS for key in keys):
            got = ", ".join(map(str, given)) or type(task).__name__
            allowed = "unimodal and muitimodal"
            self.problems.add("Classify has no questions", where, got[:80], allowed)
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
            for number, (entry, answer) in enumerate(zip(entries, truths[modality], strict=True)):
                other = (truths["text_only"][number:] or [answer])[0]
                if modality == "multimodal" and answer and answer != other:
                    self._differing.append(draft.id)
                kept = {"modality": modality, "question": clean(entry.get("question"))}
                kept |= {"options": entry["options"], "answer": answer or other}
                draft.entries.append((kept, f"{where} {modality} {number + 1}"))

    def _asked(self, value: Any, where: str) -> list[Mapping[str, Any]]:
        asked = []
        for entry in _entries(value):
            options = entry.get("options")
            if isinstance(options, Mapping):
                asked.append(entry)
            else:
                got, allowed = type(options).__name__, "options under letters"
                self.problems.add("the question has no options", where, got, allowed)
        return asked

    def _truth(self, entry: Mapping[str, Any], where: str) -> str:
        """Return the true option's letter of `B` and `B. text`; anything else as it stands."""
        text = clean(entry.get("answer"))
        found = _ANSWER.fullmatch(text)
        if not found:
            return text
        letter, said = found[1].upper(), same_answer(found[2] or "")
        options = entry["options"].items()
        meant = [str(key) for key, option in options if same_answer(clean(option)) == said]
        if said and meant and letter not in meant:
            what = "the answer's letter and its text are two options"
            got = f"{text[:60]}, but that text is {meant[0]}"
            self.problems.add(what, where, got, "B, or B. and the text of option B")
        return letter

    def _take_pairs(self, draft: Draft, modality: Modality, column: str, row: Row) -> None:
        where, cell = f"{draft.where} {column}", row.values.get(column)
        if cell is None:
            return
        try:
            entries = list(_entries(literal(cell)))
        except Malformed as error:
            self.problems.add(f"{column} is malformed", where, str(error))
            return
        if not entries:
            self.problems.add(f"{column} has no questions", where, allowed="question and answer")
        for entry in entries:
            pair = Pair(modality, clean(entry.get("question")), clean(entry.get("answer")))
            draft.pairs.append((pair, where))


def _biography(row: Row) -> Any:
    value = row.values.get("Biography")
    try:
        return literal(value)
    except Malformed:
        return value


def _entries(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield questions: a single one, a list, under keys, or every field under the same keys."""
    questions = value.get("question") if isinstance(value, Mapping) else None
    if isinstance(value, Mapping) and isinstance(questions, Mapping | list):
        fields = {
            name: cells if isinstance(cells, Mapping) else dict(enumerate(cells))
            for name, cells in value.items()
            if type(cells) is type(questions)
        }
        for key in fields["question"]:
            yield {name: cells.get(key) for name, cells in fields.items()}
    elif isinstance(value, Mapping) and "question" in value:
        yield value
    elif isinstance(value, Mapping | list | tuple):
        inner = value.values() if isinstance(value, Mapping) else value
        yield from (entry for entry in inner if isinstance(entry, Mapping))
