"""Text from models, files and people made fit to be shown.

A model's answer may hold terminal escapes, characters that turn the reading direction round, or
half of a surrogate pair. HTML escaping does not touch these; this does.
"""

from __future__ import annotations

import unicodedata

_DIRECTION = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")
_CONTROL_PICTURES = 0x2400
_DELETE = 0x7F


def printable(text: object, limit: int = 400) -> str:
    """Return one line of harmless text: controls shown as symbols, cut to `limit` characters."""
    whole = str(text)
    shown = "".join(_shown(character) for character in whole[:limit])
    return shown + (f" … ({len(whole)} characters)" if len(whole) > limit else "")


def printable_block(text: str, limit: int = 60_000) -> str:
    """Return harmless text with its line breaks and tabs kept."""
    lines = text[:limit].replace("\t", "    ").splitlines()
    cut = [f"… ({len(text)} characters)"] if len(text) > limit else []
    return "\n".join(["".join(_shown(character) for character in line) for line in lines] + cut)


def plain(text: object, limit: int = 60) -> str:
    """Return harmless ASCII for a terminal of any locale."""
    shown = printable(text, limit).replace(" · ", ", ").replace("…", "...")
    return shown.encode("ascii", "replace").decode("ascii")


def _shown(character: str) -> str:
    code = ord(character)
    if code < ord(" "):
        return chr(_CONTROL_PICTURES + code)
    if code == _DELETE:
        return "\u2421"
    if character in _DIRECTION or unicodedata.category(character) in {"Cc", "Cs", "Co"}:
        return "\ufffd"
    if unicodedata.category(character) in {"Zl", "Zp"}:
        return " "
    return character
