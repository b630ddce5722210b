"""The user's Python file: read once, its functions called by name, its errors told by its own lines."""

from __future__ import annotations

import importlib.util
import inspect
import logging
import sys
import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from balrogutils.errors import BalrogError, ConfigError
from balrogutils.rules import vocabulary
from balrogutils.rules.attributes import Rules, Sampled, TruthCat
from balrogutils.rules.codes import bad_rule
from balrogutils.rules.evaluation import named_randomness

__all__ = ["PyConfig", "for_user"]

_log = logging.getLogger(__name__)

# What it is called without the function, and whether that deserves a warning.
_WITHOUT = {
    "CustomArgs": "there are no arguments of your own",
    "CustomParseArgs": "your own arguments stay as they were given",
    "SimulationRules": "every parameter has its default",
    "GalsimParams": "GalSim draws with its own accuracy",
}


def for_user(args: Namespace) -> Namespace:
    """Return the arguments as functions of the user's get them: a copy, with names of files as text."""
    return Namespace(**{key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()})


class PyConfig:
    """A rules file.

    Parameters
    ----------
    file : Path
        The file. ``model_class``, the module of the original, can be imported in it.
    full : bool
        Whether errors quote every line that was being run, not the user's alone.
    key : str
        What names the file, for messages.
    switch : str
        What makes `full` true, for messages.

    Attributes
    ----------
    seed : int
        Seed of the run; the body of every function has a random stream of its own.

    Raises
    ------
    ConfigError
        When the file is not there, is no Python, or fails while it is read.
    """

    def __init__(
        self, file: Path, *, full: bool = False, key: str = "--pyconfig", switch: str = "--fulltraceback"
    ) -> None:
        self.file, self._full, self._switch, self.seed = file, full, switch, 0
        if not file.is_file():
            text = "the rules file does not exist"
            raise bad_rule(150, text, f"correct {key}", file=file, key=key)
        self._told: set[str] = set()
        # Under its real path, which is how lines of it are found again in tracebacks.
        self._path = str(file.resolve())
        self._module = self._read()

    @contextmanager
    def _running(self, what: str, code: int) -> Iterator[None]:
        """Run the user's code: its words can be imported, and what it raises is told by its lines."""
        hidden = sys.modules.get("model_class")
        sys.modules["model_class"] = vocabulary
        sys.path.insert(0, str(Path(self._path).parent))
        try:
            yield
        except BalrogError as error:
            lines = self._lines(error)
            if lines and "key" not in error.where:
                error.locate(file=self.file, key=f"line {lines[-1].lineno}")
            error.detail = error.detail or self._quoted(error)
            raise
        except SyntaxError as error:
            where = {"file": self.file, "key": f"line {error.lineno}"}
            detail = f"    {(error.text or '').rstrip()}"
            raise bad_rule(code, f"{what}: {error.msg}", "mend that line", detail=detail, **where) from error
        except (Exception, SystemExit) as error:
            if isinstance(error, SystemExit) and not self._left(error):
                raise
            lines = self._lines(error)
            where = {"file": self.file} | ({"key": f"line {lines[-1].lineno}"} if lines else {})
            text = f"{what}: {type(error).__name__}: {error}"
            remedy = f"mend that line; {self._switch} shows every line that was being run"
            raise bad_rule(code, text, remedy, detail=self._quoted(error), **where) from error
        finally:
            with suppress(ValueError):
                sys.path.remove(str(Path(self._path).parent))
            if hidden is None:
                sys.modules.pop("model_class", None)
            else:
                sys.modules["model_class"] = hidden

    def _left(self, error: SystemExit) -> bool:
        """Return whether the user's code ends the program, and not a signal that came while it ran."""
        last = traceback.extract_tb(error.__traceback__)[-1].filename
        return last == self._path or "_sitebuiltins" in last

    def _lines(self, error: BaseException) -> list[traceback.FrameSummary]:
        return [line for line in traceback.extract_tb(error.__traceback__) if line.filename == self._path]

    def _quoted(self, error: BaseException) -> str:
        lines = list(traceback.extract_tb(error.__traceback__)) if self._full else self._lines(error)
        return "\n".join("  " + text for text in "".join(traceback.format_list(lines)).rstrip().splitlines())

    def _read(self) -> ModuleType:
        with self._running("the rules file cannot be read", 151):
            spec = importlib.util.spec_from_file_location("balrog_pyconfig", self._path)
            if spec is None or spec.loader is None:
                raise ConfigError("the rules file is not called NAME.py", remedy="rename it")
            module = importlib.util.module_from_spec(spec)
            # No compiled copy beside the user's file.
            written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
            try:
                with named_randomness(self.seed, "pyconfig", "file"):
                    spec.loader.exec_module(module)
            finally:
                sys.dont_write_bytecode = written
        return module

    def _function(self, name: str) -> Callable[..., Any] | None:
        found = getattr(self._module, name, None)
        if found is None and name in _WITHOUT:
            self.warn(f"{self.file.name} has no function {name}: {_WITHOUT[name]}")
        elif found is None:
            _log.info("%s has no function %s", self.file.name, name)
        elif not callable(found):
            text = f"{name} is not a function"
            raise bad_rule(151, text, f"write def {name}(...):", file=self.file, key=name)
        return found

    def _call(self, name: str, *arguments: Any) -> None:
        function = self._function(name)
        if function is not None:
            with self._running(f"{name} failed", 152), named_randomness(self.seed, "pyconfig", name):
                function(*arguments)

    def warn(self, text: str) -> None:
        """Warn of something, once however often the rules are evaluated."""
        if text not in self._told:
            self._told.add(text)
            _log.warning("%s", text)

    def custom_args(self, parser: ArgumentParser) -> None:
        """Let the user add arguments to the parser."""
        self._call("CustomArgs", parser)

    def custom_parse_args(self, args: Namespace) -> None:
        """Let the user work on the parsed arguments, in place."""
        self._call("CustomParseArgs", args)

    def own_arguments(self, args: Namespace, native: Collection[str]) -> None:
        """Let the user work on the parsed arguments; what becomes of the `native` ones is forgotten."""
        copied = for_user(args)
        self.custom_parse_args(copied)
        for key, value in vars(copied).items():
            if key not in native:
                setattr(args, key, value)

    def simulation_rules(self, args: Namespace, rules: Rules, sampled: Sampled, truth: TruthCat) -> None:
        """Have the rules assigned; the function may take the truth catalogue or leave it."""
        function = self._function("SimulationRules")
        if function is not None:
            given = (args, rules, sampled, truth)
            self._call("SimulationRules", *given[: _arity(function, len(given))])

    def galsim_params(self, args: Namespace, gsparams: Rules, galaxies: Sampled) -> None:
        """Have the rules of GalSim's accuracy assigned; the function may take the galaxies or leave them."""
        function = self._function("GalsimParams")
        if function is not None:
            given = (args, gsparams, galaxies)
            self._call("GalsimParams", *given[: _arity(function, len(given))])

    def sextractor_configs(self, args: Namespace, config: dict[str, Any]) -> None:
        """Have SExtractor's keywords set."""
        self._call("SextractorConfigs", args, config)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Let rules be evaluated, which calls the user's functions."""
        with self._running("a rule cannot be evaluated", 501):
            yield


def _arity(function: Callable[..., Any], most: int) -> int:
    """Return how many of `most` positional arguments a function takes."""
    parameters = inspect.signature(function).parameters.values()
    if any(one.kind is one.VAR_POSITIONAL for one in parameters):
        return most
    positional = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    return min(len(positional), most)
