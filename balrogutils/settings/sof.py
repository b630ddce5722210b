"""Configuration of single-object fits, ``sof-config/run-<run>.yaml``."""

from __future__ import annotations

from typing import ClassVar, Literal

import pydantic

from balrogutils.settings.fits import FitRun, ModelPars
from balrogutils.settings.priors import FlatPrior, Priors
from balrogutils.settings.yamlfile import Strict

__all__ = ["METACAL", "MODELS", "NGMIX_MODELS", "CovPars", "ModelCovPars", "ModelRun", "RoundPars", "Sof"]

ModelName = Literal[
    "gauss", "turb", "exp", "dev", "cm", "bdf", "bd", "exp_true", "dev_true", "bdf_true", "sersic"
]  # fmt: skip

MODELS: dict[str, tuple[str, ...]] = {
    "cm": ("fracdev",),
    "bdf": ("fracdev",),
    "bdf_true": ("fracdev",),
    "bd": ("logTratio", "fracdev"),
    "sersic": ("n",),
}
"""Priors beyond those of every model; fracdev of cm is found before its fit, the others are parameters."""

NGMIX_MODELS = ("gauss", "turb", "exp", "dev", "cm", "bdf", "bd")
"""Models that ngmix has too."""

_MOF = "remove it; neighbours are the business of a MOF run"
METACAL = "remove it; that is the business of a metacal run"


class CovPars(Strict):
    """Steps of the numerical Hessian of DES runs. Ours is analytic, and only their values are known here."""

    m: Literal[5] = 5
    h: float = 1e-3

    @pydantic.field_validator("h")
    @classmethod
    def _one_way(cls, value: float) -> float:
        if value != 1e-3:
            raise ValueError("derivatives are analytic; write 1.0e-3, or remove cov_pars")
        return value


class ModelCovPars(CovPars):
    """Errors of model fits: those of cm take fracdev for known, as in DES catalogues (``fixed``), or hold what its own
    error adds (``free``)."""

    fracdev: Literal["fixed", "free"] = "fixed"


class RoundPars(Strict):
    """How round statistics are found."""

    fitter_type: Literal["max"] = "max"


class ModelRun(FitRun):
    """Keys of fits of one model to every object, alone or in groups."""

    fitter_type: Literal["max-ngmix-boot"] = "max-ngmix-boot"
    normalize_psf: Literal[False] = False
    center_psf: Literal[False] = False
    model: ModelName = "cm"
    max_pars: ModelPars = ModelPars()
    cov_pars: ModelCovPars = ModelCovPars()
    round_pars: RoundPars = RoundPars()
    priors: Priors = Priors()

    @pydantic.model_validator(mode="after")
    def _priors_of_the_model(self) -> ModelRun:
        for name in ("fracdev", "logTratio", "n"):
            if getattr(self.priors, name) is not None and name not in MODELS.get(self.model, ()):
                raise ValueError(f"priors.{name} is given, but the model {self.model} has no {name}")
        share = self.priors.fracdev
        if self.model == "cm" and (isinstance(share, FlatPrior) or getattr(share, "bounds", None) is not None):
            raise ValueError("priors.fracdev of cm has no ends; max_pars.fracdev_range has")
        return self


class Sof(ModelRun):
    """Every key of a single-object run, with the defaults of the shipped file."""

    LATER: ClassVar[dict[str, str]] = {
        "nbrs": _MOF,
        "mof": _MOF,
        "model_nbrs": _MOF,
        "model_nbrs_method": _MOF,
        "make_corrected_meds": _MOF,
        "correct_meds": METACAL,
        "metacal_pars": METACAL,
    }

    region: Literal["cweight-nearest", "seg_and_sky", "weight"] = "cweight-nearest"

    @pydantic.model_validator(mode="after")
    def _engine_can(self) -> Sof:
        if self.engine == "ngmix" and self.model not in NGMIX_MODELS:
            raise ValueError(f"ngmix has no model {self.model}, only {' '.join(NGMIX_MODELS)}")
        if self.engine == "ngmix" and self.psf_pars.pixelised:
            raise ValueError("psf_pars.pixelised is given, but the PSFs of ngmix are mixtures alone")
        return self
