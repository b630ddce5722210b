"""One object in the tables of a tile: its row, its fluxes, the chunk that fitted it, the cut-outs it was fitted on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fitsio
import numpy as np

from balrogutils.context import Context
from balrogutils.errors import InputError, ProductError
from balrogutils.fitsfile import read_table
from balrogutils.graph import Job
from balrogutils.identity import decode_object_ids
from balrogutils.layout import FIT_CONFIGS, chip_of
from balrogutils.matching.positions import Reason
from balrogutils.upkeep.lineage import Lineage
from balrogutils.upkeep.sums import is_fits

__all__ = ["fit_of", "image_names", "injection_of", "row_of"]

_IDS = ("id", "bal_id", "true_bal_id", "number")
_TOLD = ("ra", "dec", "flags", "obj_flags", "inj_type", "true_inj_type", "meas_id")


def _text(value: Any) -> Any:
    """Return a value of a table as JSON has it; numbers that are none as text."""
    if isinstance(value, bytes):
        return value.decode(errors="replace").strip()
    if isinstance(value, np.ndarray):
        return [_text(one) for one in value.tolist()]
    if isinstance(value, np.generic):
        return _text(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value


def _row(path: Path, row: int) -> tuple[str, np.void]:
    """Return one row of the table of objects in a file, with the name of its HDU.

    Raises
    ------
    InputError
        When the file has no such table, or the table no such row.
    ProductError
        When it cannot be read.
    """
    try:
        with fitsio.FITS(str(path)) as fits:
            for hdu in fits:
                if hdu.get_exttype() == "IMAGE_HDU" or not {name.lower() for name in hdu.get_colnames()} & set(_IDS):
                    continue
                if row >= hdu.get_nrows():
                    raise InputError(
                        f"there is no row {row}: table {hdu.get_extname()} has {hdu.get_nrows()} rows",
                        file=path,
                        remedy="rows are counted from 0",
                    )
                return hdu.get_extname(), hdu.read(rows=[row], lower=True)[0]
    except OSError as error:
        if not is_fits(path):
            raise InputError("the file has no table of objects", file=path, remedy="name it without [row]") from error
        text = str(error).strip().partition("\n")[0]
        remedy = "balrog verify TILE says what is damaged"
        raise ProductError(f"a table cannot be read: {text}", file=path, remedy=remedy) from error
    raise InputError("the file has no table of objects", file=path, remedy="name it without [row]")


def _find(path: Path, name: str, column: str, value: int) -> int | None:
    """Return the row of a table whose column has a value; None when none has."""
    with fitsio.FITS(str(path)) as fits:
        found = np.flatnonzero(fits[name].read_column(column) == value)
    return int(found[0]) if found.size else None


def _fluxes(row: np.void, bands: tuple[str, ...]) -> dict[str, Any]:
    """Return every flux of a row with its error, by the name of its column, a list of (band, flux, error)."""
    names = row.dtype.names or ()
    found: dict[str, Any] = {}
    for name in names:
        if not name.endswith("flux") or row.dtype[name].base.kind != "f":
            continue
        values = np.atleast_1d(row[name]).astype(float)
        if f"{name}_err" in names:
            errors = np.atleast_1d(row[f"{name}_err"]).astype(float)
        elif f"{name}_cov" in names:
            # A fit that failed has a variance that is none.
            with np.errstate(invalid="ignore"):
                errors = np.sqrt(np.diag(np.atleast_2d(row[f"{name}_cov"])).astype(float))
        else:
            continue
        if values.shape == errors.shape:
            labels = bands if len(values) == len(bands) else ("",) * len(values)
            found[name] = [
                [label, _text(value), _text(error)] for label, value, error in zip(labels, values, errors, strict=True)
            ]
    return found


def row_of(path: Path, row: int, bands: tuple[str, ...]) -> dict[str, Any]:
    """Return what a row of a table says of its object.

    Parameters
    ----------
    path : Path
        A FITS file with a table of objects.
    row : int
        Counted from 0.
    bands : tuple of str
        Bands of columns that have a value for each.

    Returns
    -------
    dict
        ``table``, ``row``, identifiers and position as far as the table has them, ``fluxes``: by column, a list of
        band, flux and its error.

    Raises
    ------
    InputError
        When the file has no table of objects, or the table no such row.
    ProductError
        When the file cannot be read.
    """
    table, values = _row(path, row)
    found = {name: _text(values[name]) for name in (*_IDS, *_TOLD) if name in (values.dtype.names or ())}
    return {"table": table, "row": row, **found, "fluxes": _fluxes(values, bands)}


def _cutouts(context: Context, bands: tuple[str, ...], identifier: int) -> list[dict[str, Any]]:
    """Return the cut-outs of an object, a band each: row and box in the MEDS file, and the images it was cut from."""
    found = []
    for band in bands:
        path = context.tree.meds(band)
        row = _find(path, "object_data", "id", identifier) if path.is_file() else None
        if row is None:
            continue
        with fitsio.FITS(str(path)) as fits:
            one = fits["object_data"].read(rows=[row], columns=["box_size", "ncutout", "file_id"])[0]
            count = int(one["ncutout"])
            images = fits["image_info"].read_column("image_path")[one["file_id"][:count]]
        paths = [str(_text(image)) for image in images]
        found.append({"band": band, "file": str(path), "row": row, "box_size": int(one["box_size"]), "images": paths})
    return found


def _chunk(lineage: Lineage, context: Context, kind: str, identifier: int) -> dict[str, Any] | None:
    """Return the chunk that an object was fitted in, from its manifest."""
    for manifest in lineage.inventory.manifests:
        if manifest.step != kind or manifest.tree != context.tree or manifest.path == Job(kind, context).manifest:
            continue
        document = lineage.document(manifest)
        for claim in manifest.claims:
            if claim.path.is_file() and _find(claim.path, "model_fits", "id", identifier) is not None:
                return {
                    "file": str(claim.path),
                    "ended": document.get("ended"),
                    "version": document.get("version"),
                    "seeds": document.get("seeds"),
                    "config_sha256": document.get("config_sha256"),
                }
    return None


def fit_of(lineage: Lineage, context: Context, kind: str, row: int) -> dict[str, Any]:
    """Return where the numbers of one object of a fit came from.

    Parameters
    ----------
    lineage : Lineage
        Manifests of the tile.
    context : Context
        Base run or realization.
    kind : {"sof", "mof", "mcal", "bfd"}
        The fit.
    row : int
        Row of its catalogue.

    Returns
    -------
    dict
        As `row_of`, with ``file``; ``chunk``: file, time, version and seeds; ``cutouts``: a band each.
    """
    path = Job(kind, context).product
    manifest = lineage.maker(path)
    recorded = {} if manifest is None else lineage.document(manifest).get("config") or {}
    bands = tuple(recorded.get("bands") or context.bands)
    found = {"fit": kind, "file": str(path), **row_of(path, row, bands)}
    chunk = _chunk(lineage, context, kind, found["id"])
    return {**found, "chunk": chunk, "cutouts": _cutouts(context, bands, found["id"])}


def injection_of(lineage: Lineage, context: Context, bal_id: int) -> dict[str, Any]:
    """Return where an injected object came from, what was drawn of it, and what was measured of it.

    Parameters
    ----------
    lineage : Lineage
        Manifests of the tile.
    context : Context
        The realization.
    bal_id : int
        The object, as in the truth catalogue.

    Returns
    -------
    dict
        ``truth``: the row of the truth catalogue by column; ``chips``: by band, those it was drawn on; ``match``:
        reason, distance in arcsec, identifier of the detection, as far as there is a matched catalogue; ``fits``: the
        detection in each catalogue of fits, as `fit_of`.

    Raises
    ------
    InputError
        When nothing of that name was injected.
    ProductError
        When there is no truth catalogue.
    """
    tree = context.tree
    if not tree.truth.is_file():
        remedy = f"snakemake --cores all tile={context.tile} --config realizations={context.realization}"
        raise ProductError("there is no truth catalogue", tile=context.tile, file=tree.truth, remedy=remedy)
    truth = read_table(tree.truth, "TRUTH")
    row = np.flatnonzero(truth["bal_id"] == bal_id)
    if not row.size:
        raise InputError(
            f"realization {context.realization} has no object {bal_id}",
            tile=context.tile,
            file=tree.truth,
            remedy="take bal_id from the truth catalogue",
        )
    found: dict[str, Any] = {"bal_id": bal_id, "row": int(row[0])}
    found["truth"] = {name: _text(truth[name][row[0]]) for name in truth.dtype.names or ()}
    found["chips"] = {}
    if tree.truth_chips.is_file():
        chips = read_table(tree.truth_chips, "CHIPS")
        for one in chips[chips["bal_id"] == bal_id]:
            drawn = {"chip": str(one["chip"]), "flags": int(one["flags"]), "flux_on_chip": float(one["flux_on_chip"])}
            found["chips"].setdefault(str(one["band"]), []).append(drawn)
    found["match"], found["fits"] = None, []
    if tree.match.is_file():
        matched = read_table(tree.match, "match")
        one = matched[matched["true_bal_id"] == bal_id]
        if one.size:
            reason, identifier = Reason(int(one["match_reason"][0])), int(one["meas_id"][0])
            distance = _text(one["match_distance"][0])
            found["match"] = {"reason": reason.name.lower(), "distance": distance, "meas_id": identifier}
            if reason is Reason.MATCHED:
                found["match"]["meas_number"] = decode_object_ids(identifier)[0].number
                found["fits"] = _fits(lineage, context, identifier)
    return found


def _fits(lineage: Lineage, context: Context, identifier: int) -> list[dict[str, Any]]:
    found = []
    for kind in FIT_CONFIGS:
        path = Job(kind, context).product
        row = _find(path, "model_fits", "id", identifier) if path.is_file() else None
        if row is not None:
            found.append(fit_of(lineage, context, kind, row))
    return found


def image_names(paths: list[str]) -> list[str]:
    """Return how images are named in a line: the chip of a single-epoch image, the file of a coadd."""
    names = [Path(path).name for path in paths]
    return [chip_of(name) if name.startswith("D0") else name for name in names]
