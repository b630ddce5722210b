"""What came of the objects of one image: which were found, and how their magnitudes were measured."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from balrogutils.fitsfile import Table, read_table, write_tables
from balrogutils.oneimage.truth import INDEX

if TYPE_CHECKING:
    import astropy.table

    from balrogutils.oneimage.tree import Tree

__all__ = ["Outcome", "outcome", "write_results"]

_log = logging.getLogger(__name__)

_TRUE = "true magnitude"


class Outcome(NamedTuple):
    """The objects of one run, each with what SExtractor made of it.

    Attributes
    ----------
    number : ndarray of int64, shape (n,)
        ``balrog_index`` of each.
    magnitude : ndarray of float64, shape (n,)
        Of the light that was drawn; NaN where there was none.
    found : ndarray of bool, shape (n,)
        Whether there is a detection on it.
    there_before : ndarray of bool, shape (n,)
        Whether something was detected there before injection.
    measured : dict of ndarray of float64, shape (n,)
        Magnitudes by name of the column; NaN where there is none.
    """

    number: NDArray[np.int64]
    magnitude: NDArray[np.float64]
    found: NDArray[np.bool_]
    there_before: NDArray[np.bool_]
    measured: dict[str, NDArray[np.float64]]


def outcome(args: Namespace, tree: Tree) -> Outcome:
    """Join truth and measured catalogues of one run in association mode.

    Parameters
    ----------
    args : argparse.Namespace
        Resolved arguments.
    tree : Tree
        Its output tree.
    """
    hdu = 2 if args.catfitstype == "ldac" else 1
    truth, measured = read_table(tree.truth), read_table(tree.measured("sim"), hdu)
    count = len(truth)
    drawn = truth["flux_noiseless"]
    with np.errstate(divide="ignore", invalid="ignore"):
        magnitude = np.where(drawn > 0, args.zeropoint - 2.5 * np.log10(drawn), np.nan)
    rows = _rows(measured, args, count)
    found = np.zeros(count, dtype=bool)
    found[rows] = True
    values = {}
    for name in (one for one in measured.dtype.names or () if one.startswith("MAG_") and measured[one].ndim == 1):
        values[name] = np.full(count, np.nan)
        # SExtractor says 99 where there is no magnitude.
        values[name][rows] = np.where(measured[name] < 90, measured[name], np.nan)
    before = np.zeros(count, dtype=bool)
    if not args.nonosim:
        before[_rows(read_table(tree.measured("nosim"), hdu), args, count)] = True
    return Outcome(args.indexstart + np.arange(count), magnitude, found, before, values)


def _rows(measured: NDArray[Any], args: Namespace, count: int) -> NDArray[np.int64]:
    """Return the row of the truth catalogue of each detection."""
    rows = np.round(measured["VECTOR_ASSOC"][:, INDEX]).astype(np.int64) - args.indexstart
    assert ((rows >= 0) & (rows < count)).all()  # SExtractor copies our own list
    return rows


def write_results(tree: Tree, outcomes: Sequence[Outcome]) -> None:
    """Write tables and plots of completeness and of magnitudes, over all realizations.

    Parameters
    ----------
    tree : Tree
        Where they go.
    outcomes : sequence of Outcome
        One a realization.

    Notes
    -----
    Objects on something that was detected before injection are left out: a detection there says nothing of them.
    """
    from balrogutils.analysis.detectionmodel import fit_detection
    from balrogutils.analysis.efficiency import detection_efficiency
    from balrogutils.analysis.transfer import transfer_function
    from balrogutils.report.efficiencyplot import efficiency_figure
    from balrogutils.report.style import save_svg
    from balrogutils.report.transferplot import transfer_figure

    objects = _objects(outcomes)
    usable = ~objects["there_before"] & np.isfinite(objects["magnitude"])
    here = objects[usable]
    efficiency = detection_efficiency(here["found"], here["magnitude"], name=_TRUE, unit="mag")
    model = fit_detection(here["found"], {_TRUE: here["magnitude"]}, units={_TRUE: "mag"})
    names = [name for name in objects.dtype.names or () if name.startswith("MAG_")]
    bias = {}
    for name in names:
        seen = here[here["found"]]
        difference = seen[name] - seen["magnitude"]
        keys = {"quantity": f"{name} - true", "unit": "mag", "name": _TRUE, "name_unit": "mag"}
        bias[name] = {"galaxies": transfer_function(difference, seen["magnitude"], **keys)}
    tables = [Table("OBJECTS", objects, dict.fromkeys(("magnitude", *names), "mag"))]
    tables += [_plain("EFFICIENCY", efficiency), _plain("MODEL", model.table())]
    tables += [_plain(name.replace("MAG_", "BIAS_"), one["galaxies"]) for name, one in bias.items()]
    write_tables(tree.results, tables)
    left = int(np.count_nonzero(objects["there_before"]))
    save_svg(
        tree.efficiency_plot, efficiency_figure({_TRUE: efficiency}, f"Completeness, {tree.stem}", model, columns=1)
    )
    if bias:
        save_svg(tree.bias_plot, transfer_figure(bias, f"Measured and true magnitudes, {tree.stem}"))
    _log.info("%d of %d objects lie on what was detected before, and are left out of completeness", left, len(objects))
    _log.info("%s", model.note)


def _objects(outcomes: Sequence[Outcome]) -> NDArray[Any]:
    """Return one row an object, of all realizations."""
    names = list(dict.fromkeys(name for one in outcomes for name in one.measured))
    kinds = [("realization", "i8"), ("balrog_index", "i8"), ("magnitude", "f8"), ("found", "?"), ("there_before", "?")]
    parts = []
    for number, one in enumerate(outcomes):
        rows = np.zeros(len(one.number), dtype=[*kinds, *((name, "f8") for name in names)])
        rows["realization"], rows["balrog_index"], rows["magnitude"] = number, one.number, one.magnitude
        rows["found"], rows["there_before"] = one.found, one.there_before
        for name in names:
            rows[name] = one.measured[name]
        parts.append(rows)
    return np.concatenate(parts)


def _plain(name: str, table: astropy.table.Table) -> Table:
    """Return a table of results as FITS takes it."""
    units = {column.name: str(column.unit) for column in table.columns.values() if column.unit}
    return Table(name, np.array(table), units)
