"""The science tables of a matched catalogue."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from balrogutils.analysis.binning import even_edges
from balrogutils.analysis.classes import confusion_matrix, input_row_efficiency
from balrogutils.analysis.detectionmodel import DetectionModel, fit_detection
from balrogutils.analysis.efficiency import detection_efficiency
from balrogutils.analysis.matched import Matched, Variable
from balrogutils.analysis.shearbias import response_table
from balrogutils.analysis.transfer import pull_statistics, transfer_function
from balrogutils.metacal.shears import suffix

__all__ = [
    "class_table",
    "detection_model",
    "efficiency_tables",
    "input_row_table",
    "metacal_selection",
    "metacal_table",
    "pull_tables",
    "transfer_tables",
]

_MAGNITUDES = 0.5
Panels = dict[str, dict[str, Table]]
"""Tables by panel and by kind of object."""


def efficiency_tables(matched: Matched) -> dict[str, Table]:
    """Return the fraction found against everything that is known of the clear injections, by name of the variable."""
    clear = matched.clear
    tables = {}
    for one in matched.variables():
        values = one.values[clear]
        # Bins of equal counts would put the few faint injections, where the fraction falls, in one bin.
        edges = even_edges(values, _MAGNITUDES) if one.name.endswith("magnitude") else None
        tables[one.name] = detection_efficiency(
            matched.detected[clear], values, name=one.name, unit=one.unit, edges=edges
        )
    return tables


def detection_model(matched: Matched, *more: Variable, curve: str = "logistic") -> DetectionModel:
    """Return the smooth model of the fraction found in the true magnitude of `Matched.band`, and in more variables."""
    clear = matched.clear
    first = Variable(f"true {matched.band} magnitude", matched.true_magnitude(matched.band), "mag")
    variables = [first, *more]
    return fit_detection(
        matched.detected[clear],
        {one.name: one.values[clear] for one in variables},
        units={one.name: one.unit for one in variables},
        curve=curve,
    )


def _kinds(matched: Matched) -> dict[str, NDArray[np.bool_]]:
    return {"galaxies": matched.fitted & ~matched.star, "stars": matched.fitted & matched.star}


def transfer_tables(matched: Matched) -> dict[str, Panels]:
    """Return transfer functions of all quantities.

    Parameters
    ----------
    matched : Matched
        Only clear matched injections with a good fit are used.

    Returns
    -------
    dict of str to dict of str to dict of str to Table
        By quantity (``magnitude``, ``colour``, ``size``, ``ellipticity``, ``position``), panel (a band, a component)
        and kind (``galaxies``, ``stars``). Magnitudes are those of the model for galaxies, of the PSF for stars.
    """
    bands = [band for band in matched.bands if matched.has(f"true_mag_{band}")]
    kinds = _kinds(matched)
    ref = matched.true_magnitude(matched.band)
    axis = {"name": f"true {matched.band} magnitude", "name_unit": "mag"}
    delta = {band: matched.magnitude(band) - matched.true_magnitude(band) for band in bands}
    out: dict[str, Panels] = {name: {} for name in ("magnitude", "colour", "size", "ellipticity", "position")}
    for band in bands:
        out["magnitude"][band] = {
            kind: transfer_function(
                delta[band][rows],
                matched.true_magnitude(band)[rows],
                quantity=f"measured − true {band}",
                unit="mag",
                name=f"true {band} magnitude",
                name_unit="mag",
            )
            for kind, rows in kinds.items()
        }
    for blue, red in itertools.pairwise(bands):
        out["colour"][f"{blue} − {red}"] = {
            kind: transfer_function(
                (delta[blue] - delta[red])[rows],
                ref[rows],
                quantity=f"measured − true {blue} − {red}",
                unit="mag",
                **axis,
            )
            for kind, rows in kinds.items()
        }
    galaxies = kinds["galaxies"]
    true_t, size = matched.number("true_t"), np.full(len(matched), np.nan)
    known = np.isfinite(true_t) & (true_t > 0.0)
    size[known] = matched.parameter("t")[0][known] / true_t[known] - 1.0
    out["size"]["T"] = {
        "galaxies": transfer_function(size[galaxies], ref[galaxies], quantity="measured / true T − 1", **axis)
    }
    shape = matched.true_shape()
    for component in (0, 1):
        off = matched.parameter("g", component)[0] - shape[:, component]
        name = f"g{component + 1}"
        out["ellipticity"][name] = {
            "galaxies": transfer_function(off[galaxies], ref[galaxies], quantity=f"measured − true {name}", **axis)
        }
    for name, off in zip(("east", "north"), matched.offset(), strict=True):
        out["position"][name] = {
            kind: transfer_function(off[rows], ref[rows], quantity=f"detected − true, {name}", unit="arcsec", **axis)
            for kind, rows in kinds.items()
        }
    return out


def pull_tables(matched: Matched) -> Panels:
    """Return pulls against true S/N, by quantity and kind: fluxes of all bands, T, g1, g2, fitted position.

    Notes
    -----
    True S/N is true flux over quoted error in the same band; for the quantities of galaxies that belong to no band it
    is that in `Matched.band`. The fit's position is relative to the detection's, v north and u west.
    """
    kinds = _kinds(matched)
    panels: Panels = {}
    signal = {}
    for band in matched.bands:
        true = matched.number(f"true_flux_{band}")
        flux, error = matched.flux(band)
        good = np.isfinite(error) & (error > 0.0)
        signal[band] = np.full(true.size, np.nan)
        signal[band][good] = true[good] / error[good]
        panels[f"{band} flux"] = {
            kind: pull_statistics(
                flux[rows],
                true[rows],
                error[rows],
                signal[band][rows],
                quantity=f"{band} flux",
                name=f"true S/N in {band}",
            )
            for kind, rows in kinds.items()
        }
    rows, ref = kinds["galaxies"], signal[matched.band]
    shape, (east, north) = matched.true_shape(), matched.offset()
    truths = {
        "T": (*matched.parameter("t"), matched.number("true_t")),
        "g1": (*matched.parameter("g", 0), shape[:, 0]),
        "g2": (*matched.parameter("g", 1), shape[:, 1]),
        "position north": (*matched.parameter("pars", 0), -north),
        "position west": (*matched.parameter("pars", 1), east),
    }
    for name, (value, error, true) in truths.items():
        panels[name] = {
            "galaxies": pull_statistics(
                value[rows], true[rows], error[rows], ref[rows], quantity=name, name=f"true S/N in {matched.band}"
            )
        }
    return panels


def class_table(matched: Matched, fits: str | None = None) -> Table:
    """Return the confusion matrix of EXTENDED_CLASS of a kind of fits: ``sof``, ``mof``, or that of `Matched.fits`."""
    rows = matched.clear & matched.detected
    kind = fits or (matched.fits.kind if matched.fits is not None else "sof")
    return confusion_matrix(matched.star[rows], matched.number(f"meas_extended_class_{kind}")[rows])


def input_row_table(matched: Matched) -> Table:
    """Return how often each row of the input catalogues was found among the clear injections."""
    rows = matched.clear
    kind = matched.column("true_inj_type") if matched.has("true_inj_type") else np.full(len(matched), "")
    return input_row_efficiency(kind[rows], matched.number("true_cat_row")[rows], matched.detected[rows])


def metacal_selection(
    matched: Matched, least_signal: float = 10.0, least_size: float = 0.5
) -> Callable[[str], NDArray[np.bool_]]:
    """Return the selection of galaxies by metacal's own columns, as `mean_response` asks for it.

    Parameters
    ----------
    matched : Matched
        With columns of metacal.
    least_signal : float
        S/N of the round fit.
    least_size : float
        T over that of the target PSF.

    Notes
    -----
    Each type is cut on its own columns: the response of the selection is wrong otherwise (a bug of P 8.5). Clear
    injections with a good fit alone are used; that does not depend on the type.
    """
    shapes = matched.shapes()
    base = matched.clear & matched.detected & (matched.number("meas_mcal_flags_object") == 0)
    psf = matched.number("meas_mcal_tpsf")

    def select(kind: str) -> NDArray[np.bool_]:
        end = suffix(kind)
        signal, size = matched.number(f"meas_mcal_s2n_r{end}"), matched.number(f"meas_mcal_t{end}")
        good = base & np.isfinite(signal) & np.isfinite(size) & np.isfinite(psf)
        good[good] &= (signal[good] > least_signal) & (size[good] > least_size * psf[good])
        # A shape that failed in one type is in none.
        return good & np.all([np.isfinite(shape).all(axis=1) for shape in shapes.values()], axis=0)

    return select


def metacal_table(matched: Matched, least_signal: float = 10.0, least_size: float = 0.5) -> Table:
    """Return the metacal response above cuts of S/N and of T over that of the PSF, with the response of the cuts."""
    shapes = matched.shapes()
    if not shapes:
        table = response_table({})
        table.meta["note"] = "The matched catalogue has no metacal shapes."
        return table
    return response_table(shapes, metacal_selection(matched, least_signal, least_size))
