"""Recount every value of a run's `results.csv` from its stored answers: `bench/recount.py RUN`.

An audit: nothing here comes from the package, every number is derived anew from its definition.
Not recounted are intervals, measures that rest on a test or an interval, and measures by the wider
categories of general questions, which a run folder doesn't tell. Who is in which set is taken from
`results.json`. Answers are read by a small reader of this file, made for letters, option texts and
plain sentences; stored verdicts that disagree are printed. Exits with 1 if anything differs.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml

Answer = Mapping[str, Any]
"""A row of `predictions.parquet`."""
Value = float | None
Number = tuple[Value, int, int]
"""Value, questions and individuals behind it."""
Key = tuple[str, ...]
Numbers = Iterator[tuple[Key, Number]]
"""Set, modality and measure with their number."""

CELL = ("scenario", "method", "scope", "seed", "request", "condition")
KEYS = (*CELL, "set", "modality", "measure")
FORGOTTEN = ("forget", "forgotten_earlier", "just_requested")
MEASURES = (
    "accuracy", "rotated_accuracy", "words_accuracy", "words_per_token_accuracy", "words_named",
    "circular_accuracy", "mentions", "mentions_of_others", "letter_accuracy", "unparsable",
    "cut_off", "unreadable", "refused", "correct_probability", "rotated_probability",
    "words_probability", "rotation_flip_rate", "words_lettered",
)  # fmt: skip
READINGS = MEASURES[:5]
RELATIVE = (
    ("", "", READINGS[:1]), ("", "_over_chance", READINGS[:1]), ("rotated_", "", READINGS[1:2]),
    ("latent_", "", READINGS), ("latent_", "_over_chance", READINGS),
)  # fmt: skip
NOT_RECOUNTED = re.compile(
    r"below_chance|one_letter|remembered|membership(_mink)?_(auc|p)|l2_(circular_)?accuracy:.*"
    r"|like_never_known|.*_equivalent|.*_ks(_p)?"
)
ATTRIBUTE = re.compile(r"(latent_)?accuracy:.*")
"""Of a set of people; of general questions these are categories, and recounted."""
TIE = 1e-9
SHOWN = 20

OPEN, CLOSE = r"[(\[{\"'*`\s]*", r"[.,:;)\]}\"'*`\s]*"
BARE = re.compile(f"{OPEN}([A-Z]){CLOSE}")
WITH_TEXT = re.compile(rf"{OPEN}([A-Z])(?:[.,:;)\]}}\"'*`]+\s*|\s+)(\S.*)", re.DOTALL)
IS = r"(?i:\banswer\s*(?:is\b|:)\s*(not\b)?\s*(?:option\b)?)\s*"
DECLARED = re.compile(rf"{IS}{OPEN}([A-Z])\b(?! or\b)")
NOUN = re.compile(r" (?!(?:is|was|or|and|because|as|for|but)\b)[a-z]")
"""What follows an article or a pronoun, roughly."""
REFUSAL = re.compile(r"(?i)\b(sorry|apologi[sz]e|i (can ?not|can't|don't|do not|am unable))\b")


def loose(text: str) -> str:
    """Return a text up to case, white space, quotes around it and a full stop."""
    return " ".join(text.split()).strip("\"'*` ").removesuffix(".").casefold()


def found_texts(text: str, options: Sequence[Answer]) -> list[tuple[int, int, str]]:
    """Return start, end and letter of the option texts in `text`, those inside others left out."""
    flat = " ".join(text.split()).casefold()
    spans = [
        (match.start(), match.end(), option["letter"])
        for option in options
        for match in re.finditer(rf"(?<!\w){re.escape(loose(option['text']))}(?!\w)", flat)
    ]
    return [
        (start, end, letter)
        for start, end, letter in spans
        if not any(s <= start and end <= e and (s, e) != (start, end) for s, e, _ in spans)
    ]


def named(text: str, options: Sequence[Answer]) -> str:
    """Return the letter of the one option whose text stands in `text`; else an empty string."""
    letters = {letter for _, _, letter in found_texts(text, options)}
    return letters.pop() if len(letters) == 1 else ""


def lettered(text: str, options: Sequence[Answer]) -> bool:
    """Tell whether `text` is an option's letter and no option's text."""
    alone = BARE.fullmatch(text.strip())
    letters = {option["letter"] for option in options}
    texts = {loose(option["text"]) for option in options}
    return alone is not None and alone[1] in letters and loose(text) not in texts


def mentioned(text: str, options: Sequence[Answer]) -> set[str]:
    """Return the letters of the options that `text` names anywhere, by letter or by text."""
    spans = found_texts(text, options)
    flat = " ".join(text.split())
    letters = {letter for _, _, letter in spans}
    for match in re.finditer(r"(?<!\w)[A-Z](?!\w|'\w)", flat):
        inside = any(start <= match.start() < end for start, end, _ in spans)
        opens = match[0] == "A" and re.search(r"(?:^|[.!?:]\s)$", flat[: match.start()])
        english = (opens or match[0] == "I") and NOUN.match(flat[match.end() :])
        if not inside and not english:
            letters.add(match[0])
    return letters & {option["letter"] for option in options}


def strict(text: str, options: Sequence[Answer]) -> tuple[str, str]:
    """Return `answered`, `refused` or `unparsable`, and the letter that was answered."""
    letters = {option["letter"]: loose(option["text"]) for option in options}
    unread = ("unparsable", "")
    if (match := BARE.fullmatch(text.strip())) and match[1] in letters:
        return "answered", match[1]
    whole = [letter for letter, words in letters.items() if words == loose(text)]
    match = WITH_TEXT.fullmatch(text.strip())
    if match and letters.get(match[1]) == loose(match[2]):
        whole.append(match[1])
    if len(whole) == 1:
        return "answered", whole[0]
    said = {("" if denied else letter) for denied, letter in DECLARED.findall(text)}
    if said:
        one = said.pop() if len(said) == 1 else ""
        texts = {letter for _, _, letter in found_texts(text, options)}
        return ("answered", one) if one in letters and texts <= {one} else unread
    refuses = REFUSAL.search(text) and not mentioned(text, options)
    return ("refused", "") if refuses else unread


@dataclass
class Question:
    """One question with every per-question measure; None where it was not asked."""

    individual: str
    modality: str
    category: str
    answer: str
    choice: str
    """Letter read in the file's order."""
    values: dict[str, Value]
    orders: list[tuple[str, str]]
    """True letter and letter read, empty for none, in every order."""


def credit(values: np.ndarray, place: int) -> float:
    """Return the share of a place in the largest of the values."""
    best = values >= values.max() - TIE
    return float(best[place] / best.sum())


def share(values: np.ndarray, place: int) -> float:
    """Return exp(values[place]) over the sum of all; equal shares where all are impossible."""
    if np.isneginf(values).all():
        return 1.0 / len(values)
    parts = np.exp(values - values.max())
    return float(parts[place] / parts.sum())


def place_of(answer: Answer, letter: str) -> int:
    """Return where the option of this letter stands."""
    return [option["letter"] for option in answer["options"]].index(letter)


def over_orders(shown: Sequence[Answer], read: Sequence[str]) -> dict[str, Value]:
    """Return what the orders of a question say together; `read` are the letters read in them."""
    size, true = len(shown[0]["options"]), [one["answer"] for one in shown]
    values: dict[str, Value] = {}
    if len(shown) > 1 and sorted(true) == sorted(o["letter"] for o in shown[0]["options"]):
        # Rotated by k, the option at place i stands k places earlier.
        logs = np.array([np.roll(one["option_log_probs"], one["rotation"]) for one in shown])
        averaged = (logs - np.logaddexp.reduce(logs, axis=1, keepdims=True)).mean(axis=0)
        values["rotated_accuracy"] = credit(averaged, place_of(shown[0], true[0]))
        values["rotated_probability"] = share(averaged, place_of(shown[0], true[0]))
        values["circular_accuracy"] = float(list(read) == true)
    chosen = [
        (place_of(one, letter) + one["rotation"]) % size
        for one, letter in zip(shown, read, strict=True)
        if letter
    ]
    if len(chosen) > 1:
        values["rotation_flip_rate"] = float(len(set(chosen)) > 1)
    named_by = [(one["answer"], mentioned(one["text"], one["options"])) for one in shown]
    hits = sum(letter in said for letter, said in named_by)
    others = sum(len(said - {letter}) for letter, said in named_by)
    means = {"mentions": hits, "mentions_of_others": others / (size - 1)}
    return values | {measure: value / len(shown) for measure, value in means.items()}


def in_words(bare: Answer) -> dict[str, Value]:
    """Return what the answer to the bare question says."""
    sums, place = np.array(bare["option_log_probs"]), place_of(bare, bare["answer"])
    return {
        "words_accuracy": credit(sums, place),
        "words_per_token_accuracy": credit(sums / np.array(bare["option_tokens"]), place),
        "words_probability": share(sums, place),
        "words_named": float(named(bare["text"], bare["options"]) == bare["answer"]),
        "words_lettered": float(lettered(bare["text"], bare["options"])),
    }


def question_of(answers: Sequence[Answer]) -> Question:
    """Bring the stored answers to one question together."""
    shown = sorted((a for a in answers if a["asked_as"] == "options"), key=lambda a: a["rotation"])
    if not shown or shown[0]["rotation"] != 0 or shown[0]["option_tokens"]:
        sys.exit(f"{answers[0]['question_id']}: only questions shown with letters are recounted")
    first = shown[0]
    readings, letters = zip(*(strict(one["text"], one["options"]) for one in shown), strict=True)
    logs, place = np.array(first["option_log_probs"]), place_of(first, first["answer"])
    values: dict[str, Value] = dict.fromkeys(MEASURES) | over_orders(shown, letters)
    values |= {f"chosen:{letter}": float(letters[0] == letter) for letter in ascii_uppercase}
    values |= {
        "accuracy": float(letters[0] == first["answer"]),
        "unparsable": float(readings[0] == "unparsable" and not first["cut_off"]),
        "cut_off": float(readings[0] == "unparsable" and first["cut_off"]),
        "unreadable": float(readings[0] == "unparsable"),
        "refused": float(readings[0] == "refused"),
        "letter_accuracy": credit(logs, place),
        "correct_probability": share(logs, place),
        "chance": 1 / len(logs),
    }
    for bare in (one for one in answers if one["asked_as"] == "words"):
        values |= in_words(bare)
    orders = [(one["answer"], letter) for one, letter in zip(shown, letters, strict=True)]
    about = (first["individual"], first["modality"], first["category"])
    return Question(*about, first["answer"], letters[0], values, orders)


def measured(questions: Sequence[Question], measure: str) -> Value:
    """Return the mean of the modalities' means of a measure, general questions being as one.

    Questions without a value are left out; None if a modality has none with one.
    """
    strata: dict[str, list[float]] = {}
    for question in questions:
        found = strata.setdefault(question.modality if question.individual else "", [])
        if (value := question.values[measure]) is not None:
            found.append(value)
    if not strata or not all(strata.values()):
        return None
    return float(np.mean([np.mean(stratum) for stratum in strata.values()]))


def highest(questions: Sequence[Question], readings: Sequence[str]) -> Value:
    """Return the highest of these readings."""
    values = [measured(questions, reading) for reading in readings]
    return max((value for value in values if value is not None), default=None)


def letter_numbers(questions: Sequence[Question]) -> dict[str, Value]:
    """Return how answers keep to a letter, over all orders that were asked, both modalities as one.

    The share is that of the letter said most above its share of the truth, of equals the last.
    """
    values: dict[str, Value] = dict.fromkeys(("letter_share", "letter_entropy", "letter_bias"))
    read = [(true, letter) for q in questions for true, letter in q.orders if letter]
    true, said = (Counter(pair[side] for pair in read) for side in (0, 1))
    letters = sorted(true | said)
    if read:
        habit = max(letters, key=lambda letter: (said[letter] - true[letter], letter))
        values["letter_share"] = said[habit] / len(read)
    if len(letters) > 1:
        parts = np.array(list(said.values())) / len(read)
        values["letter_entropy"] = float(-(parts * np.log(parts)).sum() / np.log(len(letters)))
    usual = Counter(q.values["chance"] for q in questions).most_common(1)[0][0]
    recall: dict[str, list[bool]] = {}
    for question in questions:
        for one, letter in question.orders if question.values["chance"] == usual else ():
            recall.setdefault(one, []).append(letter == one)
    if len(recall) > 1:
        values["letter_bias"] = float(np.std([np.mean(rights) for rights in recall.values()]))
    return values


def set_numbers(questions: Sequence[Question]) -> dict[str, Value]:
    """Return every measure of one set in one modality."""
    letters = {q.answer for q in questions} | {q.choice for q in questions} - {""}
    said = (f"chosen:{letter}" for letter in letters)
    values = {measure: measured(questions, measure) for measure in (*MEASURES, *said)}
    return values | {"latent_accuracy": highest(questions, READINGS)}


def relative_numbers(
    before: Sequence[Question], after: Sequence[Question], *, forgotten: bool
) -> dict[str, Value]:
    """Return what is forgotten or kept of an accuracy, in percent; the same questions in both."""
    values: dict[str, Value] = {}
    for prefix, suffix, readings in RELATIVE:
        then, now = highest(before, readings), highest(after, readings)
        base = measured(after, "chance") if suffix else 0.0
        name = f"{prefix}{'forgotten' if forgotten else 'kept'}_pct{suffix}"
        values[name] = None
        if then is not None and now is not None and base is not None and then - base > TIE:
            kept = 100 * (now - base) / (then - base)
            values[name] = 100 - kept if forgotten else kept
    return values


class Run:
    """A run folder, read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        experiment = yaml.safe_load((folder / "experiment.yaml").read_text(encoding="utf-8"))
        parser = experiment.get("scoring", {}).get("parser", "strict")
        if parser != "strict":
            sys.exit(f"only answers read by the parser strict can be recounted, not by {parser}")
        self.plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
        self.sets = json.loads((folder / "results.json").read_text(encoding="utf-8"))["sets"]
        # A stage that an earlier plan made has the number it had there.
        there = {one.name.lstrip("0123456789"): one.name for one in (folder / "stages").iterdir()}
        self.folders = {
            stage["name"]: there.get(stage["folder"].lstrip("0123456789"), stage["folder"])
            for stage in self.plan["stages"]
        }
        self._known: dict[str, dict[str, Question]] = {}

    def answers(self, stage: str) -> list[Answer]:
        """Return the stored answers of a stage."""
        path = self.folder / "stages" / self.folders[stage] / "predictions.parquet"
        if not path.exists():
            sys.exit(f"{path} is not there: the run is not finished")
        return list(pq.ParquetFile(path).read().to_pylist())

    def questions(self, stage: str) -> dict[str, Question]:
        """Return the questions a stage asked, by id."""
        if stage not in self._known:
            together: dict[str, list[Answer]] = {}
            for one in self.answers(stage):
                together.setdefault(one["question_id"], []).append(one)
            self._known[stage] = {key: question_of(some) for key, some in together.items()}
        return self._known[stage]

    def sets_at(self, cell: Mapping[str, Any], request: int) -> dict[str, set[str]]:
        """Return who is in which set after a request."""
        sets = dict(self.sets[f"{cell['scenario']}/{cell['seed']}"])
        requests, done = sets.pop("requests"), max(request - 1, 0)
        if len(requests) > 1:
            sets["forgotten_earlier"] = set().union(*requests[:done])
            sets["just_requested"] = set().union(*requests[done:request])
            sets["not_yet_requested"] = set().union(*requests[request:])
        return {name: set(people) for name, people in sets.items() if people}


def parts_of(
    questions: Mapping[str, Question], sets: Mapping[str, set[str]]
) -> Iterator[tuple[str, str, list[str], bool]]:
    """Yield set, modality, ids of the questions, and whether all modalities are among them."""
    for name, people in sets.items():
        about = [key for key, q in questions.items() if q.individual in people]
        there = {questions[key].modality for key in about}
        for one in ("multimodal", "text_only"):
            yield name, one, [key for key in about if questions[key].modality == one], one in there
        yield name, "all", about, len(there) == 2
    if general := [key for key, q in questions.items() if not q.individual]:
        yield "general", "all", general, True


def recount_cell(
    questions: Mapping[str, Question],
    sets: Mapping[str, set[str]],
    before: Mapping[str, Question] | None = None,
) -> Numbers:
    """Yield every number after a request; what is relative to those before if they are given."""
    for name, modality, keys, there in parts_of(questions, sets):
        some = [questions[key] for key in keys]
        values = set_numbers(some)
        if before is not None:
            then = [before[key] for key in keys]
            values |= relative_numbers(then, some, forgotten=name in FORGOTTEN)
        values = {measure: value if there else None for measure, value in values.items()}
        values |= {"chance": measured(some, "chance"), **(letter_numbers(some) if some else {})}
        people = len({q.individual for q in some} - {""})
        for measure, value in values.items():
            yield (name, modality, measure), (value, len(some), people)
        for category in {q.category for q in some if name == "general"} - {""}:
            of_it = [q for q in some if q.category == category]
            for measure in ("accuracy", "circular_accuracy"):
                number = (measured(of_it, measure), len(of_it), people)
                yield (name, modality, f"{measure}:{category}"), number


def never_knew_numbers(
    questions: Mapping[str, Question], gone: Mapping[str, Question], sets: Mapping[str, set[str]]
) -> Numbers:
    """Yield how much more is right than in a model that never knew, question by question."""
    people_alone = {key: q for key, q in questions.items() if q.individual}
    about = {name: people for name, people in sets.items() if name in FORGOTTEN}
    for name, modality, keys, there in parts_of(people_alone, about):
        people = len({questions[key].individual for key in keys})
        for reading in READINGS:
            gaps: dict[str, list[float]] = {}
            for key in keys:
                now, then = (of[key].values[reading] for of in (questions, gone))
                if now is not None and then is not None:
                    gaps.setdefault(questions[key].modality, []).append(now - then)
            if gaps:
                value = float(np.mean([np.mean(some) for some in gaps.values()]))
                number = (value if there else None, len(keys), people)
                yield (name, modality, f"{reading}_from_never_knew"), number


def request_numbers(
    questions: Mapping[str, Question], requests: Sequence[Sequence[str]]
) -> Numbers:
    """Yield what is known of each of several requests' people."""
    sets = {f"request:{turn}": set(people) for turn, people in enumerate(requests, start=1)}
    people_alone = {key: q for key, q in questions.items() if q.individual}
    for name, modality, keys, there in parts_of(people_alone, sets) if len(sets) > 1 else ():
        if modality == "all":
            some = [questions[key] for key in keys]
            values = {
                "accuracy": measured(some, "accuracy"),
                "latent_accuracy": highest(some, READINGS),
            }
            people = len({q.individual for q in some})
            for measure, value in values.items():
                yield (name, modality, measure), (value if there else None, len(some), people)


def recount(run: Run) -> dict[Key, Number]:
    """Return every number that the stored answers give, by the columns `KEYS`."""
    numbers: dict[Key, Number] = {}
    for one in run.plan["evaluations"]:
        answers = run.questions(one["scores"])
        if one["only"]:
            answers = {key: q for key, q in answers.items() if key in run.questions(one["only"])}
        before = None
        if one["compared_to"]:
            before = {key: run.questions(one["compared_to"])[key] for key in answers}
        sets = run.sets_at(one, int(one["request"]))
        if one["condition"] != "plain":
            asked = {question.individual for question in answers.values()}
            sets = {name: people for name, people in sets.items() if people & asked}
        label = tuple(str(one[name]) for name in CELL)
        counted = recount_cell(answers, sets, before)
        numbers |= {(*label, *key): number for key, number in counted}
        if one["compared_to"] and one.get("never_knew"):
            counted = never_knew_numbers(answers, run.questions(one["never_knew"]), sets)
            numbers |= {(*label, *key): number for key, number in counted}
        if one.get("taught"):
            held_back, forget = run.questions(one["only"]), sets["forget"]
            taught = {
                key: question
                for key, question in run.questions(one["taught"]).items()
                if key not in held_back and question.individual in forget
            }
            counted = recount_cell(taught, {"taught": forget}, None)
            numbers |= {(*label, *key): number for key, number in counted}
        if one["condition"] in ("plain", "retain_model"):
            requests = run.sets[f"{one['scenario']}/{one['seed']}"]["requests"]
            counted = request_numbers(answers, requests)
            numbers |= {(*label, *key): number for key, number in counted}
    return numbers


def agree(found: Number, counted: Number, tolerance: float) -> bool:
    """Tell whether two numbers are the same up to the digits of the file."""
    if found[0] is None or counted[0] is None:
        return found == counted
    return found[1:] == counted[1:] and abs(found[0] - counted[0]) <= tolerance


def compare(folder: Path, numbers: Mapping[Key, Number]) -> tuple[list[str], Counter[str]]:
    """Return what differs in `results.csv`, and how many rows of which measures were left."""
    wrong: list[str] = []
    left: Counter[str] = Counter()
    seen: set[Key] = set()
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            key = tuple(row[name] for name in KEYS)
            value = float(row["value"]) if row["value"] else None
            found = (value, int(row["questions"]), int(row["individuals"]))
            if key in seen:
                wrong.append(f"{' '.join(key)}: there twice")
            elif NOT_RECOUNTED.fullmatch(key[-1]) or (
                "forget" in key and ATTRIBUTE.fullmatch(key[-1])
            ):
                left[key[-1].split(":")[0]] += 1
            elif key not in numbers:
                wrong.append(f"{' '.join(key)}: not known here")
            elif not agree(found, numbers[key], 2e-4 if "_pct" in key[-1] else 2e-6):
                wrong.append(f"{' '.join(key)}: file {found}, recounted {numbers[key]}")
            seen.add(key)
    wrong += [f"{' '.join(key)}: missing in the file" for key in numbers if key not in seen]
    return wrong, left


def verdicts_differ(run: Run) -> Iterator[str]:
    """Yield answers that the stored verdicts and this file's reader read differently."""
    for stage, folder in run.folders.items():
        path = run.folder / "scores" / f"{folder}.parquet"
        stored = pq.ParquetFile(path).read().to_pylist() if path.exists() else []
        for one, score in zip(run.answers(stage) if stored else [], stored, strict=True):
            reading, letter = strict(one["text"], one["options"])
            names = "".join(sorted(mentioned(one["text"], one["options"])))
            if one["asked_as"] == "words":
                letter, names = named(one["text"], one["options"]), score["mentioned"]
                reading = "answered" if letter else "unparsable"
            if reading == "unparsable" and one["cut_off"]:
                reading = "cut_off"
            if reading == "answered":
                reading = "correct" if letter == one["answer"] else "wrong"
            mine = (one["example_id"], reading, letter, names)
            theirs = tuple(score[name] for name in ("example_id", "verdict", "choice", "mentioned"))
            if mine != theirs:
                yield f"{one['text']!r}: stored {theirs}, read here {mine}"


def main(folder: Path) -> int:
    """Print what differs; return the exit code."""
    run = Run(folder)
    numbers = recount(run)
    wrong, left = compare(folder, numbers)
    readings = list(verdicts_differ(run))
    print(f"{len(numbers)} values recounted, {len(wrong)} differ", *wrong[:SHOWN], sep="\n  ")
    told = ", ".join(f"{measure} ({count} rows)" for measure, count in sorted(left.items()))
    print(f"not recounted: every interval; {told or 'no rows'}")
    print(f"{len(readings)} answers read differently", *readings[:SHOWN], sep="\n  ")
    return int(bool(wrong or readings))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
