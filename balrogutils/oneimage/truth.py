"""The truth of one image: the catalogue, and the list that SExtractor associates with."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from balrogutils import __version__
from balrogutils.fitsfile import Table, write_tables
from balrogutils.oneimage.drawing import Drawn
from balrogutils.oneimage.tree import Tree
from balrogutils.parquetfile import write_parquet
from balrogutils.products import writing_text
from balrogutils.rules.attributes import COMPONENT
from balrogutils.rules.sampling import Sample

__all__ = ["INDEX", "Column", "columns", "write_association", "write_truth"]

INDEX = 0
"""Place of ``balrog_index`` in the truth vector."""

_UNITS = {"x": "pix", "y": "pix", "halflightradius": "arcsec", "beta": "deg", "flux": "ADU"}


class Column(NamedTuple):
    """A column of the truth vector."""

    name: str
    values: NDArray[Any]
    unit: str


def columns(sample: Sample, fluxes: NDArray[np.float64], args: Namespace, drawn: Drawn | None) -> list[Column]:
    """Return the truth vector, column by column.

    Parameters
    ----------
    sample : Sample
        What was sampled.
    fluxes : ndarray of float64, shape (profiles, n)
        Of components before lensing, ADU.
    args : argparse.Namespace
        Resolved arguments.
    drawn : Drawn or None
        What came of drawing; None before it.

    Returns
    -------
    list of Column
        x and y are one-offset pixels of the part of the image that is used; half-light radii lie along the major axis.
    """
    place = {"x": sample.objects["x"] - (args.xmin - 1), "y": sample.objects["y"] - (args.ymin - 1)}
    found = {"balrog_index": args.indexstart + np.arange(len(sample), dtype=np.float64), **place}
    found |= {name: sample.objects[name] for name in ("g1", "g2", "magnification")}
    if drawn is not None:
        found |= {"flux_noiseless": drawn.noiseless, "flux_noised": drawn.noised, "not_drawn": drawn.failed}
    rows = [Column(name, np.asarray(values, dtype=np.float64), _unit(name)) for name, values in found.items()]
    for index in range(sample.profiles):
        for name in COMPONENT:
            label, values = ("flux", fluxes) if name == "magnitude" else (name, sample.components[name])
            rows.append(Column(f"{label}_{index}", values[index].astype(np.float32), _unit(label)))
    return rows


def _unit(name: str) -> str:
    return _UNITS.get(name.partition("_")[0], "dimensionless")


def write_association(path: Path, vector: Sequence[Column]) -> None:
    """Write the truth vector as SExtractor reads it: one object a line, five decimals."""
    lines = (" ".join(f"{value:.5f}" for value in row) for row in zip(*(one.values for one in vector), strict=True))
    writing_text(path, "".join(f"{line}\n" for line in lines))


def write_truth(tree: Tree, vector: Sequence[Column], sample: Sample, args: Namespace) -> None:
    """Write the truth catalogue: the vector, then the user's own columns; the header says how to repeat the run.

    Parameters
    ----------
    tree : Tree
        Where it goes; as Parquet too when the arguments ask for it.
    vector : sequence of Column
        The truth vector.
    sample : Sample
        What was sampled.
    args : argparse.Namespace
        Resolved arguments.
    """
    every = [*vector, *(Column(one.name, one.values, one.unit) for one in sample.extras)]
    rows = np.zeros(len(sample), dtype=[(one.name, one.values.dtype) for one in every])
    for one in every:
        rows[one.name] = one.values
    cards = {"XSTART": args.xmin, "XEND": args.xmax, "YSTART": args.ymin, "YEND": args.ymax, "NSIM": args.ngal}
    cards |= {"ZP": args.zeropoint, "GAIN": args.gain, "SEED": args.seed, "NSEED": args.noiseseed}
    cards |= {"BALROG": __version__}
    table = Table("TRUTH", rows, {one.name: one.unit for one in every}, cards)
    write_tables(tree.truth, [table])
    if args.parquet:
        write_parquet(tree.truth_parquet, table)
