"""Matched catalogues of a whole campaign, read in pieces: exact counts of all rows, and a sample of the rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from balrogutils.analysis.matched import Matched, compared_fits
from balrogutils.errors import InputError, ProductError
from balrogutils.parquetfile import cards_of, structured_rows

# Imported when used: no other analysis needs it.
if TYPE_CHECKING:
    import pyarrow.parquet as pq

__all__ = ["SAMPLE", "MatchedDataset", "joined", "sampled"]

SAMPLE = 150_000
"""Rows of which tables and plots are made at most: errors are then some 1 per cent of a bin's width."""
_BATCH = 20_000

_USED = re.compile(
    r"true_(bal_id|inj_type|cat_row|ra|dec|outcome|g1|g2|t|r50_arcsec|noise_key|shear_g1|shear_g2)"
    r"|true_(mag|flux)_\w+|match_reason|ambiguous|tilename|realization|(base|other)_distance|meas_ra|meas_dec"
    r"|meas_(mof_)?flags|meas_extended_class_\w+|meas_mcal_(flags_object|tpsf|(g|s2n_r|t)(_[12][pm])?)"
)
_FITTED = r"{stem}psf_flux(_err)?|{stem}{model}_(flux|flux_cov|g|g_cov|t|t_err|pars|pars_cov)"
"""Columns of the fits that are compared with the truth, besides."""


class MatchedDataset:
    """The matched catalogues that `balrog merge` wrote into a directory.

    Parameters
    ----------
    directory : Path
        Of the merge; its ``matched`` holds Parquet files.

    Attributes
    ----------
    files : tuple of Path
        In order.
    rows : int
        In all files.
    bands : tuple of str
        Bands of the fits.
    zero_point : float
        Of fluxes.

    Raises
    ------
    InputError
        When this is no such directory.
    ProductError
        When a file is damaged.
    """

    def __init__(self, directory: Path) -> None:
        self.files = tuple(sorted((directory / "matched").glob("part-*.parquet")))
        if not self.files:
            raise InputError(
                "there are no merged catalogues here", file=directory, remedy="name a directory of balrog merge"
            )
        self.rows = 0
        names: list[str] = []
        for file in self.files:
            with _opened(file) as one:
                self.rows += one.metadata.num_rows
                names = one.schema_arrow.names
                try:
                    cards = cards_of(one.schema_arrow)
                    self.bands, self.zero_point = tuple(str(cards["BANDS"]).split(",")), float(cards["MAGZERO"])
                except (ValueError, KeyError, TypeError):
                    self.bands, self.zero_point = (), np.nan
            magnitudes = {f"true_mag_{band}" for band in self.bands} & set(names)
            if not (
                magnitudes and np.isfinite(self.zero_point) and {"match_reason", "true_ra", "true_dec"} <= set(names)
            ):
                raise InputError("this is no merged catalogue", file=file, remedy="name a directory of balrog merge")
        self._columns = _used(names)

    def pieces(self) -> Iterator[Matched]:
        """Yield the catalogue piece by piece, with the columns that the analysis uses."""
        import pyarrow as pa

        for file in self.files:
            with _opened(file) as one:
                batches = one.iter_batches(batch_size=_BATCH, columns=self._columns)
                while True:
                    try:
                        batch = next(batches, None)
                    except (OSError, pa.ArrowException) as error:
                        raise _damaged(file, error) from error
                    if batch is None:
                        break
                    yield Matched(structured_rows(pa.Table.from_batches([batch])), self.bands, self.zero_point)


def _used(names: list[str]) -> list[str]:
    """Return the columns that the analysis uses."""
    fits = compared_fits(names)
    fitted = re.compile(_FITTED.format(**fits._asdict()) if fits is not None else "")
    return [name for name in names if _USED.fullmatch(name) or fitted.fullmatch(name)]


def sampled(pieces: Iterable[Matched], part: float) -> Iterator[tuple[Matched, Matched]]:
    """Yield every piece with its share of a sample.

    Notes
    -----
    An injection is in the sample by a hash of its ``noise_key``, or ``bal_id`` where there is none, so that the same
    catalogue gives the same sample, and both of a shear pair are in it or neither.
    """
    for piece in pieces:
        name = "true_noise_key" if piece.has("true_noise_key") else "true_bal_id"
        yield piece, piece if part >= 1.0 else piece.part(_spread(piece.column(name)) < part)


def joined(pieces: list[Matched]) -> Matched:
    """Return pieces of one data set as one catalogue; the list is empty afterwards, so that no row is held twice."""
    bands, zero_point = pieces[0].bands, pieces[0].zero_point
    widths = {}
    for name in pieces[0].rows.dtype.names:
        types = [piece.rows.dtype[name] for piece in pieces]
        # A piece's text is as wide as its longest.
        widths[name] = max(types, key=lambda one: one.itemsize)
    rows = np.zeros(sum(map(len, pieces)), dtype=list(widths.items()))
    start = 0
    pieces.reverse()
    while pieces:
        piece = pieces.pop()
        for name in widths:
            rows[name][start : start + len(piece)] = piece.rows[name]
        start += len(piece)
    return Matched(rows, bands, zero_point)


def _spread(keys: NDArray[Any]) -> NDArray[np.float64]:
    """Return numbers evenly in [0, 1) that depend on the keys alone (the finaliser of splitmix64)."""
    x = keys.astype(np.int64).view(np.uint64).copy()
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x ^= x >> np.uint64(shift)
        x *= np.uint64(factor)
    x ^= x >> np.uint64(31)
    return np.asarray((x >> np.uint64(11)).astype(np.float64) / 2.0**53)


def _opened(file: Path) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> ProductError:
    text = f"a merged catalogue cannot be read: {str(error).splitlines()[0]}"
    return ProductError(text, file=file, remedy="run balrog merge again")
