"""How injected objects are drawn: noise, PSF, accuracy; part of the injection configuration."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic
from pydantic import Field

from balrogutils.settings.yamlfile import Strict

__all__ = ["Blank", "GSParams", "Noise", "Psf", "Stamp", "Wcs"]


class Noise(Strict):
    """Noise of the injected light: none, or Poisson with the gains of the chip.

    `update_weights` adds its expected variance to WGT and WGT_ME.
    """

    type: Literal["Poisson"] | None = None
    update_weights: bool = False

    @pydantic.model_validator(mode="after")
    def _variance(self) -> Noise:
        if self.update_weights and self.type is None:
            raise ValueError("update_weights adds the variance of the noise, and there is none: write type: Poisson")
        return self


class Blank(Strict):
    """Injection on blank images: `noise` is one of the five models of noise, or None."""

    value: bool = True
    noise: Literal["CCD", "BKG", "BKG+CCD", "BKG+RN", "BKG+SKY", "None"] | None = None


class Wcs(Strict):
    """The WCS is always the one of the chip."""

    type: Literal["Fits"] = "Fits"


class Psf(Strict):
    """The PSF is the PSFEx model of the chip; `recenter_psf` moves its centroid to the object's position."""

    type: Literal["DES_PSFEx"]
    recenter_psf: bool = False


class GSParams(Strict):
    """Accuracy parameters of GalSim, as its GSParams."""

    minimum_fft_size: Annotated[int, Field(gt=0)] | None = None
    maximum_fft_size: Annotated[int, Field(gt=0)] | None = None
    folding_threshold: Annotated[float, Field(gt=0)] | None = None
    stepk_minimum_hlr: Annotated[float, Field(gt=0)] | None = None
    maxk_threshold: Annotated[float, Field(gt=0)] | None = None
    kvalue_accuracy: Annotated[float, Field(gt=0)] | None = None
    xvalue_accuracy: Annotated[float, Field(gt=0)] | None = None
    table_spacing: Annotated[float, Field(gt=0)] | None = None
    realspace_relerr: Annotated[float, Field(gt=0)] | None = None
    realspace_abserr: Annotated[float, Field(gt=0)] | None = None
    integration_relerr: Annotated[float, Field(gt=0)] | None = None
    integration_abserr: Annotated[float, Field(gt=0)] | None = None


class Stamp(Strict):
    """The `stamp` section; PSFEx models include the pixel, so nothing else than ``no_pixel`` is right."""

    type: Literal["Balrog"] | None = None
    draw_method: Literal["no_pixel"]
    gsparams: GSParams = GSParams()
