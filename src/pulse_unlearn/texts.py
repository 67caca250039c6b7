"""Untrusted text made harmless where it is shown: terminal, CSV, HTML, LaTeX.

A model's answer, a person's name or a file's may hold terminal escapes, characters that reverse the
reading direction, a spreadsheet's formula or a command of LaTeX. HTML is escaped by the templates;
what escaping does not touch is taken out here first.
"""

from __future__ import annotations

import re
import unicodedata

_DIRECTION = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")
_CONTROL_PICTURES = 0x2400
_DELETE = 0x7F


def printable(text: object, limit: int = 400) -> str:
    """Return one line of harmless text: controls shown as symbols, cut to `limit` characters.

    A model's answer may hold terminal escapes, characters that reverse the reading direction, or
    half of a surrogate pair, which HTML escaping does not touch.
    """
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


# --- CSV

_FORMULA = re.compile(r"[=+@\t\r-]")


def escape_csv(text: str) -> str:
    """Return text that no spreadsheet takes for a formula; the writer quotes the rest."""
    shown = printable(text, 400)
    return f"'{shown}" if _FORMULA.match(shown) else shown


# --- LaTeX

_TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "[": "{[}",  # behind the end of a row it would be an optional argument
    "]": "{]}",
    "*": "{*}",
    "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}",
    "−": "$-$",
    "–": "--",
    "±": r"$\pm$",
    "·": r"\textperiodcentered{}",
    "…": r"\ldots{}",
    "’": "'",
    "\u00a0": "~",
    "\u200b": "{}",  # between hyphens, which would become a dash
    "\ufffd": "?",
}
_SETS = re.compile(r"D_(unlearn|retain)\b")


def escape_tex(text: str) -> str:
    """Return text as LaTeX prints it; D_unlearn and D_retain become symbols.

    Letters of other scripts stay as they are: pdfLaTeX has no glyphs for most, XeLaTeX and LuaLaTeX
    print what the document's font has.
    """
    shown = printable(text, 400)
    parts = _SETS.split(re.sub("-(?=-)", "-\u200b", shown))  # text, name, text, name, ..., text
    written = [
        f"$D_{{\\mathrm{{{part}}}}}$" if place % 2 else "".join(_tex(one) for one in part)
        for place, part in enumerate(parts)
    ]
    return "".join(written)


def _tex(character: str) -> str:
    if "\u2400" <= character <= "\u2426":  # what `printable` makes of control characters
        return "?"
    return _TEX.get(character, character)
