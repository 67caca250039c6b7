"""Makes a matplotlib SVG fit to stand inside the page: scalable, recoloured, named, unclashing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape

INK, MUTED, LINE, PAGE = "#1d232b", "#5d6875", "#d5dae0", "#ffffff"
SERIES: tuple[str, ...] = (
    "#0b66b0",
    "#c2410c",
    "#0f7b55",
    "#8b3fa8",
    "#8a6a00",
    "#b01e5a",
    "#4a5560",
)
GOLD = "#e8a800"
"""The retain model; drawn between dark edges, so that it can be told apart in grey."""
MARKERS: tuple[str, ...] = ("o", "s", "^", "D", "v", "P", "X")
"""Shape goes with colour, so that neither has to be told apart alone."""

_COLOURS: Mapping[str, str] = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    PAGE: "var(--page)",
    GOLD: "var(--gold)",
    **{colour: f"var(--series-{index})" for index, colour in enumerate(SERIES)},
}


def inline_svg(svg: str, name: str, *, title: str, description: str) -> str:
    """Return the `<svg>` element with ids under `name`, page colours, and text for readers aloud.

    The colours of the file become variables of the page, so that one figure serves light and dark.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = _namespaced(body, name)
    for colour, variable in _COLOURS.items():
        body = body.replace(colour, variable)
    body = re.sub(r"font: ([^;\"']*?[0-9.]+px) [^;\"]*", r"font: \1 var(--sans)", body)
    body = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", body)
    head, rest = body.split(">", 1)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    labels = (
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-desc">{escape(description)}</desc>'
    )
    names = f'role="img" aria-labelledby="{name}-title {name}-desc"'
    return f"{head} {names}>{labels}{rest}".strip()


def _namespaced(body: str, name: str) -> str:
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r"url\(#", f"url(#{name}-", body)
    return re.sub(r'href="#', f'href="#{name}-', body)
