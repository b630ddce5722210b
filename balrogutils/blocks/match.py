"""Block 1024: truth matched to detections and fits, the detection catalogue, and the first plots."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balrogutils.archive.geometry import Geometry
from balrogutils.blocks.measured import Fits, Measured, needed, read_measured, read_originals, read_truth
from balrogutils.context import Context
from balrogutils.errors import InputError
from balrogutils.fitsfile import Table, write_tables
from balrogutils.graph import Job, matched_fits
from balrogutils.injection.planning import UNITS
from balrogutils.layout import FIT_CONFIGS
from balrogutils.matching.ambiguity import brightness, original_flags, other_flags
from balrogutils.matching.positions import Matches, Reason, match_positions, nearest, nearest_other
from balrogutils.matching.table import detection_table, match_table
from balrogutils.matching.unseen import unseen, with_unseen
from balrogutils.parquetfile import write_parquet
from balrogutils.products import Step
from balrogutils.report.deltamag import Sample, plot_delta_mag
from balrogutils.report.picture import before_after
from balrogutils.wcs import ImageWCS

__all__ = ["match"]

_log = logging.getLogger(__name__)
Rows = NDArray[Any]
F64 = NDArray[np.float64]


def _at(values: Rows, row: NDArray[np.int64], fill: float) -> Rows:
    """Return values at rows, a fill where the row is -1."""
    out = np.full((row.size, *values.shape[1:]), fill, values.dtype)
    out[row >= 0] = values[row[row >= 0]]
    return out


def _doubts(context: Context, truth: Rows, found: Matches, detected: Rows, originals: Rows) -> dict[str, Rows]:
    """Return the columns that say what else a match could be of: originals, other injections."""
    names, bands = truth.dtype.names or (), context.match_bands
    # Into a band that the truth does not have, nothing was injected.
    fluxes = {band: truth[f"flux_{band}"] if f"flux_{band}" in names else np.zeros(len(truth)) for band in bands}
    bright = brightness(fluxes, bands)
    base_bright = brightness({band: originals[f"flux_{band}"] for band in bands}, bands)
    row, _ = nearest(truth["ra"], truth["dec"], originals["ra"], originals["dec"])
    columns: dict[str, Rows] = {
        f"base_flux_{band}": _at(originals[f"flux_{band}"], row, np.nan) for band in context.bands
    }
    columns |= {"brightness": bright, "base_brightness": _at(base_bright, row, np.nan)}
    columns |= original_flags(truth, bright, originals, base_bright)
    seen = found.row >= 0
    places = [_at(detected[name], found.row, np.nan) for name in ("ra", "dec")]
    columns["meas_base_distance"] = np.full(len(truth), np.nan)
    columns["meas_base_distance"][seen] = nearest(places[0][seen], places[1][seen], originals["ra"], originals["dec"])[
        1
    ]
    other, apart = nearest_other(truth["ra"], truth["dec"])
    columns |= {"other_bal_id": _at(truth["bal_id"].astype(np.int64), other, -1), "other_distance": apart}
    columns["other_flag"] = other_flags(truth, bright)
    return columns


def _cards(context: Context, measured: Measured) -> dict[str, Any]:
    """Return the cards of both catalogues: what they were made of, and what was not there."""
    first = next((measured.fits[kind] for kind in ("sof", "mof") if kind in measured.fits), None)
    cards: dict[str, Any] = {
        "RADIUS": context.pipeline.match_radius,
        "REALIZ": context.realization,
        "TILENAME": context.tile,
        # Vector columns of SOF, of MOF without it, are in the order of BANDS; fluxes are counts at MAGZERO.
        "BANDS": ",".join(first.bands if first else context.bands),
        "MAGZERO": context.campaign.magzp_ref,
        "BRIGHTIN": ",".join(context.match_bands),
        "FITS": ",".join(measured.fits) or "none",
        "LACKING": ",".join(kind for kind in FIT_CONFIGS if kind not in measured.fits) or "none",
        "GOLDBITS": int(measured.gold),
    }
    for kind, fits in measured.fits.items():
        cards[f"BAND{kind.upper()}"], cards[f"MODL{kind.upper()}"] = ",".join(fits.bands), fits.model
    return cards


def _magnitudes(flux: F64, error: F64) -> tuple[F64, F64]:
    """Return magnitudes at zero point 30 and their errors, NaN where the flux is not positive."""
    flux, error = np.asarray(flux, float), np.asarray(error, float)
    positive = flux > 0
    mags, errors = np.full(flux.shape, np.nan), np.full(flux.shape, np.nan)
    mags[positive] = 30.0 - 2.5 * np.log10(flux[positive])
    errors[positive] = 2.5 / np.log(10.0) * error[positive] / flux[positive]
    return mags, errors


def _samples(table: Rows, band: str, number: int | None, model: str, prefix: str = "") -> dict[str, Sample]:
    """Return true and measured magnitudes: model magnitudes of galaxies, PSF magnitudes of stars.

    Without a `number`, the place of the band in the vectors of fits, they are those of SExtractor.
    """
    injected = f"true_flux_{band}" in (table.dtype.names or ())
    true_flux = table[f"true_flux_{band}"] if injected else np.zeros(len(table))
    good = (
        (table["match_reason"] == Reason.MATCHED) & (table["true_outcome"] == 0) & ~table["ambiguous"] & (true_flux > 0)
    )
    star = np.char.find(np.char.lower(table["true_inj_type"].astype(str)), "star") >= 0
    samples = {}
    for kind, rows, name in (("galaxies", good & ~star, f"{model}_flux"), ("stars", good & star, "psf_flux")):
        if number is None:
            use = rows & (table[f"meas_flags_{band}"] <= 3)
            flux, error = table[f"meas_flux_auto_{band}"][use], table[f"meas_fluxerr_auto_{band}"][use]
        else:
            use = rows & (table[f"meas_{prefix}flags"] == 0)
            flux = table[f"meas_{prefix}{name}"][use, number]
            if kind == "galaxies":
                error = np.sqrt(table[f"meas_{prefix}{model}_flux_cov"][use, number, number])
            else:
                error = table[f"meas_{prefix}psf_flux_err"][use, number]
        samples[kind] = Sample(30.0 - 2.5 * np.log10(true_flux[use]), *_magnitudes(flux, error))
    return samples


def _plot(context: Context, table: Rows, fits: dict[str, Fits]) -> None:
    """Draw measured against true magnitudes, of the best fits there are."""
    kind = next((name for name in ("sof", "mof") if name in fits), "")
    bands, model = (fits[kind].bands, fits[kind].model) if kind else (context.bands, "")
    prefix = "mof_" if kind == "mof" else ""
    samples = {band: _samples(table, band, bands.index(band) if kind else None, model, prefix) for band in bands}
    title = f"{context.tile}, realization {context.realization}"
    what = f"{model} magnitudes of galaxies, PSF magnitudes of stars" if kind else "MAG_AUTO"
    plot_delta_mag(context.tree.match_plot, f"{title}: {what}", bands, samples)


def _pictures(context: Context, truth: Rows, wcs: ImageWCS, step: Step) -> None:
    places = np.stack(wcs.sky_to_pixel(truth["ra"], truth["dec"]), axis=1)
    for band in context.bands:
        images = context.base_tree.image(band), context.tree.image(band)
        step.read(*images)
        target = context.tree.cutaway(band)
        before_after(*images, target, band=band, tile=context.tile, realization=context.realization, positions=places)
        step.wrote(target)


def _write(context: Context, tables: Sequence[Table], step: Step) -> None:
    for path, table in zip((context.tree.match, context.tree.detection), tables, strict=True):
        write_tables(path, [table])
        write_parquet(path.with_suffix(".parquet"), table)
        step.wrote(path, path.with_suffix(".parquet"))


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
        A product of an earlier block is missing, is of another tile or realization, or does not belong to the others.
    """
    if context.realization is None:
        raise InputError("there is no truth in the base run", tile=context.tile, remedy="give a realization")
    tree, radius, kinds = context.tree, context.pipeline.match_radius, matched_fits(context)
    config = {"radius": radius, "fits": kinds, "brightness": context.match_bands}
    with Job("match", context).open(config) as step:
        truth, chips = read_truth(context, step)
        path = needed(context, context.base_tree.geometry, "the tile's geometry", "make it (mode 1)")
        step.read(path)
        wcs = Geometry.read(path).wcs()
        measured = read_measured(context, kinds, wcs, step)
        detected = measured.detected
        found = match_positions(truth["ra"], truth["dec"], detected["ra"], detected["dec"], radius)
        found = with_unseen(found, unseen(truth["bal_id"].astype(np.int64), chips, context.det_bands))
        originals = read_originals(context, wcs, step)
        row, distance = nearest(truth["ra"], truth["dec"], originals["ra"], originals["dec"])
        more: dict[str, Rows] = {
            "tilename": np.full(len(truth), context.tile),
            "realization": np.full(len(truth), int(context.realization), np.int32),
            **_doubts(context, truth, found, detected, originals),
        }
        number = _at(originals["number"], row, -9999)
        table = match_table(truth, found, measured.tables, number, distance, radius, more)
        flags = [table[name] for name in ("meas_flags", "meas_mof_flags") if name in (table.dtype.names or ())]
        detections = detection_table(table, context.bands, flags[0] != 0 if flags else np.zeros(len(table), bool))
        units = _units(table, measured)
        cards = _cards(context, measured)
        if cards["LACKING"] != "none":
            _log.info("fits that are not in the matched catalogue: %s", cards["LACKING"])
        _write(context, [Table("match", table, units, cards), Table("detection", detections, units, cards)], step)
        _plot(context, table, measured.fits)
        step.wrote(tree.match_plot)
        _pictures(context, truth, wcs, step)
        reasons = {reason.name.lower(): int(np.count_nonzero(found.reason == reason)) for reason in Reason}
        ambiguous = int(np.count_nonzero(table["ambiguous"]))
        step.count(injected=len(truth), ambiguous=ambiguous, **reasons)
        _log.info("matched %d of %d injections, %d near a base detection", reasons["matched"], len(truth), ambiguous)


def _units(table: Rows, measured: Measured) -> dict[str, str]:
    names = table.dtype.names or ()
    units = {name: "mag" for name in names if "mag" in name.split("_") and "err" not in name}
    units |= {name: "arcsec" for name in names if name.endswith("_distance")}
    units |= {f"true_{name.lower()}": unit for name, unit in UNITS.items()}
    return units | measured.units()
