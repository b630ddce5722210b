"""Configuration of BFD runs, ``bfd-config/run-<run>.yaml``; keys are named as the options of the DES runs (P 6.5)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import pydantic

from balrogutils.errors import ConfigError
from balrogutils.settings.corrected import CorrectedRun, CorrectMeds
from balrogutils.settings.fits import FROM_TILE, Fraction, Jobs
from balrogutils.settings.sof import METACAL

__all__ = ["Bfd", "BfdCorrectMeds"]

_PLACES = "remove it; products have their places, and --log names a log"
Weight = Annotated[float, pydantic.Field(ge=0)]


class BfdCorrectMeds(CorrectMeds):
    """What is done to stamps before they are measured.

    Holes are filled, not given less weight, so that a mask has no direction to lend; made symmetric it would cost
    whole epochs by `bad_pixel_threshold`.
    """

    symmetrize_mask: bool = False


class Bfd(CorrectedRun):
    """Every key of a BFD run, with the defaults of the shipped file."""

    LATER: ClassVar[dict[str, str]] = {
        **CorrectedRun.LATER,
        "metacal_pars": METACAL,
        "max_zero_weight_frac": "remove it; bad_pixel_threshold says how much of a stamp may be bad",
        "bands": "remove it; all bands of the tile are measured, and band_weights says what each counts",
        "num_proc": "remove it; fit_workers of etc/pipeline.yaml, or --workers, says how many processes",
        **dict.fromkeys(("infile", "outfile", "dir", "psfdir", "moffile", "l"), _PLACES),
    }

    fitter_type: Literal["bfd"] = "bfd"
    correct_meds: BfdCorrectMeds = BfdCorrectMeds()
    # A stamp of which more is bad is not used; there is no second limit of the same kind.
    max_zero_weight_frac: Fraction = 1.0

    model: Literal["bfd"] = "bfd"
    targets: Literal[True] = True
    wt_n: int = pydantic.Field(default=4, ge=1, le=20)
    wt_sigma: float = pydantic.Field(default=1.0, gt=0, le=10)
    pad_factor: float = pydantic.Field(default=2.0, ge=1, le=16)
    bad_pixel_threshold: Fraction = 0.05
    band_weights: dict[str, Weight] = pydantic.Field(default={"g": 0.0, "r": 0.55, "i": 0.3, "z": 0.15})
    save_bands_separately: bool = True

    @pydantic.field_validator("jobs")
    @classmethod
    def _all_bands(cls, value: Jobs) -> Jobs:
        if value.bands != FROM_TILE:
            raise ValueError("bands of BFD are from_tile; a band that is not to count has the weight 0 in band_weights")
        return value

    def bands(self, tile_bands: tuple[str, ...]) -> tuple[str, ...]:
        """Return the bands of the tile.

        Raises
        ------
        ConfigError
            When `band_weights` does not say what one of them counts, or none of them counts.
        """
        for band in tile_bands:
            if band not in self.band_weights:
                raise ConfigError(
                    f"band_weights does not say what band {band} counts",
                    band=band,
                    key="band_weights",
                    remedy=f"give {band} a weight, 0 for one that is measured and does not count",
                )
        if not any(self.weights(tile_bands)):
            raise ConfigError(
                f"none of the bands {' '.join(tile_bands)} counts",
                key="band_weights",
                remedy="give one of them a weight above 0",
            )
        return tile_bands

    def weights(self, bands: tuple[str, ...]) -> tuple[float, ...]:
        """Return what each band counts, in their order."""
        return tuple(self.band_weights[band] for band in bands)
