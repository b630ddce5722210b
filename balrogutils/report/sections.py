"""The sections of a report that any matched catalogue has: of a tile, or of a campaign."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from astropy.table import Table

from balrogutils.analysis.matched import Matched
from balrogutils.analysis.results import Results, file_name
from balrogutils.report.efficiencyplot import efficiency_figure, input_row_figure
from balrogutils.report.inline import inline_svg
from balrogutils.report.page import Grid, Picture, Section
from balrogutils.report.transferplot import (
    bias_figure,
    confusion_figure,
    pull_figure,
    response_figure,
    transfer_figure,
)

__all__ = ["science_sections"]

_QUANTITIES = {
    "magnitude": "Magnitudes: of the model for galaxies, of the PSF for stars.",
    "colour": "Colours of neighbouring bands.",
    "size": "Sizes of galaxies, T before the PSF.",
    "ellipticity": "Ellipticities of galaxies, against the true lensed ones.",
    "position": "Positions of the detections.",
}

_SAME = 1e-4
"""Relative range of a variable below which it is one value, and nothing depends on it."""


def science_sections(results: Results, files: str, unknown: Sequence[str] = ()) -> list[Section]:
    """Return the sections of efficiency, transfer, pulls, classes, shear and input rows.

    Parameters
    ----------
    results : Results
        Of the matched catalogue.
    files : str
        What the names of the files of its tables begin with.
    unknown : sequence of str
        More sentences about what is not known.

    Returns
    -------
    list of Section
        Those that the columns allow; the last says what is not here, and which block would bring it.
    """
    sections = [_efficiency(results, files)]
    if results.matched.model is not None:
        sections += [_transfer(results, files), _pulls(results, files)]
    if results.classes:
        sections.append(_classes(results, files))
    if results.response is not None:
        sections.append(_shear(results, results.response, files))
    sections.append(_input_rows(results, files))
    missing = (*_missing(results.matched), *unknown) or ("Everything that a report can have is here.",)
    return [*sections, Section("What is missing", missing)]


def _missing(matched: Matched) -> tuple[str, ...]:
    sentences = []
    if matched.fits is None or matched.fits.kind != "sof":
        end = (
            "so there are no transfer functions, pulls and classes"
            if matched.fits is None
            else "so transfer functions and pulls are of the fits of groups"
        )
        sentences.append(f"There are no single fits (SOF, block 64), {end}.")
    if not matched.has("meas_mof_flags"):
        sentences.append("There are no fits of groups (MOF, block 128).")
    if not matched.shapes():
        sentences.append("There is no metacal (block 256), so there are no responses, and no m and c.")
    return tuple(sentences)


def _fitted(results: Results) -> str:
    """Return which fits are compared with the truth, in words."""
    fits = results.matched.fits
    if fits is None:
        return "no fits"
    words = "fits of groups (MOF" if fits.kind == "mof" else "single fits (SOF"
    return f"{words}, {fits.model})"


def _number(table: Table, column: str) -> int:
    return int(np.sum(table[column])) if len(table) else 0


def _efficiency(results: Results, files: str) -> Section:
    pictures: list[Picture] = []
    constant: list[str] = []
    for name, table in results.efficiency.items():
        if not _number(table, "injected"):
            # Nothing of it is known of any injection: no sizes among stars, no neighbours.
            continue
        low, high = float(np.min(table["low"])), float(np.max(table["high"]))
        if pictures and high - low <= _SAME * abs(high):
            constant.append(f"The {name} is the same for all, {high:.4g} {table.meta['unit']}.")
            continue
        first = not pictures
        figure = efficiency_figure({name: table}, "", results.model if first else None, columns=1)
        numbers = Grid(f"Fraction detected against {name}", table, f"{files}efficiency_{file_name(name)}.ecsv")
        alt = f"Fraction of clear injections detected against {name}, and how many each bin has. {table.meta['note']}"
        pictures.append(Picture(inline_svg(figure, f"eff{len(pictures)}", alt), table.meta["note"], (numbers,)))
    text = [
        "Of the clear injections: seen well in every band, and with no original detection within the match radius. "
        "Bars are 68.3 % binomial intervals (Jeffreys). Steps below each plot count the injections.",
        results.model.note,
        *constant,
    ]
    if not pictures:
        text.append("No clear injection has a magnitude, colour or size to bin by, so there is no plot.")
    model = Grid("Smooth model of the fraction detected", results.model_table, f"{files}detection_model.ecsv")
    return Section("Detection efficiency", tuple(text), pictures, (model,) if results.model.fitted else ())


def _transfer(results: Results, files: str) -> Section:
    pictures: list[Picture] = []
    empty = []
    for quantity, panels in results.transfer.items():
        for panel, kinds in panels.items():
            shown = {kind: table for kind, table in kinds.items() if _number(table, "objects")}
            if not shown:
                empty.append(f"{quantity} ({panel})")
                continue
            caption = f"{_QUANTITIES[quantity]} " + " ".join(
                f"{kind.capitalize()}: {table.meta['note']}" for kind, table in shown.items()
            )
            one = next(iter(shown.values()))
            alt = f"{one.meta['quantity']} against {one.meta['name']}: medians with errors and robust widths. {caption}"
            figure = transfer_figure({f"{quantity}, {panel}": shown}, "", columns=1)
            grids = tuple(
                Grid(f"{one.meta['quantity']}, {kind}", table, f"{files}transfer_{quantity}.ecsv")
                for kind, table in shown.items()
            )
            pictures.append(Picture(inline_svg(figure, f"tf{len(pictures)}", alt), caption, grids))
    text = [
        f"What {_fitted(results)} measure less what was put in, of clear matched injections with a good fit. Points "
        "are medians with their errors, bands are 1.4826 MAD."
    ]
    if empty:
        text.append(f"No object has a value of {', '.join(empty)}.")
    return Section("Transfer functions", tuple(text), pictures)


def _pulls(results: Results, files: str) -> Section:
    pictures: list[Picture] = []
    empty = []
    for panel, kinds in results.pulls.items():
        for kind, table in kinds.items():
            if not _number(table, "objects"):
                empty.append(f"{panel} of {kind}")
                continue
            alt = (
                f"Pulls of {panel} of {kind} against true S/N: median, robust width and root mean square. "
                f"{table.meta['note']}"
            )
            figure = pull_figure({f"{panel}, {kind}": {kind: table}}, "", kind=kind, columns=1)
            grid = Grid(f"Pulls of {panel}, {kind}", table, f"{files}pulls.ecsv")
            pictures.append(Picture(inline_svg(figure, f"pull{len(pictures)}", alt), table.meta["note"], (grid,)))
    text = [
        f"(Measured − true) / quoted error of {_fitted(results)} against true S/N. Right errors have a median of 0 "
        "(blue dashes) and a width of 1 (orange dashes)."
    ]
    if empty:
        text.append(f"No object has a pull of {', '.join(empty)}.")
    return Section("Are the errors right?", tuple(text), pictures)


def _classes(results: Results, files: str) -> Section:
    pictures: list[Picture] = []
    text = []
    for kind, table in results.classes.items():
        note = f"{kind.upper()}: {table.meta['note']}"
        text.append(note)
        figure = confusion_figure(table, "")
        grid = Grid(f"Stars and galaxies by {kind.upper()}", table, f"{files}classes_{kind}.ecsv")
        alt = f"Confusion matrix of true stars and galaxies and EXTENDED_CLASS of {kind.upper()}. {table.meta['note']}"
        pictures.append(Picture(inline_svg(figure, f"class{len(pictures)}", alt), note, (grid,)))
    return Section("Stars and galaxies", tuple(text), pictures)


def _shear(results: Results, response: Table, files: str) -> Section:
    note = response.meta["note"]
    alt = f"The four elements of the mean metacal response and of the response of the selection. {note}"
    grid = Grid("Metacal response", response, f"{files}metacal_response.ecsv")
    pictures = [Picture(inline_svg(response_figure(response, ""), "response", alt), note, (grid,))]
    text = ["Mean response of shapes to shear by metacal, and of the selection by S/N and size."]
    for pair, table in results.bias.items():
        alt = f"Multiplicative and additive bias of the shear of realizations {pair}. {table.meta['note']}"
        name = f"bias{len(pictures)}"
        grid = Grid(f"m and c, realizations {pair}", table, f"{files}shear_bias_{file_name(pair)}.ecsv")
        pictures.append(Picture(inline_svg(bias_figure(table, ""), name, alt), table.meta["note"], (grid,)))
        text.append(f"Realizations {pair}: {table.meta['note']}")
    if results.bias:
        text.append("A tile has too few galaxies for a statement about the method; the errors say so.")
    return Section("Shear response", tuple(text), pictures)


def _input_rows(results: Results, files: str) -> Section:
    table, note = results.input_rows, results.input_rows.meta["note"]
    grid = Grid("Input rows", table, f"{files}input_rows.ecsv")
    if not len(table):
        return Section("Input rows", (note,))
    alt = f"How many input rows were found every time, at times and never, by how often they were injected. {note}"
    picture = Picture(inline_svg(input_row_figure(table, ""), "rows", alt), note, (grid,))
    return Section("Input rows", ("How often each row of the input catalogues was found.",), (picture,))
