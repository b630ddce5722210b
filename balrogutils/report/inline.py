"""Figures as parts of a page: SVG whose colours follow the page's light or dark scheme, and images as data URIs."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

from matplotlib.figure import Figure

from balrogutils.report.style import styled

__all__ = ["THEME", "data_uri", "inline_svg"]

THEME = {
    "#000000": "ink",
    "#222222": "ink",
    "#8a8a8a": "faint",
    "#6a6a6a": "faint",
    "#4d4d4d": "faint",
    "#e8e8e8": "grid",
    "#0072b2": "blue",
    "#d55e00": "vermilion",
    "#009e73": "green",
    "#e69f00": "orange",
}
"""Colours of the plots, with the variable of the page's style sheet that takes their place."""

_ROOT = re.compile(r"<svg\b[^>]*>")
_BOX = re.compile(r'viewBox="[^"]*"')
_METADATA = re.compile(r"<metadata>.*?</metadata>\s*", re.DOTALL)
_NAMES = re.compile(r'(\bid="|url\(#|href="#)')


def inline_svg(figure: Figure, name: str, alt: str) -> str:
    """Return a figure as an SVG element to stand in a page.

    Parameters
    ----------
    figure : Figure
        Drawn in the common style. Its backgrounds are taken away.
    name : str
        Begins every identifier in it: a page has many figures, and identifiers are of the whole page.
    alt : str
        What a reader who does not see it is told.

    Returns
    -------
    str
        The colours of `THEME` are variables of the page; the same figure gives the same text.
    """
    owners: list[Any] = [figure, *figure.subfigs, *figure.axes]
    for owner in owners:
        owner.patch.set_visible(False)
    stream = io.StringIO()
    with styled():
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = _METADATA.sub("", text[text.index("<svg") :])
    box = _BOX.search(text)
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    head = f'<svg {spaces} role="img" {box[0] if box else ""}><title>{_escaped(alt)}</title>'
    text = _NAMES.sub(lambda found: f"{found[1]}{name}-", _ROOT.sub("", text, count=1))
    for colour, variable in THEME.items():
        text = text.replace(f": {colour}", f": var(--{variable})")
    return head + text.strip()


def data_uri(content: bytes, kind: str = "image/png") -> str:
    """Return bytes as an address that holds them."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
