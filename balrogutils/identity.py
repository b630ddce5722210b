"""Object identifiers that are unique across tiles and realizations and the same in every band."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from balrogutils.errors import InputError

# The settings need the limits; numpy is imported where it is used, so that reading settings stays fast.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

__all__ = ["MAX_NUMBER", "MAX_REALIZATION", "Identity", "are_of", "decode_object_ids", "object_ids"]

_TILE = re.compile(r"DES(\d{4})([+-])(\d{4})")
_NUMBER_SPAN = 10**7
_FIELD_SPAN = 10**8 * _NUMBER_SPAN

MAX_NUMBER = _NUMBER_SPAN - 1
"""Largest NUMBER an identifier can carry."""
MAX_REALIZATION = (2**63 - 1) // _FIELD_SPAN // 2 - 2
"""Largest realization an identifier can carry."""


class Identity(NamedTuple):
    """What an object identifier says."""

    tile: str
    realization: str | None
    number: int


def object_ids(tile: str, realization: str | None, number: ArrayLike) -> NDArray[np.int64]:
    """Return the identifiers of the detections of one tile and realization.

    Parameters
    ----------
    tile : str
        Name ``DES<4 digits><+ or -><4 digits>``.
    realization : str or None
        None for the base run, else a whole number as text.
    number : array_like of int
        SExtractor's NUMBER, 1 to `MAX_NUMBER`.

    Returns
    -------
    numpy.ndarray of int64
        In decimal, from the right: 7 digits NUMBER, 4 digits of declination, 4 digits of right ascension, and
        ``2 k + s`` with ``k = 0`` for the base run, realization + 1 otherwise, and ``s = 1`` for a tile name with
        a minus sign. No hash: `decode_object_ids` is the exact inverse.

    Raises
    ------
    InputError
        For a tile, realization or number that does not fit.

    Examples
    --------
    >>> object_ids("DES0239+0216", None, [1, 2])
    array([23902160000001, 23902160000002])
    """
    import numpy as np

    match = _TILE.fullmatch(tile)
    if match is None:
        raise InputError(
            "an object identifier needs a tile name of the form DES0239+0216", tile=tile, remedy="rename the tile"
        )
    right_ascension, sign, declination = match.groups()
    if realization is None:
        run = 0
    elif re.fullmatch(r"0|[1-9]\d*", realization) and int(realization) <= MAX_REALIZATION:
        run = int(realization) + 1
    else:
        raise InputError(
            f"realization {realization!r} does not fit into an object identifier",
            tile=tile,
            key="realizations",
            remedy=f"name realizations by whole numbers from 0 to {MAX_REALIZATION}, without leading zeros",
        )
    numbers = np.asarray(number, dtype=np.int64)
    if numbers.size and (numbers.min() < 1 or numbers.max() > MAX_NUMBER):
        raise InputError(f"object numbers must be 1 to {MAX_NUMBER}, got {numbers.min()} to {numbers.max()}", tile=tile)
    field = ((2 * run + (sign == "-")) * 10**4 + int(right_ascension)) * 10**4 + int(declination)
    return field * _NUMBER_SPAN + numbers


def are_of(ids: ArrayLike, tile: str, realization: str | None) -> NDArray[np.bool_]:
    """Return which identifiers are of a tile and realization.

    Raises
    ------
    InputError
        For a tile or realization that has no identifiers.
    """
    import numpy as np

    values = np.asarray(ids, dtype=np.int64)
    return np.asarray(values // _NUMBER_SPAN == object_ids(tile, realization, 1) // _NUMBER_SPAN)


def decode_object_ids(ids: ArrayLike) -> list[Identity]:
    """Return tile, realization and number of identifiers; the inverse of `object_ids`.

    Raises
    ------
    InputError
        For a value that is not an identifier.
    """
    import numpy as np

    identities = []
    for value in np.atleast_1d(np.asarray(ids, dtype=np.int64)).tolist():
        field, number = divmod(value, _NUMBER_SPAN)
        rest, declination = divmod(field, 10**4)
        rest, right_ascension = divmod(rest, 10**4)
        run, south = divmod(rest, 2)
        if value < 0 or number < 1 or run > MAX_REALIZATION + 1:
            raise InputError(f"{value} is not an object identifier")
        tile = f"DES{right_ascension:04d}{'-' if south else '+'}{declination:04d}"
        identities.append(Identity(tile, None if run == 0 else str(run - 1), number))
    return identities
