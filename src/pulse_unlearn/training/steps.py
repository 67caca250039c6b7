"""Which examples each optimiser step sees: a function of seed and step alone, so that a resumed
run sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal, Protocol

from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.ranks import Ranks, cut, reading_costs
from pulse_unlearn.records import Example

Epoch = Callable[[int], Sequence[Example]]
"""Epoch number -> that epoch's examples (views and option orders differ between epochs)."""
Shuffle = Literal["questions", "pictures"]
"""What is shuffled: single questions, or the questions on one picture as one."""


@dataclass(frozen=True, slots=True)
class StepData:
    """Examples of one optimiser step; fine-tuning has no forget part."""

    forget: tuple[Example, ...]
    retain: tuple[Example, ...]

    def count(self, part: Literal["forget", "retain"]) -> int:
        """Return how many examples a part has."""
        return len(self.forget) if part == "forget" else len(self.retain)

    def micro_batches(self, size: int) -> list[StepData]:
        """Cut both parts into pieces of at most `size`, side by side.

        Like examples come together, so that they share much and little is padding; which piece an
        example is in does not change the step's loss.
        """
        forget, retain = (sorted(part, key=_likeness) for part in (self.forget, self.retain))
        count = max(math.ceil(len(part) / size) for part in (forget, retain))
        return [
            StepData(
                tuple(forget[size * k : size * (k + 1)]), tuple(retain[size * k : size * (k + 1)])
            )
            for k in range(count)
        ]

    def part_of(self, ranks: Ranks) -> StepData:
        """Return what of the step one of several ranks does."""
        return self.dealt(ranks.count, evenly=ranks.lockstep)[ranks.rank]

    def dealt(self, count: int, *, evenly: bool = False) -> list[StepData]:
        """Deal the step out to so many ranks: as many tokens to each, or examples if `evenly`.

        Like examples stay together, and both parts are cut at the same places, so that no rank has
        one without the other; with more ranks than examples some have nothing.
        """
        forget, retain = (sorted(part, key=_likeness) for part in (self.forget, self.retain))
        costs = zip_longest(reading_costs(forget), reading_costs(retain), fillvalue=0.0)
        runs = cut([1.0 if evenly else sum(both) for both in costs], count)
        return [StepData(tuple(forget[run]), tuple(retain[run])) for run in runs]


def _likeness(example: Example) -> tuple[str, int]:
    return example.likeness


class Steps(Protocol):
    """An indexable sequence of step data."""

    def __len__(self) -> int: ...

    def __getitem__(self, step: int) -> StepData: ...


class Stream:
    """An endless shuffled stream over epochs of examples, addressed by position.

    With shuffle `pictures` the questions on one picture follow each other, so that a batch pays for
    the picture once. Raises DataError if there are no examples, or if an epoch has more or fewer
    than the first.
    """

    def __init__(
        self, epoch: Epoch, *, seed: int, name: str, shuffle: Shuffle = "questions"
    ) -> None:
        self._epoch, self._seed, self._name, self._shuffle = epoch, seed, name, shuffle
        self._cached: dict[int, list[Example]] = {}
        self.length = len(epoch(0))
        if not self.length:
            raise DataError(Problem(f"there is nothing to train on: no examples for {name}"))

    def take(self, start: int, count: int) -> tuple[Example, ...]:
        """Return `count` examples from position `start`; an epoch follows the one before."""
        taken: list[Example] = []
        position = start
        while len(taken) < count:
            epoch, offset = divmod(position, self.length)
            piece = self._shuffled(epoch)[offset : offset + count - len(taken)]
            taken += piece
            position += len(piece)
        return tuple(taken)

    def without(self, questions: Collection[str]) -> Stream:
        """Return the stream that leaves out the questions with these ids."""
        whole = self._epoch

        def rest(epoch: int) -> list[Example]:
            return [one for one in whole(epoch) if one.question_id not in questions]

        return Stream(rest, seed=self._seed, name=self._name, shuffle=self._shuffle)

    def _shuffled(self, epoch: int) -> list[Example]:
        if epoch not in self._cached:
            examples = list(self._epoch(epoch))
            if len(examples) != self.length:
                # Positions are counted in epochs of one length.
                got, allowed = f"{len(examples)} examples", f"{self.length}, as in the first"
                raise DataError(Problem(f"epoch {epoch} differs", self._name, got, allowed))
            units = (
                _by_picture(examples) if self._shuffle == "pictures" else [[e] for e in examples]
            )
            random.Random(f"{self._seed}:{self._name}:{epoch}").shuffle(units)
            for old in [key for key in self._cached if key < epoch - 1]:
                del self._cached[old]
            self._cached[epoch] = [example for unit in units for example in unit]
        return self._cached[epoch]


def _by_picture(examples: Sequence[Example]) -> list[list[Example]]:
    """Return the examples of each picture together, and each example without one alone."""
    units: dict[str, list[Example]] = {}
    for example in examples:
        key = example.picture.digest if example.picture else example.example_id
        units.setdefault(key, []).append(example)
    return list(units.values())


def steps_of_epochs(
    examples: int, *, batch_size: int, replay: float, epochs: int, steps: int | None
) -> int:
    """Return how many steps a fine-tuning takes: as many as the epochs, unless given."""
    learned = batch_size - round(batch_size * replay)
    return steps or math.ceil(examples * epochs / max(learned, 1))


class FinetuneSteps:
    """Each batch: people to learn, and a share of general questions replayed, of 1 nothing else.

    As many `steps` as the epochs take, unless a number is given.
    """

    def __init__(
        self,
        people: Epoch,
        general: Epoch,
        *,
        batch_size: int,
        replay: float,
        epochs: int,
        seed: int,
        steps: int | None = None,
        shuffle: Shuffle = "questions",
    ) -> None:
        self._replay = round(batch_size * replay)
        self._people_count = batch_size - self._replay
        learned = self._people_count
        self._people = (
            Stream(people, seed=seed, name="people", shuffle=shuffle) if learned else None
        )
        self._general = Stream(general, seed=seed, name="replay") if self._replay else None
        self._steps = steps_of_epochs(
            self._people.length if self._people else self._general.length if self._general else 0,
            batch_size=batch_size,
            replay=replay if learned else 0.0,
            epochs=epochs,
            steps=steps,
        )

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> StepData:
        count = self._people_count
        learned = self._people.take(step * count, count) if self._people else ()
        replayed = self._general.take(step * self._replay, self._replay) if self._general else ()
        return StepData(forget=(), retain=learned + replayed)


class UnlearnSteps:
    """Each step: a batch to forget and, if the method needs one, a retain batch of equal size.

    Without people in `retain` it has general questions alone, and none at a share of 0. With
    `others` half of its questions about people are theirs.
    """

    def __init__(
        self,
        forget: Epoch,
        retain: Epoch | None,
        general: Epoch,
        *,
        others: Epoch | None = None,
        batch_size: int,
        general_share: float,
        steps: int,
        seed: int,
        shuffle: Shuffle = "questions",
    ) -> None:
        self._steps = steps
        self._forget = Stream(forget, seed=seed, name="forget", shuffle=shuffle)
        self._size = batch_size
        general_count = round(batch_size * general_share)
        people_count = batch_size - general_count if retain else 0
        other_count = people_count // 2 if others else 0
        kept: list[tuple[Epoch | None, str, int, Shuffle]] = [
            (retain, "retain", people_count - other_count, shuffle),
            (others, "others", other_count, shuffle),
            (general, "general", general_count, "questions"),
        ]
        self._kept = [
            (Stream(epoch, seed=seed, name=name, shuffle=how), count)
            for epoch, name, count, how in kept
            if epoch and count
        ]

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> StepData:
        kept = [one for of, count in self._kept for one in of.take(step * count, count)]
        return StepData(self._forget.take(step * self._size, self._size), tuple(kept))

    def without(self, questions: Collection[str]) -> UnlearnSteps:
        """Return the steps whose forget batches leave out the questions with these ids."""
        rest = copy.copy(self)
        rest._forget = self._forget.without(questions)
        return rest

    def first_epoch(self, part: Literal["forget", "retain"]) -> tuple[Example, ...]:
        """Return every example of one part once."""
        streams = [self._forget] if part == "forget" else [of for of, _ in self._kept]
        return tuple(one for of in streams for one in of.take(0, of.length))
