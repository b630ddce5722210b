"""How many objects are injected, and where: the part of the injection configuration about positions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import pydantic
from pydantic import Field

from balrogutils.settings.yamlfile import Strict

__all__ = ["EVERY", "Avoid", "Counts", "Densities", "Positions", "Sampling", "of_input"]

EVERY = "*"
"""Stands for every input where one value is given for all."""

GridName = Literal["RectGrid", "HexGrid"]

# Which keys a kind of positions takes, besides `type`.
_KEYS = {
    "uniform": frozenset(),
    "Halton": frozenset(),
    "sahar": frozenset(),
    "rules": frozenset(),
    "Table": frozenset(("file_name",)),
    "RectGrid": frozenset(("grid_spacing", "rotate", "angle_unit", "offset")),
    "HexGrid": frozenset(("grid_spacing", "rotate", "angle_unit", "offset")),
    "MixedGrid": frozenset(("grid_type", "grid_spacing", "rotate", "angle_unit", "offset", "inj_frac")),
}


class Positions(Strict):
    """How the positions of one input are chosen.

    Attributes
    ----------
    type : str
        ``uniform``: on the sphere in the tile's unique area; ``Halton``: the same with few gaps and clumps (Halton
        1960, bases 2 and 3, with a random shift); ``sahar``: where the star catalogue has them; ``rules``: where the
        rules file puts them; ``Table``: from a table; ``RectGrid``, ``HexGrid``, ``MixedGrid``: grids in the tile's
        pixel frame.
    file_name : str, optional
        Table with ``ra`` and ``dec`` in degrees, or ``x`` and ``y`` in pixels of the tile from 1; FITS or CSV.
    grid_type : {"RectGrid", "HexGrid"}, optional
        The grid that a MixedGrid shares out.
    grid_spacing : float, optional
        arcsec; step of a RectGrid, inner radius of the hexagons of a HexGrid (nearest neighbours are 2/sqrt(3) times
        as far).
    rotate : float or "Random"
        Angle of the grid, in `angle_unit`.
    offset : pair of float or "Random"
        Shift of the grid in arcsec along the tile's pixel axes.
    inj_frac : float, optional
        Share of a MixedGrid that this input gets.
    """

    type: Literal["uniform", "Halton", "sahar", "rules", "Table", "RectGrid", "HexGrid", "MixedGrid"] = "uniform"
    file_name: str | None = None
    grid_type: GridName | None = None
    grid_spacing: Annotated[float, Field(gt=0)] | None = None
    rotate: float | Literal["Random"] = 0.0
    angle_unit: Literal["rad", "deg"] = "rad"
    offset: tuple[float, float] | Literal["Random"] = (0.0, 0.0)
    inj_frac: Annotated[float, Field(gt=0, lt=1)] | None = None

    @property
    def counted(self) -> bool:
        """Whether n_objects or object_density says how many positions there are."""
        return self.type in ("uniform", "Halton", "rules")

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Positions:
        strange = self.model_fields_set - {"type"} - _KEYS[self.type]
        if strange & {"inj_frac", "grid_type"} and self.type in ("RectGrid", "HexGrid"):
            raise ValueError("inj_frac and grid_type belong to a MixedGrid")
        if strange:
            raise ValueError(f"{self.type} positions take no {', '.join(sorted(strange))}")
        if self.type == "Table" and not self.file_name:
            raise ValueError("Table positions need a file_name")
        return self

    def table(self, base: Path) -> Path | None:
        """Return the table of positions; a relative name is relative to the checkout."""
        return None if self.file_name is None else base / self.file_name.replace("BALROG-BASE", str(base))


V = TypeVar("V")


def of_input(values: dict[str, V] | None, name: str) -> V | None:
    """Return the value of one input, or the one given for all; None when there is neither."""
    return None if values is None else values.get(name, values.get(EVERY))


def _sampling(value: Any) -> Any:
    if isinstance(value, str) or (isinstance(value, dict) and "type" in value):
        value = {EVERY: value}
    if isinstance(value, dict):
        return {key: {"type": item} if isinstance(item, str) else item for key, item in value.items()}
    return value


def _numbers(value: Any) -> Any:
    return {EVERY: value} if isinstance(value, (int, float)) else value


Sampling = Annotated[dict[str, Positions], pydantic.BeforeValidator(_sampling)]
"""Positions by input."""

Counts = Annotated[dict[str, Annotated[int, Field(ge=0)]], pydantic.BeforeValidator(_numbers)]
"""Numbers of objects by input."""

Densities = Annotated[dict[str, Annotated[float, Field(ge=0)]], pydantic.BeforeValidator(_numbers)]
"""Objects per arcmin^2 by input."""


class Avoid(Strict):
    """Where nothing is injected.

    Attributes
    ----------
    masked : bool
        Where the centre would have zero weight on every exposure of some band.
    file_name : str, optional
        Table of bright stars: ``ra``, ``dec`` in degrees, and ``radius_arcsec`` unless `radius` is given; FITS or CSV.
    radius : float, optional
        Radius in arcsec about every one of them.
    """

    masked: bool = False
    file_name: str | None = None
    radius: Annotated[float, Field(gt=0)] | None = None

    @pydantic.model_validator(mode="after")
    def _table(self) -> Avoid:
        if self.radius is not None and self.file_name is None:
            raise ValueError("radius is the radius about the stars of file_name, and there is none")
        return self

    def table(self, base: Path) -> Path | None:
        """Return the table of bright stars; a relative name is relative to the checkout."""
        return None if self.file_name is None else base / self.file_name.replace("BALROG-BASE", str(base))
