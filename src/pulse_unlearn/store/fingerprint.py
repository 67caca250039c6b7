"""The name of a piece of work: a hash of everything that can change its output."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

from pulse_unlearn.errors import Problem, StoreError
from pulse_unlearn.store.canonical import canonical_text

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
