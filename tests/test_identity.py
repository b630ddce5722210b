"""Object identifiers: injective, exact, within int64."""

from __future__ import annotations

import numpy as np
import pytest

from balrogutils.errors import InputError
from balrogutils.identity import MAX_NUMBER, MAX_REALIZATION, decode_object_ids, object_ids

TILES = ("DES0239+0216", "DES0239-0216", "DES0240+0216", "DES2359-9000", "DES0000+0000", "DES0000-0000", "DES9999-9999")
REALIZATIONS = (None, "0", "1", "10", str(MAX_REALIZATION))
NUMBERS = (1, 2, 999, 1000, MAX_NUMBER)


def test_ids_are_unique_positive_and_decode() -> None:
    seen: dict[int, tuple] = {}
    for tile in TILES:
        for realization in REALIZATIONS:
            ids = object_ids(tile, realization, NUMBERS)
            assert ids.dtype == np.int64
            for number, value in zip(NUMBERS, ids.tolist(), strict=True):
                assert value > 0
                assert value not in seen
                seen[value] = (tile, realization, number)
    decoded = decode_object_ids(list(seen))
    assert [tuple(identity) for identity in decoded] == list(seen.values())


def test_no_numbers_no_ids() -> None:
    assert object_ids(TILES[0], None, []).shape == (0,)
    assert decode_object_ids([]) == []


def test_decimal_digits_can_be_read() -> None:
    assert object_ids("DES0239+0216", None, [12]).tolist() == [239_0216_0000012]
    assert object_ids("DES0239-0216", "3", [12]).tolist() == [9_0239_0216_0000012]


@pytest.mark.parametrize(
    ("tile", "realization", "number"),
    [
        ("DES239+0216", None, 1),
        ("XYZ0239+0216", None, 1),
        ("DES0239+0216b", None, 1),
        (TILES[0], "01", 1),
        (TILES[0], "-1", 1),
        (TILES[0], "", 1),
        (TILES[0], "test", 1),
        (TILES[0], str(MAX_REALIZATION + 1), 1),
        (TILES[0], None, 0),
        (TILES[0], None, MAX_NUMBER + 1),
    ],
)
def test_what_does_not_fit_is_refused(tile: str, realization: str | None, number: int) -> None:
    with pytest.raises(InputError):
        object_ids(tile, realization, [number])


@pytest.mark.parametrize("value", [-1, 0, 239_0216_0000000])
def test_what_is_no_id_is_refused(value: int) -> None:
    with pytest.raises(InputError, match="not an object identifier"):
        decode_object_ids([value])
