"""Piff models of one CCD: read, evaluate at a position and a colour of its image.

Piff (Jarvis et al. 2021) keeps a PSF as a grid of values on the sky, each a polynomial in position and, perhaps, in
colour. Its files are read here without the Piff library, which comes with 170 MB of others and takes seconds to import,
and without the WCS in the file, which is a pickled object of another library: the image's own takes its place.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fitsio
import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import ProductError

if TYPE_CHECKING:
    import galsim

    from balrogutils.wcs import ImageWCS

__all__ = ["ChipPiff", "Piff"]

_PLACE = ("u", "v", "x", "y")
# Files of the versions that did not write theirs.
_INTERPOLANT = "Lanczos(3)"
# Those of GalSim, and taps and orders that no model has more of.
_OTHERS = ("delta", "nearest", "sinc", "linear", "cubic", "quintic")
_TAPS, _ORDER = 30, 30


@dataclass(frozen=True)
class Piff:
    """A Piff model: a ``PixelGrid`` with ``BasisPolynomial`` or ``Mean`` interpolation, as all of DES.

    Attributes
    ----------
    solution : ndarray of float64, shape (n * n, n_terms)
        Coefficients of every grid value, v rows first.
    powers : ndarray of int64, shape (n_terms, n_keys)
        Exponent of each key in each term.
    keys : tuple of str
        What the polynomial is of: ``u`` (west), ``v`` (north) in arcsec on the tangent plane at `pointing`, ``x``,
        ``y`` in one-offset pixels, and at most one more, the colour.
    size : int
        n.
    scale : float
        arcsec between grid values.
    interpolant : str
        Name of GalSim's interpolant between them.
    pointing : tuple of float
        RA, Dec in degrees of the tangent point.
    color_range : tuple of float
        Smallest and largest colour of the stars that were fitted; a colour beyond is taken there.
    """

    solution: NDArray[np.float64]
    powers: NDArray[np.int64]
    keys: tuple[str, ...]
    size: int
    scale: float
    interpolant: str
    pointing: tuple[float, float]
    color_range: tuple[float, float] = (-np.inf, np.inf)

    @property
    def color_key(self) -> str | None:
        """Name of the colour, for example ``GI_COLOR``; None when the PSF is the same for all."""
        return next((key for key in self.keys if key not in _PLACE), None)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Piff:
        """Read a file as Piff writes it, of one CCD.

        Raises
        ------
        ProductError
            When the file is missing, damaged, no Piff model or one of another kind.
        """
        file = Path(path)
        if not file.is_file():
            raise ProductError("a PSF model is not there", file=file)
        try:
            with fitsio.FITS(str(file)) as fits:
                found = _read(fits)
        except OSError as error:
            raise ProductError(f"not a Piff model: {str(error).strip().partition(chr(10))[0]}", file=file) from error
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise ProductError(f"not a Piff model of one CCD as they are known here: {error}", file=file) from error
        sound = np.isfinite(found.solution).all() and 0 < found.scale < np.inf and found.size > 0
        sound = sound and np.isfinite(found.pointing).all() and abs(found.pointing[1]) <= 90
        if not sound or found.solution.shape != (found.size**2, len(found.powers)):
            raise ProductError(
                f"a damaged Piff model: {found.solution.shape} for {found.size} x {found.size} values and "
                f"{len(found.powers)} terms, or values that are no PSF",
                file=file,
            )
        return found

    def on(self, wcs: ImageWCS, shape: tuple[int, int]) -> ChipPiff:
        """Return the model in the pixels of its image, which has some rows and columns."""
        import galsim

        middle = galsim.PositionD(0.5 * (shape[1] + 1), 0.5 * (shape[0] + 1))
        pixels = np.abs(np.linalg.inv(wcs.galsim.local(image_pos=middle).getMatrix())).sum(axis=1).max()
        half = (0.5 * self.size + _interpolant(self.interpolant).xrange) * self.scale
        return ChipPiff(self, wcs, float(half * pixels))

    def grid(self, values: dict[str, float]) -> NDArray[np.float64]:
        """Return the model on its own grid, shape (n, n), at a value of each of its keys."""
        point = np.array([values[key] for key in self.keys], dtype=float)
        return (self.solution @ np.prod(point**self.powers, axis=1)).reshape(self.size, self.size)


@dataclass(frozen=True)
class ChipPiff:
    """A Piff model on its image, for objects of one colour; what drawing asks of a PSF.

    Attributes
    ----------
    model : Piff
        The model.
    wcs : ImageWCS
        WCS of the image.
    reach : float
        Half the side of a square of image pixels that holds the model, with the taps of its interpolant.
    color : float or None
        Colour of the object; of no meaning to a model without.
    """

    model: Piff
    wcs: ImageWCS
    reach: float
    color: float | None = None

    def seen(self, color: float) -> ChipPiff:
        """Return the PSF of an object of some colour."""
        return replace(self, color=color)

    def profile(self, row: float, col: float) -> galsim.GSObject:
        """Return the PSF at a zero-offset position, in image-pixel coordinates, of flux 1, the pixel included.

        Raises
        ------
        ValueError
            When the model needs a colour and has none.
        """
        import galsim

        model = self.model
        where = galsim.PositionD(col + 1.0, row + 1.0)
        values = {"x": col + 1.0, "y": row + 1.0}
        if not values.keys() >= set(model.keys):
            ra, dec = model.pointing
            tangent = galsim.CelestialCoord(ra * galsim.degrees, dec * galsim.degrees)
            u, v = tangent.project(self.wcs.galsim.toWorld(where))
            values |= {"u": u / galsim.arcsec, "v": v / galsim.arcsec}
        if model.color_key is not None:
            if self.color is None:
                raise ValueError(f"the PSF depends on {model.color_key}")
            values[model.color_key] = float(np.clip(self.color, *model.color_range))
        image = galsim.Image(np.ascontiguousarray(model.grid(values)), scale=model.scale)
        # Piff's grid has a value at its centre, also where its side is even.
        on_sky = galsim.InterpolatedImage(
            image, x_interpolant=_interpolant(model.interpolant), use_true_center=False, flux=1.0
        )
        return self.wcs.galsim.local(image_pos=where).profileToImage(on_sky)


def _interpolant(name: str) -> galsim.Interpolant:
    import galsim

    lanczos = re.fullmatch(r"Lanczos\((\d+)(?:, (True|False))?\)", name)
    if lanczos:
        return galsim.Lanczos(int(lanczos[1]), conserve_dc=lanczos[2] != "False")
    return galsim.Interpolant.from_name(name.lower())


def _known(name: str) -> bool:
    lanczos = re.match(r"Lanczos\((\d+)", name)
    return 0 < int(lanczos[1]) <= _TAPS if lanczos else name.lower() in _OTHERS


def _read(fits: fitsio.FITS) -> Piff:
    kinds = {name: _text(_value(fits, name, "type")) for name in ("psf", "psf_model", "psf_interp")}
    wanted = {"psf": ("Simple",), "psf_model": ("PixelGrid",), "psf_interp": ("BasisPolynomial", "Mean")}
    for name, kind in kinds.items():
        if (kind.removesuffix("PSF") if name == "psf" else kind) not in wanted[name]:
            raise ValueError(f"its {name} is {kind}, and only {' and '.join(wanted[name])} can be used")
    size, scale = int(_value(fits, "psf_model", "size")), float(_value(fits, "psf_model", "scale"))
    rows = fits["psf_interp_solution"].read()
    keys: tuple[str, ...]
    if kinds["psf_interp"] == "Mean":
        keys, powers = ("u", "v"), np.zeros((1, 2), dtype=np.int64)
        solution = np.asarray(rows["mean"], dtype=np.float64).reshape(-1, 1)
    else:
        keys, powers = _terms(fits)
        solution = np.asarray(rows["q"][0], dtype=np.float64)
    named = [key for key in keys if key not in _PLACE]
    if len(named) > 1:
        raise ValueError(f"it depends on {', '.join(named)}, and only one colour can be used")
    # The WCS beside them is a pickle, which is left alone.
    pointing = float(_value(fits, "psf_wcs", "ra")) * 15.0, float(_value(fits, "psf_wcs", "dec"))
    colors = np.asarray(fits["psf_stars"][named[0]].read()) if named else np.array([-np.inf, np.inf])
    name = _text(_value(fits, "psf_model", "interp", _INTERPOLANT))
    short = re.match(r"(?:galsim\.)?(\w+)\((?:(\d+)(, (?:True|False))?)?", name)
    if short is None:
        raise ValueError(f"its interpolant is {name}")
    interpolant = f"Lanczos({short[2]}{short[3] or ''})" if short[1] == "Lanczos" else short[1]
    if not _known(interpolant):
        raise ValueError(f"its interpolant is {name}")
    span = float(np.min(colors)), float(np.max(colors))
    return Piff(_whole(solution, size, scale), powers, keys, size, scale, interpolant, pointing, span)


def _terms(fits: fitsio.FITS) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the keys of a polynomial and the exponents of its terms, the last key's fastest."""
    given = _value(fits, "psf_interp", "keys", np.array(["u", "v"]))
    keys = tuple(_text(key) for key in given)
    orders = np.broadcast_to(np.asarray(_value(fits, "psf_interp", "order"), dtype=np.int64), len(keys))
    if not 0 <= orders.min() <= orders.max() <= _ORDER:
        raise ValueError(f"its polynomial is of order {orders.max()}")
    most = _value(fits, "psf_interp", "max_order", None)
    total = int(orders.max() if most is None else most)
    powers = np.stack(np.meshgrid(*(np.arange(order + 1) for order in orders), indexing="ij"), axis=-1)
    powers = powers.reshape(-1, len(keys))
    return keys, powers[powers.sum(axis=1) <= total]


def _whole(solution: NDArray[np.float64], size: int, scale: float) -> NDArray[np.float64]:
    """Return the coefficients of all grid values.

    Old files leave out the middle one and, with the centroid forced, the next ones in v and u: these follow from the
    sum of the surface brightness over the grid, 1 / scale^2, and from the first moments, 0.
    """
    if size**2 - len(solution) not in (1, 3):
        return solution
    middle = size // 2
    first, up, right = (middle, middle), (middle + 1, middle), (middle, middle + 1)
    left_out = (first, up, right) if size**2 - len(solution) == 3 else (first,)
    given = np.ones((size, size), dtype=bool)
    given[tuple(np.transpose(left_out))] = False
    whole = np.zeros((size, size, solution.shape[1]))
    whole[given] = solution
    away = np.arange(size) - middle
    if up in left_out:
        whole[up] = -np.einsum("i,ijk->k", away, whole)
        whole[right] = -np.einsum("j,ijk->k", away, whole)
    # The sum is that of a surface brightness: only the constant term has one.
    total = np.zeros(solution.shape[1])
    total[0] = 1.0 / scale**2
    whole[first] = total - whole.sum(axis=(0, 1))
    return whole.reshape(size**2, -1)


def _value(fits: fitsio.FITS, extension: str, column: str, *default: Any) -> Any:
    """Return the one value of a column."""
    table = fits[extension]
    if column not in table.get_colnames():
        if default:
            return default[0]
        raise ValueError(f"its table {extension} has no {column}")
    return table[column].read()[0]


def _text(value: Any) -> str:
    return (value.decode() if isinstance(value, bytes) else str(value)).strip()
