"""What the objects of a fitted catalogue look like in any stamp."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from balrogutils.errors import ProductError
from balrogutils.fitsfile import read_table
from balrogutils.fitting.gaussians import WINDOW
from balrogutils.fitting.mixture import covariance
from balrogutils.fitting.mixturekernels import render_table
from balrogutils.fitting.models import Components, composite, model
from balrogutils.fitting.observation import LocalWCS
from balrogutils.measurement.catalogue import with_band_axis

__all__ = ["LightModels"]

F64 = NDArray[np.float64]


class LightModels:
    """The models of a catalogue of fits, to be drawn.

    Parameters
    ----------
    path : path-like
        Catalogue with ``model_fits`` and ``meta_data``.

    Raises
    ------
    ProductError
        When it does not say which model it holds.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        rows = read_table(path, "model_fits")
        meta = read_table(path, "meta_data")
        try:
            self.model = _text(meta["model"][0])
            self.bands = tuple(_text(meta["bands"][0]).split(","))
        except ValueError as error:
            raise ProductError("the catalogue does not say its model and bands", file=path) from error
        self.rows = with_band_axis(rows, len(self.bands))
        self.good = self.rows["flags"] == 0
        self._origin = (float(np.mean(self.rows["ra"])), float(np.mean(self.rows["dec"])))
        # Differences of some arcsec: the cosine of each object's own declination is what counts.
        self._places = np.column_stack([self.rows["dec"], self.rows["ra"] * np.cos(np.radians(self.rows["dec"]))])
        self._tree = cKDTree(self._places * 3600.0)
        self._made: dict[int, Components] = {}
        self._index = {int(number): k for k, number in enumerate(self.rows["id"])}

    def index(self, number: int) -> int:
        """Return the row of an object by its id.

        Raises
        ------
        ProductError
            When it is not in the catalogue.
        """
        if number not in self._index:
            raise ProductError(f"object {number} is not in the catalogue of models")
        return self._index[number]

    def near(self, row: int, radius: float) -> NDArray[np.int64]:
        """Return the rows of the other objects within `radius` arcsec of one."""
        found = self._tree.query_ball_point(self._places[row] * 3600.0, radius)
        return np.array(sorted(k for k in found if k != row), np.int64)

    def offset(self, row: int, other: int) -> tuple[float, float]:
        """Return the catalogue position (v, u) of another object relative to one, arcsec: v north, u west."""
        here, there = self.rows[row], self.rows[other]
        north = 3600.0 * float(there["dec"] - here["dec"])
        middle = math.radians(0.5 * float(there["dec"] + here["dec"]))
        return north, -3600.0 * float(there["ra"] - here["ra"]) * math.cos(middle)

    def _components(self, index: int) -> Components:
        # An object is drawn many times: into its own stamps, and those of its neighbours.
        if index not in self._made:
            row = self.rows[index]
            if self.model == "cm":
                made = composite(float(row["cm_fracdev"]), float(row["cm_TdByTe"])).components(np.empty(0))
            else:
                profile = model(self.model)
                made = profile.components(row[f"{self.model}_pars"][5 : 5 + len(profile.extras)])
            self._made[index] = made
        return self._made[index]

    def image(
        self, index: int, band: str, wcs: LocalWCS, psf: F64, shape: tuple[int, int], at: tuple[float, float] = (0, 0)
    ) -> F64:
        """Draw one object into a stamp.

        Parameters
        ----------
        index : int
            Its row; of a good fit.
        band : str
            Band of the stamp.
        wcs : LocalWCS
            Map of the stamp.
        psf : ndarray, shape (npsf, 6)
            PSF mixture, as a star of flux 1 looks there.
        shape : (int, int)
            Rows and columns of the stamp.
        at : (float, float)
            Catalogue position (v, u) of the object, arcsec from the centre of the map.

        Returns
        -------
        ndarray, shape (nrow, ncol)
            In units of the fluxes.
        """
        row = self.rows[index]
        pars = row[f"{self.model}_pars"]
        flux = float(row[f"{self.model}_flux"][self.bands.index(band)])
        made = self._components(index)
        sky = np.array(covariance(float(pars[2]), float(pars[3]), float(pars[4])))
        mixture = np.empty((made.p.size, psf.shape[0], 6))
        mixture[:, :, 0] = flux * made.p[:, None] * psf[None, :, 0]
        mixture[:, :, 1:3] = psf[None, :, 1:3] + pars[:2] + np.asarray(at)
        mixture[:, :, 3:] = made.f[:, None, None] * sky + psf[None, :, 3:]
        image = render_table(mixture.reshape(-1, 6), shape[0], shape[1], np.array(wcs), WINDOW)
        # A size below that of any image has no covariance with some PSF components: then a point.
        if not np.all(np.isfinite(image)):
            mixture[:, :, 3:] = psf[None, :, 3:]
            image = render_table(mixture.reshape(-1, 6), shape[0], shape[1], np.array(wcs), WINDOW)
        return np.asarray(image)


def _text(value: Any) -> str:
    return value.decode("utf-8").strip() if isinstance(value, bytes) else str(value).strip()
