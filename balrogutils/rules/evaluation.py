"""Values of rules, in whatever order they were written."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import fitsio
import numpy as np
from numpy.typing import NDArray

from balrogutils.errors import did_you_mean
from balrogutils.randomness import seed32, stream
from balrogutils.rules.attributes import Assigned
from balrogutils.rules.codes import bad_rule
from balrogutils.rules.language import Array, Column, Constant, Function, Reference, References, Rule, Where

__all__ = ["ColumnFacts", "Evaluation", "named_randomness"]

_NUMBERS = "iufb"


class ColumnFacts(NamedTuple):
    """What a FITS file says of a column: its name as written there, format code and unit."""

    name: str
    format: str
    unit: str


@contextmanager
def named_randomness(seed: int, *names: str | int) -> Iterator[None]:
    """Give code that draws from the global generators of NumPy and Python a stream of its own.

    Parameters
    ----------
    seed : int
        Seed of the run.
    *names : str or int
        Name of the stream, as `balrogutils.randomness.stream` takes it.

    Notes
    -----
    The state before is put back, so nothing that runs afterwards depends on how much was drawn.
    """
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002 (what users draw from)
    key = seed32(seed, *names)
    np.random.seed(key)  # noqa: NPY002
    random.seed(key)
    try:
        yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)


class Evaluation:
    """Evaluates rules, each once and only when it is needed.

    Parameters
    ----------
    assigned : mapping of Reference to Assigned or None
        The rule of every parameter; those without one have no value.
    count : int
        Number of objects.
    seed : int
        Seed of the run.

    Notes
    -----
    Every function has a random stream named after the parameter and its place in the rule, and every table one named
    after its file and HDU: values do not depend on the order of evaluation, nor on other rules.
    """

    def __init__(self, assigned: Mapping[Reference, Assigned | None], count: int, seed: int) -> None:
        self._assigned = {(one.attribute, one.component): given for one, given in assigned.items()}
        self._count, self._seed = count, seed
        self._values: dict[tuple[str, int | None], NDArray[Any]] = {}
        self._open: list[tuple[str, int | None]] = []
        self._tables: dict[tuple[Path, int | str], _Drawn] = {}
        names = {}
        for given in self._assigned.values():
            for file, ext in _tables_of(given.rule if given else None):
                names[file.resolve(), ext] = file.name
        self._names: dict[tuple[Path, int | str], str] = names

    @property
    def tables(self) -> list[Path]:
        """The tables that were drawn from so far."""
        return list(dict.fromkeys(file for file, _ in self._tables))

    def value(self, reference: Reference) -> NDArray[np.float64]:
        """Return the values of one parameter.

        Parameters
        ----------
        reference : Reference
            The parameter; it must have a rule.

        Returns
        -------
        ndarray of float64, shape (count,)

        Raises
        ------
        ConfigError
            When its rule, or one that it needs, cannot be evaluated, or rules need each other in a circle.
        """
        key = (reference.attribute, reference.component)
        if key in self._values:
            return self._values[key]
        given = self._assigned[key]
        if given is None:
            raise bad_rule(303, f"{reference} has no rule", f"give it one: {_rule_name(key)} = ...")
        if key in self._open:
            circle = [*self._open[self._open.index(key) :], key]
            steps = " needs ".join(f"{_rule_name(one)} ({self._where(one)})" for one in circle)
            raise bad_rule(303, f"rules need each other in a circle: {steps}", "give one of them a value of its own")
        self._open.append(key)
        try:
            value = self.evaluate(given, _rule_name(key))
        finally:
            self._open.pop()
        self._values[key] = value
        return value

    def evaluate(self, given: Assigned, name: str, *, text: bool = False) -> NDArray[Any]:
        """Return the values of a rule that is none of a parameter.

        Parameters
        ----------
        given : Assigned
            The rule.
        name : str
            What it is the rule of; names its random stream.
        text : bool
            Whether it may hold texts and numbers that are not finite.

        Raises
        ------
        ConfigError
            As `value`.
        """
        value = self._argument(given.rule, name, given.where)
        if isinstance(given.rule, Function):
            self._check_result(value, given.rule, name, given.where)
        array = np.array(value)
        if text and array.dtype.kind in "SUO":
            return array.astype(np.str_)
        if array.dtype.kind not in _NUMBERS:
            raise bad_rule(303, f"{name} is not made of numbers", "give numbers", **_place(given.where))
        if text:
            return array
        bad = np.flatnonzero(~np.isfinite(array.astype(np.float64)))
        if len(bad):
            rule = given.rule
            what = f"the function {rule.name}" if isinstance(rule, Function) else "its rule"
            message = f"{name}: {what} gives {array[bad[0]]} for object {bad[0]}, {len(bad)} such of {self._count}"
            raise bad_rule(501, message, "see that every value is finite", **_place(given.where))
        return array.astype(np.float64)

    def facts(self, column: Column) -> ColumnFacts:
        """Return what the file says of a column."""
        return self._table(column.file, column.ext, column.where).facts(column)

    def _argument(self, value: Any, name: str, where: Where | None) -> Any:
        """Return an argument of a function, or a rule, with everything in it evaluated."""
        if isinstance(value, References):
            if len(value) != 1:
                text = f"{name} takes {value}, which has {len(value)} components"
                raise bad_rule(303, text, f"index it: {value}[0]", **_place(where))
            value = value[0]
        if isinstance(value, Reference):
            # A copy: what a user's function does to it is its own affair.
            return self.value(value).copy()
        if isinstance(value, Constant):
            return np.full(self._count, value.value)
        if isinstance(value, Array):
            return value.values.copy()
        if isinstance(value, Column):
            return self._table(value.file, value.ext, value.where).column(value)
        if isinstance(value, Function):
            args = [self._argument(one, f"{name}({index})", where) for index, one in enumerate(value.args)]
            kwargs = {key: self._argument(one, f"{name}({key})", where) for key, one in value.kwargs.items()}
            with named_randomness(self._seed, "rule", name):
                return value.function(*args, **kwargs)
        if isinstance(value, (list, tuple)) and any(isinstance(one, (Rule, list, tuple)) for one in value):
            return type(value)([self._argument(one, f"{name}[{index}]", where) for index, one in enumerate(value)])
        return value

    def _check_result(self, value: Any, rule: Function, name: str, where: Where | None) -> None:
        shape = np.shape(value) if isinstance(value, (np.ndarray, Sequence)) and not isinstance(value, str) else ()
        if shape != (self._count,):
            got = f"an array of shape {shape}" if shape else repr(value)
            text = f"{name}: the function {rule.name} returned {got[:200]}, not one value for each of {self._count}"
            raise bad_rule(501, text, "return a one-dimensional array of length args.ngal", **_place(where))

    def _table(self, file: Path, ext: int | str, where: Where | None) -> _Drawn:
        key = file.resolve(), ext
        if key not in self._tables:
            others = [place for place, name in self._names.items() if name == file.name and place[0] != key[0]]
            # The name alone, so that a table may move; the whole path only where two tables have one name.
            name = str(key[0]) if others else file.name
            self._tables[key] = _Drawn.read(file, ext, where, self._count, stream(self._seed, "rows", name, ext))
        return self._tables[key]

    def _where(self, key: tuple[str, int | None]) -> str:
        given = self._assigned[key]
        return str(given.where) if given is not None and given.where is not None else "a default"


def _rule_name(key: tuple[str, int | None]) -> str:
    return f"rules.{key[0]}" + ("" if key[1] is None else f"[{key[1]}]")


def _place(where: Where | None) -> dict[str, Any]:
    return {"file": where.file, "key": f"line {where.line}"} if where else {}


def _tables_of(value: Any) -> Iterator[tuple[Path, int | str]]:
    """Yield the tables a rule draws from."""
    if isinstance(value, Column):
        yield value.file, value.ext
    elif isinstance(value, Function):
        yield from _tables_of([*value.args, *value.kwargs.values()])
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _tables_of(one)


class _Drawn:
    """A FITS table and the rows drawn from it."""

    def __init__(self, rows: NDArray[Any], drawn: NDArray[np.int64], facts: Mapping[str, ColumnFacts]) -> None:
        self._rows, self._drawn, self._facts = rows, drawn, facts

    @classmethod
    def read(
        cls, file: Path, ext: int | str, where: Where | None, count: int, random_stream: np.random.Generator
    ) -> _Drawn:
        place = _place(where)
        if not file.is_file():
            text = f"the catalogue {file} does not exist"
            raise bad_rule(504, text, "correct the name in Catalog(file=...)", **place)
        try:
            with fitsio.FITS(str(file)) as fits:
                if ext not in fits or fits[ext].get_exttype() == "IMAGE_HDU":
                    tables = [number for number, hdu in enumerate(fits) if hdu.get_exttype() != "IMAGE_HDU"]
                    text = f"the catalogue {file} has no table in HDU {ext!r}, only in {tables}"
                    raise bad_rule(505, text, "correct ext", **place)
                rows, header = fits[ext].read(), fits[ext].read_header()
        except OSError as error:
            text = f"the catalogue {file} cannot be read: {str(error).strip().partition(chr(10))[0]}"
            raise bad_rule(504, text, "give a FITS table", **place) from error
        if len(rows) == 0:
            raise bad_rule(505, f"the catalogue {file} has no rows in HDU {ext!r}", "give another table", **place)
        facts = {}
        for number, name in enumerate(rows.dtype.names or (), start=1):
            form, unit = str(header[f"TFORM{number}"]).strip(), str(header.get(f"TUNIT{number}", "") or "").strip()
            facts[name.lower()] = ColumnFacts(name, form, unit)
        return cls(rows, random_stream.integers(0, len(rows), count), facts)

    def facts(self, column: Column) -> ColumnFacts:
        known = {fact.name for fact in self._facts.values()}
        if column.col.lower() not in self._facts:
            text = f"the catalogue {column.file} has no column {column.col}: {did_you_mean(column.col, known)}"
            raise bad_rule(506, text, "correct col", **_place(column.where))
        return self._facts[column.col.lower()]

    def column(self, column: Column) -> NDArray[Any]:
        """Return the values of the rows drawn, in native byte order."""
        values = self._rows[self.facts(column).name]
        if values.ndim != 1:
            text = f"column {column.col} of {column.file} holds arrays of shape {values.shape[1:]}"
            raise bad_rule(506, text, "choose a column of single values", **_place(column.where))
        return values[self._drawn]
