"""Plots of transfer functions, pulls, star-galaxy confusion, response and biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from astropy.table import Table
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from balrogutils.report.style import (
    ACCENT,
    COLOURS,
    FAINT,
    INK,
    MARKERS,
    count_strip,
    label_of,
    logarithmic,
    panels,
    sentence,
    styled,
)

__all__ = ["bias_figure", "confusion_figure", "pull_figure", "response_figure", "transfer_figure"]

_OF_MEDIAN, _OF_WIDTH, _OF_CHI = "#0072b2", "#d55e00", "#6a6a6a"
_PULL_LOW, _PULL_TOP = -1.8, 3.6


def _limits(axes: Any, values: list[np.ndarray], around: float, least: float) -> None:
    """Set limits by all but the wildest values, and say how many lie beyond."""
    everything = np.concatenate(values) if values else np.empty(0)
    everything = everything[np.isfinite(everything)]
    if not everything.size:
        return
    far = np.abs(everything - around)
    reach = max(1.15 * float(far.max()), least)
    if everything.size > 8:
        reach = min(reach, max(least, 3.0 * float(np.percentile(far, 75))))
    axes.set_ylim(around - reach, around + reach)
    beyond = int(np.count_nonzero(far > reach))
    if beyond:
        axes.text(
            0.99, 0.03, f"{beyond} beyond the axis", transform=axes.transAxes, ha="right", fontsize=8, color=FAINT
        )


def _strip(strip: Any, tables: Mapping[str, Table]) -> None:
    counts = {
        kind: (np.asarray(t["low"]), np.asarray(t["high"]), np.asarray(t["objects"])) for kind, t in tables.items()
    }
    count_strip(strip, counts, "objects")


def _empty(main: Any, tables: Mapping[str, Table]) -> bool:
    if any(np.isfinite(np.asarray(table["median"], float)).any() for table in tables.values()):
        return False
    notes = {f"{kind}: {table.meta['note']}" for kind, table in tables.items()}
    sentence(main, " ".join(sorted(notes)) or "There is nothing to show.")
    return True


def transfer_figure(tables: Mapping[str, Mapping[str, Table]], title: str, *, columns: int = 2) -> Figure:
    """Return one panel an entry of a quantity of `transfer_tables`: medians with errors, and bands of the width.

    Parameters
    ----------
    tables : mapping of str to mapping of str to Table
        By panel and kind of object.
    title : str
        Head line.
    columns : int
        Panels side by side.
    """
    with styled():
        figure, pairs = panels(len(tables), title, columns=columns)
        for (main, strip), (panel, kinds) in zip(pairs, tables.items(), strict=False):
            one = next(iter(kinds.values()))
            main.set_title(panel)
            main.set_ylabel(label_of(one.meta["quantity"], one.meta["unit"]))
            strip.set_xlabel(label_of(one.meta["name"], one.meta["name_unit"]))
            _strip(strip, kinds)
            if _empty(main, kinds):
                continue
            main.axhline(0.0, color=INK, linewidth=0.9)
            spread = []
            for kind, table in kinds.items():
                x, y = np.asarray(table["centre"]), np.asarray(table["median"])
                width, error = np.asarray(table["width"]), np.nan_to_num(np.asarray(table["median_err"]))
                colour = COLOURS.get(kind, ACCENT)
                main.fill_between(x, y - width, y + width, color=colour, alpha=0.14, linewidth=0)
                outliers = int(np.sum(table["outliers"]))
                label = f"{kind}: {int(np.sum(table['objects']))}, {outliers} beyond 5 widths"
                main.errorbar(x, y, yerr=error, fmt=f"-{MARKERS.get(kind, 's')}", ms=4.5, color=colour, label=label)
                spread += [y - width, y + width]
            _limits(main, spread, 0.0, 1e-4)
            main.legend(loc="upper left")
        figure.supxlabel(
            "points: medians with errors; bands: ± 1.4826 MAD; steps: objects in each bin", fontsize=8.5, color=FAINT
        )
    return figure


def pull_figure(tables: Mapping[str, Mapping[str, Table]], title: str, *, kind: str, columns: int = 3) -> Figure:
    """Return one panel a quantity of `pull_tables` for a kind of object: median, robust width and root mean square.

    Parameters
    ----------
    tables : mapping of str to mapping of str to Table
        By quantity and kind; quantities without the kind are left out.
    title : str
        Head line.
    kind : str
        ``galaxies`` or ``stars``.
    columns : int
        Panels side by side.
    """
    chosen = {panel: kinds[kind] for panel, kinds in tables.items() if kind in kinds}
    with styled():
        figure, pairs = panels(len(chosen), title, columns=columns, width=4.4, height=3.5)
        for (main, strip), (panel, table) in zip(pairs, chosen.items(), strict=False):
            main.set_title(panel)
            main.set_ylabel("(measured − true) / error")
            strip.set_xlabel(table.meta["name"])
            _strip(strip, {kind: table})
            if _empty(main, {kind: table}):
                continue
            x = np.asarray(table["centre"])
            if x[np.isfinite(x)].min() > 0.0:
                logarithmic(strip.xaxis, float(np.min(table["low"])), float(np.max(table["high"])))
            main.axhline(0.0, color=_OF_MEDIAN, linewidth=0.9, linestyle=(0, (5, 3)))
            main.axhline(1.0, color=_OF_WIDTH, linewidth=0.9, linestyle=(0, (5, 3)))
            chi = np.sqrt(np.asarray(table["chi2"]))
            chi = np.where(chi <= _PULL_TOP, chi, np.nan)
            main.plot(x, chi, "_", ms=9, mew=1.6, color=_OF_CHI, label="root mean square")
            for name, colour, mark in (("median", _OF_MEDIAN, "o"), ("width", _OF_WIDTH, "D")):
                y, error = np.asarray(table[name]), np.nan_to_num(np.asarray(table[f"{name}_err"]))
                inside = np.where((y <= _PULL_TOP) & (y >= _PULL_LOW), y, np.nan)
                main.errorbar(x, inside, yerr=error, fmt=f"-{mark}", ms=4.5, color=colour, label=name)
                # What lies beyond is not lost: an arrowhead at the edge, with its value.
                for place, value in zip(
                    x[np.isnan(inside) & np.isfinite(y)], y[np.isnan(inside) & np.isfinite(y)], strict=True
                ):
                    edge = _PULL_TOP if value > 0 else _PULL_LOW
                    main.plot(place, edge, "^" if value > 0 else "v", ms=6, color=colour, clip_on=False)
                    side = -6 if name == "median" else 6
                    main.annotate(
                        f"{value:.1f}",
                        (place, edge),
                        (side, -3),
                        textcoords="offset points",
                        ha="right" if name == "median" else "left",
                        va="top",
                        fontsize=8,
                        color=colour,
                    )
            main.set_ylim(_PULL_LOW, _PULL_TOP)
        handles, labels = pairs[0][0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def confusion_figure(table: Table, title: str) -> Figure:
    """Return the confusion matrix, a cell for each kind and class with its percentage and number."""
    with styled():
        figure = Figure(figsize=(7.2, 2.9), layout="constrained")
        axes = figure.subplots()
        figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold", color=INK)
        numbers = np.array([np.asarray(table[kind]) for kind in ("stars", "galaxies")])
        if not numbers.sum() or numbers[:, :-1].sum() == 0:
            sentence(axes, table.meta["note"])
            axes.set_xticks([])
            return figure
        total = numbers.sum(axis=1, keepdims=True)
        part = numbers / np.maximum(total, 1)
        axes.imshow(part, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
        for (row, column), value in np.ndenumerate(part):
            text = f"{100 * value:.0f} %\n{numbers[row, column]}"
            colour = "white" if value > 0.5 else INK
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=10)
        codes = np.asarray(table["extended_class"])
        axes.set_xticks(
            range(len(codes)), [f"{name}\n({code})" for name, code in zip(table["meaning"], codes, strict=True)]
        )
        axes.set_yticks([0, 1], [f"true stars\n({total[0, 0]})", f"true galaxies\n({total[1, 0]})"])
        axes.set_xlabel("measured class (EXTENDED_CLASS)")
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    return figure


def response_figure(table: Table, title: str) -> Figure:
    """Return the four elements of the mean response and of the selection's, with errors."""
    with styled():
        figure = Figure(figsize=(6.2, 3.6), layout="constrained")
        axes = figure.subplots()
        figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold", color=INK)
        if not len(table):
            sentence(axes, table.meta["note"])
            axes.set_xticks([])
            return figure
        x = np.arange(len(table))
        axes.axhline(0.0, color=INK, linewidth=0.9)
        for shift, name, label, colour, mark in (
            (-0.08, "R", "shapes, R", COLOURS["galaxies"], "o"),
            (0.08, "RS", "selection, RS", COLOURS["stars"], "D"),
        ):
            y, error = np.asarray(table[name]), np.asarray(table[f"{name}_err"])
            axes.errorbar(x + shift, y, yerr=error, fmt=mark, ms=6, color=colour, label=label)
        for place, value, error in zip(x, table["total"], table["total_err"], strict=True):
            axes.annotate(
                f"{value:+.3f} ± {error:.3f}", (place, 1.0), xycoords=("data", "axes fraction"), ha="center", fontsize=9
            )
        axes.set_xticks(x, list(table["element"]))
        axes.margins(x=0.15, y=0.2)
        axes.set_ylabel("response d e / d g")
        axes.set_xlabel(f"element; above: R + RS of {table['objects'][0]} objects")
        # Between the diagonal elements, which are near 1: those of the middle are near 0.
        axes.legend(loc="upper center")
    return figure


def bias_figure(table: Table, title: str) -> Figure:
    """Return m and c of each component with their errors."""
    with styled():
        figure = Figure(figsize=(7.2, 3.0), layout="constrained")
        both = figure.subplots(1, 2)
        figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold", color=INK)
        for axes, name, text in zip(both, "mc", ("multiplicative bias m", "additive bias c"), strict=True):
            axes.set_xlabel(text)
            if not len(table):
                sentence(axes, table.meta["note"])
                axes.set_xticks([])
                continue
            y = np.arange(len(table))
            axes.axvline(0.0, color=INK, linewidth=0.9)
            axes.errorbar(table[name], y, xerr=table[f"{name}_err"], fmt="o", ms=6, color=COLOURS["galaxies"])
            labels = [f"{c}\n{n} pairs" for c, n in zip(table["component"], table["pairs"], strict=True)]
            axes.set_yticks(y, labels)
            axes.set_ylim(len(table) - 0.5, -0.5)
            axes.margins(x=0.25)
            axes.xaxis.set_major_locator(MaxNLocator(4))
    return figure
