"""Rows of an MMBench TSV: header spellings, quoting, indices; what is no row is a problem."""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pulse_unlearn.data.checks import LETTERS, clean
from pulse_unlearn.data.records_file import long_fields
from pulse_unlearn.errors import DataError, Problem

COPY = 1_000_000
"""Distance between the indices of a question and of its circular copies."""
PUBLIC_MD5 = {
    "MMBench_DEV_EN": "b6caf1133a01c6bb705cf753bb527ed8",
    "MMBench_DEV_CN": "08b8fc3324a5ed74155350f57be69fbd",
    "MMBench_DEV_EN_V11": "30c05be8f2f347a50be25aa067248184",
    "MMBench_DEV_CN_V11": "593f9b5f6bea453d870a798b34ae4f37",
    "CCBench": "f5dde47f24dc5a6fb6e595b409b466ac",
}
"""MD5 of the public files with answers, by name, as VLMEvalKit's table of data sets lists them
(vlmeval/dataset/image_mcq.py); a file of another name is anybody's own."""
WRITTEN_OUT = "nan"
"""What some table libraries write for an empty cell they have read."""
TAKE_DEV = "take a split with answers (dev); test splits have none"
_NEEDED = ("index", "question", "A", "B", "answer")
_INDEX = re.compile(r"([0-9]{1,12})(?:\.0+)?")
_OTHER_FORMATS = {
    ".parquet": "a parquet file",
    ".xlsx": "an Excel workbook",
    ".jsonl": "a file of JSON lines",
    ".json": "a JSON file",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One row; cells by column, under the names that `column` gives."""

    index: int
    cells: Mapping[str, str]
    where: str

    def cell(self, name: str) -> str:
        """Return a cell's text; empty if there is no such column."""
        return clean(self.cells.get(name))

    def content(self, name: str) -> str:
        """Return a cell in which `nan` can only mean that it is empty."""
        text = self.cell(name)
        return "" if text == WRITTEN_OUT else text


def read_rows(path: Path, problems: list[Problem]) -> list[Row]:
    """Read the rows that have an index; what is wrong with the others is added to `problems`.

    Raises DataError if the file as a whole is no such table.
    """
    if path.suffix.lower() in _OTHER_FORMATS:
        raise DataError(
            Problem(
                "MMBench files are read as TSV",
                str(path),
                got=_OTHER_FORMATS[path.suffix.lower()],
                fix="take the benchmark's own .tsv, or export the table as UTF-8 TSV with quoting",
            )
        )
    return list(_rows(path, problems))


def as_index(text: str) -> int | None:
    """Return a row's number, also written as `12.0`; None if the text is none."""
    match = _INDEX.fullmatch(text)
    return int(match[1]) if match else None


def not_the_public_file(path: Path) -> list[Problem]:
    """Return a problem if the file bears a public file's name but isn't that file."""
    known = PUBLIC_MD5.get(path.stem)
    if known is None or not path.is_file():
        return []
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found == known:
        return []
    return [
        Problem(
            "not the public file of this name",
            path.name,
            got=f"MD5 {found}",
            allowed=f"MD5 {known}",
            fix="download it again; give a changed or shortened copy a name of its own",
        )
    ]


def _rows(path: Path, problems: list[Problem]) -> Iterator[Row]:
    line = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file, long_fields():
            reader = csv.reader(file, delimiter="\t", strict=True)
            header = next(reader, [])
            names = _columns(header, path)
            line = reader.line_num
            for cells in reader:
                where, line = f"{path.name}:{line + 1}", reader.line_num
                row = _row(names, cells, where, problems) if cells else None
                if row:
                    yield row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            Problem(
                "not a readable MMBench file",
                f"{path}:{line + 1}" if line else str(path),
                got=str(error),
                allowed="a UTF-8 TSV with CSV quoting, header "
                "`index question hint A B C D answer category image ...`",
            )
        ) from error


def _column(name: str) -> str:
    """Return a column's name as it is known here: letters upper, all others lower case."""
    name = name.strip()
    return name.upper() if len(name) == 1 else name.lower().replace("_", "-")


def _columns(header: Sequence[str], path: Path) -> list[str]:
    """Return the names of the columns; raises DataError where needed ones are not there."""
    names = [_column(name) for name in header]
    missing = [name for name in _NEEDED if name not in names]
    missing += [] if {"image", "image-path"} & {*names} else ["image"]
    if missing:
        raise DataError(
            Problem(
                "columns are missing",
                str(path),
                got=", ".join(name[:20] for name in header[:16]) or "an empty file",
                allowed=f"needs {', '.join((*_NEEDED, 'image'))}; lacks {', '.join(missing)}",
                fix=TAKE_DEV if missing == ["answer"] else "",
            )
        )
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        raise DataError(Problem("a column stands twice", str(path), ", ".join(twice)))
    return names


def _row(
    names: Sequence[str], cells: Sequence[str], where: str, problems: list[Problem]
) -> Row | None:
    if len(cells) != len(names):
        problems.append(
            Problem(
                "the row has other columns than the header",
                where,
                got=f"{len(cells)} cells",
                allowed=f"{len(names)}",
                fix="quote cells that hold tabs or line breaks, doubling the quotes inside",
            )
        )
        return None
    found = dict(zip(names, cells, strict=True))
    index = as_index(clean(found["index"]))
    if index is None:
        got = repr(clean(found["index"])[:40])
        problems.append(Problem("the index is not a number", where, got))
        return None
    return Row(index, found, where)


def letters_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the letters that the table has option columns for."""
    return tuple(letter for letter in LETTERS if rows and letter in rows[0].cells)
