"""The map of a tile: its coadd with injections, found or missed, and what was there before."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from balrogutils.report.inline import data_uri
from balrogutils.report.picture import FAINTEST_TOP, SOFTENING, sky_of, stretch

__all__ = ["Marks", "grey_png", "tile_map"]

SIDE = 1100
"""Pixels of the longer side of the picture, at most."""
MOST = 4000
"""Marks of one kind that are drawn."""


class Marks(NamedTuple):
    """Objects of one kind: its name, words, zero-offset (row, col) [n, 2], a text for each; whether shown at first."""

    kind: str
    words: str
    places: NDArray[np.float64]
    texts: Sequence[str]
    shown: bool = True


def grey_png(levels: NDArray[np.float64], low: float, top: float) -> bytes:
    """Return an image as PNG, its first row at the bottom; NaN is transparent."""
    known = np.isfinite(levels)
    grey = np.clip((np.where(known, levels, low) - low) / (top - low), 0.0, 1.0)
    planes = np.stack([np.round(255.0 * grey), 255.0 * known], axis=-1).astype(np.uint8)[::-1]
    stream = io.BytesIO()
    image = Image.fromarray(planes, "LA") if not known.all() else Image.fromarray(np.ascontiguousarray(planes[..., 0]))
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def tile_map(pixels: NDArray[np.float32], weight: NDArray[np.float32], marks: Sequence[Marks], alt: str) -> str:
    """Return the map as HTML: boxes that choose what is marked, and the picture with its marks.

    Parameters
    ----------
    pixels, weight : ndarray, shape (nrow, ncol)
        A coadd and its weight.
    marks : sequence of Marks
        What to mark; of more than `MOST` of one kind, evenly chosen ones.
    alt : str
        What a reader who does not see it is told.
    """
    nrow, ncol = pixels.shape
    level, sigma = sky_of(pixels, weight > 0)
    step = max(-(-max(nrow, ncol) // SIDE), 1)
    rows, cols = nrow // step * step, ncol // step * step
    small = pixels[:rows, :cols].reshape(rows // step, step, cols // step, step).mean(axis=(1, 3), dtype=np.float64)
    levels = stretch(small, level, sigma / step)
    top = max(float(np.percentile(levels, 99.7)), float(np.arcsinh(FAINTEST_TOP / SOFTENING)))
    uri = data_uri(grey_png(levels, float(np.arcsinh(-2.5 / SOFTENING)), top))
    radius = 0.0085 * max(nrow, ncol)
    boxes, layers = [], []
    for one in marks:
        every = np.flatnonzero(np.isfinite(one.places).all(axis=1))
        chosen = every[:: max(-(-every.size // MOST), 1)]
        few = f", {chosen.size} of them marked" if chosen.size < len(one.places) else ""
        checked = " checked" if one.shown else ""
        boxes.append(
            f'<label class="{one.kind}"><input type="checkbox" value="layer-{one.kind}"{checked}><i></i>'
            f"{html.escape(one.words)} ({len(one.places)}{few})</label>"
        )
        size = radius * (0.6 if one.kind == "original" else 1.0)
        circles = "".join(_circle(one.kind, one.places[k], nrow, size, one.texts[k]) for k in chosen)
        layers.append(f'<g id="layer-{one.kind}">{circles}</g>')
    picture = (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {ncol} {nrow}">'
        f"<title>{html.escape(alt)}</title>"
        f'<image href="{uri}" x="0" y="{nrow - rows}" width="{cols}" height="{rows}" preserveAspectRatio="none"/>'
        f"{''.join(layers)}</svg>"
    )
    legend = "<legend>Marked on the coadd</legend>"
    return f'<fieldset class="layers">{legend}{"".join(boxes)}</fieldset><div class="map">{picture}</div>'


def _circle(kind: str, place: NDArray[np.float64], nrow: int, radius: float, text: str) -> str:
    where = f'cx="{place[1] + 0.5:.1f}" cy="{nrow - 0.5 - place[0]:.1f}" r="{radius:.1f}"'
    return f'<circle class="mark {kind}" {where} pointer-events="all"><title>{html.escape(text)}</title></circle>'
