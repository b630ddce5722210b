"""What the configurations of all fits share: pixels, PSF, solver, chunks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args

import pydantic

from balrogutils.errors import ConfigError
from balrogutils.masks import MaskBit
from balrogutils.settings.campaign import Campaign
from balrogutils.settings.yamlfile import Strict, load_yaml, parse

__all__ = ["ENGINES", "Collate", "EMPars", "FitRun", "Jobs", "LMPars", "ModelPars", "PSFPars", "StarFlags"]

EngineName = Literal["balrogutils", "ngmix"]
ENGINES: tuple[str, ...] = get_args(EngineName)

FROM_TILE = "from_tile"
# Astrometry 1007, blacklists 31 << 10, PSF 19 << 15.
DES_IMAGE_FLAGS = 655343

Positive = Annotated[float, pydantic.Field(gt=0)]
Fraction = Annotated[float, pydantic.Field(ge=0, le=1)]


def known_bits(value: tuple[str, ...]) -> tuple[str, ...]:
    """Return names of mask bits, or raise ValueError with those there are."""
    unknown = [name for name in value if name not in MaskBit.__members__]
    if unknown:
        raise ValueError(f"unknown mask bits {unknown}; known: {' '.join(MaskBit.__members__)}")
    return value


MaskNames = Annotated[tuple[str, ...], pydantic.AfterValidator(known_bits)]


class Jobs(Strict):
    """How the objects are shared out."""

    chunksize: int = pydantic.Field(default=25, ge=1)
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


class StarFlags(Strict):
    """Whether saturated pixels of bright stars count as saturated in all bands and epochs, and not where a pixel has
    one of the bits `ignore_when_set`, which say that something else than a star spoiled it.
    """

    propagate: bool = True
    ignore_when_set: MaskNames = ("SUSPECT", "SSXTALK", "EDGEBLEED", "CRAY", "BADAMP", "BPM")


class LMPars(Strict):
    """Levenberg-Marquardt limits; see `balrogutils.fitting.solver.LMOptions`."""

    maxfev: int = pydantic.Field(default=2000, ge=1)
    xtol: Positive = 5e-5
    ftol: Positive = 5e-5


class EMPars(Strict):
    """Limits of expectation maximisation; see `balrogutils.fitting.emfit.EMOptions`."""

    maxiter: int = pydantic.Field(default=5000, ge=1)
    tol: Positive = 5e-6


class ModelPars(Strict):
    """How models are fit; the ranges are those to which cm clips fracdev and T_d / T_e."""

    method: Literal["lm"] = "lm"
    ntry: int = pydantic.Field(default=2, ge=1, le=100)
    lm_pars: LMPars = LMPars()
    fracdev_range: tuple[float, float] = (0.0, 1.0)
    TdByTe_range: tuple[float, float] = (0.0, 1.0e12)
    use_fracdev_grid: Literal[False] = False

    @pydantic.field_validator("fracdev_range", "TdByTe_range")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not value[0] < value[1]:
            raise ValueError("a range needs min < max")
        return value

    @pydantic.model_validator(mode="after")
    def _possible(self) -> ModelPars:
        if not -1.0 <= self.fracdev_range[0] < self.fracdev_range[1] <= 2.0:
            raise ValueError("fracdev_range must lie within [-1, 2]")
        if self.TdByTe_range[0] < 0.0:
            raise ValueError("TdByTe_range must not be negative")
        return self


class PSFPars(Strict):
    """How PSFs are represented: mixtures, and with `pixelised` the stamp itself where the mixture differs from it."""

    model: Literal[
        "gauss", "turb", "coellip1", "coellip2", "coellip3", "coellip4", "coellip5", "em1", "em2", "em3", "em4", "em5"
    ] = "coellip3"
    ntry: int = pydantic.Field(default=4, ge=1, le=100)
    lm_pars: LMPars = LMPars(maxfev=300, xtol=1e-5, ftol=1e-5)
    em_pars: EMPars = EMPars()
    pixelised: bool = False


F = TypeVar("F", bound="FitRun")


class FitRun(Strict):
    """Keys of every fit of a catalogue, with the defaults of the DES Y3 runs.

    Keys of DES run files that name the one way there is (a fitter, an input format, a feature that is off) are
    accepted with that value only. `engine` names the code that fits; ngmix must be installed.
    """

    LATER: ClassVar[dict[str, str]] = {}
    """Keys that a DES run file may have and this fit does not honour, with what to do about each."""

    run: str = pydantic.Field(min_length=1)
    engine: EngineName = "balrogutils"
    global_seed: int = pydantic.Field(default=22350, ge=0, lt=2**63)
    jobs: Jobs = Jobs()
    collate: Collate = Collate()
    fitter_type: Literal["max-ngmix-boot", "metacal-ngmix-boot", "bfd"] = "max-ngmix-boot"
    imageio_type: Literal["meds-des-y3"] = "meds-des-y3"
    fit_me_galaxy: Literal[True] = True
    fit_coadd_galaxy: Literal[False] = False
    read_wcs: Literal[False] = False
    read_me_wcs: Literal[False] = False
    # Minutes between the checkpoints of a DES run. Every finished chunk is one here, which is never less often.
    checkpoints: tuple[float, ...] | None = None

    propagate_star_flags: StarFlags = StarFlags()
    reject_outliers: bool = True
    extra_mask_flag_list: MaskNames = ("TAPEBUMP", "NEAREDGE", "SATURATE", "INTERP")
    max_bmask_frac: Fraction = 0.45
    max_zero_weight_frac: Fraction = 0.45
    replace_bad_pixels: Literal[False] = False
    symmetrize_bmask: Literal[False] = False
    symmetrize_weight: Literal[False] = False
    ignore_zero_weights_images: bool = True
    image_flags2check: int = pydantic.Field(default=DES_IMAGE_FLAGS, ge=0, lt=2**31)
    max_box_size: int = pydantic.Field(default=2048, ge=2, le=2048)

    use_psf_rerun: Literal[False] = False
    replace_cov: Literal[False] = False
    use_logpars: Literal[False] = False
    do_shear: Literal[False] = False
    normalize_psf: bool = False
    center_psf: bool = False
    intr_prof_var_fac: Literal[0] = 0

    model: str
    psf_pars: PSFPars = PSFPars()

    @pydantic.field_validator("propagate_star_flags", mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        return {"propagate": value} if isinstance(value, bool) else value

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
    def load(cls: type[F], path: str | os.PathLike[str], campaign: Campaign | None = None) -> F:
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
            Unknown keys (with what was meant), keys this fit does not honour (with what to do), a run other than
            the file name's.
        """
        file = Path(path)
        data = load_yaml(file)
        cls._refuse_later(data, file)
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

    @classmethod
    def _refuse_later(cls, data: dict[str, Any], file: Path) -> None:
        for key in [key for key in data if key in cls.LATER]:
            if data.pop(key) not in (False, None):
                raise ConfigError(f"{key} is not a key of this fit", file=file, key=key, remedy=cls.LATER[key])
