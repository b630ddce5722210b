"""Columns of the tables users give: read, named, checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import InputError, did_you_mean
from balrogutils.fitsfile import read_table
from balrogutils.injection.catalogs import ZERO_POINT

__all__ = ["Columns", "band_index"]

_FLUX_BANDS = "griz"


def band_index(band: str, what: str) -> int:
    """Return the place of a band in the four-band columns of DES catalogues.

    Raises
    ------
    InputError
        For a band they do not have.
    """
    if band not in _FLUX_BANDS:
        raise InputError(
            f"{what} have the bands g, r, i, z only",
            band=band,
            key="image.bands",
            remedy="list the bands to inject into in image.bands",
        )
    return _FLUX_BANDS.index(band)


class Columns:
    """A table, FITS or CSV with a line of names, whose columns are asked for by name.

    Parameters
    ----------
    file : pathlib.Path
        The table.
    key : str
        The key of the configuration that names it.

    Raises
    ------
    InputError
        When it is missing, or no table.
    """

    def __init__(self, file: Path, key: str) -> None:
        self.file, self.key = file, key
        if not file.is_file():
            raise InputError("a table is not there", file=file, key=key, remedy="check its name; see inputs/README.md")
        if file.suffix.lower() in (".csv", ".txt", ".dat"):
            try:
                self.rows: NDArray[Any] = np.atleast_1d(
                    np.genfromtxt(file, delimiter=",", names=True, dtype=np.float64, encoding="utf-8", deletechars="")
                )
            except (ValueError, IndexError) as error:
                raise InputError(
                    f"this is not a table of numbers: {error}",
                    file=file,
                    key=key,
                    remedy="write one line of names and then numbers, with commas between them",
                ) from error
        else:
            self.rows = read_table(file)
        self.names = {name.lower(): name for name in self.rows.dtype.names or ()}

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, name: str) -> bool:
        return name.lower() in self.names

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        """Return a column as float64.

        Raises
        ------
        InputError
            When there is none of this name, or it is not one number a row.
        """
        if name not in self:
            near = did_you_mean(name, self.names.values())
            hint = f"{near} It" if near.startswith("did") else "it"
            raise InputError(
                f"the table has no column {name}: {hint} has {', '.join(self.names.values())}",
                file=self.file,
                key=self.key,
                remedy="name its columns as inputs/README.md says",
            )
        values = self.rows[self.names[name.lower()]]
        if values.ndim != 1 or values.dtype.kind not in "fiub":
            raise InputError(
                f"the column {name} is not one number a row",
                file=self.file,
                key=self.key,
                remedy="give another column this name, or another table",
            )
        return np.asarray(values, dtype=np.float64)

    def fluxes(self, bands: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """Return the flux at zero point 30 by band, from ``flux_<band>`` or ``mag_<band>``."""
        found = {}
        for band in bands:
            if f"flux_{band}" in self:
                found[band] = self[f"flux_{band}"]
            else:
                found[band] = 10.0 ** (0.4 * (ZERO_POINT - self[f"mag_{band}"]))
        return found

    def ids(self) -> NDArray[np.int64] | None:
        """Return the column ``id``, where there is one of whole numbers."""
        if "id" not in self or not np.array_equal(self["id"], np.floor(self["id"])):
            return None
        return self["id"].astype(np.int64)

    def sky(self) -> NDArray[np.float64] | None:
        """Return ``ra`` and ``dec``, shape (n, 2), where there are any."""
        return np.column_stack([self["ra"], self["dec"]]) if "ra" in self and "dec" in self else None
