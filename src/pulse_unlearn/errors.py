"""Every error PULSE raises on purpose, and the form in which it speaks.

```
PulseError                 anything below; the command line prints it without a traceback
├── ConfigError            the experiment file or a `--set` cannot be used
├── DataError              a data set cannot be used as it is
├── ModelError             a model, processor or adapter cannot be used as it is
│   ├── SizesUnknown       a model's sizes cannot be told; a run may use it all the same
│   └── TooLarge           a stage cannot fit into the memory of what is to carry it out
├── MethodError            a method or plug-in does not keep its contract
│   └── PluginError        a third party's code raised, or did not return
├── StoreError             the run folder cannot be read or written
│   ├── RunLocked          another process is working in the run folder
│   └── Corrupted          a stored file is not the file that was written
├── Diverged               training left the finite numbers and was rolled back
├── RankLost               another of the processes that share a stage has gone
└── Interrupted            a signal asked us to stop; the same command continues
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, told so that the reader can mend it."""

    what: str
    where: str = ""
    got: str = ""
    allowed: str = ""
    fix: str = ""

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        details = [
            f"  {label}: {value}"
            for label, value in (("got", self.got), ("allowed", self.allowed), ("fix", self.fix))
            if value
        ]
        return "\n".join([head, *details])


class PulseError(Exception):
    """Base of all errors raised on purpose; carries every problem found, not only the first."""

    exit_code = 1

    def __init__(self, problems: Problem | Sequence[Problem] | str) -> None:
        if isinstance(problems, str):
            problems = Problem(problems)
        self.problems: tuple[Problem, ...] = (
            (problems,) if isinstance(problems, Problem) else tuple(problems)
        )
        super().__init__(str(self))

    def __reduce__(self) -> tuple[type[PulseError], tuple[tuple[Problem, ...]]]:
        """Come out of another process with every problem, not with their text alone."""
        return type(self), (self.problems,)

    def __str__(self) -> str:
        count = len(self.problems)
        head = f"{count} problems:\n" if count > 1 else ""
        return head + "\n".join(str(problem) for problem in self.problems)


class ConfigError(PulseError):
    """The experiment file or a `--set` cannot be used."""

    exit_code = 2


class DataError(PulseError):
    """A data set cannot be used as it is."""


class ModelError(PulseError):
    """A model, processor or adapter cannot be used as it is."""


class SizesUnknown(ModelError):
    """A model's sizes cannot be told, so neither what a run takes; it may use it all the same."""


class TooLarge(ModelError):
    """A stage cannot fit into the memory of what is to carry it out, by what it needs at least."""


class MethodError(PulseError):
    """A method or plug-in does not keep its contract."""


class PluginError(MethodError):
    """A third party's code raised, or did not return; its own error is the cause."""


class StoreError(PulseError):
    """The run folder cannot be read or written."""


class RunLocked(StoreError):
    """Another process is working in the run folder."""


class Corrupted(StoreError):
    """A stored file is not the file that was written."""


class Diverged(PulseError):
    """Training left the finite numbers; the last good weights were kept."""


class RankLost(PulseError):
    """Another of the processes that share a stage has gone, so this one cannot go on."""


class Interrupted(PulseError):
    """A signal asked us to stop; the same command continues where this one left."""

    exit_code = 130
