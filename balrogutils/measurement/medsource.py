"""Objects to fit from MEDS files, one file a band."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import ProductError
from balrogutils.fitting.observation import LocalWCS, Observation, PSFStamp
from balrogutils.measurement.target import Coadd, Epoch, Target
from balrogutils.meds import MEDS
from balrogutils.meds.reader import ObjectBlock
from balrogutils.meds.weights import coadd_weight, uberseg_list

__all__ = ["MedsSource"]

_BLOCK = 25


class MedsSource:
    """The objects of one tile in all bands.

    Parameters
    ----------
    paths : mapping of str to path-like
        MEDS file of each band, in the order of the fit.
    region : {"cweight-nearest", "seg_and_sky", "weight"}
        Which weights are made beside the plain ones: uberseg, those without the pixels of other objects, or none.

    Raises
    ------
    ProductError
        When a file is missing or lacks PSF stamps, or the bands do not hold the same objects.
    """

    def __init__(self, paths: Mapping[str, str | os.PathLike[str]], *, region: str = "weight") -> None:
        self.region = region
        self.meds: dict[str, MEDS] = {}
        try:
            for band, path in paths.items():
                self.meds[band] = MEDS(path)
            self._check()
        except BaseException:
            self.close()
            raise

    def _check(self) -> None:
        reference: MEDS | None = None
        for band, meds in self.meds.items():
            if not meds.has_psf():
                raise ProductError(
                    "a MEDS file has no PSF stamps", band=band, file=meds.path, remedy="run block 4 again"
                )
            if reference is None:
                reference = meds
                if len(np.unique(meds["id"])) != meds.size:
                    raise ProductError(
                        "a MEDS file holds an id twice", band=band, file=meds.path, remedy="run block 4 again"
                    )
            # Box sizes may differ: they follow the size of the object in each band.
            if meds.size != reference.size or not np.array_equal(meds["id"], reference["id"]):
                raise ProductError(
                    f"the ids are not those of {reference.path}",
                    band=band,
                    file=meds.path,
                    remedy="run block 4 again for all bands",
                )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all files."""
        for meds in self.meds.values():
            meds.close()

    @property
    def size(self) -> int:
        """Number of objects."""
        return next(iter(self.meds.values())).size

    def targets(self, first: int, last: int) -> Iterator[Target]:
        """Yield objects `first` to `last`, both included, in order; a few tens of objects are held at a time."""
        for start in range(first, last + 1, _BLOCK):
            stop = min(start + _BLOCK, last + 1)
            blocks = {}
            for band, meds in self.meds.items():
                planes = [kind for kind in ("image", "weight", "bmask", "seg", "psf") if kind in meds.types]
                blocks[band] = meds.read_objects(start, stop, planes)
            for index in range(start, stop):
                yield self._target(index, blocks)

    def _target(self, index: int, blocks: dict[str, ObjectBlock]) -> Target:
        meds = next(iter(self.meds.values()))
        return Target(
            id=int(meds["id"][index]),
            number=meds.get_number(index),
            ra=float(meds["ra"][index]),
            dec=float(meds["dec"][index]),
            box_size=max(int(one["box_size"][index]) for one in self.meds.values()),
            bands=tuple(self._epochs(self.meds[band], block, index) for band, block in blocks.items()),
            coadds=tuple(self._coadd(one, index) for one in self.meds.values()),
        )

    @staticmethod
    def _coadd(meds: MEDS, index: int) -> Coadd:
        side = int(meds["box_size"][index])
        if int(meds["ncutout"][index]) == 0:
            return Coadd(LocalWCS(0.0, 0.0, 1.0, 0.0, 0.0, 1.0), (0, 0))
        return Coadd(LocalWCS.from_meds(meds.get_jacobian(index, 0)), (side, side))

    def _regions(self, meds: MEDS, block: ObjectBlock, index: int, slots: range) -> list[NDArray[Any] | None]:
        if self.region == "weight" or "seg" not in block.pixels or not slots:
            return [None] * len(slots)
        seg = block.stamp(index, 0, "seg")
        coadd = (meds.get_jacobian_matrix(index, 0), *meds.get_cutout_rowcol(index, 0))
        weights = [block.stamp(index, slot, "weight") for slot in slots]
        maps = [(meds.get_jacobian_matrix(index, slot), *meds.get_cutout_rowcol(index, slot)) for slot in slots]
        if self.region == "seg_and_sky":
            return [coadd_weight(weight, seg, coadd, one) for weight, one in zip(weights, maps, strict=True)]
        jacobians, rows, cols = (np.array(part) for part in zip(*maps, strict=True))
        return list(uberseg_list(np.array(weights), seg, coadd, (jacobians, rows, cols), meds.get_number(index)))

    def _epochs(self, meds: MEDS, block: ObjectBlock, index: int) -> tuple[Epoch, ...]:
        slots = range(1, int(meds["ncutout"][index]))
        regions = self._regions(meds, block, index, slots)
        return tuple(self._epoch(meds, block, index, slot, region) for slot, region in zip(slots, regions, strict=True))

    @staticmethod
    def _epoch(meds: MEDS, block: ObjectBlock, index: int, slot: int, region: NDArray[Any] | None) -> Epoch:
        info = meds.get_source_info(index, slot)
        row, col = meds.get_psf_rowcol(index, slot)
        observation = Observation(
            image=block.stamp(index, slot, "image"),
            weight=block.stamp(index, slot, "weight"),
            wcs=LocalWCS.from_meds(meds.get_jacobian(index, slot)),
            psf=PSFStamp(block.stamp(index, slot, "psf"), row, col),
            bmask=block.stamp(index, slot, "bmask") if "bmask" in block.pixels else None,
            region=region,
            flags=int(info["image_flags"]),
            seg=block.stamp(index, slot, "seg") if "seg" in block.pixels else None,
        )
        return Epoch(
            observation=observation,
            cutout_index=slot,
            file_id=int(meds["file_id"][index, slot]),
            orig_row=float(meds["orig_row"][index, slot]),
            orig_col=float(meds["orig_col"][index, slot]),
            image_id=_text(info["image_id"]),
        )


def _text(value: Any) -> str:
    return value.decode("utf-8").strip() if isinstance(value, bytes) else str(value)
