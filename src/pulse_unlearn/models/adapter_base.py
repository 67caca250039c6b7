"""Which base model an adapter was made for: noted in what PULSE writes, and held against the model.

PULSE notes the digest of its base beside an update. Of somebody else's adapter only the name that
its config gives can be compared. Told from small files; no weight is loaded, no torch.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pulse_unlearn.config import EMBEDDED, ModelSettings
from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.files import home_path
from pulse_unlearn.models.checkpoints import ADAPTER_CONFIG, base_digest, named_base
from pulse_unlearn.store import write_json

BASE_FILE = "base.json"
"""What PULSE writes beside an update: the model that it goes on."""
_CACHED = "models--"
"""How the hub's cache names the folder of a model, with `--` for `/`."""


@dataclass(frozen=True, slots=True)
class Base:
    """A model without adapters."""

    source: str
    revision: str | None
    sha256: str
    """Of its files, or of id and commit where it was read from the hub."""
    files: bool
    """Whether the digest is that of files."""

    @property
    def told(self) -> str:
        """Name and digest."""
        return f"{self.source} (SHA-256 {self.sha256[:12]})" if self.sha256 else self.source


def base_of(settings: ModelSettings) -> Base:
    """Return the model of settings, without its adapters; raises ModelError if it cannot be."""
    files = settings.source == EMBEDDED or Path(settings.source).is_dir()
    return Base(settings.source, settings.revision, base_digest(settings), files)


def note_base(folder: Path, base: Base) -> None:
    """Write beside an update which model it was made for."""
    write_json(folder / BASE_FILE, asdict(base))


def base_problem(folder: Path, base: Base) -> Problem | None:
    """Return a problem for an update that was made for another model than `base`.

    None, too, where it does not say for which.
    """
    made = made_for(folder)
    if made is None or _is_same(made, base):
        return None
    return Problem(
        "the adapter was made for another base model",
        str(folder),
        got=made.told,
        allowed=base.told,
        fix="name the base model that it was made for; or, if you know this to be the same, "
        "--allow-base-mismatch (model.allow_base_mismatch), which the run then notes",
    )


def made_for(folder: Path) -> Base | None:
    """Return the model an update names; None if it names none. Raises ModelError."""
    path = folder / BASE_FILE
    if path.is_file():
        try:
            return Base(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            got = f"{type(error).__name__}: {error}"
            raise ModelError(
                Problem("the note of the base cannot be read", str(path), got)
            ) from error
    source, revision = named_base(folder / ADAPTER_CONFIG)
    return Base(source, revision, "", files=False) if source else None


def _is_same(made: Base, base: Base) -> bool:
    """Compare digests where both are of one kind, else what can be told from names."""
    if made.sha256 and made.files == base.files:
        return made.sha256 == base.sha256
    if made.source == base.source:
        return not (made.revision and base.revision) or made.revision == base.revision
    theirs = home_path(made.source)
    if base.files and theirs.is_dir():
        return _files_are(theirs, base)
    if base.files or theirs.is_absolute():
        ends = {_end(name) for name in _names(base)}
        return _end(made.source) in ends
    return made.source.casefold() == base.source.casefold()


def _files_are(folder: Path, base: Base) -> bool:
    own = Path(base.source)
    if own.is_dir() and own.samefile(folder):
        return True
    try:
        return base_digest(ModelSettings(source=str(folder))) == base.sha256
    except ModelError:  # no model is there
        return False


def _names(base: Base) -> list[str]:
    """Return what a model may be called: its folder, and the id in the hub's cache."""
    cached = [
        part.removeprefix(_CACHED).replace("--", "/")
        for part in Path(base.source).parts
        if part.startswith(_CACHED)
    ]
    return [base.source, *cached]


def _end(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2].casefold()
