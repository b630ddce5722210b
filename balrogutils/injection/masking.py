"""Which positions are masked in the base run's single-epoch images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import fitsio
import numpy as np
from numpy.typing import NDArray

from balrogutils.injection.chips import Chip

__all__ = ["masked"]


def masked(sky: NDArray[np.float64], chips: Mapping[str, Sequence[Chip]]) -> NDArray[np.bool_]:
    """Return which positions have zero weight on every exposure of at least one band, or lie on none.

    Parameters
    ----------
    sky : ndarray of float64, shape (n, 2)
        Right ascension and declination in degrees.
    chips : mapping of str to sequence of Chip
        The null-weight images by band.
    """
    bad = np.zeros(len(sky), dtype=bool)
    for images in chips.values():
        good = np.zeros(len(sky), dtype=bool)
        for chip in images:
            good |= _good(sky, chip)
        bad |= ~good
    return bad


def _good(sky: NDArray[np.float64], chip: Chip) -> NDArray[np.bool_]:
    near = chip.near(sky[:, 0], sky[:, 1])
    row, col = chip.wcs.sky_to_pixel(sky[near, 0], sky[near, 1])
    rows, cols = (np.floor(values + 0.5).astype(np.int64) for values in (row, col))
    inside = (rows >= 0) & (rows < chip.shape[0]) & (cols >= 0) & (cols < chip.shape[1])
    good = np.zeros(len(sky), dtype=bool)
    if inside.any():
        with fitsio.FITS(str(chip.base)) as fits:
            weight = fits["WGT"].read()
        good[near[inside]] = weight[rows[inside], cols[inside]] > 0
    return good
