"""What a product was made from: where nothing of that has changed, it need not be made again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

from pulse_unlearn.errors import StoreError
from pulse_unlearn.store.atomic import sha256_file
from pulse_unlearn.store.sealed import read_sealed, write_sealed

_CODE = frozenset({".py", ".j2", ".css"})


def made_before(record: Path, made_from: Mapping[str, object]) -> Mapping[str, object] | None:
    """Return what was noted beside products that are current; None if they must be made again.

    They are if `record` says that they were made from the same and each is the file that was
    written. `made_from` is anything JSON can say.
    """
    try:
        found = read_sealed(record)
        if found.get("made_from") != made_from:
            return None
        outputs = cast("dict[str, str]", found["outputs"])
        intact = file_digests(record.parent, outputs) == outputs
    except StoreError:  # no record yet, or a damaged one
        return None
    return cast("Mapping[str, object]", found["notes"]) if intact else None


def note_made(
    record: Path,
    made_from: Mapping[str, object],
    outputs: Iterable[str],
    *,
    notes: Mapping[str, object] | None = None,
) -> None:
    """Write the record of products that were just made: names of files beside the record."""
    digests = file_digests(record.parent, outputs)
    content = {"made_from": made_from, "outputs": digests, "notes": notes or {}}
    write_sealed(record, content)


def file_digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of those of the named files that are there; raises StoreError."""
    return {name: sha256_file(folder / name) for name in names if (folder / name).is_file()}


def code_digest() -> str:
    """Return a SHA-256 of the whole package's code and templates; takes 20 ms."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(path for path in package.rglob("*") if path.suffix in _CODE):
        digest.update(f"{path.relative_to(package).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
