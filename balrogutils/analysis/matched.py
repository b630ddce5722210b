"""The columns of matched catalogues under the names that the analysis uses; the one place that knows both."""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import InputError, ProductError
from balrogutils.fitsfile import read_header, read_table
from balrogutils.matching.positions import Reason
from balrogutils.metacal.shears import TYPES, suffix

__all__ = ["Compared", "Matched", "Variable", "compared_fits", "read_matched"]

F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]

_STEMS = {"sof": "meas_", "mof": "meas_mof_"}
_OTHER_FITS = {"mof", "mcal", "bfd", "psf"}


class Compared(NamedTuple):
    """The fits that are compared with the truth: kind, model, and what the names of their columns begin with."""

    kind: str
    model: str
    stem: str


def compared_fits(names: Iterable[str]) -> Compared | None:
    """Return the fits in a matched catalogue's columns: SOF, MOF where there is none, None without both."""
    for kind, stem in _STEMS.items():
        found = {match[1] for name in names if (match := re.fullmatch(rf"{stem}([a-z]+)_flux_cov", name))}
        if models := sorted(found - _OTHER_FITS):
            return Compared(kind, models[0], stem)
    return None


@dataclass(frozen=True)
class Variable:
    """A quantity of every injection: name as in a plot's axis, values [n] and unit."""

    name: str
    values: F64
    unit: str = ""


@dataclass(frozen=True)
class Matched:
    """Injections and what was measured of them.

    Attributes
    ----------
    rows : structured ndarray, astropy Table or pandas DataFrame
        A matched catalogue (docs/columns.md), or several of the same columns stacked.
    bands : tuple of str
        Bands of the fits, in the order of their vectors.
    zero_point : float
        Of fluxes.
    extra : tuple of Variable
        More that is known of every injection, found or not: seeing, depth, distance to a bright object.
    """

    rows: Any
    bands: tuple[str, ...]
    zero_point: float = 30.0
    extra: tuple[Variable, ...] = ()
    _names: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        dtype = getattr(self.rows, "dtype", None)
        names = (dtype.names if dtype is not None else None) or getattr(self.rows, "colnames", None)
        object.__setattr__(self, "_names", frozenset(self.rows.columns if names is None else names))
        missing = {"match_reason", "true_ra", "true_dec"} - self._names
        if missing:
            raise InputError(f"this is no matched catalogue: it lacks {', '.join(sorted(missing))}")

    def __len__(self) -> int:
        return len(self.rows)

    def has(self, *names: str) -> bool:
        """Return whether all of these columns are there."""
        return self._names.issuperset(names)

    def part(self, keep: Mask) -> Matched:
        """Return the injections of a mask [n]."""
        extra = tuple(Variable(one.name, one.values[keep], one.unit) for one in self.extra)
        return Matched(self.rows[keep], self.bands, self.zero_point, extra)

    def column(self, name: str) -> NDArray[Any]:
        """Return a column as an array in native byte order; vectors have the shape (n, ...)."""
        if name not in self._names:
            raise InputError(f"the matched catalogue has no column {name}")
        values = np.asarray(self.rows[name])
        if values.dtype == object and len(values) and not isinstance(values[0], str | bytes):
            values = np.stack([np.asarray(value) for value in values])
        return values.astype(values.dtype.newbyteorder("=")) if values.dtype.kind in "fiu" else values

    def number(self, name: str) -> F64:
        """Return a column as floating-point numbers; all NaN where there is none, NaN for the fill -9999."""
        if name not in self._names:
            return np.full(len(self), np.nan)
        values = self.column(name).astype(np.float64)
        return np.where(values <= -9999.0, np.nan, values)

    def _variances(self, name: str) -> F64:
        """Return the diagonals [n, k] of covariance matrices; Parquet holds them flat, FITS a single number as none."""
        values = self.number(name)
        if values.ndim == 1:
            return values[:, None]
        if values.ndim == 2:
            side = math.isqrt(values.shape[1])
            return np.asarray(values[:, :: side + 1])
        return np.asarray(np.diagonal(values, axis1=1, axis2=2))

    def _vectors(self, name: str) -> F64:
        values = self.number(name)
        return values[:, None] if values.ndim == 1 else values

    @property
    def fits(self) -> Compared | None:
        """The fits that are compared with the truth."""
        return compared_fits(self._names)

    @property
    def model(self) -> str | None:
        """Name of their model, None where there are none."""
        return self.fits.model if self.fits is not None else None

    @property
    def band(self) -> str:
        """The band of m50: i, else the middle one that has true magnitudes."""
        known = [band for band in self.bands if f"true_mag_{band}" in self._names]
        if not known:
            raise InputError("the matched catalogue has no true magnitude of its bands")
        return "i" if "i" in known else known[len(known) // 2]

    @property
    def clear(self) -> Mask:
        """Injections seen well in every band, and with no original detection within the match radius.

        An injection on masked pixels cannot be found, and whether one on an original was found cannot be told.
        """
        # Larger reasons: no position, or no light in a detection band.
        good = np.asarray(self.column("match_reason") <= Reason.TAKEN)
        if self.has("true_outcome"):
            good &= self.column("true_outcome") == 0
        if self.has("ambiguous"):
            good &= ~self.column("ambiguous").astype(bool)
        return good

    @property
    def detected(self) -> Mask:
        """Whether each injection is matched to a detection."""
        return np.asarray(self.column("match_reason") == Reason.MATCHED)

    @property
    def fitted(self) -> Mask:
        """Matched injections that are clear and have a good fit."""
        if self.fits is None:
            return np.zeros(len(self), bool)
        return np.asarray(self.clear & self.detected & (self.column(f"{self.fits.stem}flags") == 0))

    @property
    def star(self) -> Mask:
        """Whether each injection is a star."""
        if not self.has("true_inj_type"):
            return np.zeros(len(self), bool)
        return np.char.find(np.char.lower(self.column("true_inj_type").astype(str)), "star") >= 0

    def true_magnitude(self, band: str) -> F64:
        """Return true magnitudes, NaN where there is no light."""
        values = self.number(f"true_mag_{band}")
        return np.where(values < 90.0, values, np.nan)

    def true_size(self) -> F64:
        """Return true half-light radii, arcsec; NaN for stars."""
        return np.where(self.star, np.nan, self.number("true_r50_arcsec"))

    def flux(self, band: str) -> tuple[F64, F64]:
        """Return measured fluxes and errors: of the model for galaxies, of the PSF for stars."""
        out, error, fits = np.full(len(self), np.nan), np.full(len(self), np.nan), self.fits
        if band not in self.bands or fits is None:
            return out, error
        number, star, stem = self.bands.index(band), self.star, fits.stem
        variance = self._variances(f"{stem}{fits.model}_flux_cov")[:, number]
        good = np.isfinite(variance) & (variance > 0.0)
        error[good] = np.sqrt(variance[good])
        of_psf, of_model = (self._vectors(f"{stem}{name}_flux")[:, number] for name in ("psf", fits.model))
        return np.where(star, of_psf, of_model), np.where(star, self._vectors(f"{stem}psf_flux_err")[:, number], error)

    def magnitude(self, band: str) -> F64:
        """Return measured magnitudes, NaN for a flux that is not positive."""
        flux, _ = self.flux(band)
        out = np.full(flux.size, np.nan)
        good = np.isfinite(flux) & (flux > 0.0)
        out[good] = self.zero_point - 2.5 * np.log10(flux[good])
        return out

    def true_shape(self) -> F64:
        """Return true reduced shapes [n, 2], lensed where the truth has a shear.

        Notes
        -----
        g = (g_i + s) / (1 + s* g_i) in complex numbers (Seitz and Schneider 1997, for |s| < 1).
        """
        own = self.number("true_g1") + 1j * self.number("true_g2")
        if self.has("true_shear_g1", "true_shear_g2"):
            shear = self.number("true_shear_g1") + 1j * self.number("true_shear_g2")
            good = np.isfinite(own) & np.isfinite(shear)
            own[~good] = np.nan
            own[good] = (own[good] + shear[good]) / (1.0 + np.conj(shear[good]) * own[good])
        return np.column_stack([own.real, own.imag])

    def parameter(self, name: str, *place: int) -> tuple[F64, F64]:
        """Return a fitted quantity (``g``, ``t``, ``pars``), or one place of its vector, and its error."""
        if self.fits is None:
            return np.full(len(self), np.nan), np.full(len(self), np.nan)
        stem = f"{self.fits.stem}{self.fits.model}_{name}"
        values = self.number(stem)
        if place:
            values = values[:, place[0]]
        if place and self.has(f"{stem}_cov"):
            variance = self._variances(f"{stem}_cov")[:, place[0]]
            error = np.sqrt(np.where(variance > 0.0, variance, np.nan))
        else:
            error = self.number(f"{stem}_err")
        return values, error

    def offset(self) -> tuple[F64, F64]:
        """Return detected less true position, east and north, arcsec."""
        dec = self.number("true_dec")
        east = (self.number("meas_ra") - self.number("true_ra") + 180.0) % 360.0 - 180.0
        return east * np.cos(np.radians(dec)) * 3600.0, (self.number("meas_dec") - dec) * 3600.0

    def variables(self) -> list[Variable]:
        """Return what the fraction found can depend on: magnitude, colours, size, neighbours, and the extra ones."""
        bands = [band for band in self.bands if self.has(f"true_mag_{band}")]
        out = [Variable(f"true {self.band} magnitude", self.true_magnitude(self.band), "mag")]
        for blue, red in itertools.pairwise(bands):
            out.append(Variable(f"true {blue} − {red}", self.true_magnitude(blue) - self.true_magnitude(red), "mag"))
        out.append(Variable("true half-light radius", self.true_size(), "arcsec"))
        out.append(Variable("distance to the nearest original", self.number("base_distance"), "arcsec"))
        if self.has("other_distance"):
            out.append(Variable("distance to the nearest injection", self.number("other_distance"), "arcsec"))
        return [*out, *self.extra]

    def shapes(self, prefix: str = "meas_mcal_g") -> dict[str, F64]:
        """Return metacal shapes [n, 2] of the five types; empty where they are not all there."""
        names = {name: f"{prefix}{suffix(name)}" for name in TYPES}
        return {name: self.number(column) for name, column in names.items()} if self.has(*names.values()) else {}


def read_matched(
    paths: Sequence[str | os.PathLike[str]], extra: Mapping[str, tuple[Any, str]] | None = None
) -> Matched:
    """Read matched catalogues of one or more tiles and realizations.

    Parameters
    ----------
    paths : sequence of path-like
        FITS files of the match block.
    extra : mapping of str to (array_like, str), optional
        Values [n] and unit by name, in the order of the rows of all files.

    Returns
    -------
    Matched
        Columns that all files have, as many text bytes as the longest.

    Raises
    ------
    InputError
        When no file is given, or bands or zero points differ.
    ProductError
        When a file is missing or damaged.
    """
    if not paths:
        raise InputError("no matched catalogue is given", remedy="name the files of the match block")
    tables, cards = [], []
    for path in paths:
        header = read_header(path, 1)
        if "BANDS" not in header or "MAGZERO" not in header:
            raise ProductError("this is no matched catalogue", file=path, remedy="make it again (mode 1024)")
        cards.append((str(header["BANDS"]).strip(), float(header["MAGZERO"])))
        if cards[-1] != cards[0]:
            raise InputError(f"bands or zero point differ from those of {paths[0]}", file=path)
        tables.append(read_table(path))
    names = [name for name in tables[0].dtype.names or () if all(name in (t.dtype.names or ()) for t in tables)]
    dtype = [
        (name, np.result_type(*(t.dtype[name].base for t in tables)), tables[0].dtype[name].shape) for name in names
    ]
    rows = np.zeros(sum(len(table) for table in tables), dtype=dtype)
    start = 0
    for table in tables:
        for name in names:
            rows[name][start : start + len(table)] = table[name]
        start += len(table)
    more = tuple(Variable(name, np.asarray(values, float), unit) for name, (values, unit) in (extra or {}).items())
    return Matched(rows, tuple(cards[0][0].split(",")), cards[0][1], more)
