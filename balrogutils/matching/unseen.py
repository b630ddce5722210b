"""Why an injection could not be seen, from the truth table by object and chip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import ProductError
from balrogutils.injection.flags import ChipFlag
from balrogutils.matching.positions import Matches, Reason

__all__ = ["unseen", "with_unseen"]


def unseen(ids: NDArray[np.int64], chips: NDArray[Any], bands: Sequence[str]) -> NDArray[np.int16]:
    """Return which injections had no chance of a detection.

    Parameters
    ----------
    ids : ndarray of int64
        ``bal_id`` of the injections.
    chips : ndarray
        Rows of the truth table by object and chip (`balrogutils.injection.flags.OUTCOME_DTYPE`).
    bands : sequence of str
        Bands of the detection image.

    Returns
    -------
    ndarray of int16
        `Reason.OFF_CHIPS`: no chip of these bands holds its centre; `Reason.NOT_DRAWN`: none got light of it, as when
        nothing is injected into these bands; `Reason.MASKED`: every chip of these bands that holds its centre has
        weight zero there; 0: it could be seen in at least one band.

    Raises
    ------
    ProductError
        When a chip tells of an object that is not in the truth.
    """
    order = np.argsort(ids, kind="stable")
    place = np.searchsorted(ids, chips["bal_id"], sorter=order)
    index = order[np.minimum(place, ids.size - 1)] if ids.size else np.empty(0, np.int64)
    if index.size != len(chips) or (ids[index] != chips["bal_id"]).any():
        raise ProductError(
            "the truth by object and chip is not of the objects of the truth catalogue", remedy="make both (mode 8)"
        )
    used = np.isin(chips["band"], list(bands))
    flags = chips["flags"]

    def having(rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.bincount(index[rows], minlength=ids.size) > 0

    centred = used & ((flags & ChipFlag.CENTRE_ON_CHIP) != 0)
    held, drawn = having(centred), having(used & ((flags & ChipFlag.DRAWN) != 0))
    good = having(centred & ((flags & ChipFlag.CENTRE_MASKED) == 0))
    # Into a band without a single row nothing was injected: its objects are not off the chips.
    nothing = bool(ids.size) and not used.any() and len(chips) > 0
    reasons = [Reason.NOT_DRAWN if nothing else Reason.OFF_CHIPS, Reason.NOT_DRAWN, Reason.MASKED]
    return np.select([~held, ~drawn, ~good], reasons, 0).astype(np.int16)


def with_unseen(matches: Matches, why: NDArray[np.int16]) -> Matches:
    """Return matches whose unmatched rows say why they could not be seen, where they could not (`unseen`)."""
    told = (matches.row < 0) & (matches.reason != Reason.BAD_POSITION) & (why != 0)
    return matches._replace(reason=np.where(told, why, matches.reason).astype(np.int16))
