"""What happened to an injected object, on one chip and altogether."""

from __future__ import annotations

import enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["OUTCOME_DTYPE", "OUTCOME_UNITS", "ChipFlag", "Outcome", "sharing"]


class ChipFlag(enum.IntFlag):
    """One object on one chip.

    An object that cannot be drawn (no PSF, a Fourier transform larger than allowed) has no flag: it stops its
    realization.
    """

    DRAWN = 1
    """Its light was added."""
    CENTRE_ON_CHIP = 2
    """Its centre lies between the first and last pixel centres of the chip."""
    CLIPPED_BY_EDGE = 4
    """Part of its stamp lies outside the chip."""
    CENTRE_MASKED = 8
    """The weight of the pixel at its centre is zero."""
    SATURATED = 16
    """Image plus removed sky reaches the chip's SATURATE at the object's brightest pixel."""
    OVERLAPS_ANOTHER = 32
    """Its stamp shares pixels with the stamp of another injected object."""
    ON_BAD_PIXELS = 64
    """Pixels of the base image under its stamp are not finite and took no light."""


class Outcome(enum.IntFlag):
    """One object in all bands; 0 when its centre was drawn, unmasked and unsaturated, in every band."""

    NOT_ON_ANY_CHIP = 1
    """No chip of any band got light of it."""
    MISSING_BAND = 2
    """In at least one band no chip holds its centre."""
    CLIPPED_BY_EDGE = 4
    """In at least one band every chip that holds its centre lacks more than 1 % of its light."""
    CENTRE_MASKED = 8
    """In at least one band all chips that hold its centre have zero weight there."""
    SATURATED = 16
    """At least one chip that holds its centre is saturated by it."""


OUTCOME_DTYPE = np.dtype(
    [
        *[("bal_id", "i8"), ("band", "U2"), ("chip", "U32"), ("expnum", "i4"), ("ccdnum", "i4"), ("flags", "i4")],
        *[("x", "f8"), ("y", "f8"), ("xmin", "i4"), ("xmax", "i4"), ("ymin", "i4"), ("ymax", "i4"), ("magzp", "f8")],
        *[("flux_expected", "f8"), ("flux_drawn", "f8"), ("flux_on_chip", "f8")],
        *[("noise_drawn", "f8"), ("poisson_variance", "f8"), ("noise_key", "i8")],
    ]
)
"""One row an (object, chip): x, y and the stamp's bounds on the chip are one-offset pixels; fluxes are in chip units:
`flux_expected` of the whole object, `flux_drawn` the sum of its stamp, `flux_on_chip` and `noise_drawn` what was added
to the chip's pixels, `poisson_variance` the expected square of the latter; `noise_key` names the random stream."""

OUTCOME_UNITS = {"x": "pixel", "y": "pixel", "magzp": "mag"}


def sharing(rows: NDArray[Any], row: Any) -> NDArray[np.bool_]:
    """Return which stamps of a chip share pixels with that of one row, itself among them."""
    meets = (rows["xmin"] <= row["xmax"]) & (rows["xmax"] >= row["xmin"])
    return np.asarray(meets & (rows["ymin"] <= row["ymax"]) & (rows["ymax"] >= row["ymin"]))
