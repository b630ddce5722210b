"""A rules file evaluated: the parameters of every object, GalSim's accuracy, and the user's own columns."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balrogutils.rules.attributes import COMPONENT, OBJECT, Assigned, Extra, Rules, Sampled, TruthCat
from balrogutils.rules.codes import bad_rule
from balrogutils.rules.evaluation import Evaluation
from balrogutils.rules.language import Column, Reference, Rule
from balrogutils.rules.pyconfig import PyConfig

__all__ = ["Defaults", "ExtraColumn", "Sample", "component_fluxes", "sample"]

_log = logging.getLogger(__name__)

_ACCURACY = {
    "minimum_fft_size": int,
    "maximum_fft_size": int,
    "folding_threshold": float,
    "stepk_minimum_hlr": float,
    "maxk_threshold": float,
    "kvalue_accuracy": float,
    "xvalue_accuracy": float,
    "table_spacing": float,
    "realspace_relerr": float,
    "realspace_abserr": float,
    "integration_relerr": float,
    "integration_abserr": float,
    "shoot_accuracy": float,
}
"""GalSim's accuracy parameters, and their types."""

_RENAMED = {"alias_threshold": "folding_threshold"}
"""Names that GalSim 1 had."""

# Beyond this a magnitude stands for no light (O 1.b, step 9).
_FAINTEST = 50.0

_TYPES = {"D": "f8", "E": "f4", "K": "i8", "J": "i4", "I": "i2", "B": "u1", "L": "?"}


@dataclass(frozen=True)
class Defaults:
    """What parameters without a rule are drawn from.

    Attributes
    ----------
    rules : mapping of str to Rule
        The default of every parameter.
    told : mapping of str to str
        The same in words.
    """

    rules: Mapping[str, Rule]
    told: Mapping[str, str]


@dataclass(frozen=True)
class ExtraColumn:
    """A column of the user's, ready to be written."""

    name: str
    values: NDArray[Any]
    unit: str


@dataclass(frozen=True)
class Sample:
    """What was sampled.

    Attributes
    ----------
    profiles : int
        Components an object has.
    objects : mapping of str to ndarray of float64, shape (n,)
        Parameters of the whole objects: x, y in one-offset pixels of the whole image.
    components : mapping of str to ndarray of float64, shape (profiles, n)
        Parameters of their components: arcsec along the major axis, magnitudes, degrees.
    accuracy : sequence of dict
        Keywords of `galsim.GSParams`, by object.
    extras : sequence of ExtraColumn
        The user's columns of the truth catalogue.
    tables : list of Path
        The tables that were drawn from.
    """

    profiles: int
    objects: Mapping[str, NDArray[np.float64]]
    components: Mapping[str, NDArray[np.float64]]
    accuracy: list[dict[str, Any]]
    extras: list[ExtraColumn] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.objects["x"])


def sample(config: PyConfig, args: Namespace, defaults: Defaults, *, accuracy: bool = True) -> Sample:
    """Have a rules file assign its rules, and evaluate them.

    Parameters
    ----------
    config : PyConfig
        The file.
    args : argparse.Namespace
        All arguments; every function gets a copy.
    defaults : Defaults
        For parameters without a rule.
    accuracy : bool
        Whether GalSim's accuracy is the file's.

    Returns
    -------
    Sample

    Raises
    ------
    ConfigError
        When a rule is wrong or cannot be evaluated.
    """
    rules, sampled, truth = Rules(args.ngal), Sampled(), TruthCat(args.ngal)
    config.simulation_rules(Namespace(**vars(args)), rules, sampled, truth)
    accuracy_rules = Rules(args.ngal, (*_ACCURACY, *_RENAMED), (), "gsparams")
    if accuracy:
        config.galsim_params(Namespace(**vars(args)), accuracy_rules, sampled)
    given = {key: one or _default(key, defaults, config) for key, one in rules.assigned().items()}
    with config.evaluating():
        evaluation = Evaluation(given, args.ngal, args.seed)
        values = {key: evaluation.value(key) for key in given}
        keywords = _accuracy(evaluation, accuracy_rules, args.ngal)
        extras = [_extra(evaluation, one) for one in truth.extras]
    named = {(key.attribute, key.component): value for key, value in values.items()}
    profiles = len(rules.beta)
    components = {name: np.array([named[name, index] for index in range(profiles)]) for name in COMPONENT}
    objects = {name: named[name, None] for name in OBJECT}
    return Sample(profiles, objects, components, keywords, extras, evaluation.tables)


def component_fluxes(magnitudes: NDArray[np.float64], zero_point: float) -> NDArray[np.float64]:
    """Return fluxes in ADU, 10^((ZP - m) / 2.5); 0 where ZP - m is above 50, as for a magnitude of -99."""
    none = zero_point - magnitudes > _FAINTEST
    if none.any():
        _log.warning(
            "%d magnitudes are so bright that they stand for no light: their flux is 0", np.count_nonzero(none)
        )
    return np.where(none, 0.0, 10.0 ** (0.4 * (zero_point - np.where(none, 0.0, magnitudes))))


def _default(key: Reference, defaults: Defaults, config: PyConfig) -> Assigned:
    name = f"rules.{key.attribute}" + (f"[{key.component}]" if key.component is not None else "")
    config.warn(f"{config.file.name} gives no {name}: {defaults.told[key.attribute]}")
    return Assigned(defaults.rules[key.attribute], None)


def _accuracy(evaluation: Evaluation, rules: Rules, count: int) -> list[dict[str, Any]]:
    """Return the keywords of GalSim's accuracy parameters of every object."""
    found: dict[str, NDArray[Any]] = {}
    for key, given in rules.assigned().items():
        if given is None:
            continue
        name = _RENAMED.get(key.attribute, key.attribute)
        if name != key.attribute:
            _log.info("gsparams.%s is called %s in GalSim 2", key.attribute, name)
        found[name] = evaluation.evaluate(given, f"gsparams.{key.attribute}")
    return [{name: _ACCURACY[name](values[number]) for name, values in found.items()} for number in range(count)]


def _extra(evaluation: Evaluation, extra: Extra) -> ExtraColumn:
    """Return a column of the user's in the format asked for."""
    values = evaluation.evaluate(extra.assigned, f"TruthCat.{extra.name}", text=True)
    unit, form = extra.unit, extra.format
    if isinstance(extra.assigned.rule, Column):
        facts = evaluation.facts(extra.assigned.rule)
        unit, form = unit if unit is not None else facts.unit, form or facts.format
    if form is not None:
        code = form.strip().lstrip("0123456789").upper()
        if code == "A" or values.dtype.kind == "U":
            values = values.astype(np.str_)
        elif code in _TYPES:
            values = values.astype(_TYPES[code])
        else:
            text = f"column {extra.name} of the truth catalogue cannot have the format {form!r}"
            where = extra.assigned.where
            place = {"file": where.file, "key": f"line {where.line}"} if where else {}
            raise bad_rule(702, text, f"use one of {' '.join(_TYPES)} A", **place)
    return ExtraColumn(extra.name, values, unit or "dimensionless")
