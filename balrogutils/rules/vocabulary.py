"""What ``from model_class import *`` gives a rules file: the words of the language, and modules beside them."""

from __future__ import annotations

import copy
import importlib
import os
from typing import Any

import numpy as np

from balrogutils.rules.attributes import initialize_sersic as InitializeSersic
from balrogutils.rules.language import Catalog, Column, Function, Table

# Rules files of the original could use these without importing them.
_MODULES = {"galsim": "galsim", "pyfits": "astropy.io.fits"}

__all__ = ["Catalog", "Column", "Function", "InitializeSersic", "Table", "copy", "galsim", "np", "os", "pyfits"]  # noqa: F822


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    raise AttributeError(name)
