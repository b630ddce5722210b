"""Cut-outs by object and slot, and what is made of them: what a MEDS file and a block of one have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balrogutils.meds import weights
from balrogutils.meds.objects import JACOBIAN, Objects

__all__ = ["Stamps", "split_mosaic"]

Array = NDArray[Any]


def split_mosaic(mosaic: Array) -> list[Array]:
    """Return the square stamps of a mosaic, views into it."""
    box = mosaic.shape[1]
    return [mosaic[top : top + box] for top in range(0, mosaic.shape[0], box)]


class Stamps(ABC):
    """Cut-outs of objects, with the names and arguments of the original reader.

    Stamps are numbered from 0, the coadd's; a stamp is an array ``[row, col]``. Everything refuses an object or cut-out
    that is not there with `NoSuchCutout`. An object without cut-outs has empty lists, and mosaics of no rows.

    Attributes
    ----------
    objects : Objects
        The table.
    """

    objects: Objects

    @abstractmethod
    def get_cutout(self, iobj: int, icutout: int, type: str = "image") -> Array:
        """Return one stamp, shape (box, box), or for ``psf`` its own."""

    @abstractmethod
    def get_mosaic(self, iobj: int, type: str = "image") -> Array:
        """Return all stamps of an object below each other, shape (ncutout box, box)."""

    @property
    def size(self) -> int:
        """Number of objects of the file."""
        return self.objects.size

    def _slots(self, iobj: int) -> range:
        return range(self.objects.cutouts(iobj))

    # pixels

    def get_cutout_list(self, iobj: int, type: str = "image") -> list[Array]:
        """Return the stamps of an object, views into one mosaic."""
        return self.get_psf_list(iobj) if type == "psf" else split_mosaic(self.get_mosaic(iobj, type))

    def get_psf(self, iobj: int, icutout: int) -> Array:
        """Return the PSF stamp of a cut-out."""
        return self.get_cutout(iobj, icutout, "psf")

    def get_psf_list(self, iobj: int) -> list[Array]:
        """Return the PSF stamps of an object."""
        return [self.get_psf(iobj, icutout) for icutout in self._slots(iobj)]

    # geometry

    def get_number(self, iobj: int) -> int:
        """Return the object's label in the coadd segmentation; the row number + 1 in files without a number column."""
        return self.objects.number(iobj)

    def get_cutout_rowcol(self, iobj: int, icutout: int) -> tuple[float, float]:
        """Return the object's position in a stamp, zero-offset."""
        return self.objects.rowcol(iobj, icutout)

    def get_psf_rowcol(self, iobj: int, icutout: int) -> tuple[float, float]:
        """Return the PSF's centre in its stamp; the middle of the stamp in files that do not say."""
        return self.objects.psf_rowcol(iobj, icutout)

    def get_jacobian(self, iobj: int, icutout: int) -> dict[str, float]:
        """Return ``row0 col0 dudrow dudcol dvdrow dvdcol`` of a cut-out, the derivatives in arcsec per pixel."""
        row, col = self.objects.rowcol(iobj, icutout)
        values = self.objects.jacobian(iobj, icutout).ravel().tolist()
        return {"row0": row, "col0": col, **dict(zip(JACOBIAN, values, strict=True))}

    def get_jacobian_matrix(self, iobj: int, icutout: int) -> NDArray[np.float64]:
        """Return ``[[dudrow, dudcol], [dvdrow, dvdcol]]``."""
        return self.objects.jacobian(iobj, icutout)

    def get_jacobian_list(self, iobj: int) -> list[dict[str, float]]:
        """Return the Jacobians of an object."""
        return [self.get_jacobian(iobj, icutout) for icutout in self._slots(iobj)]

    # derived weights

    def _map(self, iobj: int, icutout: int) -> weights.Map:
        return (self.objects.jacobian(iobj, icutout), *self.objects.rowcol(iobj, icutout))

    def _maps(self, iobj: int, icutout: int) -> tuple[Array, weights.Map, weights.Map]:
        return self.get_cutout(iobj, 0, "seg"), self._map(iobj, 0), self._map(iobj, icutout)

    def interpolate_coadd_seg(self, iobj: int, icutout: int) -> Array:
        """Return the coadd's segmentation as a cut-out's pixels see it; zero where the coadd's Jacobian is singular."""
        box = self.objects.box(iobj)
        mapped = weights.map_coadd_seg(*self._maps(iobj, icutout), (box, box))
        return np.zeros((box, box), np.int32) if mapped is None else mapped

    def interpolate_coadd_seg_mosaic(self, iobj: int) -> Array:
        """Return `interpolate_coadd_seg` of all cut-outs as a mosaic."""
        return self._mosaic(iobj, [self.interpolate_coadd_seg(iobj, k) for k in self._slots(iobj)], np.int32)

    def _mosaic(self, iobj: int, stamps: list[Array], dtype: Any) -> Array:
        return np.vstack(stamps) if stamps else np.empty((0, self.objects.box(iobj)), dtype)

    def get_cweight_cutout(self, iobj: int, icutout: int, restrict_to_seg: bool = False) -> Array:
        """Return the weight with pixels of other objects of the coadd segmentation zeroed."""
        weight = self.get_cutout(iobj, icutout, "weight")
        return weights.coadd_weight(weight, *self._maps(iobj, icutout), restrict_to_seg=restrict_to_seg)

    def get_cweight_mosaic(self, iobj: int, restrict_to_seg: bool = False) -> Array:
        """Return `get_cweight_cutout` of all cut-outs as a mosaic."""
        return self._mosaic(iobj, self.get_cweight_cutout_list(iobj, restrict_to_seg), np.float32)

    def get_cweight_cutout_list(self, iobj: int, restrict_to_seg: bool = False) -> list[Array]:
        """Return `get_cweight_cutout` of every cut-out."""
        return [self.get_cweight_cutout(iobj, icutout, restrict_to_seg) for icutout in self._slots(iobj)]

    def get_uberseg(self, iobj: int, icutout: int, fast: bool = True) -> Array:
        """Return the weight with every pixel zeroed that is nearer to another object.

        Parameters
        ----------
        iobj, icutout : int
            Row of the object and slot.
        fast : bool
            Without effect: the original reader chooses between two implementations with it.
        """
        weight = self.get_cutout(iobj, icutout, "weight")
        return weights.uberseg(weight, *self._maps(iobj, icutout), self.get_number(iobj))

    def get_uberseg_list(self, iobj: int, fast: bool = True) -> list[Array]:
        """Return `get_uberseg` of every cut-out, made in one pass."""
        count, box = self.objects.cutouts(iobj), self.objects.box(iobj)
        if count == 0:
            return []
        weight = self.get_mosaic(iobj, "weight").reshape(count, box, box)
        maps = (self.objects.jacobians(iobj), *self.objects.centres(iobj))
        coadd = (maps[0][0], float(maps[1][0]), float(maps[2][0]))
        return list(weights.uberseg_list(weight, self.get_cutout(iobj, 0, "seg"), coadd, maps, self.get_number(iobj)))

    # The original reader has these names too; the maps are the same.
    get_cweight_cutout_nearest = get_uberseg
    get_cweight_cutout_nearest_list = get_uberseg_list

    def get_cseg_cutout(self, iobj: int, icutout: int, restrict_to_seg: bool = False) -> Array:
        """Return the object's number where the cweight rule keeps the weight, 0 elsewhere."""
        box, number = self.objects.box(iobj), self.get_number(iobj)
        return weights.composite_seg((box, box), number, *self._maps(iobj, icutout), restrict_to_seg=restrict_to_seg)

    def get_cseg_mosaic(self, iobj: int) -> Array:
        """Return `get_cseg_cutout` of all cut-outs as a mosaic."""
        return self._mosaic(iobj, self.get_cseg_cutout_list(iobj), np.int32)

    def get_cseg_cutout_list(self, iobj: int) -> list[Array]:
        """Return `get_cseg_cutout` of every cut-out."""
        return [self.get_cseg_cutout(iobj, icutout) for icutout in self._slots(iobj)]

    def get_cseg_weight(self, iobj: int, icutout: int, use_canonical_cen: bool = False) -> Array:
        """Return the weight inside the largest circle that no other object of the cut-out's own seg enters."""
        weight, seg = (self.get_cutout(iobj, icutout, kind) for kind in ("weight", "seg"))
        return weights.own_weight(weight, seg, *self.get_cutout_rowcol(iobj, icutout), canonical=use_canonical_cen)
