"""Plots of the fraction found: against one variable with its model, on the sky, and by input row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import hpgeom
import numpy as np
from astropy.table import Table
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from balrogutils.analysis.detectionmodel import DetectionModel
from balrogutils.report.style import (
    ACCENT,
    COLOURS,
    FAINT,
    INK,
    count_strip,
    label_of,
    panels,
    sentence,
    styled,
    wrapped,
)

__all__ = ["efficiency_figure", "input_row_figure", "map_figure"]


def _curve(axes: Any, model: DetectionModel, low: float, high: float) -> None:
    x = np.linspace(low, high, 300)
    value, error = model.predict({model.names[0]: x})
    axes.fill_between(
        x, np.clip(value - error, 0, 1), np.clip(value + error, 0, 1), color=ACCENT, alpha=0.2, linewidth=0, zorder=2
    )
    axes.plot(x, value, color=ACCENT, zorder=3, label="model of single injections")
    unit = f" {model.units[0]}" if model.units[0] else ""
    for level in (0.5, 0.9):
        where = model.crossing(level)
        if not np.isfinite(where.value):
            continue
        axes.plot([where.value] * 2, [0.0, level], color=INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        if np.isfinite(where.low) and np.isfinite(where.high):
            axes.axvspan(where.low, where.high, ymax=level / 1.08, color=INK, alpha=0.08, linewidth=0)
    text = "\n".join(
        f"{100 * level:.0f} % at {model.crossing(level)}{unit}"
        for level in (0.5, 0.9)
        if np.isfinite(model.crossing(level).value)
    )
    axes.text(0.03, 0.1, text, transform=axes.transAxes, fontsize=9.5, va="bottom", color=INK)


def efficiency_figure(
    tables: Mapping[str, Table], title: str, model: DetectionModel | None = None, *, columns: int = 2
) -> Figure:
    """Return one panel a table of `detection_efficiency`.

    Parameters
    ----------
    tables : mapping of str to Table
        By name of the variable; empty ones become a panel with their sentence.
    title : str
        Head line.
    model : DetectionModel, optional
        Drawn where its first variable is the panel's.
    columns : int
        Panels side by side.
    """
    with styled():
        figure, pairs = panels(len(tables), title, columns=columns)
        if len(tables) == 1 and not title:
            # Nothing is written above or below the axes.
            pairs[0][0].get_gridspec().update(top=0.97, bottom=0.125)
            for axes in pairs[0]:
                axes.set_position(axes.get_subplotspec().get_position(figure))
        for (main, strip), (name, table) in zip(pairs, tables.items(), strict=False):
            strip.set_xlabel(label_of(name, table.meta["unit"]))
            strip.ticklabel_format(axis="x", useOffset=False)
            main.set_ylim(0.0, 1.08)
            main.set_ylabel("fraction detected")
            use = np.asarray(table["injected"]) > 0
            if not use.any():
                sentence(main, table.meta["note"])
                count_strip(strip, {}, "number")
                continue
            low, high = np.asarray(table["low"]), np.asarray(table["high"])
            x, y = np.asarray(table["centre"])[use], np.asarray(table["efficiency"])[use]
            down, up = np.asarray(table["efficiency_low"])[use], np.asarray(table["efficiency_high"])[use]
            main.hlines(y, low[use], high[use], color=COLOURS["galaxies"], alpha=0.35, linewidth=1.2)
            main.errorbar(
                x,
                y,
                yerr=[np.maximum(y - down, 0), np.maximum(up - y, 0)],
                fmt="o",
                ms=5,
                color=COLOURS["galaxies"],
                label="bins, 68 % intervals",
                zorder=4,
            )
            if model is not None and model.fitted and model.names[0] == name:
                _curve(main, model, low[0], high[-1])
                main.legend(loc="lower left", bbox_to_anchor=(0.0, 0.28))
            elif model is not None and model.names[0] == name:
                main.text(0.03, 0.06, wrapped(model.note, 48), transform=main.transAxes, fontsize=9, color=FAINT)
            count_strip(strip, {"injected": (low, high, np.asarray(table["injected"]))}, "injected")
    return figure


def map_figure(the_map: Any, title: str) -> Figure:
    """Return a map of `efficiency_map`, a polygon a pixel with its counts."""
    with styled():
        figure = Figure(figsize=(6.2, 5.2), layout="constrained")
        axes = figure.subplots()
        figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold", color=INK)
        pixels = the_map.valid_pixels
        axes.set_xlabel("right ascension [deg]")
        axes.set_ylabel("declination [deg]")
        if not len(pixels):
            sentence(axes, "There is no injection with a position.")
            return figure
        values = the_map[pixels]
        lon, lat = hpgeom.boundaries(the_map.nside_sparse, pixels, step=4)
        # A tile across 0 h is drawn in one piece.
        middle = lon.ravel()[0]
        lon = (lon - middle + 180.0) % 360.0 - 180.0 + middle
        cells = PolyCollection(
            list(np.stack([lon, lat], axis=-1)),
            array=values["efficiency"],
            cmap="cividis",
            clim=(0.0, 1.0),
            edgecolor="white",
        )
        axes.add_collection(cells)
        if len(pixels) <= 60:
            for row in range(len(pixels)):
                one = values[row]
                dark = one["efficiency"] < 0.55
                axes.text(
                    float(lon[row].mean()),
                    float(lat[row].mean()),
                    f"{100 * one['efficiency']:.0f} %\n{one['detected']}/{one['injected']}",
                    ha="center",
                    va="center",
                    fontsize=8.5,
                    color="white" if dark else INK,
                )
        axes.autoscale_view()
        axes.invert_xaxis()
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_aspect(1.0 / float(np.cos(np.radians(np.clip(lat.mean(), -85, 85)))))
        axes.grid(visible=False)
        bar = figure.colorbar(cells, ax=axes, shrink=0.9)
        bar.set_label("fraction detected")
        bar.outline.set_visible(False)
    return figure


def input_row_figure(table: Table, title: str) -> Figure:
    """Return how many input rows were found always, at times and never, by how often they were injected."""
    with styled():
        figure = Figure(figsize=(6.2, 3.8), layout="constrained")
        axes = figure.subplots()
        figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold", color=INK)
        if not len(table):
            sentence(axes, table.meta["note"])
            axes.set_xticks([])
            return figure
        times, seen = np.asarray(table["injected"]), np.asarray(table["detected"])
        shown = np.unique(times)
        bottom = np.zeros(shown.size)
        cases = (
            ("found every time", seen == times, "#0072b2"),
            ("found at times", (seen > 0) & (seen < times), "#e69f00"),
            ("never found", seen == 0, "#4d4d4d"),
        )
        for label, rows, colour in cases:
            number = np.array([np.count_nonzero(rows & (times == one)) for one in shown])
            axes.bar(shown, number, bottom=bottom, color=colour, label=f"{label} ({number.sum()})", width=0.7)
            bottom += number
        axes.set_xlabel("times injected")
        axes.set_ylabel("input rows")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
    return figure
