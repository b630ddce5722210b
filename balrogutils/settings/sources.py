"""The `input` section of the injection configuration: where sources come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from balrogutils.settings.yamlfile import Strict

__all__ = ["Bands", "DesStarCatalog", "Inputs", "NgmixCatalog"]

Bands = str | tuple[str, ...]


def _place(base: Path, *parts: str) -> Path:
    """Return a path under the checkout, which the literal ``BALROG-BASE`` stands for too."""
    return base.joinpath(*(part.replace("BALROG-BASE", str(base)) for part in parts if part))


class NgmixCatalog(Strict):
    """A galaxy catalogue with ngmix columns ``<type>_T``, ``<type>_g``, ``<type>_flux`` and so on.

    Attributes
    ----------
    file_name, dir : str
        FITS table; a relative `dir` is relative to the checkout (``BALROG_BASE``).
    catalog_type : {"gauss", "cm", "bdf"}, optional
        Taken from the file name when not given.
    snr_min, snr_max, t_frac, t_min, t_max : float, optional
        Cuts: signal to noise ``<type>_s2n_r``, ``|T/T_err|`` at least `t_frac`, size T in arcsec^2.
    de_redden : bool
        Use ``<type>_flux_deredden``.
    TdByTe : float
        Ratio T_dev / T_exp of a bdf catalogue without such a column.
    """

    file_name: str
    dir: str = ""
    catalog_type: Literal["gauss", "cm", "bdf"] | None = None
    bands: Bands | None = None
    snr_min: float | None = None
    snr_max: float | None = None
    t_frac: Annotated[float, Field(ge=0)] | None = None
    t_min: float | None = None
    t_max: float | None = None
    version: str | None = None
    de_redden: bool = False
    TdByTe: Annotated[float, Field(gt=0)] = 1.0

    def path(self, base: Path, tile: str) -> Path:
        """Return the catalogue's file; it is the same for every tile."""
        return _place(base, self.dir, self.file_name)


class DesStarCatalog(Strict):
    """Simulated stars, one CSV ``<base_dir>/<model_type>/Model_<tile>.csv`` a tile.

    Attributes
    ----------
    base_dir, model_type : str
        A relative `base_dir` is relative to the checkout (``BALROG_BASE``).
    tile : str, optional
        Take the stars of another tile.
    zeropoint : float
        Zero point of the fluxes; all inputs share 30.
    """

    base_dir: str
    model_type: str = ""
    tile: str | None = None
    bands: Bands | None = None
    data_version: str | None = None
    base_model: str | None = None
    zeropoint: Annotated[float, Field(ge=30.0, le=30.0)] = 30.0

    def path(self, base: Path, tile: str) -> Path:
        """Return the file of a tile's stars."""
        return _place(base, self.base_dir, self.model_type, f"Model_{self.tile or tile}.csv")


class Inputs(Strict):
    """The `input` section."""

    ngmix_catalog: NgmixCatalog | None = None
    des_star_catalog: DesStarCatalog | None = None

    def files(self, base: Path, tile: str) -> list[Path]:
        """Return the files of every catalogue of a tile."""
        return [
            section.path(base, tile) for section in (self.ngmix_catalog, self.des_star_catalog) if section is not None
        ]
