"""Configuration of fits of groups, ``mof-config/run-<run>.yaml``."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import pydantic

from balrogutils.settings.fits import Fraction
from balrogutils.settings.sof import METACAL, ModelCovPars, ModelRun
from balrogutils.settings.yamlfile import Strict

__all__ = ["Mof", "MofCovPars", "MofPars", "Neighbours", "Radius"]

Positive = Annotated[float, pydantic.Field(gt=0)]
Limits = Annotated[tuple[Annotated[float, pydantic.Field(ge=0)], ...], pydantic.Field(min_length=6)]


class Radius(Strict):
    """Radii of the rule ``radius``, pixels: `multiple` times a column of the MEDS files, between `low` and `high`, and
    `padding` more."""

    column: str = "iso_radius"
    multiple: Positive = 1.0
    low: float = pydantic.Field(default=0.0, ge=0)
    high: Positive = 1.0e3
    padding: float = pydantic.Field(default=0.0, ge=0)

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> Radius:
        if not self.low <= self.high:
            raise ValueError("low must not be above high")
        return self


class Neighbours(Strict):
    """Which objects are neighbours: the boxes of their coadd stamps overlap by a margin (``box``), or they are closer
    than their radii (``radius``); with `check_seg` also those whose pixels are in the other's segmentation stamp."""

    rule: Literal["box", "radius"] = "box"
    buff_type: Literal["tot", "min", "max"] = "tot"
    buff_frac: Fraction = 0.25
    maxsize_to_replace: int = pydantic.Field(default=256, ge=1)
    new_maxsize: int = pydantic.Field(default=384, ge=1)
    radius: Radius = Radius()
    check_seg: bool = True


class MofPars(Strict):
    """When turns end; see `balrogutils.blends.iteration.Convergence`."""

    maxabs_conv: Limits = (1e-3, 1e-3, *(1e-6,) * 7)
    maxfrac_conv: Limits = (*(1e-6,) * 5, *(1e-3,) * 4)
    maxerr_conv: float = pydantic.Field(default=0.5, ge=0)
    max_itr: int = pydantic.Field(default=15, ge=1, le=1000)
    min_itr: int = pydantic.Field(default=10, ge=1)
    min_useg_itr: int = pydantic.Field(default=1, ge=1)
    write_convergence_data: Literal[False] = False
    convergence_model: str | None = None

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> MofPars:
        if self.min_itr > self.max_itr:
            raise ValueError("min_itr must not be above max_itr")
        return self


class MofCovPars(ModelCovPars):
    """Errors of groups, which hold what that of fracdev adds unless it is to be taken for known."""

    fracdev: Literal["fixed", "free"] = "free"


class Mof(ModelRun):
    """Every key of a run of groups, with the defaults of the shipped file."""

    LATER: ClassVar[dict[str, str]] = {"correct_meds": METACAL, "metacal_pars": METACAL}

    global_seed: int = pydantic.Field(default=26385, ge=0, lt=2**63)
    strategy: Literal["joint", "turns"] = "joint"
    region: Literal["mof", "cweight-nearest", "weight"] = "mof"
    largest_T: Positive | None = 1.0
    nbrs: Neighbours = Neighbours()
    mof: MofPars = MofPars()
    cov_pars: MofCovPars = MofCovPars()
    model_nbrs: Literal[True] = True
    model_nbrs_method: Literal["subtract"] = "subtract"
    make_corrected_meds: Literal[False] = False

    @pydantic.model_validator(mode="after")
    def _together(self) -> Mof:
        if self.engine != "balrogutils":
            raise ValueError(f"engine is {self.engine}, which fits single objects and no groups")
        if self.psf_pars.pixelised:
            raise ValueError("psf_pars.pixelised is for single objects; groups are fit with mixtures")
        if self.mof.convergence_model not in (None, self.model):
            raise ValueError(f"mof.convergence_model is {self.mof.convergence_model}, but the model is {self.model}")
        return self
