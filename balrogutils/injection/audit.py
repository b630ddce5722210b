"""The audit of injected images: what the pixels gained is what the truth tables say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import InjectionError
from balrogutils.injection.catalogs import ZERO_POINT
from balrogutils.injection.flags import ChipFlag, sharing
from balrogutils.injection.planning import plan_bands
from balrogutils.injection.profiles import LOST_LIGHT

if TYPE_CHECKING:
    from balrogutils.injection.chips import Chip

__all__ = [
    "FLUX_TOLERANCE",
    "HEADER_KEY",
    "SIGMAS",
    "Pixels",
    "check_chip_rows",
    "check_coverage",
    "check_pixels",
    "check_truth",
    "require",
]

HEADER_KEY = "BALRREAL"
"""Card of the SCI plane that names the realization an image was injected for; a base image has none."""

FLUX_TOLERANCE = 1e-4
"""Share of the light by which pixels and truth may differ."""

SIGMAS = 5.0
"""How many times the rounding to the image's precision they may differ besides."""

# Of 10^7 stamps none has so much noise by chance.
_NOISE_SIGMAS = 8.0

# Rows of pixels handled at a time where a temporary copy in double precision is needed.
_BLOCK = 256


@dataclass
class Pixels:
    """What the pixels of one chip say.

    Attributes
    ----------
    problems : list of str
        What is wrong; empty when all is well.
    worst : float
        Largest difference between pixels and truth, in units of what is allowed.
    groups : int
        Groups of stamps that share pixels; each is compared by itself.
    gained : float
        Light and noise the chip gained, in its units.
    """

    problems: list[str] = field(default_factory=list)
    worst: float = 0.0
    groups: int = 0
    gained: float = 0.0


def check_pixels(base: NDArray[Any], injected: NDArray[Any], rows: NDArray[Any]) -> Pixels:
    """Compare the pixels of one chip with its rows of the truth.

    Parameters
    ----------
    base, injected : ndarray of float32, shape (nrow, ncol)
        SCI planes before and after.
    rows : numpy.ndarray
        `balrogutils.injection.flags.OUTCOME_DTYPE`, of this chip.

    Returns
    -------
    Pixels
        What was found.

    Notes
    -----
    Outside the stamps the images must be equal. The stamps fall into groups that share pixels; within each group the
    sum of (injected - base) must equal the light and noise drawn within `FLUX_TOLERANCE` of the light plus `SIGMAS`
    times the rounding (root of the sum of the squared floating-point steps of its pixels). An object that lies on the
    chip as a whole must have all its light there, within `profiles.LOST_LIGHT`, and its noise must be as large as its
    variance allows.
    """
    found = Pixels()
    if base.shape != injected.shape:
        found.problems.append(f"the images have shapes {base.shape} and {injected.shape}")
        return found
    group = _groups(rows)
    found.groups = int(group.max(initial=0))
    labels = np.zeros(base.shape, dtype=np.int32)
    for row, number in zip(rows, group, strict=True):
        labels[int(row["ymin"]) - 1 : int(row["ymax"]), int(row["xmin"]) - 1 : int(row["xmax"])] = number
    gained, steps = (np.zeros(found.groups + 1) for _ in range(2))
    outside = infinite = 0
    for first in range(0, len(base), _BLOCK):
        part = slice(first, first + _BLOCK)
        old, new, here = base[part], injected[part], labels[part]
        outside += int(np.sum((here == 0) & ~((old == new) | (np.isnan(old) & np.isnan(new)))))
        finite = np.isfinite(old) & (here > 0)
        infinite += int(np.sum((np.isfinite(old) != np.isfinite(new)) & (here > 0)))
        finite &= np.isfinite(new)
        number, light = here[finite], new[finite].astype(np.float64) - old[finite]
        step = np.spacing(np.maximum(np.abs(new[finite]), np.abs(old[finite]))).astype(np.float64)
        gained += np.bincount(number, light, minlength=found.groups + 1)
        steps += np.bincount(number, step**2, minlength=found.groups + 1)
    if outside:
        found.problems.append(f"{outside} pixels outside the stamps differ from the base image")
    if infinite:
        found.problems.append(f"{infinite} pixels became infinite by injection, or finite")
    told, light = (
        np.bincount(group, values, minlength=found.groups + 1)
        for values in (rows["flux_on_chip"] + rows["noise_drawn"], np.abs(rows["flux_on_chip"]))
    )
    allowed = FLUX_TOLERANCE * light + SIGMAS * np.sqrt(steps)
    off = np.abs(gained - told)[1:] / np.maximum(allowed[1:], np.finfo(float).tiny)
    found.gained = float(gained[1:].sum())
    if found.groups:
        found.worst = float(off.max())
    for number in np.flatnonzero(~(off <= 1.0)) + 1:
        names = ", ".join(str(name) for name in rows["bal_id"][group == number][:3])
        found.problems.append(
            f"the image gained {gained[number]:.6g} where the objects drawn sum to {told[number]:.6g} (allowed "
            f"difference {allowed[number]:.3g}; objects {names})"
        )
    found.problems += check_chip_rows(rows)
    return found


def _groups(rows: NDArray[Any]) -> NDArray[np.int64]:
    """Return the number, from 1, of the group of each stamp: those that share pixels, directly or by others."""
    group = np.zeros(len(rows), dtype=np.int64)
    for first in range(len(rows)):
        if group[first]:
            continue
        number = group.max() + 1
        todo = [first]
        group[first] = number
        while todo:
            new = np.flatnonzero(sharing(rows, rows[todo.pop()]) & (group == 0))
            group[new] = number
            todo.extend(new.tolist())
    return group


def check_chip_rows(rows: NDArray[Any]) -> list[str]:
    """Return what is wrong with the fluxes and noises of (object, chip) rows by themselves."""
    problems = []
    light = np.abs(rows["flux_expected"])
    short = np.abs(rows["flux_drawn"] - rows["flux_expected"]) > LOST_LIGHT * light
    whole = (rows["flags"] & (ChipFlag.CLIPPED_BY_EDGE | ChipFlag.ON_BAD_PIXELS)) == 0
    short |= whole & (np.abs(rows["flux_on_chip"] - rows["flux_drawn"]) > 1e-9 * light)
    if short.any():
        problems.append(f"{np.sum(short)} objects have less light on the chip than the truth says")
    # Ten electrons besides: with few of them the tail of Poisson is longer than that of a Gaussian.
    electron = rows["poisson_variance"] / np.maximum(np.abs(rows["flux_on_chip"]), np.finfo(float).tiny)
    loud = np.abs(rows["noise_drawn"]) > _NOISE_SIGMAS * np.sqrt(rows["poisson_variance"]) + 10.0 * electron
    if loud.any():
        problems.append(f"{np.sum(loud)} objects have noise of more than {_NOISE_SIGMAS:g} sigma")
    return problems


def check_truth(truth: NDArray[Any], chips: NDArray[Any], count: int | None = None) -> list[str]:
    """Compare the truth catalogue with the table by object and chip.

    Parameters
    ----------
    truth, chips : numpy.ndarray
        Both tables of one realization.
    count : int, optional
        How many objects the catalogue's header speaks of.

    Returns
    -------
    list of str
        What is wrong.
    """
    problems = []
    if len(np.unique(truth["bal_id"])) != len(truth):
        problems.append("the truth catalogue has an identifier twice")
    if count is not None and count != len(truth):
        problems.append(f"the truth catalogue has {len(truth)} rows, its header speaks of {count}")
    keys = chips[["bal_id", "band", "chip"]]
    if len(np.unique(keys)) != len(keys):
        problems.append("the table by chip has an object twice on one chip")
    order = np.argsort(truth["bal_id"])
    at = np.minimum(np.searchsorted(truth["bal_id"], chips["bal_id"], sorter=order), max(len(truth) - 1, 0))
    if not len(truth):
        return [*problems, "the truth catalogue is empty"]
    index = order[at]
    strange = truth["bal_id"][index] != chips["bal_id"]
    if strange.any():
        names = ", ".join(str(name) for name in np.unique(chips["bal_id"][strange])[:3])
        problems.append(f"{np.sum(strange)} rows by chip are of objects the truth catalogue lacks: {names}")
    for band in plan_bands(truth):
        here = (chips["band"] == band) & ~strange
        asked = truth[f"flux_{band}"][index[here]] * 10.0 ** (0.4 * (chips["magzp"][here] - ZERO_POINT))
        off = ~np.isclose(chips["flux_expected"][here], asked, rtol=1e-9, atol=0.0)
        if off.any():
            names = ", ".join(str(name) for name in chips["bal_id"][here][off][:3])
            problems.append(
                f"{np.sum(off)} fluxes on chips of band {band} are not those of the truth catalogue: {names}"
            )
    unknown = sorted(set(chips["band"]) - set(plan_bands(truth)))
    if unknown:
        problems.append(f"the table by chip has bands the truth catalogue lacks: {', '.join(unknown)}")
    return problems


def check_coverage(truth: NDArray[Any], rows: NDArray[Any], chip: Chip) -> list[str]:
    """Return what is wrong with which objects a chip holds: every centre on it must have been drawn, where it is.

    Parameters
    ----------
    truth : numpy.ndarray
        The truth catalogue.
    rows : numpy.ndarray
        Rows by chip, of this chip.
    chip : Chip
        The chip.
    """
    wcs, shape = chip.wcs, chip.shape
    near = chip.near(truth["ra"], truth["dec"])
    row, col = wcs.sky_to_pixel(truth["ra"][near], truth["dec"][near])
    inside = (row >= 0) & (row <= shape[0] - 1) & (col >= 0) & (col <= shape[1] - 1)
    held = rows["bal_id"][(rows["flags"] & ChipFlag.CENTRE_ON_CHIP) != 0]
    problems = []
    missing = np.setdiff1d(truth["bal_id"][near[inside]], held)
    if len(missing):
        names = ", ".join(str(name) for name in missing[:3])
        problems.append(f"{len(missing)} objects whose centres lie on the chip were not injected: {names}")
    _, ours, theirs = np.intersect1d(truth["bal_id"][near], rows["bal_id"], return_indices=True)
    moved = np.hypot(row[ours] + 1.0 - rows["y"][theirs], col[ours] + 1.0 - rows["x"][theirs]) > 1e-3
    if moved.any():
        names = ", ".join(str(name) for name in rows["bal_id"][theirs[moved]][:3])
        problems.append(f"{np.sum(moved)} objects were injected elsewhere than the truth says: {names}")
    return problems


def require(problems: Iterable[str]) -> None:
    """Raise when there are problems.

    Raises
    ------
    InjectionError
        With the first of them, and how many more there are.
    """
    told = list(problems)
    if told:
        more = f" (and {len(told) - 1} more)" if len(told) > 1 else ""
        raise InjectionError(told[0] + more, remedy="run the injection block (mode bit 8) again")
