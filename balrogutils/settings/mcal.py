"""Configuration of metacal runs, ``shr-config/run-<run>.yaml``."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from balrogutils.settings.corrected import CorrectedRun
from balrogutils.settings.fits import Fraction, Jobs, LMPars
from balrogutils.settings.priors import BAPrior, Priors, ShapePriorPars
from balrogutils.settings.sof import CovPars, RoundPars
from balrogutils.settings.yamlfile import Strict

__all__ = ["Mcal", "McalModelPars", "McalPriors", "MetacalPars"]

Positive = Annotated[float, pydantic.Field(gt=0)]
MetacalType = Literal["noshear", "1p", "1m", "2p", "2m", "1p_psf", "1m_psf", "2p_psf", "2m_psf"]


class MetacalPars(Strict):
    """Target PSF, types, step, whether noise is sheared the other way (fixnoise), and estimators beside the Gaussian
    fit: wmom (under a Gaussian), admom (adaptive), ksigma and pgauss (before the PSF), with the FWHM of their weights
    in arcsec.
    """

    psf: Literal["gauss", "fitgauss", "azgauss", "dilate"] = "gauss"
    types: tuple[MetacalType, ...] = ("noshear", "1p", "1m", "2p", "2m")
    step: float = pydantic.Field(default=0.01, gt=0, lt=0.1)
    fixnoise: bool = True
    estimators: tuple[Literal["wmom", "admom", "ksigma", "pgauss"], ...] = ()
    fwhm: dict[str, Positive] = pydantic.Field(default_factory=lambda: {"wmom": 1.2, "ksigma": 2.0, "pgauss": 2.0})

    @pydantic.field_validator("types", "estimators")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("one is named twice")
        return value

    @pydantic.field_validator("fwhm")
    @classmethod
    def _weighted(cls, value: dict[str, float]) -> dict[str, float]:
        known = ("wmom", "ksigma", "pgauss")
        if unknown := sorted(set(value) - set(known)):
            raise ValueError(f"{unknown} have no FWHM; known: {' '.join(known)}")
        return value

    @pydantic.field_validator("types")
    @classmethod
    def _unsheared(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "noshear" not in value:
            raise ValueError("noshear must be among the types")
        return value


class McalModelPars(Strict):
    """How the Gaussian is fit to sheared images. Y3 had 5e-5; differences of a hundredth need less."""

    method: Literal["lm"] = "lm"
    ntry: int = pydantic.Field(default=2, ge=1, le=100)
    lm_pars: LMPars = LMPars(maxfev=2000, xtol=1e-8, ftol=1e-8)


class McalPriors(Priors):
    """Priors of the Gaussian; `T` in arcsec^2, `counts` (each band) in flux at zero point 30."""

    g: ShapePriorPars | None = BAPrior(type="ba", sigma=0.3)

    @pydantic.model_validator(mode="after")
    def _gaussian(self) -> McalPriors:
        for name in ("fracdev", "logTratio", "n"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} is given, but a Gaussian has none")
        return self


class Mcal(CorrectedRun):
    """Every key of a metacal run, with the defaults of the shipped file."""

    jobs: Jobs = Jobs(bands=("r", "i", "z"))
    global_seed: int = pydantic.Field(default=1781, ge=0, lt=2**63)
    fitter_type: Literal["metacal-ngmix-boot"] = "metacal-ngmix-boot"
    max_zero_weight_frac: Fraction = 0.10
    region: Literal["uberseg", "seg_and_sky", "weight"] = "uberseg"

    model: Literal["gauss"] = "gauss"
    max_pars: McalModelPars = McalModelPars()
    min_psf_model_s2n: float = pydantic.Field(default=100.0, ge=0)
    cov_pars: CovPars = CovPars()
    round_pars: RoundPars = RoundPars()
    priors: McalPriors = McalPriors()
    metacal_pars: MetacalPars = MetacalPars()
