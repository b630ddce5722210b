"""Tables of shear response, of m and c, and of the response to magnification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from astropy.table import Table
from numpy.typing import ArrayLike, NDArray

from balrogutils.analysis.response import Bias, Response, mean_response
from balrogutils.analysis.response import Selection as ByType
from balrogutils.analysis.tables import Field, counted, flags_of, numbers, result_table
from balrogutils.errors import InputError
from balrogutils.metacal.shears import STEP

__all__ = ["bias_table", "magnification_response", "response_table"]

F64 = NDArray[np.float64]

GROUPS = 50
"""Parts that are left out in turn for the errors."""


def response_table(
    shapes: Mapping[str, ArrayLike],
    select: ByType | None = None,
    step: float = STEP,
    groups: int = GROUPS,
) -> Table:
    """Return the 2x2 response with that of the selection, and errors.

    Parameters
    ----------
    shapes, select, step
        As in `mean_response`.
    groups : int
        Parts of the objects, left out in turn (jackknife); fewer where there are fewer selected objects.

    Returns
    -------
    astropy.table.Table
        Rows R11, R12, R21, R22: ``element``, ``R``, ``RS``, ``total`` with errors, and ``objects``. No rows, and a
        note, when nothing is selected.

    Notes
    -----
    Errors are (g - 1) / g times the sum of squared deviations of the g values with one part left out, a part being
    every g-th object. They hold for the selection's response too, which has no error of its own by object.
    """
    count = len(np.asarray(shapes["noshear"])) if "noshear" in shapes else 0
    kept = {name: _chosen(select, name, count) for name in shapes}
    number = int(np.count_nonzero(kept.get("noshear", np.zeros(0))))
    parts: list[Response] = []
    note = f"Mean of {counted(number, 'object')}."
    if number < 2 or any(not rows.any() for rows in kept.values()):
        note, whole = f"{counted(number, 'selected object')}: no mean response.", None
    else:
        whole = mean_response(shapes, select, step=step)
        parts = _jackknife(shapes, kept, select is not None, step, min(groups, number))
    rows = [] if whole is None else [(i, j) for i in (0, 1) for j in (0, 1)]
    columns: dict[str, list[float]] = {name: [] for name in ("R", "R_err", "RS", "RS_err", "total", "total_err")}
    for i, j in rows:
        for name in ("R", "RS", "total"):
            values = np.array([getattr(part, name)[i, j] for part in parts])
            columns[name].append(float(getattr(whole, name)[i, j]))
            scale = (values.size - 1.0) / max(values.size, 1)
            columns[f"{name}_err"].append(
                float(np.sqrt(scale * ((values - values.mean()) ** 2).sum())) if values.size > 1 else np.nan
            )
    meaning = {
        "R": "mean of the objects' own response, d e_i / d g_j",
        "RS": "response of the selection",
        "total": "R + RS",
    }
    fields = [Field("element", np.array([f"R{i + 1}{j + 1}" for i, j in rows], "U3"), "i: shape, j: shear")]
    for name, text in meaning.items():
        fields.append(Field(name, np.array(columns[name], float), text))
        fields.append(Field(f"{name}_err", np.array(columns[f"{name}_err"], float), "standard error (jackknife)"))
    fields.append(Field("objects", np.full(len(rows), number, np.int64), "selected, unsheared"))
    return result_table(fields, note)


def _chosen(select: ByType | None, name: str, count: int) -> NDArray[np.bool_]:
    return np.ones(count, bool) if select is None else np.asarray(select(name), bool)


def _jackknife(
    shapes: Mapping[str, ArrayLike], kept: Mapping[str, NDArray[np.bool_]], selected: bool, step: float, groups: int
) -> list[Response]:
    tables = {name: np.asarray(values, float) for name, values in shapes.items()}
    # Parts of equal numbers of selected objects; the others go wherever they are.
    part = np.cumsum(kept["noshear"]) % groups
    found = []
    for number in range(groups):
        rest = part != number
        chosen = {name: rows[rest] for name, rows in kept.items()}
        if all(rows.any() for rows in chosen.values()):
            own = {name: values[rest] for name, values in tables.items()}
            found.append(mean_response(own, chosen.__getitem__ if selected else None, step=step))
    return found


def bias_table(biases: Sequence[tuple[str, Bias, int]]) -> Table:
    """Return m and c of components of the shear.

    Parameters
    ----------
    biases : sequence of (str, Bias, int)
        Component (``g1``), what `pair_bias` found, and how many pairs went in.

    Returns
    -------
    astropy.table.Table
        ``component``, ``m``, ``m_err``, ``c``, ``c_err``, ``pairs``. The note states values and errors, and claims
        nothing more.
    """
    values = np.array([one[1] for one in biases], float).reshape(-1, 4)
    text = [
        f"{name}: m = {b.m:+.3f} +- {b.m_err:.3f}, c = {b.c:+.4f} +- {b.c_err:.4f} ({counted(number, 'pair')})"
        for name, b, number in biases
    ]
    return result_table(
        [
            Field("component", np.array([one[0] for one in biases], "U8"), "of the shear"),
            Field("m", values[:, 0], "found = (1 + m) true + c"),
            Field("m_err", values[:, 1], "standard error of m"),
            Field("c", values[:, 2], "additive part"),
            Field("c_err", values[:, 3], "standard error of c"),
            Field("pairs", np.array([one[2] for one in biases], np.int64), "objects with both signs of the shear"),
        ],
        "; ".join(text) + "." if text else "There is no pair of opposite shears.",
    )


def magnification_response(
    plain: ArrayLike, magnified: ArrayLike, magnification: float, *, sample: str = "selected"
) -> Table:
    """Return how the number of selected objects changes with magnification.

    Parameters
    ----------
    plain, magnified : array_like of bool, shape (n,)
        Whether each of the same injections is selected, without and with magnification. What was not found is not
        selected.
    magnification : float
        mu of the latter; not 1.
    sample : str
        Name of the selection.

    Returns
    -------
    astropy.table.Table
        One row: ``sample``, ``injections``, ``plain``, ``magnified``, ``gained``, ``lost``, ``response`` and its error.

    Raises
    ------
    InputError
        When the lists have different lengths, or the magnification is 1 or not positive.

    Notes
    -----
    response = d ln N / d kappa = (N' - N) / (N kappa) with mu = 1 + 2 kappa, the flux part C_sample of the change of
    counts; the change of area, -2 kappa, is not in it (Elvin-Poole et al. 2023, MNRAS 523, 3649). Injections that are
    selected in both tell nothing of the change, so its variance is that of the discordant pairs, gained + lost
    (McNemar 1947).
    """
    first, second = flags_of(plain, "plain"), flags_of(magnified, "magnified")
    numbers(second, "magnified", first.size)
    if not magnification > 0.0 or magnification == 1.0:
        raise InputError(f"a magnification of {magnification} changes nothing", remedy="give one that is not 1")
    kappa = (magnification - 1.0) / 2.0
    before, after = int(first.sum()), int(second.sum())
    gained, lost = int((second & ~first).sum()), int((first & ~second).sum())
    response, error = np.nan, np.nan
    note = f"None of {counted(first.size, 'injection')} is selected without magnification: no response."
    if before:
        response = (after - before) / before / kappa
        variance = max(gained + lost, 1) - (gained - lost) ** 2 / first.size
        error = float(np.sqrt(max(variance, 1.0)) / before / abs(kappa))
        note = (
            f"{sample}: d ln N / d kappa = {response:.2f} +- {error:.2f} from {counted(before, 'selected injection')}."
        )
    return result_table(
        [
            Field("sample", [sample], "selection"),
            Field("injections", [first.size], "in both"),
            Field("plain", [before], "selected without magnification"),
            Field("magnified", [after], "selected with it"),
            Field("gained", [gained], "selected only with it"),
            Field("lost", [lost], "selected only without it"),
            Field("response", [response], "d ln N / d kappa"),
            Field("response_err", [error], "standard error, from gained + lost"),
        ],
        note,
        magnification=magnification,
    )
