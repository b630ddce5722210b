"""Configuration of single-object fits, ``sof-config/run-<run>.yaml``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from balrogutils.errors import ConfigError
from balrogutils.masks import MaskBit
from balrogutils.settings.campaign import Campaign
from balrogutils.settings.yamlfile import Strict, load_yaml, parse

__all__ = ["Collate", "Jobs", "LMPars", "ModelPars", "PSFPars", "Priors", "Sof"]

FROM_TILE = "from_tile"

# Keys that DES run files have and this version cannot honour, with what to do about each.
_LATER = {
    "propagate_star_flags": "remove it; star flags are not carried from pixel to pixel in this version",
    "star_flags": "remove it; star flags are not carried from pixel to pixel in this version",
    "cov_pars": "remove it; errors come from the analytic normal matrix",
    "nbrs": "remove it; neighbours are the business of a MOF run",
    "mof": "remove it; neighbours are the business of a MOF run",
    "model_nbrs": "remove it; neighbours are the business of a MOF run",
    "correct_meds": "remove it; corrected stamps are the business of a metacal run",
    "metacal_pars": "remove it; that is the business of a metacal run",
    "checkpoints": "remove it; every finished chunk is a checkpoint",
}

# Astrometry 1007, blacklists 31 << 10, PSF 19 << 15.
DES_IMAGE_FLAGS = 655343

Positive = Annotated[float, pydantic.Field(gt=0)]
Fraction = Annotated[float, pydantic.Field(ge=0, le=1)]


class Jobs(Strict):
    """How the objects are shared out."""

    chunksize: int = pydantic.Field(default=100, ge=1)
    bands: tuple[str, ...] | Literal["from_tile"] = "from_tile"

    @pydantic.field_validator("bands")
    @classmethod
    def _each_once(cls, value: tuple[str, ...] | str) -> tuple[str, ...] | str:
        if isinstance(value, tuple) and (not value or len(set(value)) != len(value)):
            raise ValueError("name each band once, at least one, or write from_tile")
        return value


class Collate(Strict):
    """How chunks become one catalogue; nothing is ever blinded."""

    concat_type: Literal["concat-des"] = "concat-des"
    blinding: None = None


class LMPars(Strict):
    """Levenberg-Marquardt limits; see `balrogutils.fitting.solver.LMOptions`."""

    maxfev: int = pydantic.Field(default=2000, ge=1)
    xtol: Positive = 5e-5
    ftol: Positive = 5e-5


class ModelPars(Strict):
    """How models are fit."""

    method: Literal["lm"] = "lm"
    ntry: int = pydantic.Field(default=2, ge=1, le=100)
    lm_pars: LMPars = LMPars()


class PSFPars(Strict):
    """How PSF mixtures are fit."""

    model: Literal["gauss", "coellip1", "coellip2", "coellip3", "coellip4", "coellip5"] = "coellip3"
    ntry: int = pydantic.Field(default=4, ge=1, le=100)
    lm_pars: LMPars = LMPars(maxfev=300, xtol=1e-5, ftol=1e-5)


class CosmosSersicPrior(Strict):
    """Shapes of Sersic fits to COSMOS galaxies."""

    type: Literal["cosmos-sersic"]


class BAPrior(Strict):
    """Bernstein & Armstrong shapes."""

    type: Literal["ba"]
    sigma: Positive


class CenPriorPars(Strict):
    """Round Gaussian on the centre, arcsec."""

    type: Literal["dgauss"] = "dgauss"
    width: Positive = 0.27


class ErfPrior(Strict):
    """Flat with soft edges; pars are min, width at min, max, width at max."""

    type: Literal["TwoSidedErf"]
    pars: tuple[float, Positive, float, Positive]

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> ErfPrior:
        if not self.pars[0] < self.pars[2]:
            raise ValueError("TwoSidedErf needs min < max")
        return self


class FlatPrior(Strict):
    """Flat; pars are min and max."""

    type: Literal["flat"]
    pars: tuple[float, float]

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> FlatPrior:
        if not self.pars[0] < self.pars[1]:
            raise ValueError("flat needs min < max")
        return self


class NormalPrior(Strict):
    """Gaussian; pars are mean and sigma."""

    type: Literal["normal"]
    pars: tuple[float, Positive]


NumberPrior = Annotated[ErfPrior | FlatPrior | NormalPrior, pydantic.Field(discriminator="type")]
ShapePriorPars = Annotated[CosmosSersicPrior | BAPrior, pydantic.Field(discriminator="type")]


class Priors(Strict):
    """Priors of the model; `T` in arcsec^2, `counts` (each band) in flux at zero point 30."""

    g: ShapePriorPars | None = CosmosSersicPrior(type="cosmos-sersic")
    T: NumberPrior = ErfPrior(type="TwoSidedErf", pars=(-10.0, 0.03, 1.0e6, 1.0e5))
    counts: NumberPrior = ErfPrior(type="TwoSidedErf", pars=(-1.0e4, 1.0, 1.0e9, 0.25e8))
    cen: CenPriorPars | None = CenPriorPars()


class Sof(Strict):
    """Every key of a single-object run that this version supports, with the defaults of the shipped file.

    Keys of DES run files that name the one way there is (a fitter, an input format, a feature that is off) are
    accepted with that value only.
    """

    run: str = pydantic.Field(min_length=1)
    global_seed: int = pydantic.Field(default=22350, ge=0, lt=2**63)
    jobs: Jobs = Jobs()
    collate: Collate = Collate()
    fitter_type: Literal["max-ngmix-boot"] = "max-ngmix-boot"
    imageio_type: Literal["meds-des-y3"] = "meds-des-y3"
    fit_me_galaxy: Literal[True] = True
    fit_coadd_galaxy: Literal[False] = False
    read_wcs: Literal[False] = False
    read_me_wcs: Literal[False] = False

    reject_outliers: bool = True
    extra_mask_flag_list: tuple[str, ...] = ("TAPEBUMP", "NEAREDGE", "SATURATE", "INTERP")
    max_bmask_frac: Fraction = 0.45
    max_zero_weight_frac: Fraction = 0.45
    replace_bad_pixels: Literal[False] = False
    symmetrize_bmask: Literal[False] = False
    symmetrize_weight: Literal[False] = False
    ignore_zero_weights_images: bool = True
    region: Literal["cweight-nearest", "weight"] = "cweight-nearest"
    image_flags2check: int = pydantic.Field(default=DES_IMAGE_FLAGS, ge=0, lt=2**31)
    max_box_size: int = pydantic.Field(default=2048, ge=2, le=2048)

    use_psf_rerun: Literal[False] = False
    replace_cov: Literal[False] = False
    use_logpars: Literal[False] = False
    do_shear: Literal[False] = False
    normalize_psf: Literal[False] = False
    center_psf: Literal[False] = False
    intr_prof_var_fac: Literal[0] = 0

    model: Literal["gauss", "turb", "exp", "dev"] = "exp"
    max_pars: ModelPars = ModelPars()
    psf_pars: PSFPars = PSFPars()
    priors: Priors = Priors()

    @pydantic.field_validator("extra_mask_flag_list")
    @classmethod
    def _known_bits(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in value if name not in MaskBit.__members__]
        if unknown:
            raise ValueError(f"unknown mask bits {unknown}; known: {' '.join(MaskBit.__members__)}")
        return value

    def bands(self, tile_bands: tuple[str, ...]) -> tuple[str, ...]:
        """Return the bands to fit for a tile that has `tile_bands`.

        Raises
        ------
        ConfigError
            When the configuration names a band that the tile does not have.
        """
        if self.jobs.bands == FROM_TILE:
            return tile_bands
        for band in self.jobs.bands:
            if band not in tile_bands:
                raise ConfigError(
                    f"the fit wants band {band}, but the tile has {' '.join(tile_bands)}",
                    band=band,
                    key="jobs.bands",
                    remedy="name bands of the tile, or write bands: from_tile",
                )
        return tuple(self.jobs.bands)

    @classmethod
    def load(cls, path: str | os.PathLike[str], campaign: Campaign | None = None) -> Sof:
        """Read a configuration.

        Parameters
        ----------
        path : path-like
            ``run-<run>.yaml``.
        campaign : Campaign, optional
            Checked against the bands and the zero point.

        Raises
        ------
        ConfigError
            Unknown keys (with what was meant), keys this version cannot honour (with what to do), a run other than
            the file name's.
        """
        file = Path(path)
        data = load_yaml(file)
        _refuse_later(data, file)
        settings = parse(cls, data, file)
        if file.name != f"run-{settings.run}.yaml":
            raise ConfigError(
                f"run is {settings.run}, but the file is called {file.name}",
                file=file,
                key="run",
                remedy=f"call it run-{settings.run}.yaml",
            )
        if campaign is not None:
            settings.bands(campaign.bands)
            if campaign.magzp_ref != 30.0:
                raise ConfigError(
                    f"fluxes are at zero point 30, but campaign {campaign.name} has {campaign.magzp_ref}",
                    key="magzp_ref",
                    remedy="use magzp_ref: 30.0",
                )
        return settings


def _refuse_later(data: dict[str, Any], file: Path) -> None:
    for key in data:
        if key in _LATER and data[key] not in (False, None):
            raise ConfigError(f"{key} is not supported by this version", file=file, key=key, remedy=_LATER[key])
    for key in [key for key in data if key in _LATER]:
        del data[key]
