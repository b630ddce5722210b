"""Configuration that runs share which see every pixel of a stamp: neighbours taken away and holes filled before."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import pydantic

from balrogutils.settings.fits import FitRun, Fraction, LMPars, MaskNames, PSFPars, StarFlags
from balrogutils.settings.yamlfile import Strict

__all__ = ["CorrectMeds", "CorrectedRun", "ImageIO", "PSFSource"]

_MOF = "remove it; it belongs to a MOF run"


class PSFSource(Strict):
    """Where PSFs come from: the stamps of the MEDS files, which were made from PSFEx models."""

    type: Literal["psfex"] = "psfex"


class ImageIO(Strict):
    """What the MEDS files are."""

    io_type: Literal["meds-des-y3"] = "meds-des-y3"
    image_type: Literal["flux"] = "flux"
    psfs: PSFSource = PSFSource()


class CorrectMeds(Strict):
    """What is done to stamps before they are measured.

    `mof_run` names the run whose models of neighbours are taken away and whose model of the object fills holes, the
    tile's own MOF catalogue; null leaves neighbours where they are and fills holes with noise alone. `bad_flags` are
    mask bits of pixels that are filled.
    """

    mof_run: str | None = "y3v02-mof"
    reject_outliers: bool = True
    replace_bad: Literal[True] = True
    symmetrize_mask: bool = True
    bad_flags: tuple[Annotated[int, pydantic.Field(gt=0, lt=2**31)], ...] = (2, 4, 2048)


class CorrectedRun(FitRun):
    """Keys of runs whose stamps are corrected before they are measured."""

    LATER: ClassVar[dict[str, str]] = dict.fromkeys(("nbrs", "mof", "model_nbrs", "model_nbrs_method"), _MOF)

    imageio: ImageIO = ImageIO()
    propagate_star_flags: StarFlags = StarFlags(propagate=False)
    reject_outliers: bool = False
    extra_mask_flag_list: MaskNames = ("SATURATE", "INTERP", "SUSPECT")
    max_bmask_frac: Fraction = 1.0
    normalize_psf: Literal[True] = True
    center_psf: Literal[True] = True
    psf_pars: PSFPars = PSFPars(model="gauss", ntry=2, lm_pars=LMPars())
    correct_meds: CorrectMeds = CorrectMeds()

    @pydantic.model_validator(mode="after")
    def _psf_stamps(self) -> CorrectedRun:
        if self.psf_pars.pixelised:
            raise ValueError("psf_pars.pixelised is for fits of single objects; here the PSF is its stamp as it is")
        return self
