"""Block 1024: truth matched to detections and fits, and the first plot."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balrogutils.archive.geometry import Geometry
from balrogutils.context import Context
from balrogutils.errors import InputError, ProductError
from balrogutils.fitsfile import Table, read_table, write_tables
from balrogutils.graph import OTHER_FITS, Job
from balrogutils.injection.planning import UNITS
from balrogutils.layout import TileTree
from balrogutils.matching.positions import Reason, match_positions, nearest
from balrogutils.matching.table import PER_BAND, SHARED, match_table
from balrogutils.products import Step
from balrogutils.report.deltamag import Sample, plot_delta_mag
from balrogutils.report.picture import before_after
from balrogutils.wcs import ImageWCS

__all__ = ["MATCH_RADIUS", "match"]

MATCH_RADIUS = 0.5
"""Largest distance of truth and detection, arcsec."""

_log = logging.getLogger(__name__)
Rows = NDArray[Any]

# All that is asked of the base run's catalogue.
_PLACE = ("NUMBER", "X_IMAGE", "Y_IMAGE")


def _need(context: Context, path: Path, what: str, remedy: str, band: str | None = None) -> Path:
    if not path.is_file():
        raise ProductError(f"{what} is not there", tile=context.tile, band=band, file=path, remedy=remedy)
    return path


def _catalog(context: Context, tree: TileTree, band: str, step: Step) -> Rows:
    bit, columns = (2, _PLACE) if tree.realization is None else (16, (*PER_BAND, *SHARED))
    path = _need(context, tree.catalog(band), "a catalogue", f"make it (mode {bit})", band)
    step.read(path)
    rows = read_table(path)
    lacking = [name for name in columns if name not in (rows.dtype.names or ())]
    if lacking:
        raise ProductError(f"a catalogue lacks {' '.join(lacking)}", tile=context.tile, band=band, file=path)
    return rows


def _sky(rows: Rows, wcs: ImageWCS) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return wcs.pixel_to_sky(rows["Y_IMAGE"].astype(float) - 1.0, rows["X_IMAGE"].astype(float) - 1.0)


def _measured(context: Context, bands: tuple[str, ...], wcs: ImageWCS, step: Step) -> list[tuple[str, Rows]]:
    """Return the measurement tables of the realization, all with the same rows."""
    tree = context.tree
    tables: list[tuple[str, Rows]] = []
    for band in bands:
        rows = _catalog(context, tree, band, step)
        if not tables:
            ra, dec = _sky(rows, wcs)
            dtype = [*((name, rows[name].dtype) for name in SHARED), ("ra", "f8"), ("dec", "f8")]
            shared = np.zeros(len(rows), dtype=dtype)
            for name in SHARED:
                shared[name] = rows[name]
            shared["ra"], shared["dec"] = ra, dec
            tables.append(("", shared))
        if len(rows) != len(shared):
            raise ProductError(
                "the catalogues of the bands have different lengths",
                tile=context.tile,
                band=band,
                file=tree.catalog(band),
                remedy="make all bands' catalogues again (mode 16)",
            )
        tables.append((f"_{band}", rows[list(PER_BAND)]))
    others = [job for kind in OTHER_FITS if (job := Job(kind, context)).manifest.is_file()]
    for job in (Job("sof", context), *others):
        if job in others:
            step.read(_need(context, job.product, f"the catalogue of {job.step}", f"make it (mode {job.bit})"))
        fits = read_table(job.product, "model_fits")
        if not np.array_equal(fits["number"], shared["NUMBER"]):
            raise ProductError(
                "the fits are not of the objects of the catalogues",
                tile=context.tile,
                file=job.product,
                remedy=f"run block {job.bit} again",
            )
        tables.append(("", _own_columns(fits, job.step)))
    return tables


def _own_columns(rows: Rows, kind: str) -> Rows:
    """Return what a fit adds to the table: names say which fit it is, but for SOF's."""
    names = rows.dtype.names or ()
    own = [name for name in names if name.startswith(f"{kind}_")]
    if own:
        # The columns about the object and its PSF are those of SOF.
        return rows[own]
    # Position and number come from the catalogue already.
    kept = rows[[name for name in names if name not in ("ra", "dec", "number")]]
    return kept if kind == "sof" else _renamed(kept, kind)


def _renamed(rows: Rows, prefix: str) -> Rows:
    names = rows.dtype.names or ()
    out = np.zeros(len(rows), dtype=[(f"{prefix}_{name}", rows.dtype[name]) for name in names])
    for name in names:
        out[f"{prefix}_{name}"] = rows[name]
    return out


def _samples(table: Rows, band: str, number: int, model: str) -> dict[str, Sample]:
    """Return true and measured magnitudes: model magnitudes of galaxies, PSF magnitudes of stars."""
    true_flux = table[f"true_flux_{band}"]
    good = (
        (table["match_reason"] == Reason.MATCHED) & (table["true_outcome"] == 0) & ~table["ambiguous"] & (true_flux > 0)
    )
    star = np.char.find(np.char.lower(table["true_inj_type"].astype(str)), "star") >= 0
    samples = {}
    for kind, rows, name in (("galaxies", good & ~star, f"{model}_flux"), ("stars", good & star, "psf_flux")):
        use = rows & (table["meas_flags"] == 0)
        flux = table[f"meas_{name}"][use, number]
        variance = table[f"meas_{model}_flux_cov"][use, number, number] if kind == "galaxies" else None
        error = table["meas_psf_flux_err"][use, number] if variance is None else np.sqrt(variance)
        positive = flux > 0
        mags = np.full(flux.shape, np.nan)
        mags[positive] = 30.0 - 2.5 * np.log10(flux[positive])
        errors = np.full(flux.shape, np.nan)
        errors[positive] = 2.5 / np.log(10.0) * error[positive] / flux[positive]
        samples[kind] = Sample(30.0 - 2.5 * np.log10(true_flux[use]), mags, errors)
    return samples


def _fit_bands(context: Context) -> tuple[tuple[str, ...], str]:
    meta = read_table(context.tree.fit("sof"), "meta_data")
    return tuple(meta["bands"][0].strip().split(",")), str(meta["model"][0].strip())


def match(context: Context) -> None:
    """Match every injected object of a realization to what was detected and fitted.

    Parameters
    ----------
    context : Context
        Tile and realization.

    Raises
    ------
    InputError
        In the base run, where nothing is injected.
    ProductError
        A product of an earlier block is missing, or does not belong to the others.
    """
    if context.realization is None:
        raise InputError("there is no truth in the base run", tile=context.tile, remedy="give a realization")
    tree, base = context.tree, context.base_tree
    config = {"radius": MATCH_RADIUS}
    with Job("match", context).open(config) as step:
        truth_path = _need(context, tree.truth, "the truth catalogue", "make it (mode 8)")
        fits = _need(context, tree.fit("sof"), "the catalogue of fits", "make it (mode 64)")
        geometry = _need(context, base.geometry, "the tile's geometry", "make it (mode 1)")
        step.read(truth_path, geometry, fits)
        truth = read_table(truth_path)
        if not len(truth):
            raise ProductError(
                "the truth catalogue is empty", tile=context.tile, file=truth_path, remedy="make it again (mode 8)"
            )
        wcs = Geometry.read(geometry).wcs()
        tables = _measured(context, context.bands, wcs, step)
        detected = tables[0][1]
        found = match_positions(truth["ra"], truth["dec"], detected["ra"], detected["dec"], MATCH_RADIUS)
        before = _catalog(context, base, context.bands[0], step)
        row, distance = nearest(truth["ra"], truth["dec"], *_sky(before, wcs))
        number = np.full(len(truth), -9999)
        number[row >= 0] = before["NUMBER"][row[row >= 0]]
        table = match_table(truth, found, tables, number, distance, MATCH_RADIUS)
        units = {"true_ra": "deg", "true_dec": "deg", "meas_ra": "deg", "meas_dec": "deg"}
        units |= {"match_distance": "arcsec", "base_distance": "arcsec"}
        units |= {f"true_{name}": unit for name, unit in UNITS.items()}
        units |= {name: "mag" for name in table.dtype.names or () if "mag" in name.split("_")}
        bands, model = _fit_bands(context)
        # Vector columns of fits are in the order of BANDS; fluxes are counts at MAGZERO.
        cards = {"RADIUS": MATCH_RADIUS, "REALIZ": context.realization, "TILENAME": context.tile}
        cards |= {"BANDS": ",".join(bands), "MAGZERO": context.campaign.magzp_ref}
        write_tables(tree.match, [Table("match", table, units, cards)])
        samples = {band: _samples(table, band, bands.index(band), model) for band in bands}
        title = f"{context.tile}, realization {context.realization}"
        plot_delta_mag(
            tree.match_plot, f"{title}: {model} magnitudes of galaxies, PSF magnitudes of stars", bands, samples
        )
        step.wrote(tree.match, tree.match_plot)
        for band in context.bands:
            images = base.image(band), tree.image(band)
            step.read(*images)
            places = wcs.sky_to_pixel(truth["ra"], truth["dec"])
            before_after(
                *images,
                tree.cutaway(band),
                band=band,
                tile=context.tile,
                realization=context.realization,
                positions=np.stack(places, axis=1),
            )
            step.wrote(tree.cutaway(band))
        matched = int(np.count_nonzero(found.reason == Reason.MATCHED))
        ambiguous = int(np.count_nonzero(table["ambiguous"]))
        step.count(injected=len(truth), matched=matched, ambiguous=ambiguous)
        _log.info("matched %d of %d injections, %d near a base detection", matched, len(truth), ambiguous)
