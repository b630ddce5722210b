"""Measured minus true magnitude against true magnitude."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from balrogutils.products import writing

__all__ = ["Sample", "plot_delta_mag", "running_median"]

F64 = NDArray[np.float64]
_COLOURS = {"galaxies": "#2a6f97", "stars": "#e07a1f"}
_MARKERS = {"galaxies": "o", "stars": "*"}


class Sample(NamedTuple):
    """Magnitudes of one kind of object in one band: true, measured (NaN where not), and errors of the measured."""

    true: F64
    measured: F64
    error: F64


def running_median(x: F64, y: F64, least: int = 15) -> tuple[F64, F64, F64, F64]:
    """Return bin centres, and the 16th, 50th and 84th percentile of y in bins of x.

    Bins hold equal numbers, at least `least` each and 12 bins at most; nothing comes back for fewer points than that.
    """
    good = np.isfinite(x) & np.isfinite(y)
    x, y = x[good], y[good]
    if x.size < least:
        return (np.empty(0),) * 4
    bins = np.array_split(np.argsort(x, kind="stable"), min(12, x.size // least))
    levels = np.array([np.percentile(y[rows], [16, 50, 84]) for rows in bins])
    return np.array([np.median(x[rows]) for rows in bins]), levels[:, 0], levels[:, 1], levels[:, 2]


def _panel(axes: Any, band: str, samples: Mapping[str, Sample]) -> None:
    spread = []
    for kind, sample in samples.items():
        delta = sample.measured - sample.true
        good = np.isfinite(delta)
        if not good.any():
            continue
        spread.append(delta[good])
        style = {"color": _COLOURS[kind], "alpha": 0.45, "linewidth": 0}
        size = 34 if kind == "stars" else 14
        label = f"{kind} ({np.count_nonzero(good)})"
        axes.scatter(sample.true[good], delta[good], s=size, marker=_MARKERS[kind], label=label, zorder=3, **style)
        x, low, middle, high = running_median(sample.true[good], delta[good])
        if x.size > 1:
            axes.fill_between(x, low, high, color=_COLOURS[kind], alpha=0.15, linewidth=0, zorder=2)
            axes.plot(x, middle, color=_COLOURS[kind], linewidth=2.0, zorder=4)
    axes.axhline(0.0, color="0.25", linewidth=0.8, zorder=1)
    axes.set_title(band, loc="left", fontweight="bold")
    axes.grid(color="0.92", zorder=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if spread:
        # Outliers must not set the scale; how many fall outside is said.
        everything = np.concatenate(spread)
        limit = float(np.clip(4.0 * np.percentile(np.abs(everything), 68), 0.05, 2.0))
        axes.set_ylim(-limit, limit)
        outside = int(np.count_nonzero(np.abs(everything) > limit))
        if outside:
            axes.text(
                0.99,
                0.02,
                f"{outside} outside",
                transform=axes.transAxes,
                ha="right",
                va="bottom",
                color="0.4",
                fontsize=8,
            )
        axes.legend(loc="upper left", frameon=False, fontsize=8)
    else:
        axes.text(0.5, 0.5, "nothing measured", transform=axes.transAxes, ha="center", color="0.4")


def plot_delta_mag(
    path: str | os.PathLike[str], title: str, bands: Sequence[str], samples: Mapping[str, Mapping[str, Sample]]
) -> None:
    """Draw one panel a band and write a PNG.

    Parameters
    ----------
    path : path-like
        Final name; appears only when whole.
    title : str
        Head line.
    bands : sequence of str
        Panels.
    samples : mapping of band to mapping of kind to Sample
        Kinds are ``galaxies`` and ``stars``.
    """
    columns = min(2, len(bands))
    rows = -(-len(bands) // columns)
    figure = Figure(figsize=(5.6 * columns, 3.4 * rows + 0.5), dpi=130, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for number, axes in enumerate(panels.ravel()):
        if number >= len(bands):
            axes.set_axis_off()
            continue
        _panel(axes, bands[number], samples[bands[number]])
        if number + columns >= len(bands):
            axes.set_xlabel("true magnitude")
        if number % columns == 0:
            axes.set_ylabel("measured − true magnitude")
    figure.suptitle(title)
    with writing(path) as part:
        # No date and no version in the file: the same data give the same bytes.
        figure.savefig(part, metadata={"Software": None})
