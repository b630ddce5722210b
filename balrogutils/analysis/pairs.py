"""The same injections twice: shear biases from opposite shears, and the response to magnification."""

from __future__ import annotations

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from balrogutils.analysis.matched import Matched
from balrogutils.analysis.products import metacal_selection
from balrogutils.analysis.response import Bias, mean_response, pair_bias
from balrogutils.analysis.shearbias import bias_table, magnification_response
from balrogutils.errors import InputError
from balrogutils.metacal.shears import STEP

__all__ = ["magnification_table", "shared_rows", "shear_bias_table"]

Rows = NDArray[np.int64]


def shared_rows(first: Matched, second: Matched) -> tuple[Rows, Rows]:
    """Return the rows of the injections that two catalogues share.

    Notes
    -----
    They have the same ``noise_key`` in the truth, or where it has none the same ``bal_id``.
    """
    name = "true_noise_key" if first.has("true_noise_key") and second.has("true_noise_key") else "true_bal_id"
    keys = first.column(name), second.column(name)
    for key in keys:
        if np.unique(key).size != key.size:
            raise InputError(f"{name} is not unique", remedy="give the two realizations of one pair")
    _, one, other = np.intersect1d(*keys, return_indices=True)
    return one, other


def shear_bias_table(plus: Matched, minus: Matched) -> Table:
    """Return m and c by metacal from the two realizations of a shear pair.

    Parameters
    ----------
    plus, minus : Matched
        Realizations 2k and 2k + 1 of a run with ``shear_pairs``, with metacal.

    Returns
    -------
    Table
        As `bias_table`, for the components that were sheared; empty, with a note, where there is no pair.

    Notes
    -----
    Objects selected in one of the two alone take part with that one: they carry the bias of the selection, which the RS
    of each realization corrects.
    """
    one, other = shared_rows(plus, minus)
    shapes = plus.shapes(), minus.shapes()
    if not one.size or not all(shapes):
        table = bias_table([])
        why = "the catalogues have no metacal shapes" if one.size else "the catalogues share no injection"
        table.meta["note"] = f"No m and c: {why}."
        return table
    selections = metacal_selection(plus), metacal_selection(minus)
    used = selections[0]("noshear")[one], selections[1]("noshear")[other]
    if min(used[0].sum(), used[1].sum()) < 2:
        table = bias_table([])
        table.meta["note"] = "No m and c: fewer than two objects are selected."
        return table
    means = [mean_response(*both) for both in zip(shapes, selections, strict=True)]
    either = used[0] | used[1]
    found: list[tuple[str, Bias, int]] = []
    for k in (0, 1):
        true = [part.number(f"true_shear_g{k + 1}")[rows] for part, rows in ((plus, one), (minus, other))]
        half = float(np.mean(true[0] - true[1])) / 2.0
        if not np.isfinite(half) or half == 0.0:
            continue
        sides, responses = [], []
        for shape, rows, use, mean in zip(shapes, (one, other), used, means, strict=True):
            slope = (shape[f"{k + 1}p"][rows, k] - shape[f"{k + 1}m"][rows, k]) / (2.0 * STEP)
            sides.append(np.where(use, shape["noshear"][rows, k], 0.0)[either])
            responses.append(np.where(use, slope + mean.RS[k, k], 0.0)[either])
        found.append((f"g{k + 1}", pair_bias(sides[0], sides[1], half, np.column_stack(responses)), int(either.sum())))
    table = bias_table(found)
    if not found:
        table.meta["note"] = "No m and c: the two realizations have the same shear."
    return table


def magnification_table(plain: Matched, magnified: Matched, limit: float) -> Table:
    """Return how the number of objects brighter than a limit in `Matched.band` changes with magnification.

    Parameters
    ----------
    plain, magnified : Matched
        The same injections in the same places, the latter with one ``true_magnification``.
    limit : float
        Measured magnitude.

    Raises
    ------
    InputError
        When the magnification is unknown, differs between objects, or changes nothing.
    """
    one, other = shared_rows(plain, magnified)
    values = magnified.number("true_magnification")[other]
    if not other.size or not np.ptp(values) == 0.0:
        raise InputError("there is no magnification common to all injections", remedy="inject with one constant")
    chosen = []
    for part, rows in ((plain, one), (magnified, other)):
        magnitude = part.magnitude(part.band)
        good = part.detected & np.isfinite(magnitude)
        good[good] &= magnitude[good] < limit
        chosen.append(good[rows])
    return magnification_response(chosen[0], chosen[1], float(values[0]), sample=f"{plain.band} < {limit:g}")
