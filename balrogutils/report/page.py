"""A page of results in one HTML file: sections of sentences, pictures and sortable tables, readable from disk alone."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
from astropy.table import Table

from balrogutils.products import writing_text

__all__ = ["Card", "Grid", "Page", "Picture", "Section", "slug", "write_page"]

MOST_ROWS = 500
"""Rows of a table that the page shows; its file has all."""


class Card(NamedTuple):
    """A number to be seen first: what it is, the number, and a remark below."""

    label: str
    value: str
    remark: str = ""


class Cell(NamedTuple):
    """What a table shows, and what it is sorted by: a number, or the text itself."""

    text: str
    key: str
    number: bool


@dataclass(frozen=True)
class Grid:
    """A table of results as the page shows it.

    Attributes
    ----------
    title : str
        Its caption.
    table : Table
        Of `balrogutils.analysis`, or any other; columns of vectors are left out.
    file : str
        Name of the file beside the page that holds it; empty where there is none.
    is_open : bool
        Shown at once, not only when the reader asks for it.
    """

    title: str
    table: Table
    file: str = ""
    is_open: bool = False

    @property
    def heads(self) -> list[tuple[str, str, str, bool]]:
        """Name, unit, description, and whether it holds numbers, of each column."""
        return [
            (name.replace("_", " "), str(column.unit or ""), column.description or "", column.dtype.kind in "fiub")
            for name, column in self._columns()
        ]

    @property
    def rows(self) -> list[list[Cell]]:
        """Cells, row by row; at most `MOST_ROWS`."""
        columns = [[_cell(value) for value in column[:MOST_ROWS]] for _, column in self._columns()]
        return [list(row) for row in zip(*columns, strict=True)]

    @property
    def left_out(self) -> int:
        """Rows that are in the file alone."""
        return max(len(self.table) - MOST_ROWS, 0)

    def _columns(self) -> list[tuple[str, Any]]:
        return [(name, self.table[name]) for name in self.table.colnames if self.table[name].ndim == 1]


class Picture(NamedTuple):
    """A figure of a page: its SVG or image element, a caption below, and the numbers it shows."""

    markup: str
    caption: str = ""
    numbers: tuple[Grid, ...] = ()
    wide: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading of its own."""

    title: str
    text: tuple[str, ...] = ()
    pictures: Sequence[Picture] = ()
    grids: Sequence[Grid] = ()

    @property
    def name(self) -> str:
        """What links lead to."""
        return slug(self.title)


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes
    ----------
    title, subtitle : str
        Over everything.
    summary : tuple of str
        The result in sentences; the first stands out.
    cards : list of Card
        Numbers to be seen first.
    sections : list of Section
        In order.
    """

    title: str
    subtitle: str
    summary: tuple[str, ...]
    cards: Sequence[Card] = ()
    sections: Sequence[Section] = field(default=())


def slug(text: str) -> str:
    """Return a text as a name for links and files: letters, digits and underscores."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower().replace("−", " minus ").replace("<", " below ")).strip("_")


def write_page(path: str | os.PathLike[str], page: Page) -> None:
    """Write a page as one HTML file, with its style, script and images inside; it appears only when whole."""
    import jinja2

    files = resources.files("balrogutils.report") / "templates"
    texts = {name: (files / name).read_text(encoding="utf-8") for name in ("report.html", "report.css", "report.js")}
    environment = jinja2.Environment(
        loader=jinja2.DictLoader(texts), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    text = environment.get_template("report.html").render(page=page, css=texts["report.css"], script=texts["report.js"])
    writing_text(path, text)


def _cell(value: Any) -> Cell:
    if isinstance(value, bool | np.bool_):
        return Cell("yes" if value else "no", str(int(value)), False)
    if isinstance(value, int | np.integer):
        return Cell(str(value), str(value), True)
    if isinstance(value, float | np.floating):
        number = float(value)
        if not math.isfinite(number):
            # Sorted behind everything.
            return Cell("–", "", True)
        return Cell(_figures(number), repr(number), True)
    text = value.decode() if isinstance(value, bytes) else str(value)
    return Cell(text, text, False)


def _figures(number: float) -> str:
    if number != 0.0 and not 1e-4 <= abs(number) < 1e7:
        return f"{number:.3g}".replace("-", "−")
    places = 2 if abs(number) >= 10.0 else 3 if abs(number) >= 1.0 else 4
    return f"{number:.{places}f}".replace("-", "−")
