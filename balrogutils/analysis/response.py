"""Mean shear by metacal: response, response of a selection, and the biases m and c of simulations (M 6.4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from balrogutils.errors import InputError
from balrogutils.metacal.shears import STEP

__all__ = ["Bias", "Response", "calibrated_shear", "mean_response", "pair_bias"]

F64 = NDArray[np.float64]
Selection = Callable[[str], NDArray[np.bool_]]

_SHEARED = ("1p", "1m", "2p", "2m")


class Response(NamedTuple):
    """Mean response of a sample.

    R [2, 2] : mean of the objects' own; RS [2, 2] : response of the selection, 0 without one; e [2] : mean shape of
    the selected unsheared objects; number : how many they are.
    """

    R: F64
    RS: F64
    e: F64
    number: int

    @property
    def total(self) -> F64:
        """R + RS."""
        return np.asarray(self.R + self.RS)


class Bias(NamedTuple):
    """m and c of one component of the shear with their errors: found = (1 + m) true + c."""

    m: float
    m_err: float
    c: float
    c_err: float


def _mean(values: F64, weights: F64) -> F64:
    total = weights.sum()
    if not total > 0.0:
        raise InputError("no object with a weight is selected", remedy="relax the cuts")
    return np.asarray(weights @ values / total)


def mean_response(
    shapes: Mapping[str, ArrayLike],
    select: Selection | None = None,
    weight: Callable[[str], ArrayLike] | None = None,
    step: float = STEP,
) -> Response:
    """Return the mean response of the selected objects.

    Parameters
    ----------
    shapes : mapping of str to array_like, shape (n, 2)
        Shapes of each type: ``noshear``, ``1p``, ``1m``, ``2p``, ``2m``.
    select : callable, optional
        ``select(type)`` is the selection [n] as it is made from the columns of that type. Objects without a shape must
        not be in it.
    weight : callable, optional
        ``weight(type)`` is the weight [n], likewise.
    step : float
        Shear of a type.

    Returns
    -------
    Response
        RS_ij = (<e_i> of those selected by +j less <e_i> of those by -j) / (2 step), e unsheared (M 6.4).

    Raises
    ------
    InputError
        When a type is missing, tables disagree, or a selection is empty or holds what is not a number.
    """
    missing = [name for name in ("noshear", *_SHEARED) if name not in shapes]
    if missing:
        raise InputError(f"no shapes of {', '.join(missing)}", remedy="run metacal with all five types")
    tables = {name: np.asarray(shapes[name], float) for name in ("noshear", *_SHEARED)}
    count = len(tables["noshear"])
    if any(table.shape != (count, 2) for table in tables.values()):
        raise InputError("the types do not have shapes of the same objects")

    def weights_of(name: str) -> F64:
        weights = np.ones(count) if weight is None else np.asarray(weight(name), float)
        chosen = weights if select is None else np.where(np.asarray(select(name), bool), weights, 0.0)
        if not np.all(np.isfinite(tables["noshear"][chosen != 0.0])):
            raise InputError("a selected object has no shape", remedy="cut on the flags first")
        return np.asarray(chosen)

    own = weights_of("noshear")
    used = own != 0.0
    response, selection = np.empty((2, 2)), np.zeros((2, 2))
    for j in (0, 1):
        plus, minus = tables[f"{j + 1}p"], tables[f"{j + 1}m"]
        slopes = (plus - minus)[used] / (2.0 * step)
        if not np.all(np.isfinite(slopes)):
            raise InputError("a selected object has no response", remedy="cut on the flags first")
        response[:, j] = _mean(slopes, own[used])
        if select is not None or weight is not None:
            sides = []
            for sign in "pm":
                weights = weights_of(f"{j + 1}{sign}")
                sides.append(_mean(tables["noshear"][weights != 0.0], weights[weights != 0.0]))
            selection[:, j] = (sides[0] - sides[1]) / (2.0 * step)
    e = _mean(tables["noshear"][used], own[used])
    return Response(response, selection, e, int(used.sum()))


def calibrated_shear(response: Response) -> F64:
    """Return the mean shear [2], (R + RS)^-1 <e>.

    Raises
    ------
    InputError
        When the response cannot be inverted.
    """
    try:
        return np.asarray(np.linalg.solve(response.total, response.e))
    except np.linalg.LinAlgError as error:
        raise InputError("the mean response is singular") from error


def pair_bias(plus: ArrayLike, minus: ArrayLike, shear: float, response: ArrayLike) -> Bias:
    """Return m and c from the same objects sheared by +shear and -shear (the pair trick of M 6.4).

    Parameters
    ----------
    plus, minus : array_like, shape (n,)
        Shape component of each object, or its sum over a group of objects that share a shape-noise cancellation.
    shear : float
        True shear of that component.
    response : array_like, shape (n, 2)
        Responses of each object in both, with that of the selection added.

    Notes
    -----
    m = (e+ - e-) / (R+ + R-) / shear - 1 and c = (e+ + e-) / (R+ + R-), of the sums; errors are those of a ratio of
    sums over independent pairs, from their scatter.
    """
    p, q, r = np.asarray(plus, float), np.asarray(minus, float), np.asarray(response, float).sum(axis=1)
    if p.shape != q.shape or p.shape != r.shape or p.size < 2:
        raise InputError("pairs of shapes and their responses do not belong together")
    total = r.sum()
    if not abs(total) > 0.0:
        raise InputError("the mean response is zero")
    slope, offset = (p - q).sum() / total, (p + q).sum() / total
    spread = p.size / (p.size - 1.0)
    m_err = np.sqrt(spread * ((p - q - slope * r) ** 2).sum()) / abs(total) / abs(shear)
    c_err = np.sqrt(spread * ((p + q - offset * r) ** 2).sum()) / abs(total)
    return Bias(float(slope / shear - 1.0), float(m_err), float(offset), float(c_err))
