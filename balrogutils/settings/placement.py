"""Positions and numbers of an injection configuration, checked against one another."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from balrogutils.errors import ConfigError
from balrogutils.settings.sampling import Positions, of_input
from balrogutils.settings.sources import INJ_TYPES, RULES_TYPE

__all__ = ["check_placement"]

_KEY = "image.pos_sampling"
_RULES = INJ_TYPES[RULES_TYPE]


def check_placement(
    inputs: Sequence[str],
    positions: Callable[[str], Positions],
    counts: dict[str, int] | None,
    densities: dict[str, float] | None,
    path: str | os.PathLike[str],
) -> None:
    """Check that every input has positions that suit it, and one number of objects where one is needed.

    Parameters
    ----------
    inputs : sequence of str
        What is injected.
    positions : callable
        How the positions of one of them are chosen.
    counts, densities : mapping, optional
        Numbers of objects, and numbers per square arcmin.
    path : path-like
        The configuration file, for messages.

    Raises
    ------
    ConfigError
        When they contradict one another.
    """
    chosen = {name: positions(name) for name in inputs}
    _check_mixed(chosen, path)
    for name, one in chosen.items():
        _check_kind(name, one, path)
        _check_number(name, one, of_input(counts, name), of_input(densities, name), path)


def _check_mixed(chosen: Mapping[str, Positions], path: str | os.PathLike[str]) -> None:
    mixed = {name: one for name, one in chosen.items() if one.type == "MixedGrid"}
    if not mixed:
        return
    if len(mixed) != len(chosen):
        raise ConfigError(
            "a MixedGrid is shared by all inputs or by none",
            file=path,
            key=_KEY,
            remedy="give every input type: MixedGrid",
        )
    for what in ("grid_type", "grid_spacing", "rotate", "offset", "angle_unit"):
        if len({getattr(one, what) for one in mixed.values() if what in one.model_fields_set}) > 1:
            raise ConfigError(
                f"the inputs of a MixedGrid give different {what}",
                file=path,
                key=_KEY,
                remedy="give it once, or alike",
            )
    if not any(one.grid_type for one in mixed.values()):
        raise ConfigError(
            "a MixedGrid needs a grid_type", file=path, key=_KEY, remedy="write grid_type: HexGrid or RectGrid"
        )
    shares = [one.inj_frac for one in mixed.values()]
    if len(mixed) > 1 and (None in shares or abs(sum(share or 0.0 for share in shares) - 1.0) > 1e-9):
        raise ConfigError(
            f"inj_frac of the inputs is {shares}, and must sum to 1",
            file=path,
            key=f"{_KEY}.*.inj_frac",
            remedy="mend the shares",
        )


def _check_kind(name: str, one: Positions, path: str | os.PathLike[str]) -> None:
    if one.type == "sahar" and name not in ("des_star_catalog", "star_table"):
        raise ConfigError(
            f"sahar positions are those of a star catalogue, and {name} is none",
            file=path,
            key=_KEY,
            remedy="use another type",
        )
    if one.type == "rules" and name != _RULES:
        raise ConfigError(
            f"rules positions are those of a rules file, and {name} is none",
            file=path,
            key=_KEY,
            remedy="use another type",
        )
    if name == _RULES and one.type != "rules":
        raise ConfigError(
            f"a rules file says where its objects go, not {one.type} positions",
            file=path,
            key=f"{_KEY}.{_RULES}",
            remedy="write pos_sampling: {rules: rules}; rules.x and rules.y can make a grid",
        )


def _check_number(
    name: str, one: Positions, count: int | None, density: float | None, path: str | os.PathLike[str]
) -> None:
    if one.counted and (count is None) == (density is None):
        raise ConfigError(
            f"{one.type} positions of {name} need exactly one of n_objects and object_density",
            file=path,
            key="image.n_objects",
            remedy="give one of them, or choose a grid with pos_sampling",
        )
    if not one.counted and (count is not None or density is not None):
        what = "table" if one.type in ("Table", "sahar") else "spacing"
        raise ConfigError(
            f"the {what} of the {one.type} sets the number of {name}, and so does n_objects or object_density",
            file=path,
            key="image.n_objects",
            remedy="remove the number, or use uniform positions",
        )
