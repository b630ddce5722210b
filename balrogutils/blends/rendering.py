"""The fitted scene of a tile drawn anew from its catalogue: the light of all good fits on the coadd."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import ProductError
from balrogutils.fitting.gaussians import STRIDE, WINDOW
from balrogutils.fitting.mixture import convolve
from balrogutils.fitting.mixturekernels import render_table
from balrogutils.fitting.models import Model, composite, model
from balrogutils.fitting.observation import LocalWCS, PSFStamp
from balrogutils.fitting.psffit import PSFOptions, fit_psf, psf_is_usable
from balrogutils.measurement.catalogue import Rows
from balrogutils.meds import MEDS

__all__ = ["add_source", "draw_catalogue", "draw_fit", "profile_of"]

F64 = NDArray[np.float64]


def profile_of(row: Rows, name: str) -> tuple[Model, F64]:
    """Return the model of a catalogue row and its parameters but the fluxes.

    Parameters
    ----------
    row : structured ndarray, one row
        A good fit of ``model_fits``.
    name : str
        The model of the run.
    """
    one = composite(float(row["cm_fracdev"]), float(row["cm_TdByTe"])) if name == "cm" else model(name)
    return one, np.array(row[f"{name}_pars"][: len(one.names)], np.float64)


def add_source(image: NDArray[np.floating], profile: Model, shape: F64, flux: float, wcs: LocalWCS, psf: F64) -> bool:
    """Add one source to an image; returns whether any of its light is there.

    Parameters
    ----------
    image : ndarray, shape (nrow, ncol)
        Changed in place.
    profile, shape : Model, ndarray
        Model and its parameters but the fluxes.
    flux : float
        Flux.
    wcs : LocalWCS
        Map around the position of the catalogue, in pixels of the image.
    psf : ndarray, shape (npsf, 6)
        PSF mixture of a star of flux 1.
    """
    if profile.point:
        table = np.array(psf, float)
        table[:, 1:3] += shape[:2]
        table[:, 0] *= flux
    else:
        # Of a star of flux 1 the mixture need not have flux 1.
        amount = flux * float(psf[:, 0].sum())
        table = convolve([*shape[:5], amount], profile.profile(shape[5:]), psf)
    widest = math.sqrt(float(WINDOW[0]) * float((table[:, 3] + table[:, 5]).max())) / wcs.scale
    half = int(min(math.ceil(widest) + 2, STRIDE // 2 - 1))
    det = wcs.determinant
    row = wcs.row0 + (wcs.dudcol * shape[0] - wcs.dvdcol * shape[1]) / det
    col = wcs.col0 + (wcs.dvdrow * shape[1] - wcs.dudrow * shape[0]) / det
    top, left = max(int(row) - half, 0), max(int(col) - half, 0)
    bottom, right = min(int(row) + half + 1, image.shape[0]), min(int(col) + half + 1, image.shape[1])
    if bottom <= top or right <= left:
        return False
    here = wcs.at(wcs.row0 - top, wcs.col0 - left)
    light = render_table(table, bottom - top, right - left, np.array(here), WINDOW)
    if not np.all(np.isfinite(light)):
        return False
    image[top:bottom, left:right] += light
    return True


def draw_fit(
    image: F64, row: Rows, name: str, band: int, meds: MEDS, index: int, corner: tuple[float, float] = (0.0, 0.0)
) -> bool:
    """Draw one good fit on a coadd or a part of it.

    Parameters
    ----------
    image : ndarray, shape (nrow, ncol)
        Changed in place.
    row : structured ndarray, one row
        Of ``model_fits``.
    name : str
        The model of the run.
    band : int
        Place of the band among the fluxes.
    meds : MEDS
        The MEDS file of the band: position, map and PSF of the coadd.
    index : int
        The object in it.
    corner : (float, float)
        Row and column of the coadd at which `image` begins.

    Returns
    -------
    bool
        Whether any of its light is there; it is not without a cutout, or where the PSF cannot be fitted.
    """
    if int(meds["ncutout"][index]) == 0:
        return False
    position = float(meds["orig_row"][index, 0]) - corner[0], float(meds["orig_col"][index, 0]) - corner[1]
    wcs = LocalWCS.from_meds(meds.get_jacobian(index, 0)).at(*position)
    stamp = PSFStamp(meds.get_psf(index, 0), *meds.get_psf_rowcol(index, 0))
    psf = fit_psf(stamp, wcs, PSFOptions()) if psf_is_usable(stamp) else None
    if psf is None or psf.flags:
        return False
    profile, pars = profile_of(row, name)
    return add_source(image, profile, pars, float(row[f"{name}_flux"][band]), wcs, psf.mixture)


def draw_catalogue(shape: tuple[int, int], rows: Rows, name: str, band: int, meds: MEDS) -> tuple[F64, int]:
    """Draw all good fits of a catalogue on the coadd of one band.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns of the coadd.
    rows : structured ndarray
        ``model_fits``, with the objects of `meds`.
    name : str
        The model of the run.
    band : int
        Place of the band among the fluxes.
    meds : MEDS
        The MEDS file of the band: positions, maps and PSFs of the coadd.

    Returns
    -------
    (ndarray, int)
        The image, and how many objects are in it.

    Raises
    ------
    ProductError
        When the file does not hold an object of the catalogue.
    """
    image = np.zeros(shape)
    place = {int(label): index for index, label in enumerate(meds["id"])}
    drawn = 0
    for row in rows[rows["flags"] == 0]:
        index = place.get(int(row["id"]))
        if index is None:
            raise ProductError(f"there is no object {int(row['id'])}", file=meds.path, remedy="make the fits again")
        drawn += draw_fit(image, row, name, band, meds, index)
    return image, drawn
