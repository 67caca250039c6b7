"""One value, one text, one hash: the names of pieces of work, and JSON alike on every machine."""

from __future__ import annotations

import hashlib
import json
import math
import numbers
import re
from collections.abc import Mapping, Sequence, Set

from pulse_unlearn.errors import Problem, StoreError


def canonical_text(value: object, *, where: str) -> str:
    """Return compact JSON with sorted keys, for hashing; raises StoreError like `plain`."""
    return compact(plain(value, where=where))


def readable_text(value: object, *, where: str, sort_keys: bool = False) -> str:
    """Return indented JSON that ends with a newline; raises StoreError like `plain`."""
    return indented(plain(value, where=where), sort_keys=sort_keys)


def compact(clean: object) -> str:
    """Return what `canonical_text` returns, of something that `plain` made."""
    return json.dumps(clean, sort_keys=True, separators=(",", ":"), allow_nan=False)


def indented(clean: object, *, sort_keys: bool = False) -> str:
    """Return what `readable_text` returns, of something that `plain` made."""
    text = json.dumps(clean, indent=1, sort_keys=sort_keys, ensure_ascii=False, allow_nan=False)
    return text + "\n"


def plain(value: object, *, where: str) -> object:
    """Return `value` in JSON's own types; `where` names it in errors.

    Numbers of numpy become Python's and sequences become lists. Raises StoreError with one
    Problem, and the path to it, for every key that is not a string, every number that is not
    finite and every value that JSON does not know: what is dropped or coerced silently would make
    two different settings hash alike.
    """
    problems: list[Problem] = []
    clean = _clean(value, where, problems)
    if problems:
        raise StoreError(problems)
    return clean


def _clean(value: object, where: str, problems: list[Problem]) -> object:
    if isinstance(value, Mapping):
        return _clean_mapping(value, where, problems)
    if isinstance(value, str):
        return _clean_text(value, where, problems)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [_clean(item, f"{where}[{i}]", problems) for i, item in enumerate(value)]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return _clean_real(float(value), where, problems)
    problems.append(
        Problem(
            "cannot be stored as JSON",
            where,
            got=f"{type(value).__name__}: {_shortened(value)}",
            allowed="text, number, true, false, null, list, mapping",
            fix="sort it into a list first" if isinstance(value, Set) else "",
        )
    )
    return None


def _clean_mapping(
    value: Mapping[object, object], where: str, problems: list[Problem]
) -> dict[str, object]:
    clean: dict[str, object] = {}
    for key, item in value.items():
        if isinstance(key, str):
            clean[_clean_text(key, where, problems)] = _clean(item, f"{where}.{key}", problems)
        else:
            problems.append(
                Problem("a key is not text", where, got=_shortened(key), allowed="text keys")
            )
    return clean


def _clean_text(value: str, where: str, problems: list[Problem]) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        problems.append(
            Problem("is not valid Unicode text", where, got=_shortened(value), allowed="UTF-8")
        )
    # An enumeration member that is also text stands for its value, not for its name.
    return str.__str__(value)


def _clean_real(value: float, where: str, problems: list[Problem]) -> float:
    if not math.isfinite(value):
        problems.append(
            Problem(
                "is not a finite number",
                where,
                got=str(value),
                allowed="a finite number, or null with a reason beside it",
            )
        )
    return value


def _shortened(value: object, limit: int = 60) -> str:
    text = ascii(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


SCHEME = 3
"""Version of the hashed form; raise it when a code change alters what stages produce."""

_HEX_64 = re.compile(r"[0-9a-f]{64}")


def fingerprint(
    kind: str,
    settings: Mapping[str, object],
    *,
    data: Mapping[str, str],
    parents: Sequence[str],
    scheme: int = SCHEME,
) -> str:
    """Return 64 hex digits that name the work `kind` does with these inputs.

    Args:
        kind: what is done, such as `finetune`.
        settings: the resolved settings of this stage alone, without knobs that cannot change its
            output; anything JSON can say. The order of keys does not count; 1 and 1.0 differ.
        data: name of each input file or set -> its digest.
        parents: fingerprints of the stages whose output this one reads, in the order it uses them.
        scheme: version of the hashed form.

    Raises StoreError for values that JSON cannot say, an empty digest, or a parent that is not a
    fingerprint: each would let a stale result be taken for a fresh one.
    """
    problems = [
        Problem("the digest is empty", f"data.{name}", allowed="a hash of the content")
        for name, digest in sorted(data.items())
        if not digest
    ]
    problems += [
        Problem("is not a fingerprint", f"parents[{i}]", got=repr(parent), allowed="64 hex digits")
        for i, parent in enumerate(parents)
        if not is_fingerprint(parent)
    ]
    if problems:
        raise StoreError(problems)
    content = {
        "scheme": scheme,
        "kind": kind,
        "settings": settings,
        "data": data,
        "parents": list(parents),
    }
    return hashlib.sha256(canonical_text(content, where=kind).encode()).hexdigest()


def is_fingerprint(text: str) -> bool:
    """Return whether `text` has the form of a fingerprint or SHA-256: 64 lower-case hex digits."""
    return _HEX_64.fullmatch(text) is not None
