"""What block 1024 reads: truth, the catalogues of both runs, and the fits, each checked to be of this tile and run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from balrogutils.context import Context
from balrogutils.errors import ProductError
from balrogutils.fitsfile import Header, read_header, read_table
from balrogutils.graph import Job
from balrogutils.identity import are_of, object_ids
from balrogutils.layout import MODE_BITS, TileTree
from balrogutils.matching.gold import GoldFlag, extended_class, gold_flags
from balrogutils.matching.table import MORE_PER_BAND, MORE_SHARED, PER_BAND, SHARED, as_table, prefixed
from balrogutils.measurement.catalogue import model_units, with_band_axis
from balrogutils.metacal.columns import metacal_units
from balrogutils.products import Step
from balrogutils.wcs import ImageWCS

__all__ = ["Fits", "Measured", "needed", "read_measured", "read_originals", "read_truth"]

Rows = NDArray[Any]

# All that is asked of the base run's catalogues.
_PLACE = ("NUMBER", "X_IMAGE", "Y_IMAGE", "FLUX_AUTO")
_CATALOGS = {
    "sof": "the catalogue of fits",
    "mof": "the catalogue of fits of groups",
    "mcal": "the catalogue of metacal",
    "bfd": "the catalogue of BFD moments",
}


class Fits(NamedTuple):
    """One catalogue of fits: its rows, the bands of its vectors in order, and the model its columns begin with."""

    rows: Rows
    bands: tuple[str, ...]
    model: str


class Measured(NamedTuple):
    """Everything measured of a realization.

    Attributes
    ----------
    detected : structured ndarray, shape (n,)
        What all bands share: ``id``, ``ra``, ``dec`` (deg), number, pixels, FLAGS_GOLD and classes.
    tables : list of (str, structured ndarray)
        All tables with n rows, with the suffix of their columns; the first is `detected`.
    fits : dict of str to Fits
        By kind.
    gold : GoldFlag
        The bits of FLAGS_GOLD that could be found out.
    """

    detected: Rows
    tables: list[tuple[str, Rows]]
    fits: dict[str, Fits]
    gold: GoldFlag

    def units(self) -> dict[str, str]:
        """Return the units of the measured columns, by their names in the matched table."""
        units = {"meas_ra": "deg", "meas_dec": "deg"}
        for kind, fits in self.fits.items():
            known = {
                name: unit for name in fits.rows.dtype.names or () if (unit := metacal_units(name)) and kind == "mcal"
            }
            for name, unit in (known | model_units(fits.rows)).items():
                new = name if kind == "sof" or name.startswith(f"{kind}_") else f"{kind}_{name}"
                units[f"meas_{new.lower()}"] = unit
        return units


def needed(context: Context, path: Path, what: str, remedy: str, band: str | None = None) -> Path:
    """Return the path of a product, or say which block makes it."""
    if not path.is_file():
        raise ProductError(f"{what} is not there", tile=context.tile, band=band, file=path, remedy=remedy)
    return path


def _require_tile(header: Header, expected: dict[str, str], tile: str, path: Path, remedy: str) -> None:
    """Refuse a file whose header speaks of another tile or realization; one that is silent is believed."""
    for key, value in expected.items():
        said = str(header.get(key, value)).strip()
        if said != value:
            raise ProductError(
                f"this is of another {'tile' if key == 'TILENAME' else 'realization'}: {said!r}",
                tile=tile,
                file=path,
                key=key,
                remedy=remedy,
            )


def read_truth(context: Context, step: Step) -> tuple[Rows, Rows]:
    """Return the truth catalogue of a realization, and the truth by object and chip.

    Raises
    ------
    ProductError
        When one is missing, empty, or of another tile or realization.
    """
    tree, remedy = context.tree, "make it again (mode 8)"
    paths = [
        needed(context, tree.truth, "the truth catalogue", "make it (mode 8)"),
        needed(context, tree.truth_chips, "the truth by object and chip", "make it (mode 8)"),
    ]
    step.read(*paths)
    expected = {"TILENAME": context.tile, "CURRREAL": context.realization or ""}
    tables = []
    for path in paths:
        _require_tile(read_header(path, 1), expected, context.tile, path, remedy)
        tables.append(read_table(path))
    truth, chips = tables
    if not len(truth):
        raise ProductError("the truth catalogue is empty", tile=context.tile, file=paths[0], remedy=remedy)
    if not are_of(truth["bal_id"], context.tile, context.realization).all():
        text = "the truth catalogue holds objects of another tile or realization"
        raise ProductError(text, tile=context.tile, file=paths[0], key="bal_id", remedy=remedy)
    if len(np.unique(truth["bal_id"])) != len(truth):
        raise ProductError(
            "the truth catalogue holds an object twice", tile=context.tile, file=paths[0], key="bal_id", remedy=remedy
        )
    return truth, chips


def _catalog(context: Context, tree: TileTree, band: str, step: Step) -> Rows:
    bit, columns = (2, _PLACE) if tree.realization is None else (16, (*PER_BAND, *SHARED))
    path = needed(context, tree.catalog(band), "a catalogue", f"make it (mode {bit})", band)
    step.read(path)
    remedy = f"make it again (mode {bit})"
    _require_tile(read_header(path, 1), {"TILENAME": context.tile}, context.tile, path, remedy)
    rows = read_table(path)
    lacking = [name for name in columns if name not in (rows.dtype.names or ())]
    if lacking:
        text = f"a catalogue lacks {' '.join(lacking)}"
        raise ProductError(text, tile=context.tile, band=band, file=path, remedy=remedy)
    return rows


def _catalogs(context: Context, tree: TileTree, step: Step) -> dict[str, Rows]:
    found = {band: _catalog(context, tree, band, step) for band in context.bands}
    first = next(iter(found))
    for band, rows in found.items():
        if not np.array_equal(rows["NUMBER"], found[first]["NUMBER"]):
            bit = 2 if tree.realization is None else 16
            raise ProductError(
                "the catalogues of the bands have different lengths or objects",
                tile=context.tile,
                band=band,
                file=tree.catalog(band),
                remedy=f"make all bands' catalogues again (mode {bit})",
            )
    return found


def _sky(rows: Rows, wcs: ImageWCS) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return wcs.pixel_to_sky(rows["Y_IMAGE"].astype(float) - 1.0, rows["X_IMAGE"].astype(float) - 1.0)


def read_originals(context: Context, wcs: ImageWCS, step: Step) -> Rows:
    """Return the detections of the base run: ``number``, ``ra``, ``dec`` (deg), ``flux_<band>`` (FLUX_AUTO)."""
    catalogs = _catalogs(context, context.base_tree, step)
    rows = catalogs[context.bands[0]]
    ra, dec = _sky(rows, wcs)
    columns = {"number": rows["NUMBER"].astype(np.int64), "ra": ra, "dec": dec}
    columns |= {f"flux_{band}": one["FLUX_AUTO"].astype(float) for band, one in catalogs.items()}
    return as_table(columns, len(rows))


def _fits(context: Context, kind: str, ids: NDArray[np.int64], step: Step) -> Fits:
    bit = MODE_BITS[kind]
    path = needed(context, Job(kind, context).product, _CATALOGS[kind], f"make it (mode {bit})")
    step.read(path)
    rows, meta = read_table(path, "model_fits"), read_table(path, "meta_data")
    if not np.array_equal(rows["id"], ids):
        other = len(rows) and not are_of(rows["id"], context.tile, context.realization).all()
        raise ProductError(
            "the fits are of another tile or realization"
            if other
            else "the fits are not of the objects of the catalogues",
            tile=context.tile,
            file=path,
            key="id",
            remedy=f"run block {bit} again",
        )
    bands = tuple(str(meta["bands"][0]).strip().split(","))
    return Fits(with_band_axis(rows, len(bands)), bands, str(meta["model"][0]).strip())


def read_measured(context: Context, kinds: Sequence[str], wcs: ImageWCS, step: Step) -> Measured:
    """Return everything measured of a realization.

    Parameters
    ----------
    context : Context
        Tile and realization.
    kinds : sequence of str
        Kinds of fits, all of which must be there.
    wcs : ImageWCS
        Of the tile.
    step : Step
        What is read is recorded in it, and compared with what its maker recorded.

    Raises
    ------
    ProductError
        A product is missing, of another tile or realization, or does not belong to the others.
    """
    catalogs = _catalogs(context, context.tree, step)
    first = catalogs[context.bands[0]]
    ids = object_ids(context.tile, context.realization, first["NUMBER"])
    fits = {kind: _fits(context, kind, ids, step) for kind in kinds}
    flags, known = gold_flags(
        catalogs,
        sof=fits["sof"].rows if "sof" in fits else None,
        mof=fits["mof"].rows if "mof" in fits else None,
        model=fits["sof"].model if "sof" in fits else "",
        fit_bands=fits["sof"].bands if "sof" in fits else (),
    )
    names = [*SHARED, *(name for name in MORE_SHARED if name in (first.dtype.names or ()))]
    shared: dict[str, Rows] = {name: first[name] for name in names}
    shared["ra"], shared["dec"] = _sky(first, wcs)
    shared |= {"id": ids, "flags_gold": flags}
    for kind, (rows, _, model) in fits.items():
        if kind not in ("sof", "mof"):
            continue
        shared[f"extended_class_{kind}"] = extended_class(rows[f"{model}_T"], rows[f"{model}_T_err"])
    detected = as_table(shared, len(first))
    tables = [("", detected)]
    for band, rows in catalogs.items():
        more = [name for name in MORE_PER_BAND if name in (rows.dtype.names or ())]
        tables.append((f"_{band}", rows[[*PER_BAND, *more]]))
    for kind, one in fits.items():
        # Position, number and identifier come from the catalogue already.
        keep = [name for name in one.rows.dtype.names or () if name not in ("ra", "dec", "number", "id")]
        tables.append(("", one.rows[keep] if kind == "sof" else prefixed(one.rows[keep], kind)))
    return Measured(detected, tables, fits, known)
