"""Stages of a run: locked while worked on, published in one rename, found by fingerprint."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from pulse_unlearn.errors import Corrupted, Problem, RunLocked, StoreError
from pulse_unlearn.store.atomic import delete, delete_scratch, file_errors, sync_folder, write_json
from pulse_unlearn.store.fingerprint import fingerprint, is_fingerprint
from pulse_unlearn.store.leases import (
    CLAIM,
    LEASE,
    PARTIAL,
    clear_claim,
    folder_of,
    holder_of,
    lapsed,
    leased,
    locked,
    myself,
    note,
    read_holder,
)
from pulse_unlearn.store.manifest import (
    CHECKPOINTS,
    MANIFEST,
    Manifest,
    read_manifest,
    stage_problems,
    write_manifest,
)
from pulse_unlearn.store.sealed import describe_files, list_files


@contextmanager
def held(lock: Path, place: Path, *, working: str, holder: Path | None = None) -> Iterator[bool]:
    """Hold the lock file `lock`, which guards `place`; the file stays when the lock is free.

    The lock is the operating system's (`flock`), so it is free the moment its holder dies, however
    it dies. Yields False where the file system has no such locks. Raises RunLocked, naming who
    `holder` says holds it, if another does, and StoreError. `working` completes "another process
    is working ..." in the message.
    """
    system_lock = FileLock(lock, thread_local=False)
    with file_errors(place, "take the lock"):
        # Not with parents: a run folder that vanished must not come back as an empty one.
        lock.parent.mkdir(exist_ok=True)
        try:
            system_lock.acquire(timeout=0)
        except Timeout as error:
            who = read_holder(holder) if holder else None
            raise RunLocked(locked(place, who, working)) from error
        except NotImplementedError:
            yield False
            return
    try:
        yield True
    finally:
        with file_errors(place, "free the lock"):
            system_lock.release()


STAGES = "stages"
BAD = ".bad-"
LOCK = ".lock"
HOLDER = ".lock-holder.json"
"""File that says who holds a run, for the error message of the next."""
LOCKS = ".locks"
"""Folder of the locks of single stages; they stay when they are free, as `.lock` does."""

_UNSAFE = re.compile(r"[^A-Za-z0-9._+=-]+")
_FOLDER = re.compile(r"\d+-(?P<rest>.+-[0-9a-f]{8})")
_LONGEST_NAME = 120


@dataclass(frozen=True, slots=True)
class StageKey:
    """Which stage: its place in the plan, its name for people, its fingerprint for the store."""

    number: int
    """Place in the plan, from 0; may shift as the plan grows, so it is not identity."""
    name: str
    """Such as `finetuned/ga/seed-1`; characters that folder names do not bear are replaced."""
    fingerprint: str

    def __post_init__(self) -> None:
        problems = []
        if not self.name:
            problems.append(Problem("a stage needs a name"))
        if self.number < 0:
            problems.append(Problem("a stage's number is negative", self.name, str(self.number)))
        if not is_fingerprint(self.fingerprint):
            got = repr(self.fingerprint)
            problems.append(Problem("is not a fingerprint", self.name, got, "64 hex digits"))
        if problems:
            raise StoreError(problems)

    @property
    def folder(self) -> str:
        """Name of the finished stage's folder: `<nn>-<name>-<8 hex>`."""
        return f"{self.number:02d}-{self.rest}"

    @property
    def rest(self) -> str:
        """The folder name without its number: what a stage is found by."""
        safe = _UNSAFE.sub("-", self.name.replace("/", "."))[:_LONGEST_NAME]
        return f"{safe}-{self.fingerprint[:8]}"


def is_stage_name(name: str) -> bool:
    """Tell whether a finished stage's folder, or a product named after it, may bear this name."""
    return _FOLDER.fullmatch(name) is not None


def refuse_links(run: Path) -> None:
    """Raise StoreError if anything in a run folder is a symbolic link: nothing outside is touched.

    The run folder itself may be one. Call it before anything is written or removed.
    """
    links = []
    with file_errors(run, "look through the run folder"):
        for parent, folders, files in os.walk(run):
            links += [
                path for name in (*folders, *files) if (path := Path(parent, name)).is_symlink()
            ]
    problems = [
        Problem(
            "is a symbolic link; in a run folder nothing may lead out of it",
            str(link),
            got=f"-> {os.readlink(link)}",
            fix="put the files themselves there, or move the whole run folder",
        )
        for link in sorted(links)
    ]
    if problems:
        raise StoreError(problems)


class RunLock:
    """Hold a run folder, which is made if it is missing; a context manager.

    Entering raises RunLocked, naming the holder, if another holds it, and StoreError if the folder
    cannot be used or has links in it; it also removes what a killed holder left half-written.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self._held = ExitStack()

    def __enter__(self) -> RunLock:
        with file_errors(self.run, "use the run folder"):
            self.run.mkdir(parents=True, exist_ok=True)
        refuse_links(self.run)
        with ExitStack() as stack:
            holder = self.run / HOLDER
            working = "in this run folder"
            stack.enter_context(held(self.run / LOCK, self.run, working=working, holder=holder))
            stack.callback(delete_quietly, holder)
            write_json(holder, myself())
            sweep(self.run)
            self._held = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held.close()


class Store:
    """The stages of one run folder.

    Reading needs no lock. `partial`, `publish` and `discard` change the folder: hold the RunLock,
    or, where several processes share the run, the stage's own lock.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self.stages = run / STAGES
        self._mine: dict[str, Path] = {}
        """Stage whose lock is held here -> the folder it is worked on in."""

    def find(self, key: StageKey) -> Path | None:
        """Return the folder of the completed stage, under whatever number; None if there is none.

        Its files are not read: `check` does that. A stage whose manifest is damaged is found, so
        that the damage is reported and not silently computed over. Raises StoreError.
        """
        damaged = None
        for folder in self._folders_of(key):
            try:
                if read_manifest(folder).fingerprint == key.fingerprint:
                    return folder
            except Corrupted:
                damaged = damaged or folder
        return damaged

    def check(self, key: StageKey) -> None:
        """Hash every file of the completed stage.

        Raises Corrupted with all files that were changed, truncated, removed or added, and
        StoreError if there is no such stage.
        """
        folder = self.find(key)
        if folder is None:
            raise StoreError(Problem("there is no such finished stage", str(self.stages), key.rest))
        problems = stage_problems(folder)
        if problems:
            raise Corrupted(problems)

    @contextmanager
    def stage_lock(self, key: StageKey) -> Iterator[None]:
        """Hold one stage, so that several processes can work on different stages of a run.

        Independent of the RunLock. Processes of other machines are kept out by the stage's lease.
        Another may have published the stage just before the lock was taken: call `find` inside.
        What a killed holder left half-written in the partial folder is removed; its checkpoints
        stay. Raises RunLocked, naming the holder, if another holds the stage, and StoreError.
        """
        with (
            _stage_held(self.run, key.rest) as alone,
            leased(self.stages, key.rest, alone=alone) as folder,
        ):
            self._mine[key.rest] = folder
            try:
                with file_errors(folder, "tidy the folder of a stage"):
                    delete_scratch(folder)
                yield
            finally:
                del self._mine[key.rest]

    def partial(self, key: StageKey) -> Path:
        """Return the folder an unfinished stage is worked on in, made if it is missing.

        It survives a kill, so what an earlier attempt left is there: checkpoints belong in
        `checkpoints/`, which `publish` deletes. Raises StoreError.
        """
        folder = self.unfinished(key)
        if key.rest in self._mine:
            if not folder.is_dir():
                raise StoreError(
                    Problem(
                        "another process has taken over this stage, or its folder was moved",
                        str(folder),
                        fix="nothing is lost: the same command finds the stage where it now is",
                    )
                )
            return folder
        with file_errors(folder, "make the folder of a stage"):
            # Not with parents: a run folder that vanished must not come back as an empty one.
            self.stages.mkdir(exist_ok=True)
            folder.mkdir(exist_ok=True)
        return folder

    def publish(
        self,
        key: StageKey,
        *,
        kind: str,
        settings: Mapping[str, object],
        data: Mapping[str, str],
        parents: Sequence[str],
        notes: Mapping[str, object] | None = None,
    ) -> Path:
        """Complete a stage: everything in its partial folder, but for `checkpoints/`, is final.

        `kind`, `settings`, `data` and `parents` are those the fingerprint was made of; `notes` is
        recorded beside them. Returns the stage's folder. A crash at any moment leaves either the
        partial folder with its checkpoints or the completed stage. Raises StoreError if the
        inputs have another fingerprint, the stage is complete already, or it has no files.
        """
        partial = self.partial(key)
        if fingerprint(kind, settings, data=data, parents=parents) != key.fingerprint:
            raise StoreError(
                Problem(
                    "the stage is published with other inputs than it was planned with",
                    str(partial),
                    got=f"inputs with another fingerprint than {key.fingerprint}",
                )
            )
        done = self.find(key)
        if done is not None:
            raise StoreError(Problem("the stage is complete already", str(done)))
        with file_errors(partial, "finish the stage"):
            delete_scratch(partial)
        names = list_files(partial, skip={MANIFEST, CHECKPOINTS})
        if not names:
            raise StoreError(Problem("the stage has no files to publish", str(partial)))
        files = describe_files(partial, names, sync=True)
        manifest = Manifest(
            key.name, kind, key.fingerprint, settings, data, tuple(parents), files, notes or {}
        )
        write_manifest(partial, manifest)
        final = self.stages / key.folder
        with file_errors(final, "finish the stage"):
            self._clear_the_way(key)
            partial.rename(final)
            sync_folder(self.stages)
            # After the rename: whoever is killed before it still needs the checkpoints.
            delete(final / CHECKPOINTS)
        return final

    def discard(self, key: StageKey) -> Path | None:
        """Move a completed but damaged stage to `stages/.bad-*` and return that place.

        Nothing is deleted. None if there is no such stage. Raises StoreError.
        """
        folder = self.find(key)
        if folder is None:
            return None
        with file_errors(folder, "set the stage aside"):
            return self._set_aside(folder)

    def unfinished(self, key: StageKey) -> Path:
        """Return where an unfinished stage is worked on; it need not be there."""
        return self._mine.get(key.rest) or folder_of(self.stages, key.rest)

    def note(self, key: StageKey, told: Mapping[str, object]) -> None:
        """Have whoever holds a stage say how far it is, for `holder`; call it under the lock."""
        with file_errors(self.unfinished(key), "say how far a stage is"):
            note(self.unfinished(key), told)

    def holder(self, key: StageKey) -> Mapping[str, object] | None:
        """Return who works on a stage (`pid`, `host`, `started`) and what it noted; None if nobody.

        On another machine a killed holder is told of until its lease has run out.
        """
        return holder_of(self.unfinished(key))

    def lapsed(self, key: StageKey) -> float | None:
        """Return when somebody on another machine who is not heard of again last was; else None."""
        return lapsed(self.unfinished(key))

    def _folders_of(self, key: StageKey) -> list[Path]:
        planned = self.stages / key.folder
        if (planned / MANIFEST).is_file():  # no listing of a long run for each of its stages
            return [planned]
        with file_errors(self.stages, "list the stages"):
            names = os.listdir(self.stages) if self.stages.is_dir() else []
        ends = sorted(name for name in names if name.endswith(f"-{key.rest}"))
        found = [name for name in ends if (m := _FOLDER.fullmatch(name)) and m["rest"] == key.rest]
        return [self.stages / name for name in found if (self.stages / name / MANIFEST).is_file()]

    def _clear_the_way(self, key: StageKey) -> None:
        """Set aside what has the stage's place or name but lost its manifest."""
        for folder in visible_folders(self.run):
            match = _FOLDER.fullmatch(folder.name)
            same = match is not None and match["rest"] == key.rest
            if folder.name == key.folder or (same and not (folder / MANIFEST).is_file()):
                self._set_aside(folder)

    def _set_aside(self, folder: Path) -> Path:
        taken = 1
        while (aside := self.stages / f"{BAD}{taken}-{folder.name}").exists():
            taken += 1
        folder.rename(aside)
        sync_folder(self.stages)
        return aside


def stage_folders(run: Path) -> list[Path]:
    """Return the folders of completed stages, in the order of their names; raises StoreError."""
    return [folder for folder in visible_folders(run) if (folder / MANIFEST).is_file()]


def visible_folders(run: Path) -> list[Path]:
    """Return the folders in `stages/` that claim to be stages: no partial and no bad ones."""
    stages = run / STAGES
    with file_errors(stages, "list the stages"):
        entries = sorted(stages.iterdir()) if stages.is_dir() else []
        return [entry for entry in entries if not entry.name.startswith(".") and entry.is_dir()]


def sweep(run: Path) -> None:
    """Remove what a killed process left half-written or half-deleted; needs the run's lock.

    Partial stages stay: they are work to continue, tidied by whoever takes the stage's lock.
    Stages that another process holds are left alone. Raises StoreError.
    """
    with file_errors(run, "tidy the run folder"):
        delete_scratch(run, skip=PARTIAL)
        for folder in stage_folders(run):
            if (folder / CHECKPOINTS).exists():
                rest = folder.name.partition("-")[2]
                with suppress(RunLocked), _stage_held(run, rest):
                    delete(folder / CHECKPOINTS)
        for ticket in (run / STAGES).glob(f"{CLAIM}*"):
            with suppress(RunLocked), _stage_held(run, ticket.name.removeprefix(CLAIM)):
                clear_claim(ticket, alone=True)


def _stage_held(run: Path, rest: str) -> AbstractContextManager[bool]:
    place = folder_of(run / STAGES, rest)
    holder = place / CHECKPOINTS / LEASE
    return held(run / LOCKS / f"{rest}.lock", place, working="on this stage", holder=holder)


def delete_quietly(path: Path) -> None:
    """Delete a file that means nothing any more; its removal must not hide a real error."""
    with suppress(OSError):
        path.unlink()
