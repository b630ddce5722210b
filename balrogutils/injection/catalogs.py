"""What is injected: catalogues of galaxies and stars, brought to one form."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["SHAPE_COLUMNS", "ZERO_POINT", "Catalog", "sane_rows"]

log = logging.getLogger(__name__)

ZERO_POINT = 30.0
"""Zero point of the fluxes of every catalogue."""

SHAPE_COLUMNS = ("T", "g1", "g2", "fracdev", "TdByTe")
"""Shape of an ngmix profile: T in arcsec^2, reduced shear, share of the de Vaucouleurs part, T_dev / T_exp."""


@dataclass(frozen=True)
class Catalog:
    """Objects that can be injected.

    Attributes
    ----------
    inj_type : str
        Name in the `gal` section, for example ``ngmixGalaxy``.
    model : str
        Profile, one of `balrogutils.injection.profiles.MODELS`.
    file : pathlib.Path
        Where they come from.
    row : ndarray of int64, shape (n,)
        Row of each object in the file, from 0.
    shape : dict of ndarray of float64, shape (n,)
        Columns that describe the profile; ``g1`` and ``g2`` among them turn with the object.
    flux : dict of ndarray of float64, shape (n,)
        Flux by band at zero point 30.
    ids : ndarray of int64, shape (n,), optional
        Identifiers of the file; the rows where it has none.
    sky : ndarray of float64, shape (n, 2), optional
        Right ascension and declination in degrees, where the file has them.
    weight : ndarray of float64, shape (n,), optional
        Rows are chosen in proportion to it; all alike without.
    tables : tuple of pathlib.Path
        Tables that a rules file drew them from.
    """

    inj_type: str
    model: str
    file: Path
    row: NDArray[np.int64]
    shape: dict[str, NDArray[np.float64]]
    flux: dict[str, NDArray[np.float64]]
    ids: NDArray[np.int64] | None = None
    sky: NDArray[np.float64] | None = None
    weight: NDArray[np.float64] | None = field(default=None)
    tables: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.row)

    def chosen(self, where: NDArray[np.bool_], what: str) -> Catalog:
        """Return the rows that can be drawn, and log how many cannot; `what` says why."""
        kept = np.flatnonzero(where)
        if len(kept) < len(self):
            log.info("%s: %d rows of %s left out: %s", self.inj_type, len(self) - len(kept), self.file.name, what)

        def part(values: NDArray[np.generic] | None) -> NDArray[np.generic] | None:
            return None if values is None else values[kept]

        return Catalog(
            self.inj_type,
            self.model,
            self.file,
            self.row[kept],
            {name: values[kept] for name, values in self.shape.items()},
            {band: values[kept] for band, values in self.flux.items()},
            part(self.ids),  # type: ignore[arg-type]
            part(self.sky),  # type: ignore[arg-type]
            part(self.weight),  # type: ignore[arg-type]
            self.tables,
        )


def sane_rows(
    shape: Mapping[str, NDArray[np.float64]], flux: Mapping[str, NDArray[np.float64]], positive: Sequence[str] = ()
) -> NDArray[np.bool_]:
    """Return which rows can be drawn: finite, fluxes and the `positive` columns above 0, |g| below 0.99."""
    sane = np.isfinite(np.array([*shape.values(), *flux.values()])).all(axis=0)
    with np.errstate(invalid="ignore"):
        if "g1" in shape:
            sane &= np.hypot(shape["g1"], shape["g2"]) < 0.99
        for values in (*flux.values(), *(shape[name] for name in positive)):
            sane &= values > 0
    return sane
