"""Piff models of a small chip, written as Piff writes them but for the WCS, which nobody reads here."""

import fitsio
import numpy as np
from injection_tile import DEC, RA

SCALE, SIZE = 0.21, 35


def moffat(fwhm):
    """A round Moffat of beta 3.5 on Piff's grid; FWHM in arcsec."""
    y, x = (np.mgrid[:SIZE, :SIZE] - SIZE // 2) * SCALE
    image = (1 + (x**2 + y**2) / (fwhm / 2) ** 2 * (2 ** (1 / 3.5) - 1)) ** -3.5
    return image / image.sum()


def write_piff(path, terms, keys, order, colors=()):
    """Write a model.

    `terms` are the grids of the polynomial's terms, the last key's power fastest; None for `keys` makes the first the
    same everywhere.
    """
    solution = np.array([np.ravel(term) for term in terms]).T
    kind = b"Mean" if keys is None else b"BasisPolynomial"
    interp = {"type": np.array([kind])}
    if keys is not None:
        interp |= {"order": np.array([order]), "keys": np.array([keys], dtype="S8")}
    stars = {"x": np.arange(2.0), "y": np.arange(2.0)} | ({keys[-1]: np.array(colors)} if len(colors) else {})
    model = {"type": np.array([b"PixelGrid"]), "scale": np.array([SCALE]), "size": np.array([SIZE])}
    tables = {
        "psf": {"type": np.array([b"Simple"])},
        "psf_stars": stars,
        "psf_wcs": {"chipnums": np.array([1]), "ra": np.array([RA / 15]), "dec": np.array([DEC])},
        "psf_model": model | {"interp": np.array([b"galsim.Lanczos(3)"])},
        "psf_interp": interp,
        "psf_interp_solution": {"mean": solution[:, 0]} if keys is None else {"q": solution[np.newaxis]},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with fitsio.FITS(str(path), "rw", clobber=True) as fits:
        for name, columns in tables.items():
            fits.write(columns, extname=name)
