"""The words of a rules file: catalogue columns, functions, and references to what is sampled."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from balrogutils.rules.codes import bad_rule

__all__ = [
    "Array",
    "Catalog",
    "Column",
    "Constant",
    "Function",
    "Reference",
    "References",
    "Rule",
    "Table",
    "Where",
    "as_rule",
    "where_written",
]

_OURS = str(Path(__file__).parent)


@dataclass(frozen=True)
class Where:
    """A line of the user's file."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"line {self.line} of {Path(self.file).name}"


def where_written() -> Where | None:
    """Return the line that is being run outside this package, which is the user's; None when there is none."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_OURS):
        frame = frame.f_back  # type: ignore[assignment]
    return Where(frame.f_code.co_filename, frame.f_lineno) if frame is not None else None


class Rule:
    """Anything that says how values are drawn."""


@dataclass(frozen=True, eq=False)
class Constant(Rule):
    """The same value for every object."""

    value: float | str


@dataclass(frozen=True, eq=False)
class Array(Rule):
    """One value an object."""

    values: NDArray[Any]


class Column(Rule):
    """A column of a FITS table, rows drawn with replacement; all columns of one table share the rows.

    Parameters
    ----------
    file : path-like
        The file.
    ext : int or str
        Number or name of its HDU.
    col : str
        Name of the column, in any case.
    """

    def __init__(
        self,
        file: str | os.PathLike[str] | None = None,
        ext: int | str | None = None,
        col: str | None = None,
    ) -> None:
        for name, value in (("file", file), ("ext", ext), ("col", col)):
            if value is None:
                raise bad_rule(503, f"Catalog needs {name}", "write Catalog(file=..., ext=..., col=...)")
        assert file is not None and ext is not None and col is not None  # noqa: PT018 (for the type checker)
        self.file, self.ext, self.col = Path(file).expanduser(), ext, str(col)
        self.where = where_written()


Catalog = Column


class Table:
    """A FITS table whose columns are rules: ``Table(file, ext).Column(col)``."""

    def __init__(self, file: str | os.PathLike[str] | None = None, ext: int | str | None = None) -> None:
        for name, value in (("file", file), ("ext", ext)):
            if value is None:
                raise bad_rule(503, f"Table needs {name}", "write Table(file=..., ext=...)")
        self.__dict__["_place"] = (file, ext)

    def Column(self, col: str | None = None) -> Column:
        """Return the rule that draws from one column."""
        file, ext = self.__dict__["_place"]
        return Catalog(file, ext, col)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise bad_rule(801, f"Table takes no attribute {name}", "use Table(...).Column(...)")


class Function(Rule):
    """What a function of the user's returns: a one-dimensional array with a value for every object.

    Parameters
    ----------
    function : callable
        Called once, when all its arguments are known.
    args : sequence
        Its arguments: values, sampled attributes, Catalog and Function rules, and lists or tuples of them.
    kwargs : mapping
        The same by name.
    """

    def __init__(
        self,
        function: Callable[..., Any] | None = None,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        if not callable(function):
            raise bad_rule(502, "Function needs a function", "write Function(function=..., args=[...])")
        if isinstance(args, str) or not isinstance(args, Sequence) or not isinstance(kwargs or {}, Mapping):
            text = "Function takes its args as a list and its kwargs as a dictionary"
            raise bad_rule(502, text, "write Function(function=f, args=[a, b], kwargs={'c': c})")
        self.function, self.args, self.kwargs = function, tuple(args), dict(kwargs or {})
        self.where = where_written()

    @property
    def name(self) -> str:
        """The name of the function."""
        return str(getattr(self.function, "__name__", type(self.function).__name__))


def _unready(self: Rule, *_: object, **__: object) -> Any:
    text = f"{self} has no values yet, so nothing can be computed from it here"
    raise bad_rule(303, text, f"write Function(function=f, args=[{self}]), where f computes it")


@dataclass(frozen=True, eq=False)
class Reference(Rule):
    """What a parameter is sampled to; `component` is None for those of the whole object."""

    attribute: str
    component: int | None = None

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _unready
    __pow__ = __rpow__ = __neg__ = __abs__ = __float__ = __array__ = __array_ufunc__ = _unready

    def __str__(self) -> str:
        return f"sampled.{self.attribute}" + ("" if self.component is None else f"[{self.component}]")


class References(Rule):
    """What one parameter is sampled to, by component; alone it stands for that of the one component."""

    def __init__(self, attribute: str, profiles: int) -> None:
        self.__dict__.update(_attribute=attribute, _profiles=profiles)

    def __str__(self) -> str:
        return f"sampled.{self._attribute}"

    def __len__(self) -> int:
        return int(self._profiles)

    def __getitem__(self, index: int) -> Reference:
        if isinstance(index, int) and -self._profiles <= index < self._profiles:
            return Reference(self._attribute, index % self._profiles)
        text = f"{self}[{index}] is beyond the {self._profiles} components"
        raise bad_rule(404, text, "say InitializeSersic(rules, sampled, nProfiles=...) first")

    def __setitem__(self, index: object, value: object) -> NoReturn:
        raise bad_rule(403, f"{self} cannot be assigned", f"assign rules.{self._attribute}")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise bad_rule(403, f"{self}.{name} cannot be assigned", f"assign rules.{self._attribute}")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise bad_rule(405, f"{self} has no attribute {name}", f"index it: {self}[0]")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _unready
    __pow__ = __rpow__ = __neg__ = __abs__ = __float__ = __array__ = __array_ufunc__ = _unready


def as_rule(value: Any, count: int) -> Rule | None:
    """Return a value given for one parameter as a rule; None when it is none.

    Parameters
    ----------
    value : object
        A rule, a number, a text, or one value an object.
    count : int
        Number of objects.
    """
    if isinstance(value, References):
        return value[0] if len(value) == 1 else None
    if isinstance(value, Rule):
        return value
    if isinstance(value, str):
        return Constant(value)
    if isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
        return Constant(float(value))
    if isinstance(value, (np.ndarray, Sequence)) and not any(isinstance(one, Rule) for one in value):
        array = np.array(value)
        if array.ndim == 0 and array.dtype.kind in "iuf":
            return Constant(float(array))
        if array.ndim == 1 and len(array) == count and array.dtype.kind in "iufbUS":
            return Array(array)
    return None
