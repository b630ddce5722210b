"""Pictures of a coadd before and after injection, and of what fits leave of it."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.patches
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from balrogutils.errors import ProductError
from balrogutils.fitsfile import read_image
from balrogutils.products import writing

__all__ = ["FAINTEST_TOP", "SOFTENING", "Window", "before_after", "busiest_window", "fit_and_rest", "sky_of", "stretch"]

Window = tuple[int, int, int, int]
"""First row, end row, first column, end column; zero-offset, ends not included."""

SOFTENING = 2.0
"""Sky sigmas at which the stretch turns from linear to logarithmic."""
FAINTEST_TOP = 15.0
"""Sky sigmas at which the stretch saturates at least; brighter where the sources ask for it."""


def sky_of(pixels: NDArray[np.float32], good: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the level and robust width (1.4826 MAD) of the good pixels."""
    values = pixels[good].astype(np.float64)
    if values.size == 0:
        return 0.0, 1.0
    level = float(np.median(values))
    width = 1.4826 * float(np.median(np.abs(values - level)))
    return level, width if width > 0 else 1.0


def stretch(pixels: NDArray[np.floating], level: float, sigma: float) -> NDArray[np.float64]:
    """Return pixels in the stretch of all pictures: arcsinh of their height over the sky."""
    return np.arcsinh((pixels.astype(np.float64) - level) / (SOFTENING * sigma))


def busiest_window(difference: NDArray[np.float32], side: int) -> Window:
    """Return the square window of `side` pixels that holds the most injected objects' light.

    Parameters
    ----------
    difference : ndarray, shape (nrow, ncol)
        Injected minus base.
    side : int
        Side in pixels; the whole image when it is smaller.

    Notes
    -----
    Light is counted as arcsinh of the difference over its robust width, so one bright star does not outweigh many
    galaxies. Windows are tried in steps of a quarter of the side.
    """
    nrow, ncol = difference.shape
    height, width = min(side, nrow), min(side, ncol)
    changed = difference != 0
    scale = float(np.median(np.abs(difference[changed]))) if changed.any() else 1.0
    step = max(side // 4, 1)
    rows = np.unique(np.append(np.arange(0, nrow - height + 1, step), nrow - height))
    cols = np.unique(np.append(np.arange(0, ncol - width + 1, step), ncol - width))
    # Between the edges of windows, a strip at a time: a tile of a survey has 1e8 pixels.
    above, beside = np.union1d(rows, rows + height), np.union1d(cols, cols + width)
    total = np.zeros((above.size, beside.size))
    for k in range(above.size - 1):
        light = np.arcsinh(np.clip(difference[above[k] : above[k + 1]].astype(np.float64), 0, None) / scale)
        total[k + 1, 1:] = total[k, 1:] + np.add.reduceat(light.sum(axis=0), beside[:-1]).cumsum()
    low, high = (np.searchsorted(above, edges)[:, None] for edges in (rows, rows + height))
    left, right = (np.searchsorted(beside, edges)[None, :] for edges in (cols, cols + width))
    inside = total[high, right] - total[low, right] - total[high, left] + total[low, left]
    row, col = np.unravel_index(int(np.argmax(inside)), inside.shape)
    return int(rows[row]), int(rows[row]) + height, int(cols[col]), int(cols[col]) + width


def before_after(
    base_image: str | PathLike[str],
    injected_image: str | PathLike[str],
    out_png: str | PathLike[str],
    *,
    band: str,
    tile: str,
    realization: str | None = None,
    positions: NDArray[np.float64] | None = None,
    window: Window | None = None,
    side: int = 600,
) -> None:
    """Draw a coadd before and after injection, and the difference, side by side.

    Parameters
    ----------
    base_image, injected_image : path-like
        Coadd files with HDUs SCI and WGT.
    out_png : path-like
        Final name; appears only when whole.
    band, tile, realization : str
        For the title.
    positions : ndarray of float, shape (n, 2), optional
        Zero-offset (row, col) of the injected objects, ringed in the difference.
    window : Window, optional
        What to show; the busiest square of `side` pixels when not given.
    side : int
        Side of that square, pixels; the whole tile when it is larger.

    Raises
    ------
    ProductError
        When an image is missing or the two differ in shape.

    Notes
    -----
    All three panels have one stretch, arcsinh with the softening at two sky sigmas of the base image.
    """
    base, injected = read_image(base_image, "SCI"), read_image(injected_image, "SCI")
    if base.shape != injected.shape:
        raise ProductError(
            f"the coadds differ in shape, {base.shape} and {injected.shape}",
            tile=tile,
            band=band,
            file=injected_image,
            remedy="make both again (modes 2 and 16)",
        )
    difference = injected - base
    r0, r1, c0, c1 = window or busiest_window(difference, side)
    cut = np.s_[r0:r1, c0:c1]
    base, injected, difference = base[cut], injected[cut], difference[cut]
    level, sigma = sky_of(base, read_image(base_image, "WGT")[cut] > 0)
    panels = [
        ("before", stretch(base, level, sigma)),
        ("after injection", stretch(injected, level, sigma)),
        ("difference", stretch(difference, 0.0, sigma)),
    ]
    top = max(float(np.percentile(panels[1][1], 99.7)), float(np.arcsinh(FAINTEST_TOP / SOFTENING)))
    low = float(np.arcsinh(-2.5 / SOFTENING))

    _draw(
        panels,
        (r0, r1, c0, c1),
        (low, top),
        f"{tile}, {band} band" + ("" if realization is None else f", realization {realization}"),
        out_png,
        positions,
    )


def fit_and_rest(
    image: NDArray[np.float32],
    weight: NDArray[np.float32],
    model: NDArray[np.float32],
    out_png: str | PathLike[str],
    *,
    title: str,
    positions: NDArray[np.float64] | None = None,
    window: Window | None = None,
    side: int = 600,
) -> None:
    """Draw a coadd, the fitted scene, and what it leaves, side by side.

    Parameters
    ----------
    image, weight, model : ndarray, shape (nrow, ncol)
        Coadd, its weight, 0 where nothing was measured, and the sum of all fits.
    out_png : path-like
        Final name; appears only when whole.
    title : str
        Over the panels.
    positions : ndarray of float, shape (n, 2), optional
        Zero-offset (row, col) of objects to ring in the last panel, for example those without a fit.
    window : Window, optional
        What to show; the busiest square of `side` pixels when not given.
    side : int
        Side of that square, pixels.
    """
    r0, r1, c0, c1 = window or busiest_window(model, side)
    cut = np.s_[r0:r1, c0:c1]
    image, model, there = image[cut], model[cut], weight[cut] > 0
    level, sigma = sky_of(image, there)
    panels = [
        ("coadd", stretch(image, level, sigma)),
        ("fitted scene", stretch(model, 0.0, sigma)),
        ("coadd less scene", stretch(np.where(there, image - model, np.float32(level)), level, sigma)),
    ]
    top = max(float(np.percentile(panels[0][1], 99.7)), float(np.arcsinh(FAINTEST_TOP / SOFTENING)))
    low = float(np.arcsinh(-2.5 / SOFTENING))
    _draw(panels, (r0, r1, c0, c1), (low, top), title, out_png, positions)


def _draw(
    panels: Sequence[tuple[str, NDArray[np.float64]]],
    window: Window,
    limits: tuple[float, float],
    title: str,
    out_png: str | PathLike[str],
    positions: NDArray[np.float64] | None,
) -> None:
    """Draw three panels of one stretch; objects are ringed in the last."""
    (r0, r1, c0, c1), (low, top) = window, limits
    aspect = (r1 - r0) / (c1 - c0)
    style: dict[Any, Any] = {"font.size": 9, "font.family": "DejaVu Sans", "axes.linewidth": 0.6}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(13.0, min(max(3.85 * aspect + 0.8, 2.5), 13.0)), dpi=130, layout="compressed")
        axes = figure.subplots(1, 3, sharex=True, sharey=True)
        for axis, (name, values) in zip(axes, panels, strict=True):
            shown = axis.imshow(
                values,
                origin="lower",
                extent=(c0 - 0.5, c1 - 0.5, r0 - 0.5, r1 - 0.5),
                cmap="gray",
                vmin=low,
                vmax=top,
                interpolation="nearest",
            )
            axis.set_title(name, fontsize=10)
            axis.set_xlabel("column (pixels)")
            axis.tick_params(direction="out", length=3, width=0.6)
        axes[0].set_ylabel("row (pixels)")
        if positions is not None:
            inside = (positions[:, 0] >= r0) & (positions[:, 0] < r1) & (positions[:, 1] >= c0) & (positions[:, 1] < c1)
            radius = 0.018 * max(r1 - r0, c1 - c0)
            for row, col in positions[inside]:
                axes[2].add_patch(
                    matplotlib.patches.Circle((col, row), radius, fill=False, edgecolor="#e69f00", linewidth=0.7)
                )
        bar = figure.colorbar(shown, ax=axes, fraction=0.025, pad=0.01, aspect=35)
        ticks = [
            tick
            for tick in (-2, 0, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
            if low <= np.arcsinh(tick / SOFTENING) <= top
        ]
        bar.set_ticks([float(np.arcsinh(tick / SOFTENING)) for tick in ticks], labels=[str(tick) for tick in ticks])
        bar.set_label("pixel value (sky sigma)")
        bar.outline.set_linewidth(0.6)
        figure.suptitle(title, fontsize=11)
        with writing(Path(out_png)) as part:
            # No Software card: the picture is the same for the same pixels, whatever drew it when.
            figure.savefig(part, format="png", metadata={"Software": None})
