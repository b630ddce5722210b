"""How injected objects are drawn: noise, PSF, accuracy; part of the injection configuration."""

from __future__ import annotations

from pathlib import Path
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
    """The PSF of each chip.

    Attributes
    ----------
    type : {"DES_PSFEx", "Piff"}
        The PSFEx model of the tile, or a Piff model.
    recenter_psf : bool
        Move the centroid of the model to the object's position.
    file_name, dir : str, optional
        The Piff model of a CCD: ``EXPNUM`` stands for the exposure with eight digits, ``CCDNUM`` for the CCD with two,
        ``BAND`` for the band; ``*`` and ``?`` in `file_name` for what differs otherwise. A relative `dir` is relative
        to the checkout.
    color : float or [band, band], optional
        One colour for all objects, or the bands whose magnitudes differ by it, where the models depend on one. When
        not given, the model's name of it says the bands: ``GI_COLOR``.
    """

    type: Literal["DES_PSFEx", "Piff"]
    recenter_psf: bool = False
    file_name: str | None = None
    dir: str = ""
    color: float | tuple[str, str] | None = None

    @pydantic.model_validator(mode="after")
    def _models(self) -> Psf:
        if self.type == "DES_PSFEx" and (self.file_name or self.dir or self.color is not None):
            raise ValueError("file_name, dir and color are for Piff models; the tile's own PSFEx models are used")
        if self.type == "Piff":
            named = f"{self.dir}/{self.file_name or ''}"
            if not self.file_name or "EXPNUM" not in named or "CCDNUM" not in named:
                raise ValueError("Piff models have one file a CCD: write file_name with EXPNUM and CCDNUM in it")
        return self

    def of_chip(self, base: Path, band: str, exposure: int, ccd: int) -> tuple[Path, str]:
        """Return the directory of a CCD's Piff model and the pattern of its name."""
        words = {"EXPNUM": f"{exposure:08d}", "CCDNUM": f"{ccd:02d}", "BAND": band}
        directory, name = self.dir, self.file_name or ""
        for word, value in words.items():
            directory, name = directory.replace(word, value), name.replace(word, value)
        return base / directory, name


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
