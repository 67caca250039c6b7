"""CLEAR's questions in text only, which are TOFU's: whose they are, and what they can offer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pulse_unlearn.data.checks import clean
from pulse_unlearn.data.configs import read_rows, shards
from pulse_unlearn.data.naming import mentions, plain
from pulse_unlearn.data.options import choose
from pulse_unlearn.data.people_rows import Draft
from pulse_unlearn.data.public import listed
from pulse_unlearn.data.records_file import json_rows
from pulse_unlearn.data.source import Source
from pulse_unlearn.data.structures import Pair
from pulse_unlearn.errors import Problem

CONFIGS = (
    ("full+tofu",),
    ("forget01+tofu", "retain99+tofu"),
    ("forget05+tofu", "retain95+tofu"),
    ("forget10+tofu", "retain90+tofu"),
)
TOFU = "tofu"
"""Folder for TOFU's own files with perturbed answers, such as `forget10_perturbed.json`."""
AUTHOR = 20
"""Questions TOFU asks of each author, one after the other."""

_WRONG = ("perturbed_answer", "perturbed_answers")


@dataclass(frozen=True, slots=True)
class _Said:
    question: str
    answer: str
    wrong: tuple[str, ...]
    where: str


class TextQuestions:
    """TOFU's questions in a CLEAR folder; CLEAR itself does not say of whom they are."""

    def __init__(self, root: Path, source: Source, problems: list[Problem], *, hub: str) -> None:
        self._source, self._counts = source, Counter[str]()
        configs = next((one for one in CONFIGS if all(shards(root, name) for name in one)), ())
        extra = [*sorted((root / TOFU).glob("*.json")), *sorted((root / TOFU).glob("*.jsonl"))]
        self.files = [*(file for name in configs for file in shards(root, name)), *extra]
        """Files that were read."""
        self._wrong: dict[str, tuple[str, ...]] = {}
        for file in extra:
            for row in json_rows(file, problems):
                wrong = [text for name in _WRONG for text in listed(row.values.get(name))]
                self._wrong[clean(row.values.get("question"))] = tuple(wrong)
        self._said: list[_Said] = []
        for config in configs:
            for row in read_rows(
                root,
                config,
                needed=("question", "answer"),
                optional=_WRONG,
                problems=problems,
                hub=hub,
            ):
                question, answer = clean(row.values["question"]), clean(row.values["answer"])
                wrong = [text for name in _WRONG for text in listed(row.values.get(name))]
                if question:
                    known = self._wrong.get(question, ())
                    self._said.append(_Said(question, answer, (*wrong, *known), row.where))

    def add_to(self, drafts: Sequence[Draft]) -> None:
        """Give each person the questions that name it: to be asked if there are wrong answers."""
        by_name = {draft.name: draft for draft in drafts}
        for said, owner in zip(self._said, self._owners(list(by_name)), strict=True):
            if owner is None:
                self._counts["nobody"] += 1
            elif not mentions(said.question, owner):
                self._counts["unnamed"] += 1
            else:
                self._ask(by_name[owner], said)

    def notes(self) -> Iterator[str]:
        """Yield how many questions in text only are not asked, and why."""
        if self._counts["nobody"]:
            yield f"{self._counts['nobody']} questions in text only are of nobody with a face here"
        if self._counts["unnamed"]:
            yield (
                f"{self._counts['unnamed']} questions in text only do not name the person and are "
                "left out"
            )
        if self._counts["no options"]:
            yield (
                f"{self._counts['no options']} questions in text only are trained on in words but "
                f"not asked, as there are no wrong answers: put TOFU's files with "
                f"perturbed_answer into {TOFU}/"
            )

    def _owners(self, names: Sequence[str]) -> list[str | None]:
        """Return whose each question is: of whom it speaks, or the twenty it stands among."""
        words = {name: plain(name) for name in names}
        spoken = []
        for said in self._said:
            text = plain(f"{said.question} {said.answer}")
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

    def _ask(self, draft: Draft, said: _Said) -> None:
        draft.pairs.append((Pair("text_only", said.question, said.answer), said.where))
        options, letter = choose(
            said.answer,
            said.wrong,
            count=self._source.options,
            seed=self._source.options_seed,
            order=f"{draft.id}/{said.question}",
        )
        if len(options) < 2:
            self._counts["no options"] += 1
            return
        entry = {
            "modality": "text_only",
            "question": said.question,
            "options": {one.letter: one.text for one in options},
            "answer": letter,
        }
        draft.entries.append((entry, said.where))
