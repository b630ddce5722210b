"""Star-galaxy confusion, and how often each row of an input catalogue is found."""

from __future__ import annotations

import numpy as np
from astropy.table import Table
from numpy.typing import ArrayLike

from balrogutils.analysis.intervals import binomial_interval
from balrogutils.analysis.tables import Field, counted, flags_of, numbers, result_table
from balrogutils.errors import InputError

__all__ = ["confusion_matrix", "input_row_efficiency"]

CLASSES = {0: "star", 1: "likely star", 2: "likely galaxy", 3: "galaxy", -9: "no class"}
"""EXTENDED_CLASS of P 7.1."""


def confusion_matrix(true_star: ArrayLike, extended_class: ArrayLike) -> Table:
    """Return what stars and galaxies are called.

    Parameters
    ----------
    true_star : array_like of bool, shape (n,)
        Whether each matched injection is a star.
    extended_class : array_like of int, shape (n,)
        Measured class: 0 star, 1 likely star, 2 likely galaxy, 3 galaxy, -9 (or anything else) none.

    Returns
    -------
    astropy.table.Table
        One row a class: ``extended_class``, ``meaning``, and for ``stars`` and ``galaxies`` the number, the fraction of
        all of that kind and its 68.3 % interval. ``meta`` has ``star_completeness``, ``star_purity``,
        ``galaxy_completeness`` and ``galaxy_purity``, each a fraction and both ends of its interval; classes 0 and 1
        count as star, 2 and 3 as galaxy, and what has no class in the denominator of the completeness.

    Raises
    ------
    InputError
        When the lists have different lengths.

    Notes
    -----
    Purity is that of this sample, with as many stars and galaxies as were injected, not that of the sky.
    """
    star = flags_of(true_star, "true_star")
    measured = numbers(extended_class, "extended_class", star.size)
    measured = np.where(np.isin(measured, (0.0, 1.0, 2.0, 3.0)), measured, -9.0)
    names = list(CLASSES)
    fields = [
        Field("extended_class", np.array(names, np.int16), "measured class"),
        Field("meaning", list(CLASSES.values()), "of the class"),
    ]
    for kind, rows in (("stars", star), ("galaxies", ~star)):
        number = np.array([np.count_nonzero(measured[rows] == name) for name in names], np.int64)
        total = np.full(number.size, np.count_nonzero(rows), np.int64)
        low, high = binomial_interval(number, total)
        fraction = np.full(number.size, np.nan)
        np.divide(number, total, out=fraction, where=total > 0)
        fields += [
            Field(kind, number, f"true {kind} in the class"),
            Field(f"{kind}_fraction", fraction, f"part of all true {kind}"),
            Field(f"{kind}_fraction_low", low, "lower end of its 68.3 % interval (Jeffreys)"),
            Field(f"{kind}_fraction_high", high, "upper end of its 68.3 % interval (Jeffreys)"),
        ]
    called = {"star": (measured == 0.0) | (measured == 1.0), "galaxy": (measured == 2.0) | (measured == 3.0)}
    meta = {}
    for kind, own in (("star", star), ("galaxy", ~star)):
        right = int(np.count_nonzero(own & called[kind]))
        for what, of in (("completeness", int(own.sum())), ("purity", int(called[kind].sum()))):
            ends = binomial_interval([right], [of])
            meta[f"{kind}_{what}"] = (right / of if of else np.nan, float(ends[0][0]), float(ends[1][0]))
    note = _confusion_note(star.size, int(star.sum()), int((measured == -9.0).sum()), meta)
    return result_table(fields, note, **meta)


def _confusion_note(total: int, stars: int, without: int, meta: dict[str, tuple[float, float, float]]) -> str:
    if not total:
        return "There is no matched object."
    if without == total:
        return f"None of {counted(total, 'matched object')} has a class."
    parts = []
    for kind, number in (("star", stars), ("galaxy", total - stars)):
        if number:
            plural = "stars" if kind == "star" else "galaxies"
            parts.append(f"{100 * meta[f'{kind}_completeness'][0]:.0f} % of {number} {plural} are called {plural}")
    rest = f"; {without} have no class" if without else ""
    return f"{', '.join(parts)}{rest}."


def input_row_efficiency(kind: ArrayLike, row: ArrayLike, detected: ArrayLike) -> Table:
    """Return how often each row of the input catalogues was injected and found.

    Parameters
    ----------
    kind : array_like of str, shape (n,)
        Injection type of each injection.
    row : array_like of int, shape (n,)
        Its row in the input catalogue; negative where it comes from none, which is left out.
    detected : array_like of bool, shape (n,)
        Whether it was found.

    Returns
    -------
    astropy.table.Table
        ``kind``, ``row``, ``injected``, ``detected``, ``efficiency`` with its 68.3 % interval; by kind and row.

    Raises
    ------
    InputError
        When the lists have different lengths.
    """
    found = flags_of(detected, "detected")
    number = numbers(row, "row", found.size)
    kinds = np.asarray(kind).astype(str)
    if kinds.shape != found.shape:
        raise InputError(f"kind has {kinds.size} rows, the others have {found.size}")
    use = np.isfinite(number) & (np.where(np.isfinite(number), number, -1.0) >= 0.0)
    pairs = np.empty(int(use.sum()), dtype=[("kind", kinds.dtype), ("row", np.int64)])
    pairs["kind"], pairs["row"] = kinds[use], number[use].astype(np.int64)
    rows, place = np.unique(pairs, return_inverse=True)
    injected = np.bincount(place, minlength=rows.size).astype(np.int64)
    seen = np.bincount(place[found[use]], minlength=rows.size).astype(np.int64)
    low, high = binomial_interval(seen, injected)
    never = int(np.count_nonzero(seen == 0))
    note = (
        f"{counted(rows.size, 'input row')} injected {counted(int(injected.sum()), 'time')}, {never} never found."
        if rows.size
        else "No injection comes from a row of an input catalogue."
    )
    return result_table(
        [
            Field("kind", rows["kind"], "injection type"),
            Field("row", rows["row"], "row of its input catalogue, from 0"),
            Field("injected", injected, "times injected"),
            Field("detected", seen, "times found"),
            Field("efficiency", seen / np.maximum(injected, 1), "fraction found"),
            Field("efficiency_low", low, "lower end of its 68.3 % interval (Jeffreys)"),
            Field("efficiency_high", high, "upper end of its 68.3 % interval (Jeffreys)"),
        ],
        note,
    )
