"""The tables of a MEDS file: ``object_data``, ``image_info``, ``metadata``, ``psf_info``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fitsio
import numpy as np
from numpy.typing import NDArray

from balrogutils import __version__
from balrogutils.meds.cutouts import Layout
from balrogutils.meds.sources import SourceImage

__all__ = ["FORMAT_VERSION", "UNITS", "Tables", "image_info", "metadata", "object_data", "psf_info", "record"]

FORMAT_VERSION = "0.9.1"
UNITS = {
    "ra": "deg",
    "dec": "deg",
    **dict.fromkeys(("dudrow", "dudcol", "dvdrow", "dvdcol"), "arcsec"),
    **dict.fromkeys(
        ("box_size", "orig_row", "orig_col", "cutout_row", "cutout_col", "input_row", "input_col", "iso_radius"),
        "pixel",
    ),
    **dict.fromkeys(("x2", "x2_err", "y2", "y2_err"), "pixel**2"),
}

Rows = NDArray[Any]


@dataclass(frozen=True)
class Tables:
    """The tables of a MEDS file as structured arrays; `psf_info` may be None when no PSF stamps are stored."""

    object_data: NDArray[Any]
    image_info: NDArray[Any]
    metadata: NDArray[Any]
    psf_info: NDArray[Any] | None = None


def record(columns: Mapping[str, Any]) -> Rows:
    """Return a structured array of columns in their order; text becomes bytes as wide as the longest entry.

    A character that is not ASCII is written as its escape, for example ``\\xe9``.
    """
    arrays = {}
    for name, values in columns.items():
        array = np.asarray(values)
        if array.dtype.kind == "U":
            # FITS text is ASCII, and readers of the format fail on anything else.
            encoded = np.char.encode(array, "ascii", "backslashreplace")
            # FITS has no columns of width 0.
            array = encoded.astype(f"S{max(1, encoded.dtype.itemsize)}")
        arrays[name] = array
    count = len(next(iter(arrays.values())))
    rows = np.zeros(count, dtype=[(name, array.dtype, array.shape[1:]) for name, array in arrays.items()])
    for name, array in arrays.items():
        rows[name] = array
    return rows


def object_data(
    ids: NDArray[np.int64],
    ra: NDArray[np.float64],
    dec: NDArray[np.float64],
    box: NDArray[np.int64],
    layout: Layout,
    extra: Mapping[str, Any] | None = None,
) -> Rows:
    """Return ``object_data``.

    Parameters
    ----------
    ids : ndarray of int64, shape (n,)
        Catalogue ids.
    ra, dec : ndarray of float64, shape (n,)
        Degrees.
    box : ndarray of int64, shape (n,)
        Box sides in pixels.
    layout : Layout
        Where the cut-outs are.
    extra : mapping, optional
        Further columns, for example ``number``.
    """
    where = (
        "file_id",
        "start_row",
        "orig_row",
        "orig_col",
        "orig_start_row",
        "orig_start_col",
        "cutout_row",
        "cutout_col",
    )
    jacobian = ("dudrow", "dudcol", "dvdrow", "dvdcol")
    psf = ("psf_row_size", "psf_col_size", "psf_cutout_row", "psf_cutout_col", "psf_start_row", "psf_sigma")
    columns: dict[str, Any] = {
        "id": np.asarray(ids, np.int64),
        "box_size": np.asarray(box, np.int64),
        "ra": np.asarray(ra, np.float64),
        "dec": np.asarray(dec, np.float64),
        "ncutout": layout.ncutout,
        **{name: layout.per_object[name] for name in (*where, *jacobian, *psf) if name in layout.per_object},
        **(extra or {}),
    }
    return record(columns)


def image_info(sources: Sequence[SourceImage], position_offset: float = 1.0) -> Rows:
    """Return ``image_info``, one row per source image, the index being ``file_id``."""
    columns: dict[str, Any] = {}
    for kind in ("image", "weight", "seg", "bmask", "bkg"):
        files = [source.files.get(kind) for source in sources]
        exts = [file.ext for file in files if file is not None]
        names = any(isinstance(ext, str) for ext in exts) or not exts
        columns[f"{kind}_path"] = [str(file.path) if file else "" for file in files]
        if names:
            columns[f"{kind}_ext"] = [str(file.ext) if file else "none" for file in files]
        else:
            columns[f"{kind}_ext"] = np.array([int(file.ext) if file else -1 for file in files], np.int16)
    columns |= {
        "image_id": [source.image_id for source in sources],
        "image_flags": np.zeros(len(sources), np.int64),
        "magzp": np.array([source.magzp for source in sources], np.float32),
        "scale": np.array([source.scale for source in sources], np.float32),
        "position_offset": np.full(len(sources), position_offset),
        "wcs": [json.dumps(source.wcs_cards) for source in sources],
    }
    return record(columns)


def psf_info(sources: Sequence[SourceImage]) -> Rows:
    """Return ``psf_info``, one row per source image: model, stamp side and FWHM in pixels, sampling, degree."""
    models = [source.model for source in sources]
    return record(
        {
            "file_id": np.arange(len(sources), dtype=np.int64),
            "psf_type": ["psfex" if model else "none" for model in models],
            "psf_path": [str(source.psf or "") for source in sources],
            "stamp_size": np.array([source.psf_side for source in sources], np.int32),
            "fwhm": np.array([model.fwhm if model else 0.0 for model in models], np.float32),
            "sampling": np.array([model.sampling if model else 0.0 for model in models], np.float32),
            "degree": np.array([model.degree if model else 0 for model in models], np.int32),
        }
    )


def metadata(values: Mapping[str, Any]) -> Rows:
    """Return the one-row ``metadata`` table: `values`, then the versions a MEDS reader may look for."""
    own = f"balrogutils {__version__}"
    versions = {
        "numpy_version": np.__version__,
        "esutil_version": "none",
        "fitsio_version": fitsio.__version__,
        "meds_version": own,
        "meds_fmt_version": FORMAT_VERSION,
        "desmeds_version": own,
    }
    return record({name: [value] for name, value in {**values, **versions}.items()})
