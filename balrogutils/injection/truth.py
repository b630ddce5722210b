"""The truth of a realization: what was planned, and what became of it on the chips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.lib import recfunctions
from numpy.typing import NDArray

from balrogutils.errors import InjectionError
from balrogutils.injection.catalogs import ZERO_POINT
from balrogutils.injection.flags import ChipFlag, Outcome
from balrogutils.injection.planning import plan_bands

__all__ = ["combine", "truth_table"]

# Fraction of its light that a chip may lack before an object counts as clipped there; 0.01 mag.
_CLIPPED = 0.01


def combine(plan: NDArray[Any], chips: NDArray[Any], bands: Sequence[str]) -> NDArray[np.int32]:
    """Return the `Outcome` of every planned object.

    Parameters
    ----------
    plan : numpy.ndarray
        The plan.
    chips : numpy.ndarray
        Rows of all chips of all bands, `balrogutils.injection.flags.OUTCOME_DTYPE`.
    bands : sequence of str
        Bands injected into.

    Raises
    ------
    InjectionError
        When a chip tells of an object that is not in the plan.
    """
    order = np.argsort(plan["bal_id"])
    found = np.searchsorted(plan["bal_id"], chips["bal_id"], sorter=order)
    index = order[np.minimum(found, len(plan) - 1)]
    if (plan["bal_id"][index] != chips["bal_id"]).any():
        raise InjectionError(
            "a chip holds an object that is not in the plan", remedy="run the injection block (mode bit 8) again"
        )
    outcome = np.zeros(len(plan), dtype=np.int32)
    outcome[np.bincount(index, minlength=len(plan)) == 0] |= Outcome.NOT_ON_ANY_CHIP
    centred = (chips["flags"] & ChipFlag.CENTRE_ON_CHIP) != 0
    outcome[index[centred & ((chips["flags"] & ChipFlag.SATURATED) != 0)]] |= Outcome.SATURATED
    masked = (chips["flags"] & ChipFlag.CENTRE_MASKED) != 0
    cut = chips["flux_on_chip"] < (1.0 - _CLIPPED) * chips["flux_expected"]
    for band in bands:
        here = centred & (chips["band"] == band)
        held = np.bincount(index[here], minlength=len(plan))
        outcome[held == 0] |= Outcome.MISSING_BAND
        for bad, flag in ((masked, Outcome.CENTRE_MASKED), (cut, Outcome.CLIPPED_BY_EDGE)):
            good = np.bincount(index[here & ~bad], minlength=len(plan))
            outcome[(held > 0) & (good == 0)] |= flag
    return outcome


def truth_table(plan: NDArray[Any], outcomes: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the truth catalogue and the table by object and chip.

    Parameters
    ----------
    plan : numpy.ndarray
        The plan.
    outcomes : mapping of str to numpy.ndarray
        Rows of `OUTCOME_DTYPE` by band.

    Returns
    -------
    tuple of numpy.ndarray
        The plan with ``mag_<b>`` and ``outcome``; and all chips of all bands, by band and object.

    Raises
    ------
    InjectionError
        When an outcome does not belong to the plan.
    """
    bands = plan_bands(plan)
    chips = np.concatenate([outcomes[band] for band in bands])
    outcome = combine(plan, chips, bands)
    mags = [ZERO_POINT - 2.5 * np.log10(plan[f"flux_{band}"]) for band in bands]
    table = recfunctions.append_fields(
        plan, [*(f"mag_{band}" for band in bands), "outcome"], [*mags, outcome], usemask=False, asrecarray=False
    )
    head = ["bal_id", "inj_type", "cat_row", "ra", "dec"]
    head += [f"{kind}_{band}" for kind in ("flux", "mag") for band in bands] + ["g1", "g2", "rotation", "outcome"]
    names = head + [name for name in table.dtype.names or () if name not in head]
    return recfunctions.repack_fields(table[names]), chips[np.lexsort((chips["chip"], chips["bal_id"], chips["band"]))]
