"""Single injections to look at: the best, typical and worst measured, and the brightest that were missed."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from balrogutils.analysis.matched import Matched
from balrogutils.report.inline import data_uri
from balrogutils.report.picture import FAINTEST_TOP, SOFTENING, stretch
from balrogutils.report.tilemap import grey_png

__all__ = ["SIDE", "Strip", "chosen_rows", "cut", "gallery"]

SIDE = 64
"""Pixels of a stamp's side."""
EACH = 4
"""Objects of each kind."""
_GAP = 2


class Strip(NamedTuple):
    """Stamps of one injection, side by side in one stretch; a sentence about it; level and width of the sky."""

    panels: Mapping[str, NDArray[np.float64]]
    text: str
    sigma: float


def chosen_rows(matched: Matched) -> dict[str, NDArray[np.int64]]:
    """Return rows of the matched catalogue worth looking at, by kind.

    Notes
    -----
    By the size of measured less true magnitude in `Matched.band`, of clear injections with a good fit; ties and all
    else in the order of the rows, so that the same catalogue gives the same objects.
    """
    out: dict[str, NDArray[np.int64]] = {}
    if matched.model is not None:
        off = np.abs(matched.magnitude(matched.band) - matched.true_magnitude(matched.band))
        rows = np.flatnonzero(matched.fitted & np.isfinite(off))
        order = rows[np.argsort(off[rows], kind="stable")]
        middle = max((order.size - EACH) // 2, 0)
        # Of few, none is shown twice.
        out["Best measured"] = order[:EACH]
        out["Typical"] = np.setdiff1d(order[middle : middle + EACH], order[:EACH])
        out["Worst measured"] = np.setdiff1d(order[-EACH:][::-1], [*order[:EACH], *out["Typical"]])
        out["Worst measured"] = out["Worst measured"][np.argsort(-off[out["Worst measured"]], kind="stable")]
    magnitude = matched.true_magnitude(matched.band)
    missed = np.flatnonzero(matched.clear & ~matched.detected & np.isfinite(magnitude))
    out["Brightest missed"] = missed[np.argsort(magnitude[missed], kind="stable")][:EACH]
    return {kind: rows for kind, rows in out.items() if rows.size}


def cut(image: NDArray[np.floating], row: float, col: float) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """Return the stamp around a place, NaN off the image, and the row and column at which it begins."""
    top, left = round(row) - SIDE // 2, round(col) - SIDE // 2
    out = np.full((SIDE, SIDE), np.nan)
    r0, r1 = max(top, 0), min(top + SIDE, image.shape[0])
    c0, c1 = max(left, 0), min(left + SIDE, image.shape[1])
    if r1 > r0 and c1 > c0:
        out[r0 - top : r1 - top, c0 - left : c1 - left] = image[r0:r1, c0:c1]
    return out, (top, left)


def gallery(groups: Mapping[str, Sequence[Strip]]) -> str:
    """Return the gallery as HTML, a heading a group and a picture a strip."""
    parts = []
    for kind, strips in groups.items():
        parts.append(f"<h3>{html.escape(kind)}</h3>")
        for one in strips:
            alt = f"{', '.join(one.panels)} of an injection: {one.text}"
            names = "".join(f"<span>{html.escape(name)}</span>" for name in one.panels)
            parts.append(
                f'<div class="strip"><img src="{data_uri(_png(one))}" alt="{html.escape(alt)}">'
                f'<div class="names" aria-hidden="true">{names}</div><p>{html.escape(one.text)}</p></div>'
            )
    return f'<div class="stamps">{"".join(parts)}</div>'


def _png(strip: Strip) -> bytes:
    gap = np.full((SIDE, _GAP), np.nan)
    levels = [stretch(pixels, 0.0, strip.sigma) for pixels in strip.panels.values()]
    known = np.concatenate([panel[np.isfinite(panel)] for panel in levels])
    top = float(np.arcsinh(FAINTEST_TOP / SOFTENING))
    if known.size:
        top = max(top, float(np.percentile(known, 99.8)))
    row = [part for panel in levels for part in (panel, gap)][:-1]
    return grey_png(np.concatenate(row, axis=1), float(np.arcsinh(-2.5 / SOFTENING)), top)
