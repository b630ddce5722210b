"""The same objects fit by two engines, parameter by parameter."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from balrogutils import __version__
from balrogutils.fitting.models import model
from balrogutils.measurement.catalogue import Rows
from balrogutils.measurement.objectfitter import ObjectFitter
from balrogutils.measurement.target import Target
from balrogutils.metacal.shears import suffix

__all__ = ["Crosscheck", "Measured", "compare", "mcal_reader", "sof_reader"]

F64 = NDArray[np.float64]
Reader = Callable[[Any], tuple[F64, F64, float]]
"""Takes from a row of ``model_fits`` the parameters, their errors and chi^2."""


class Measured(NamedTuple):
    """One object by both engines, ours first: flags, parameters and errors [2, npar], chi^2, CPU seconds."""

    id: int
    flags: tuple[int, int]
    values: F64
    errors: F64
    chi2: tuple[float, float]
    seconds: tuple[float, float]

    @property
    def good(self) -> bool:
        """Whether both have a fit."""
        return not any(self.flags)

    @property
    def difference(self) -> F64:
        """Theirs less ours of each parameter, in standard errors of ours."""
        return np.asarray((self.values[1] - self.values[0]) / self.errors[0])


@dataclass(frozen=True)
class Crosscheck:
    """What a comparison found; `what` says of what, `version` is that of ngmix."""

    what: str
    version: str
    names: tuple[str, ...]
    objects: tuple[Measured, ...]
    limit: float

    @property
    def good(self) -> list[Measured]:
        """Objects that both engines fit."""
        return [one for one in self.objects if one.good]

    @property
    def over(self) -> list[Measured]:
        """Objects of which a parameter differs by more than the limit."""
        return [one for one in self.good if not np.abs(one.difference).max() <= self.limit]

    @property
    def excused(self) -> list[Measured]:
        """Those of `over` where ngmix ended at a chi^2 above ours, by more than a difference of the limit would make:
        it stopped before the minimum, or in another one."""
        return [one for one in self.over if one.chi2[1] - one.chi2[0] > self.limit**2]

    @property
    def sound(self) -> bool:
        """Whether something was compared, and nothing is over the limit that is not excused."""
        return bool(self.good) and len(self.over) == len(self.excused)

    def document(self) -> dict[str, Any]:
        """Return everything as numbers for JSON; what is no number is None."""
        good = self.good
        return {
            "what": self.what,
            "balrogutils": __version__,
            "ngmix": self.version,
            "limit": self.limit,
            "sound": self.sound,
            "compared": len(good),
            "over_limit": [one.id for one in self.over],
            "ngmix_above_minimum": [one.id for one in self.excused],
            "cpu_ms": {name: _plain(self._milliseconds(k)) for k, name in enumerate(("balrogutils", "ngmix"))},
            "parameters": [dict(zip(_COLUMNS, map(_plain, row), strict=True)) for row in self._table()],
            "objects": [
                {
                    "id": one.id,
                    "flags": list(one.flags),
                    "chi2": [_plain(value) for value in one.chi2],
                    "cpu_ms": [1e3 * value for value in one.seconds],
                    "values": [[_plain(value) for value in row] for row in one.values],
                    "errors": [[_plain(value) for value in row] for row in one.errors],
                }
                for one in self.objects
            ],
        }

    def _milliseconds(self, engine: int) -> float:
        return 1e3 * sum(one.seconds[engine] for one in self.objects) / max(len(self.objects), 1)

    def _table(self) -> list[tuple[Any, ...]]:
        """Return a row for each parameter: medians of values and errors, differences, the object of the worst."""
        good = self.good
        if not good:
            return []
        values, errors = (np.median([getattr(one, name) for one in good], axis=0) for name in ("values", "errors"))
        differences = np.abs([one.difference for one in good])
        worst = np.argmax(differences, axis=0)
        middle = np.median(differences, axis=0)
        return [
            (name, *values[:, k], *errors[:, k], middle[k], differences[worst[k], k], good[int(worst[k])].id)
            for k, name in enumerate(self.names)
        ]

    def __str__(self) -> str:
        lines = [f"{self.what}: {len(self.objects)} objects by balrogutils {__version__} and ngmix {self.version}"]
        if self.good:
            rows = [(one[0], one[1], one[3], one[2], one[4], *one[5:]) for one in self._table()]
            formats = ("", ".6g", ".3g", ".6g", ".3g", ".4f", ".4f", "")
            heads = ("parameter", "balrogutils", "error", "ngmix", "error", "median |d| / error", "worst", "of object")
            lines.append(tabulate(rows, heads, floatfmt=formats))
            if len(self.good) > 1:
                lines.append("values and errors are medians over the objects")
        alone = [sum(1 for one in self.objects if one.flags[k] and not one.flags[1 - k]) for k in (0, 1)]
        both = sum(1 for one in self.objects if all(one.flags))
        lines += [
            f"fit by both: {len(self.good)}; flagged by both: {both}, by balrogutils alone: {alone[0]}, "
            f"by ngmix alone: {alone[1]}",
            f"CPU ms per object: {self._milliseconds(0):.0f} and {self._milliseconds(1):.0f}",
        ]
        if self.over:
            ids = " ".join(str(one.id) for one in self.over)
            lines.append(
                f"over the limit of {self.limit:g}: {len(self.over)} objects ({ids}), "
                f"{len(self.excused)} of them where ngmix ended at a higher chi^2"
            )
        verdict = f"agree within {self.limit:g} standard errors" if self.sound else "DIFFER"
        return "\n".join([*lines, f"the engines {verdict}" if self.good else "nothing could be compared"])


_COLUMNS = (
    "name",
    "balrogutils",
    "ngmix",
    "balrogutils_error",
    "ngmix_error",
    "median_difference",
    "worst_difference",
    "worst_object",
)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if isinstance(value, (str, int)):
        return value
    return float(value) if math.isfinite(value) else None


def sof_reader(name: str, bands: Sequence[str]) -> tuple[tuple[str, ...], Reader]:
    """Return the names of the parameters of a model, and what reads them."""
    profile = model("exp" if name == "cm" else name)
    names = (*profile.names, *(f"flux_{band}" for band in bands))

    def read(row: Any) -> tuple[F64, F64, float]:
        values, errors = row[f"{name}_pars"], np.sqrt(np.diag(row[f"{name}_pars_cov"]))
        if name == "cm":
            values = np.append(values, float(row["cm_fracdev_noclip"]))
            errors = np.append(errors, float(row["cm_fracdev_err"]))
        return values, errors, float(row[f"{name}_chi2per"] * row[f"{name}_dof"])

    return (*names, "fracdev") if name == "cm" else names, read


def mcal_reader(types: Sequence[str], bands: Sequence[str]) -> tuple[tuple[str, ...], Reader]:
    """Return the names of the parameters of the Gaussians of metacal types, and what reads them; chi^2 is unknown."""
    ends = [suffix(name) for name in types]
    each = (*model("gauss").names, *(f"flux_{band}" for band in bands))

    def read(row: Any) -> tuple[F64, F64, float]:
        values = np.concatenate([row[f"mcal_pars{end}"] for end in ends])
        errors = np.concatenate([np.sqrt(np.diag(row[f"mcal_pars_cov{end}"])) for end in ends])
        return values, errors, math.nan

    return tuple(f"{name}{end}" for end in ends for name in each), read


def compare(fitters: tuple[ObjectFitter, ObjectFitter], targets: Iterable[Target], read: Reader) -> list[Measured]:
    """Fit objects with two engines.

    Parameters
    ----------
    fitters : (ObjectFitter, ObjectFitter)
        Ours, and the other one's.
    targets : iterable of Target
        The objects. The first is fit twice, so that no time is that of compilers.
    read : callable
        As of `sof_reader` or `mcal_reader`.

    Returns
    -------
    list of Measured
        In order.
    """
    out: list[Measured] = []
    for target in targets:
        if not out:
            for fitter in fitters:
                fitter(target)
        timed = [_timed(fitter, target) for fitter in fitters]
        rows = [row[0] for row, _ in timed]
        values, errors, chi2 = zip(*(read(row) for row in rows), strict=True)
        flags = (int(rows[0]["flags"]), int(rows[1]["flags"]))
        seconds = (timed[0][1], timed[1][1])
        out.append(Measured(target.id, flags, np.array(values), np.array(errors), (chi2[0], chi2[1]), seconds))
    return out


def _timed(fitter: ObjectFitter, target: Target) -> tuple[Rows, float]:
    started = time.process_time()
    row, _ = fitter(target)
    return row, time.process_time() - started
