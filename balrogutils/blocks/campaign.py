"""The report of a campaign: everything that `balrog merge` put into a directory."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from balrogutils import __version__
from balrogutils.analysis.dataset import SAMPLE, MatchedDataset, joined, sampled
from balrogutils.analysis.matched import Matched
from balrogutils.analysis.results import Results, share_table, write_table
from balrogutils.analysis.skymap import NSIDE, add_counts, count_pixels, map_of_counts, write_map
from balrogutils.analysis.tables import counted
from balrogutils.errors import InputError
from balrogutils.matching.merging import REPORT_NAME
from balrogutils.products import Step, read_manifest
from balrogutils.progress import track
from balrogutils.report.efficiencyplot import map_figure
from balrogutils.report.headline import Totals, cards, sentences, totals_of
from balrogutils.report.inline import inline_svg
from balrogutils.report.page import Grid, Page, Picture, Section, write_page
from balrogutils.report.sections import science_sections

__all__ = ["MANIFEST", "PAGE", "campaign_report"]

PAGE = "campaign_report.html"
MANIFEST = "campaign_report.json"
_SHOWN_PIXELS = 600

I64 = NDArray[np.int64]
_log = logging.getLogger(__name__)


class _Counts:
    """Exact counts of all rows: totals, by tile, and on the sky."""

    def __init__(self) -> None:
        self.totals = Totals(0, 0, 0, 0, 0)
        self.tiles: dict[str, I64] = {}
        self._sky: list[tuple[I64, I64, I64]] = []

    def add(self, piece: Matched) -> None:
        here = totals_of(piece)
        self.totals = Totals(*(one + other for one, other in zip(self.totals, here, strict=True)))
        clear, found = piece.clear, piece.detected
        if piece.has("tilename"):
            names, place = np.unique(piece.column("tilename"), return_inverse=True)
            flags = (np.ones(len(piece), bool), found, clear, clear & found)
            counts = np.stack([np.bincount(place[rows], minlength=names.size) for rows in flags], axis=1)
            for name, row in zip(names, counts, strict=True):
                self.tiles[str(name)] = self.tiles.get(str(name), np.zeros(4, np.int64)) + row
        self._sky.append(count_pixels(piece.number("true_ra")[clear], piece.number("true_dec")[clear], found[clear]))
        if len(self._sky) > 64:
            self._sky = [self.sky()]

    def sky(self) -> tuple[I64, I64, I64]:
        """Return pixels with their injections and detections."""
        if not self._sky:
            return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64)
        return add_counts(*(np.concatenate(parts) for parts in zip(*self._sky, strict=True)))


def campaign_report(directory: Path, output: Path | None = None, *, sample: int = SAMPLE) -> Path:
    """Make the report of merged catalogues.

    Parameters
    ----------
    directory : Path
        Of `balrog merge`.
    output : Path, optional
        Directory of the report, its tables and its map; `directory` with ``_report`` appended when not given.
    sample : int
        Rows of which tables and plots are made at most; counts, tiles and the map are of all rows.

    Returns
    -------
    Path
        The HTML file.

    Raises
    ------
    InputError
        When the directory holds no merged catalogues, or that of the report is a file.
    ProductError
        When one is damaged, or not as the merge left it.

    Notes
    -----
    Memory: the sample (1.4 kB a row with metacal), one piece of 20 000 rows, and the counts of tiles and of the map.
    """
    directory = directory.absolute()
    data = MatchedDataset(directory)
    target = (output or directory.with_name(f"{directory.name}_report")).absolute()
    if target.exists() and not target.is_dir():
        raise InputError("the directory of the report is a file", file=target, remedy="give another name with -o")
    merge = directory / REPORT_NAME
    config = {"sample": sample}
    with Step(target / MANIFEST, "campaign report", config=config, before=[merge]) as step:
        step.read(*data.files)
        counts, chosen = _Counts(), []
        part = 1.0 if data.rows <= sample else sample / data.rows
        for piece, own in track(sampled(data.pieces(), part), "reading", unit="pieces"):
            counts.add(piece)
            chosen.append(own)
        results = Results(joined(chosen) if chosen else _nothing(data))
        tiles = share_table("tile", counts.tiles, np.array(list(counts.tiles.values()), np.int64).reshape(-1, 4))
        notes = []
        if part < 1.0:
            notes = [
                f"Tables and plots are of {len(results.matched)} injections, chosen evenly by their identifiers; "
                "the counts, the tiles and the map are of all."
            ]
        if merge.is_file():
            notes += _merge_notes(read_manifest(merge))
        tables = {**results.files(), "tiles": tiles}
        page = Page(
            title=f"Injections in {counted(len(counts.tiles), 'tile')}",
            subtitle=f"Campaign {directory.name} · bands {' '.join(data.bands)} · balrogutils {__version__}",
            summary=(*sentences(results, counts.totals), *notes),
            cards=cards(results, counts.totals),
            sections=_sections(results, counts, Grid("Tiles", tiles, "tiles.ecsv", is_open=True)),
        )
        for name, table in tables.items():
            write_table(target / f"{name}.ecsv", table)
            step.wrote(target / f"{name}.ecsv")
        write_map(target / "efficiency_map.fits", map_of_counts(*counts.sky()))
        write_page(target / PAGE, page)
        step.wrote(target / "efficiency_map.fits", target / PAGE)
        step.count(injected=counts.totals.injected, detected=counts.totals.detected, tiles=len(counts.tiles))
        _log.info("report of %s: %s", counted(len(counts.tiles), "tile"), target / PAGE)
    return target / PAGE


def _nothing(data: MatchedDataset) -> Matched:
    """Return a catalogue without rows: files without rows have no pieces."""
    columns = [("match_reason", "i2"), ("true_ra", "f8"), ("true_dec", "f8"), ("true_cat_row", "i8")]
    columns += [(f"true_mag_{band}", "f8") for band in data.bands]
    return Matched(np.zeros(0, dtype=columns), data.bands, data.zero_point)


def _merge_notes(document: dict[str, object]) -> list[str]:
    lacking, duplicates = document.get("lacking"), document.get("duplicates")
    notes = []
    if isinstance(lacking, list) and lacking:
        notes.append(f"Left out by the merge: {counted(len(lacking), 'realization')} of tiles; {REPORT_NAME} says why.")
    if isinstance(duplicates, list) and duplicates:
        notes.append(f"Came more than once, the first row kept: {counted(len(duplicates), 'identifier')}.")
    return notes


def _sections(results: Results, counts: _Counts, tiles: Grid) -> list[Section]:
    pixels, injected, detected = counts.sky()
    nside = NSIDE
    # A page of thousands of polygons is slow; nested pixels join in fours.
    while pixels.size > _SHOWN_PIXELS and nside > 32:
        pixels, injected, detected = add_counts(pixels >> 2, injected, detected)
        nside //= 2
    figure = map_figure(map_of_counts(pixels, injected, detected, nside), "")
    alt = f"Map of the fraction of clear injections detected: {counted(pixels.size, 'pixel')} of HEALPix nside {nside}."
    text = f"Of the clear injections, in HEALPix pixels of nside {nside}; efficiency_map.fits has nside {NSIDE}."
    science = science_sections(results, "")
    sky = Section("Map", (text,), (Picture(inline_svg(figure, "map", alt)),), (tiles,))
    return [science[0], sky, *science[1:]]
