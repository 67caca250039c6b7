"""What public files of people hold that cannot be asked, or reads oddly: left out, and told.

One's own files are refused for the same, as their owner can mend them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pulse_unlearn.data.checks import SHOWN, clean
from pulse_unlearn.data.naming import normalised, same_answer
from pulse_unlearn.data.options import Fact, Pool
from pulse_unlearn.data.people_rows import Draft
from pulse_unlearn.records import MODALITIES, Individual


def weed(drafts: list[Draft]) -> list[str]:
    """Leave out what cannot be asked of these people, and return what to tell of it.

    Questions that are asked twice, that offer the same option twice, or whose options would be
    other people's answers where nobody has another one. Who then is asked nothing is taken out.
    """
    asked = [draft for draft in drafts if draft.entries]
    notes = [*_repeated(drafts), *_equal_options(drafts), *_lonely(drafts)]
    emptied = [draft for draft in asked if not draft.entries]
    if emptied:
        names = shown([draft.id for draft in emptied])
        notes.append(f"{len(emptied)} people of whom nothing is left to ask are left out: {names}")
        drafts[:] = [draft for draft in drafts if draft not in emptied]
    return notes + _namesakes(drafts)


def one_sided(individuals: Sequence[Individual]) -> Iterator[str]:
    """Yield whom the data set asks nothing in one modality."""
    words = dict(zip(MODALITIES, ("with their picture", "in text only"), strict=True))
    for modality in MODALITIES:
        without = [
            person.id
            for person in individuals
            if all(question.modality != modality for question in person.questions)
        ]
        if without:
            yield f"{len(without)} people are asked nothing {words[modality]}: {shown(without)}"


def shown(names: Sequence[str], *, most: int = SHOWN) -> str:
    """Return the names, the first `most` of them."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


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
        yield f"questions that a person is asked twice are asked once: {shown(people)}"


def _equal_options(drafts: Sequence[Draft]) -> Iterator[str]:
    people = []
    for draft in drafts:
        kept = [(entry, where) for entry, where in draft.entries if _all_differ(entry)]
        people += [draft.id] * (len(draft.entries) - len(kept))
        draft.entries = kept
    if people:
        yield f"{len(people)} questions with two equal options are left out, of {shown(people)}"


def _all_differ(entry: Mapping[str, Any]) -> bool:
    options = entry.get("options")
    texts = [clean(text) for text in options.values()] if isinstance(options, Mapping) else []
    folded = [" ".join(text.casefold().split()) for text in texts if text]
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


def same_question(question: str) -> str:
    """Return what a question is drawn by: the words that two people are asked alike."""
    return same_answer(question)


def listed(value: Any) -> list[str]:
    """Return the texts of a list, or of one text; none of a null."""
    if value is None:
        return []
    return [clean(text) for text in value] if isinstance(value, list | tuple) else [clean(value)]
