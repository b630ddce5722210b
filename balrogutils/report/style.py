"""The look of all plots of results: colours, type, counts under the panels, sentences for empty ones."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from balrogutils.products import writing

__all__ = [
    "ACCENT",
    "COLOURS",
    "FAINT",
    "INK",
    "MARKERS",
    "count_strip",
    "label_of",
    "logarithmic",
    "panels",
    "save_svg",
    "sentence",
    "styled",
    "wrapped",
]

F64 = NDArray[np.float64]

COLOURS = {"galaxies": "#0072b2", "stars": "#d55e00"}
"""Blue and vermilion of Okabe and Ito: told apart with any kind of colour vision, and in grey."""
MARKERS = {"galaxies": "o", "stars": "D"}
ACCENT = "#009e73"
INK = "#222222"
FAINT = "#8a8a8a"

_RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10.0,
    "axes.titlesize": 11.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10.0,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8e8e8",
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "lines.linewidth": 1.8,
    "errorbar.capsize": 0.0,
    # Outlines, not names of fonts that a reader may lack; and identifiers that do not change from run to run.
    "svg.fonttype": "path",
    "svg.hashsalt": "balrog",
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the common style within the block."""
    with matplotlib.rc_context(_RC):
        yield


def panels(number: int, title: str, *, columns: int = 2, width: float = 5.2, height: float = 3.9) -> tuple[Figure, Any]:
    """Return a figure and its (main, strip) pairs of axes: a panel each, with a strip for counts below it.

    Parameters
    ----------
    number : int
        Panels, at least one.
    title : str
        Over all of them.
    columns : int
        Panels side by side at most.
    width, height : float
        Of a panel with its strip, inches.
    """
    columns = min(columns, max(number, 1))
    rows = -(-max(number, 1) // columns)
    ratios = {"height_ratios": [4.2, 1.0]}
    if number <= 1:
        # Margins that all labels fit into: to fit them to the labels takes as long as all the drawing.
        figure = Figure(figsize=(width, height + 0.45))
        top = 0.93 - (0.06 if title else 0.0)
        margins = {"left": 0.9 / width, "right": 0.955, "bottom": 0.8 / (height + 0.45), "top": top, "hspace": 0.1}
        pairs = [figure.subplots(2, 1, sharex=True, gridspec_kw=ratios | margins)]
    else:
        figure = Figure(figsize=(width * columns, height * rows + 0.45), layout="constrained")
        parts = np.atleast_2d(figure.subfigures(rows, columns, squeeze=False)).ravel()
        pairs = [part.subplots(2, 1, sharex=True, gridspec_kw=ratios) for part in parts[:number]]
    figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold", color=INK)
    return figure, pairs


def count_strip(axes: Any, counts: Mapping[str, tuple[F64, F64, F64]], word: str) -> None:
    """Draw how many objects each bin holds.

    Parameters
    ----------
    axes : matplotlib axes
        The strip.
    counts : mapping of str to (low, high, number)
        Bins by kind.
    word : str
        What is counted, for the axis.
    """
    top = 0.0
    for kind, (low, high, number) in counts.items():
        if len(number):
            colour = COLOURS.get(kind, FAINT)
            axes.stairs(number, np.append(low, high[-1:]), color=colour, fill=True, alpha=0.18, linewidth=0)
            axes.stairs(number, np.append(low, high[-1:]), color=colour, linewidth=1.1)
            top = max(top, float(np.max(number)))
    axes.set_ylim(0.0, 1.2 * top if top else 1.0)
    axes.set_yticks([0, int(top)] if top else [0])
    axes.set_ylabel(word, fontsize=8.5)
    axes.tick_params(axis="y", labelsize=8.5)
    axes.grid(visible=False)


def logarithmic(axis: Any, low: float, top: float) -> None:
    """Have an x axis from `low` to `top` in logarithms, with as many numbers as have room: decades, 2 and 5 between."""
    axis.axes.set_xscale("log")
    shown = "125" if top < 50.0 * low else "1"

    def text(value: float, _: int) -> str:
        return f"{value:g}" if f"{value:.0e}"[0] in shown else ""

    axis.set_major_formatter(FuncFormatter(text))
    axis.set_minor_formatter(FuncFormatter(text))


def sentence(axes: Any, text: str) -> None:
    """Write into an empty panel why it is empty."""
    axes.grid(visible=False)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.text(0.5, 0.5, wrapped(text, 42), transform=axes.transAxes, ha="center", va="center", color=FAINT, fontsize=10)


def wrapped(text: str, width: int) -> str:
    """Return text in lines of at most `width` characters."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def label_of(name: str, unit: str) -> str:
    """Return the label of an axis: a name and its unit in brackets."""
    return f"{name} [{unit}]" if unit else name


def save_svg(path: str | os.PathLike[str], figure: Figure) -> None:
    """Write a figure as SVG; the same figure gives the same bytes, and the file appears only when whole."""
    with styled(), writing(path) as part:
        figure.savefig(part, format="svg", metadata={"Date": None, "Creator": None})
