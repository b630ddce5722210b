"""ngmix where it is installed: the one place that imports it."""

from __future__ import annotations

import importlib
import logging
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from balrogutils.errors import ConfigError

__all__ = ["TESTED", "Ngmix", "engine_versions", "load_ngmix"]

_log = logging.getLogger(__name__)

TESTED = "2.4"
"""Versions that results were compared with."""
_REMEDY = (
    "conda install -c conda-forge ngmix, or pip install git+https://github.com/esheldon/ngmix; no fit needs it: leave "
    "`engine` out"
)


class Ngmix(NamedTuple):
    """The module and its version."""

    module: Any
    version: str


@cache
def load_ngmix() -> Ngmix:
    """Return ngmix.

    Raises
    ------
    ConfigError
        When it is not installed, cannot be imported, or is not version 2: others have other names. One that is not
        `TESTED` is used with a warning.
    """
    try:
        module = importlib.import_module("ngmix")
    except ModuleNotFoundError as error:
        missing = "ngmix is not installed" if error.name == "ngmix" else f"ngmix needs {error.name}, which is not there"
        raise ConfigError(missing, key="engine", remedy=_REMEDY) from error
    except (ImportError, AttributeError) as error:
        # A version older than the NumPy beside it asks for names that are gone.
        raise ConfigError(f"ngmix cannot be imported: {error}", key="engine", remedy=_REMEDY) from error
    version = str(getattr(module, "__version__", "unknown")).removeprefix("v")
    if not re.match(r"2\.\d", version):
        raise ConfigError(f"ngmix is of version {version}, not 2", key="engine", remedy=_REMEDY)
    if not re.match(rf"{re.escape(TESTED)}(\.|$)", version):
        _log.warning("ngmix is of version %s; results were compared with %s", version, TESTED)
    return Ngmix(module, version)


def engine_versions(engine: str, file: Path) -> dict[str, str]:
    """Return what of an engine its products depend on beside this package: nothing, or the version of ngmix.

    Parameters
    ----------
    engine : str
        Its name.
    file : Path
        The run file that asks for it.

    Raises
    ------
    ConfigError
        As `load_ngmix`, so that a run without the engine it asks for ends before any work.
    """
    if engine == "balrogutils":
        return {}
    try:
        return {engine: load_ngmix().version}
    except ConfigError as error:
        error.locate(file=file)
        raise
