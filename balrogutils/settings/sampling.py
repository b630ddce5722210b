"""How many objects are injected, and where: the part of the injection configuration about positions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from balrogutils.settings.yamlfile import Strict

__all__ = ["INJ_TYPES", "Counts", "Densities", "Positions", "Sampling"]

INJ_TYPES = {"ngmixGalaxy": "ngmix_catalog", "desStar": "des_star_catalog"}
"""The `gal` types, each with the `input` section it draws from; this order is the order in the truth table."""

GridName = Literal["RectGrid", "HexGrid"]


class Positions(Strict):
    """How the positions of one input are chosen.

    Attributes
    ----------
    type : {"uniform", "RectGrid", "HexGrid", "MixedGrid"}
        Uniform on the sphere in the tile's unique area, or a grid in the tile's pixel frame.
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

    type: Literal["uniform", "RectGrid", "HexGrid", "MixedGrid"] = "uniform"
    grid_type: GridName | None = None
    grid_spacing: Annotated[float, Field(gt=0)] | None = None
    rotate: float | Literal["Random"] = 0.0
    angle_unit: Literal["rad", "deg"] = "rad"
    offset: tuple[float, float] | Literal["Random"] = (0.0, 0.0)
    inj_frac: Annotated[float, Field(gt=0, lt=1)] | None = None

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Positions:
        if self.type == "uniform":
            given = self.model_fields_set - {"type"}
            if given:
                raise ValueError(f"uniform positions take no {', '.join(sorted(given))}")
        if self.type != "MixedGrid" and (self.inj_frac is not None or self.grid_type is not None):
            raise ValueError("inj_frac and grid_type belong to a MixedGrid")
        return self


def _for_every_input(value: Any, single: bool) -> Any:
    return dict.fromkeys(INJ_TYPES.values(), value) if single else value


class Sampling(Strict):
    """Positions by input."""

    ngmix_catalog: Positions = Positions()
    des_star_catalog: Positions = Positions()

    @pydantic.model_validator(mode="before")
    @classmethod
    def _forms(cls, value: Any) -> Any:
        if isinstance(value, str) or (isinstance(value, dict) and "type" in value):
            value = _for_every_input(value, True)
        if isinstance(value, dict):
            return {key: {"type": item} if isinstance(item, str) else item for key, item in value.items()}
        return value


class Counts(Strict):
    """Numbers of objects by input."""

    ngmix_catalog: Annotated[int, Field(ge=0)] | None = None
    des_star_catalog: Annotated[int, Field(ge=0)] | None = None

    @pydantic.model_validator(mode="before")
    @classmethod
    def _forms(cls, value: Any) -> Any:
        return _for_every_input(value, isinstance(value, int))


class Densities(Strict):
    """Objects per arcmin^2 by input."""

    ngmix_catalog: Annotated[float, Field(ge=0)] | None = None
    des_star_catalog: Annotated[float, Field(ge=0)] | None = None

    @pydantic.model_validator(mode="before")
    @classmethod
    def _forms(cls, value: Any) -> Any:
        return _for_every_input(value, isinstance(value, (int, float)))
