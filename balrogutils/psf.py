"""PSFEx models: read, evaluate as stamps, write."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fitsio
import numpy as np
from numpy.typing import ArrayLike, NDArray

from balrogutils.errors import ProductError
from balrogutils.products import writing

if TYPE_CHECKING:
    import galsim

__all__ = ["PSFEx"]

_ODD_MINIMUM = 3


@dataclass(frozen=True)
class PSFEx:
    """A PSFEx model of one image.

    Attributes
    ----------
    masks : ndarray of float64, shape (n_basis, n, n)
        Basis images, one for every polynomial term.
    degree : int
        Polynomial degree in position; 0 for a constant PSF.
    zero, scale : tuple of float
        POLZERO and POLSCAL of (x, y), one-offset pixels.
    sampling : float
        Image pixels per basis pixel (PSF_SAMP).
    fwhm : float
        Full width at half maximum in image pixels (PSF_FWHM).
    """

    masks: NDArray[np.float64]
    degree: int
    zero: tuple[float, float]
    scale: tuple[float, float]
    sampling: float
    fwhm: float

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> PSFEx:
        """Read a file as PSFEx writes it.

        Raises
        ------
        ProductError
            When the file is missing, damaged or not a PSFEx model.
        """
        file = Path(path)
        if not file.is_file():
            raise ProductError("a PSF model is not there", file=file)
        try:
            with fitsio.FITS(str(file)) as fits:
                header = fits[1].read_header()
                rows = fits[1].read()
            masks = np.asarray(rows["PSF_MASK"][0], dtype=np.float64)
            degree = int(header["POLDEG1"]) if int(header["POLNAXIS"]) else 0
            zero = tuple(float(header[f"POLZERO{i}"]) for i in (1, 2)) if degree else (0.0, 0.0)
            scale = tuple(float(header[f"POLSCAL{i}"]) for i in (1, 2)) if degree else (1.0, 1.0)
            sampling, fwhm = float(header["PSF_SAMP"]), float(header["PSF_FWHM"])
        except OSError as error:
            raise ProductError(f"not a PSFEx model: {str(error).strip().partition(chr(10))[0]}", file=file) from error
        except (KeyError, ValueError, TypeError, IndexError) as error:
            text = "not a PSFEx model: no table with PSF_MASK and the cards of its polynomial"
            raise ProductError(text, file=file) from error
        sound = np.isfinite([*zero, *scale, sampling, fwhm]).all() and sampling > 0 and all(scale) and degree >= 0
        if not sound:
            raise ProductError("a damaged PSFEx model: its cards say what no model has", file=file)
        terms = (degree + 1) * (degree + 2) // 2
        if masks.ndim != 3 or len(masks) != terms or not np.isfinite(masks).all() or masks[0].sum() <= 0:
            raise ProductError(
                f"a damaged PSFEx model: {masks.shape} for degree {degree}, or values that are no PSF", file=file
            )
        return cls(masks, degree, (zero[0], zero[1]), (scale[0], scale[1]), sampling, fwhm)

    def write(self, path: str | os.PathLike[str], stars: int = 0, chi2: float = 1.0) -> None:
        """Write the model as PSFEx does, so that every reader of ``.psf`` files opens it."""
        rows = np.zeros(1, dtype=[("PSF_MASK", "f4", self.masks.shape)])
        rows["PSF_MASK"][0] = self.masks
        # A constant model keeps its two axes with degree 0, since galsim.des.DES_PSFEx refuses POLNAXIS 0.
        polynomial: list[dict[str, object]] = [{"name": "POLNAXIS", "value": 2}]
        for axis, name in ((1, "X_IMAGE"), (2, "Y_IMAGE")):
            polynomial += [
                {"name": f"POLGRP{axis}", "value": 1},
                {"name": f"POLNAME{axis}", "value": name},
                {"name": f"POLZERO{axis}", "value": self.zero[axis - 1]},
                {"name": f"POLSCAL{axis}", "value": self.scale[axis - 1]},
            ]
        polynomial += [{"name": "POLNGRP", "value": 1}, {"name": "POLDEG1", "value": self.degree}]
        count, rows_n, cols_n = self.masks.shape
        cards = [
            {"name": "LOADED", "value": stars},
            {"name": "ACCEPTED", "value": stars},
            {"name": "CHI2", "value": chi2},
            *polynomial,
            {"name": "PSF_FWHM", "value": self.fwhm},
            {"name": "PSF_SAMP", "value": self.sampling},
            {"name": "PSFNAXIS", "value": 3},
            {"name": "PSFAXIS1", "value": cols_n},
            {"name": "PSFAXIS2", "value": rows_n},
            {"name": "PSFAXIS3", "value": count},
        ]
        with writing(path) as part, fitsio.FITS(str(part), "rw", clobber=True) as fits:
            fits.write_table(rows, extname="PSF_DATA", header=cards)
            fits[-1].write_checksum()

    def _basis(self, row: Any, col: Any) -> NDArray[np.float64]:
        """Return the polynomial terms at zero-offset positions, terms first, in PSFEx order (x powers fastest)."""
        x = (col + 1.0 - self.zero[0]) / self.scale[0]
        y = (row + 1.0 - self.zero[1]) / self.scale[1]
        return np.array([x**nx * y**ny for ny in range(self.degree + 1) for nx in range(self.degree + 1 - ny)])

    def grid(self, row: float, col: float) -> NDArray[np.float64]:
        """Return the model on its own grid at a zero-offset image position, shape (n, n)."""
        return np.tensordot(self._basis(row, col), self.masks, axes=1)

    @property
    def reach(self) -> float:
        """Half the side of the model in image pixels, with the three taps that Lanczos interpolation adds."""
        return (0.5 * self.masks.shape[-1] + 3.0) * self.sampling

    @property
    def native_size(self) -> int:
        """Odd side in image pixels that holds the whole model."""
        size = int(np.ceil(self.masks.shape[1] * self.sampling))
        return max(size | 1, _ODD_MINIMUM)

    def profile(self, row: float, col: float) -> galsim.InterpolatedImage:
        """Return the PSF in image-pixel coordinates as a GalSim profile of flux 1 that already includes the pixel.

        Notes
        -----
        Lanczos-3 interpolation on the model's grid, the same as `galsim.des.DES_PSFEx`.
        """
        import galsim

        image = galsim.Image(np.ascontiguousarray(self.grid(row, col)), scale=self.sampling)
        return galsim.InterpolatedImage(image, x_interpolant=galsim.Lanczos(3), flux=1.0)

    def stamp(self, row: float, col: float, size: int | None = None) -> NDArray[np.float64]:
        """Return a pixel-integrated stamp centred on its middle pixel.

        Parameters
        ----------
        row, col : float
            Zero-offset position of the object in the image.
        size : int, optional
            Odd side in pixels; the whole model when not given.

        Returns
        -------
        ndarray of float64, shape (size, size)
            Sum 1; the object is at ((size-1)/2, (size-1)/2).

        Raises
        ------
        ValueError
            When `size` is even or too small.
        """
        side = self._side(size)
        image = self.profile(row, col).drawImage(nx=side, ny=side, scale=1.0, method="no_pixel", dtype=float)
        return image.array / image.array.sum()

    def stamps(self, rows: ArrayLike, cols: ArrayLike, size: int | None = None) -> NDArray[np.float64]:
        """Return the stamps of many positions at once, equal to `stamp` within 1e-14 of the peak.

        Parameters
        ----------
        rows, cols : array_like of float, shape (n,)
            Zero-offset positions.
        size : int, optional
            As in `stamp`.

        Returns
        -------
        ndarray of float64, shape (n, size, size)

        Raises
        ------
        ValueError
            As in `stamp`.

        Notes
        -----
        Lanczos interpolation is separable and linear in the model, so every basis image is interpolated once.
        """
        import galsim

        side = self._side(size)
        count = self.masks.shape[1]
        offsets = ((np.arange(side) - (side - 1) / 2) / self.sampling)[:, np.newaxis] - (
            np.arange(count) - (count - 1) / 2
        )
        kernel = np.asarray(galsim.Lanczos(3).xval(offsets.ravel())).reshape(offsets.shape)
        # einsum instead of a matrix product: its order of summation does not depend on the number of cores.
        images = np.einsum("kib,lb->kil", np.einsum("ia,kab->kib", kernel, self.masks), kernel)
        basis = self._basis(np.atleast_1d(np.asarray(rows, float)), np.atleast_1d(np.asarray(cols, float)))
        out = np.einsum("kn,kij->nij", basis, images)
        return out / out.sum(axis=(1, 2), keepdims=True)

    def _side(self, size: int | None) -> int:
        side = self.native_size if size is None else int(size)
        if side % 2 == 0 or side < _ODD_MINIMUM:
            raise ValueError(f"a PSF stamp has an odd side of at least {_ODD_MINIMUM} pixels, not {size}")
        return side
