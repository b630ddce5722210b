"""Priors of a fit, as a run file names them."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from balrogutils.settings.yamlfile import Strict

__all__ = [
    "BAPrior",
    "CenPriorPars",
    "CosmosSersicPrior",
    "DiskPrior",
    "ErfPrior",
    "FlatPrior",
    "MixturePrior",
    "NormalPrior",
    "NumberPrior",
    "Priors",
]

Positive = Annotated[float, pydantic.Field(gt=0)]


class CosmosSersicPrior(Strict):
    """Shapes of Sersic fits to COSMOS galaxies."""

    type: Literal["cosmos-sersic"]


class BAPrior(Strict):
    """Bernstein & Armstrong shapes."""

    type: Literal["ba"]
    sigma: Positive


class DiskPrior(Strict):
    """All shapes with |g| below `radius` alike."""

    type: Literal["flat"]
    radius: Annotated[float, pydantic.Field(gt=0, le=1)] = 1.0


class CenPriorPars(Strict):
    """Round Gaussian on the centre, arcsec."""

    type: Literal["dgauss"] = "dgauss"
    width: Positive = 0.27


def _ordered(low: float, high: float, what: str) -> None:
    if not low < high:
        raise ValueError(f"{what} needs min < max")


class ErfPrior(Strict):
    """Flat with soft edges; pars are min, width at min, max, width at max."""

    type: Literal["TwoSidedErf"]
    pars: tuple[float, Positive, float, Positive]

    @pydantic.model_validator(mode="after")
    def _check(self) -> ErfPrior:
        _ordered(self.pars[0], self.pars[2], "TwoSidedErf")
        return self


class FlatPrior(Strict):
    """Flat; pars are min and max."""

    type: Literal["flat"]
    pars: tuple[float, float]

    @pydantic.model_validator(mode="after")
    def _check(self) -> FlatPrior:
        _ordered(*self.pars, "flat")
        return self


class NormalPrior(Strict):
    """Gaussian; pars are mean and sigma, and nothing is possible outside bounds."""

    type: Literal["normal"]
    pars: tuple[float, Positive]
    bounds: tuple[float, float] | None = None

    @pydantic.model_validator(mode="after")
    def _check(self) -> NormalPrior:
        if self.bounds is not None:
            _ordered(*self.bounds, "bounds")
        return self


class MixturePrior(Strict):
    """A sum of Gaussians; covars are variances."""

    type: Literal["gmixnd"]
    weights: tuple[Positive, ...] = pydantic.Field(min_length=1)
    means: tuple[float, ...]
    covars: tuple[Positive, ...]

    @pydantic.model_validator(mode="after")
    def _check(self) -> MixturePrior:
        if not len(self.weights) == len(self.means) == len(self.covars):
            raise ValueError("weights, means and covars must be equally many")
        return self


NumberPrior = Annotated[ErfPrior | FlatPrior | NormalPrior, pydantic.Field(discriminator="type")]
SharePrior = Annotated[MixturePrior | FlatPrior | NormalPrior, pydantic.Field(discriminator="type")]
ShapePriorPars = Annotated[CosmosSersicPrior | BAPrior | DiskPrior, pydantic.Field(discriminator="type")]


class Priors(Strict):
    """Priors of the model; `T` in arcsec^2, `counts` (each band) in flux at zero point 30.

    `fracdev`, `logTratio` and `n` belong to the models that have them; left out, cm has the mixture of the DES Y3
    runs, bdf and bd Normal(0.5, 0.1) within [0, 1] and Normal(0, 1), and sersic all indices alike.
    """

    g: ShapePriorPars | None = CosmosSersicPrior(type="cosmos-sersic")
    T: NumberPrior = ErfPrior(type="TwoSidedErf", pars=(-10.0, 0.03, 1.0e6, 1.0e5))
    counts: NumberPrior = ErfPrior(type="TwoSidedErf", pars=(-1.0e4, 1.0, 1.0e9, 0.25e8))
    cen: CenPriorPars | None = CenPriorPars()
    fracdev: SharePrior | None = None
    logTratio: NumberPrior | None = None
    n: NumberPrior | None = None
