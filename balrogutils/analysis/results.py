"""Everything that the analysis says of one matched catalogue, and the files that hold it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from astropy.table import Column, Table
from numpy.typing import NDArray

from balrogutils.analysis.detectionmodel import DetectionModel
from balrogutils.analysis.intervals import binomial_interval
from balrogutils.analysis.matched import Matched
from balrogutils.analysis.pairs import shear_bias_table
from balrogutils.analysis.products import (
    Panels,
    class_table,
    detection_model,
    efficiency_tables,
    input_row_table,
    metacal_table,
    pull_tables,
    transfer_tables,
)
from balrogutils.analysis.shearbias import bias_table
from balrogutils.analysis.tables import Field, counted, result_table
from balrogutils.errors import InputError
from balrogutils.matching.positions import Reason
from balrogutils.products import writing

__all__ = ["Results", "file_name", "outcome_table", "share_table", "stacked", "write_table"]

_REASONS = {
    Reason.MATCHED: "detected",
    Reason.NOT_FOUND: "nothing detected within the match radius",
    Reason.TAKEN: "what was detected there is nearer to another injection",
    Reason.BAD_POSITION: "no position on the sky",
    Reason.OFF_CHIPS: "on no chip of a detection band",
    Reason.NOT_DRAWN: "no light in a detection band",
    Reason.MASKED: "on pixels of weight zero",
}
_COLUMNS = {
    "low": "lower edge of the bin",
    "high": "upper edge of the bin",
    "centre": "median of the bin's values",
    "objects": "objects in the bin",
    "median": "median of the quantity",
    "width": "1.4826 MAD of the quantity",
}


def file_name(name: str) -> str:
    """Return a name that a file may have: small letters, digits and underscores."""
    plain = name.lower().replace("−", " minus ").replace("<", " below ")
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_")


def write_table(path: Path, table: Table) -> None:
    """Write a table as ECSV: text with units, descriptions and the note; the file appears only when whole."""
    with writing(path) as part:
        table.write(part, format="ascii.ecsv", overwrite=True)


def stacked(panels: Mapping[str, Mapping[str, Table]]) -> Table:
    """Return tables by panel and kind of object as one, with the columns ``panel`` and ``kind`` before the others."""
    parts = [(panel, kind, table) for panel, kinds in panels.items() for kind, table in kinds.items()]
    if not parts:
        return Table(meta={"note": "There is nothing to show."})
    columns = [
        Column(np.repeat([part[place] for part in parts], [len(part[2]) for part in parts]).astype("U32"), name=name)
        for place, name in enumerate(("panel", "kind"))
    ]
    columns[0].description, columns[1].description = "quantity, band or component", "kind of object"
    for name in parts[0][2].colnames:
        every = [part[2][name] for part in parts]
        words = {one.description for one in every}
        text = words.pop() if len(words) == 1 else _COLUMNS.get(name, "")
        columns.append(
            Column(np.concatenate([np.asarray(one) for one in every]), name=name, unit=every[0].unit, description=text)
        )
    return Table(columns, meta={"note": f"{counted(len(panels), 'panel')}."})


def outcome_table(matched: Matched) -> Table:
    """Return how many injections were matched, and why the others were not."""
    reason, star = matched.column("match_reason"), matched.star
    number = {
        kind: np.array([np.count_nonzero(rows & (reason == one)) for one in _REASONS], np.int64)
        for kind, rows in (("galaxies", ~star), ("stars", star))
    }
    both = number["galaxies"] + number["stars"]
    total = max(int(both.sum()), 1)
    return result_table(
        [
            Field("outcome", list(_REASONS.values()), "what became of the injection (match_reason)"),
            Field("injections", both, "all"),
            Field("fraction", both / total, "part of all injections"),
            Field("galaxies", number["galaxies"], "injected galaxies"),
            Field("stars", number["stars"], "injected stars"),
        ],
        f"{counted(int(both.sum()), 'injection')}.",
    )


def share_table(name: str, labels: Iterable[str], counts: NDArray[np.int64]) -> Table:
    """Return injections and detections of each of several parts: tiles, realizations.

    Parameters
    ----------
    name : str
        What the parts are.
    labels : iterable of str
        Their names.
    counts : ndarray of int, shape (n, 4)
        Injected, detected; of the clear ones, injected and detected.
    """
    numbers = np.asarray(counts, np.int64).reshape(-1, 4)
    low, high = binomial_interval(numbers[:, 3], numbers[:, 2])
    fraction = np.full(len(numbers), np.nan)
    np.divide(numbers[:, 3], numbers[:, 2], out=fraction, where=numbers[:, 2] > 0)
    return result_table(
        [
            Field(name, np.array(list(labels), dtype=np.str_), f"name of the {name}"),
            Field("injected", numbers[:, 0], "all injections"),
            Field("detected", numbers[:, 1], "of these matched to a detection"),
            Field("clear", numbers[:, 2], "seen well in every band, and on no original detection"),
            Field("clear_detected", numbers[:, 3], "of these matched"),
            Field("efficiency", fraction, "fraction of the clear ones"),
            Field("efficiency_low", low, "lower end of its 68.3 % interval (Jeffreys)"),
            Field("efficiency_high", high, "upper end of its 68.3 % interval (Jeffreys)"),
        ],
        f"{int(numbers[:, 1].sum())} of {counted(int(numbers[:, 0].sum()), 'injection')} detected.",
    )


@dataclass(frozen=True)
class Results:
    """The tables of a matched catalogue, each made when it is asked for."""

    matched: Matched

    @cached_property
    def outcomes(self) -> Table:
        """What became of the injections."""
        return outcome_table(self.matched)

    @cached_property
    def realizations(self) -> Table:
        """Injections and detections of each realization; empty where the catalogue names none."""
        matched = self.matched
        if not matched.has("realization"):
            return share_table("realization", [], np.zeros((0, 4), np.int64))
        own = matched.column("realization")
        names = np.unique(own)
        clear, found = matched.clear, matched.detected
        rows = [own == name for name in names]
        counts = [[r.sum(), (r & found).sum(), (r & clear).sum(), (r & clear & found).sum()] for r in rows]
        return share_table("realization", [str(name) for name in names], np.array(counts, np.int64))

    @cached_property
    def efficiency(self) -> dict[str, Table]:
        """Fraction found by variable; none that no injection has a value of."""
        return efficiency_tables(self.matched)

    @cached_property
    def model(self) -> DetectionModel:
        """The smooth model in magnitude."""
        return detection_model(self.matched)

    @cached_property
    def model_table(self) -> Table:
        """Its parameters."""
        return self.model.table()

    @cached_property
    def transfer(self) -> dict[str, Panels]:
        """Transfer functions; none without fits."""
        return transfer_tables(self.matched) if self.matched.model is not None else {}

    @cached_property
    def pulls(self) -> Panels:
        """Pulls; none without fits."""
        return pull_tables(self.matched) if self.matched.model is not None else {}

    @cached_property
    def classes(self) -> dict[str, Table]:
        """Star-galaxy confusion by kind of fits."""
        kinds = (kind for kind in ("sof", "mof") if self.matched.has(f"meas_extended_class_{kind}"))
        return {kind: class_table(self.matched, kind) for kind in kinds}

    @cached_property
    def input_rows(self) -> Table:
        """How often each row of the input catalogues was found."""
        return input_row_table(self.matched)

    @cached_property
    def response(self) -> Table | None:
        """Metacal response; None without metacal."""
        return metacal_table(self.matched) if self.matched.shapes() else None

    @cached_property
    def bias(self) -> dict[str, Table]:
        """m and c of each pair of realizations with opposite shears, by their names; none without metacal or pairs."""
        matched = self.matched
        if self.response is None or not matched.has("realization", "true_shear_g1", "true_shear_g2"):
            return {}
        shears = np.column_stack([matched.number("true_shear_g1"), matched.number("true_shear_g2")])
        if not np.any(np.nan_to_num(shears)):
            return {}
        own = matched.column("realization")
        tables = {}
        for even in sorted({int(name) for name in own if name % 2 == 0 and name + 1 in own}):
            try:
                table = shear_bias_table(matched.part(own == even), matched.part(own == even + 1))
            except InputError as error:
                # Tiles of one campaign may repeat a key, and a cut may leave nothing of one type.
                table = bias_table([])
                table.meta["note"] = f"No m and c: {error.message}."
            tables[f"{even} and {even + 1}"] = table
        return tables

    def files(self) -> dict[str, Table]:
        """Return every table by the name of its file, without suffix."""
        out = {"outcomes": self.outcomes, "realizations": self.realizations, "detection_model": self.model_table}
        out |= {f"efficiency_{file_name(name)}": table for name, table in self.efficiency.items()}
        out["input_rows"] = self.input_rows
        out |= {f"transfer_{name}": stacked(panels) for name, panels in self.transfer.items()}
        if self.pulls:
            out["pulls"] = stacked(self.pulls)
        out |= {f"classes_{kind}": table for kind, table in self.classes.items()}
        if self.response is not None:
            out["metacal_response"] = self.response
        out |= {f"shear_bias_{file_name(pair)}": table for pair, table in self.bias.items()}
        return out
