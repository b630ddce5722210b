"""Groups of objects from MEDS files, and the neighbours that make them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balrogutils.blends.neighbours import NONE, BoxRule, RadiusRule, join_pairs, seg_pairs
from balrogutils.errors import ConfigError, ProductError
from balrogutils.measurement.medsource import MedsSource
from balrogutils.measurement.target import Target
from balrogutils.meds import MEDS
from balrogutils.meds.weights import map_coadd_seg
from balrogutils.settings.mof import Neighbours

__all__ = ["GroupSource", "Member", "find_pairs"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


@dataclass(frozen=True)
class Member:
    """An object of a group, band by band and epoch by epoch: the first pixel of each stamp in its image, and the
    coadd's labels as the stamp sees them; `offset` is its position (v, u) in arcsec from any point."""

    target: Target
    origins: tuple[tuple[tuple[int, int], ...], ...]
    labels: tuple[tuple[NDArray[np.int32], ...], ...]
    offset: tuple[float, float]


class GroupSource(MedsSource):
    """The groups of one tile in all bands."""

    def numbers(self) -> I64:
        """Return the number of each object, as the segmentation maps have it."""
        meds = next(iter(self.meds.values()))
        return np.array([meds.get_number(index) for index in range(meds.size)], np.int64)

    def group(self, rows: Sequence[int]) -> list[Member]:
        """Return the members of a group, in the order of `rows`."""
        blocks = {}
        for band, meds in self.meds.items():
            planes = [kind for kind in ("image", "weight", "bmask", "seg", "psf") if kind in meds.types]
            blocks[band] = meds.read_rows(rows, planes)
        out = []
        for index in rows:
            origins, labels = [], []
            for band, meds in self.meds.items():
                slots = range(1, int(meds["ncutout"][index]))
                starts = meds["orig_start_row"][index], meds["orig_start_col"][index]
                origins.append(tuple((int(starts[0][slot]), int(starts[1][slot])) for slot in slots))
                labels.append(tuple(self._labels(meds, blocks[band], index, slot) for slot in slots))
            out.append(Member(self._target(index, blocks), tuple(origins), tuple(labels), self._offset(rows[0], index)))
        return out

    @staticmethod
    def _labels(meds: MEDS, block: Any, index: int, slot: int) -> NDArray[np.int32]:
        side = int(meds["box_size"][index])
        mapped = None
        if "seg" in block.pixels:
            coadd = (meds.get_jacobian_matrix(index, 0), *meds.get_cutout_rowcol(index, 0))
            stamp = (meds.get_jacobian_matrix(index, slot), *meds.get_cutout_rowcol(index, slot))
            mapped = map_coadd_seg(block.stamp(index, 0, "seg"), coadd, stamp, (side, side))
        return np.zeros((side, side), np.int32) if mapped is None else mapped

    def _offset(self, first: int, index: int) -> tuple[float, float]:
        """Return the position of an object by the map of the group's first; NaN where there is no coadd position."""
        for meds in self.meds.values():
            if int(meds["ncutout"][first]) and int(meds["ncutout"][index]):
                row, col = float(meds["orig_row"][index, 0]), float(meds["orig_col"][index, 0])
                slopes = meds.get_jacobian(first, 0)
                return (
                    float(slopes["dvdrow"]) * row + float(slopes["dvdcol"]) * col,
                    float(slopes["dudrow"]) * row + float(slopes["dudcol"]) * col,
                )
        return np.nan, np.nan


def _coadd_seg(meds: MEDS) -> Iterator[tuple[int, NDArray[Any]]]:
    there = meds["ncutout"] > 0
    for block in meds.blocks(("seg",)):
        for index in block.rows.tolist():
            if there[index]:
                yield index, block.get_cutout(index, 0, "seg")


def find_pairs(source: GroupSource, rules: Neighbours) -> tuple[I64, int]:
    """Return the neighbours of all objects of a tile, in any band.

    Parameters
    ----------
    source : GroupSource
        The tile.
    rules : Neighbours
        The linking rule, and whether the segmentation counts.

    Returns
    -------
    pairs : ndarray of int64, shape (npair, 2)
        Rows of the MEDS files, each pair once, sorted.
    unknown : int
        Labels in segmentation stamps that are no object's.

    Raises
    ------
    ConfigError
        When the rule wants a column that a file lacks.
    ProductError
        When the segmentation counts and a file has none.
    """
    number = source.numbers()
    parts, unknown = [], 0
    box = BoxRule(rules.buff_type, rules.buff_frac, rules.maxsize_to_replace, rules.new_maxsize)
    radius = RadiusRule(rules.radius.multiple, rules.radius.low, rules.radius.high, rules.radius.padding)
    for band, meds in source.meds.items():
        if rules.rule == "box":
            parts.append(box.pairs(meds["orig_start_row"][:, 0], meds["orig_start_col"][:, 0], meds["box_size"]))
        else:
            if rules.radius.column not in (meds.get_cat().dtype.names or ()):
                raise ConfigError(
                    f"object_data has no column {rules.radius.column}",
                    band=band,
                    file=meds.path,
                    key="nbrs.radius.column",
                    remedy="name another column, or use rule: box",
                )
            row, col = (np.where(meds["ncutout"] > 0, meds[name][:, 0], NONE) for name in ("orig_row", "orig_col"))
            parts.append(radius.pairs(row, col, meds[rules.radius.column]))
        if rules.check_seg:
            if "seg" not in meds.types:
                raise ProductError(
                    "a MEDS file has no segmentation stamps",
                    band=band,
                    file=meds.path,
                    remedy="make it again (block 4), or write nbrs: {check_seg: false}",
                )
            found, strange = seg_pairs(number, _coadd_seg(meds))
            parts.append(found)
            unknown += strange
    return join_pairs(*parts), unknown
