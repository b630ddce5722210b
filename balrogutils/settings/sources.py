"""The `input` section of the injection configuration: where sources come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import pydantic
from pydantic import Field

from balrogutils.settings.spectra import Passband, Spectra, place
from balrogutils.settings.yamlfile import Strict

__all__ = [
    "INJ_TYPES",
    "RULES_TYPE",
    "Bands",
    "CosmosCatalog",
    "DesStarCatalog",
    "GalaxyTable",
    "Inputs",
    "MedsCatalog",
    "NgmixCatalog",
    "RulesFile",
    "StarTable",
]

Bands = str | tuple[str, ...]

RULES_TYPE = "rulesGalaxy"
"""The `gal` type whose objects, positions included, are drawn by a rules file."""

INJ_TYPES = {
    "ngmixGalaxy": "ngmix_catalog",
    "desStar": "des_star_catalog",
    "tableGalaxy": "galaxy_table",
    "tableStar": "star_table",
    "COSMOSGalaxy": "cosmos_catalog",
    "MEDSGalaxy": "meds_catalog",
    RULES_TYPE: "rules",
}
"""The `gal` types of this package, each with the `input` section it draws from."""


class Source(Strict):
    """What every source of objects has.

    Attributes
    ----------
    bands : str or list of str, optional
        Bands it offers; the tile's when not given.
    weight : str, optional
        Column with the weights rows are chosen by; all alike when not given.
    """

    bands: Bands | None = None
    weight: str | None = None

    def path(self, base: Path, tile: str) -> Path:
        """Return the source's file."""
        raise NotImplementedError

    def paths(self, base: Path, tile: str, bands: Sequence[str]) -> list[Path]:
        """Return every file of the source."""
        return [self.path(base, tile)]


class NgmixCatalog(Source):
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
        return place(base, self.dir, self.file_name)


class DesStarCatalog(Source):
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
    data_version: str | None = None
    base_model: str | None = None
    zeropoint: Annotated[float, Field(ge=30.0, le=30.0)] = 30.0

    def path(self, base: Path, tile: str) -> Path:
        """Return the file of a tile's stars."""
        return place(base, self.base_dir, self.model_type, f"Model_{self.tile or tile}.csv")


class StarTable(Source):
    """Stars of a table, FITS or CSV: ``mag_<band>`` or ``flux_<band>`` (zero point 30), also ``ra``, ``dec``, ``id``.

    Attributes
    ----------
    file_name, dir : str
        A relative `dir` is relative to the checkout (``BALROG_BASE``).
    seds : Spectra, optional
        Spectra of the objects, for which the table gives the magnitude of one band only.
    bandpass : Passband, optional
        What they are seen through; `image.bandpass` when not given.
    """

    file_name: str
    dir: str = ""
    seds: Spectra | None = None
    bandpass: Passband | None = None

    @property
    def chromatic(self) -> bool:
        """Whether band passes are needed."""
        return self.seds is not None

    def paths(self, base: Path, tile: str, bands: Sequence[str]) -> list[Path]:
        """Return the table, the spectra under the checkout and the band passes."""
        files = [self.path(base, tile)]
        if self.seds is not None and self.bandpass is not None:
            wanted = dict.fromkeys((*bands, self.seds.mag_band))
            files += [*self.seds.paths(base), *(self.bandpass.of_band(base, band) for band in wanted)]
        return files

    def path(self, base: Path, tile: str) -> Path:
        """Return the table; ``TILE`` in its name stands for the tile's."""
        return place(base, self.dir, self.file_name.replace("TILE", tile))


class GalaxyTable(StarTable):
    """Galaxies of a table: magnitudes as `StarTable`, shapes ``g1``, ``g2`` (u west, v north) or ``q``, ``beta_deg``.

    Attributes
    ----------
    model : {"sersic", "bulge_disk", "knots"}
        ``sersic`` reads ``sersic_n``, ``r50_arcsec``; ``bulge_disk`` reads ``bulge_fraction``, ``bulge_r50_arcsec``,
        ``disk_r50_arcsec`` and, where there is one, ``bulge_n`` (4); ``knots`` reads ``knots`` (how many points) and
        ``r50_arcsec``. Radii are half-light radii, circularised.
    n_step : float, optional
        Sersic indices are rounded to whole steps, so that GalSim tabulates few profiles.
    truncation : float, optional
        Sersic profiles end at this many half-light radii.
    """

    model: Literal["sersic", "bulge_disk", "knots"]
    n_step: Annotated[float, Field(gt=0)] | None = None
    truncation: Annotated[float, Field(gt=1)] | None = None

    @pydantic.model_validator(mode="after")
    def _keys(self) -> GalaxyTable:
        if self.model == "knots" and (self.n_step or self.truncation):
            raise ValueError("knots have no Sersic index: remove n_step and truncation")
        return self


class CosmosCatalog(Source):
    """Galaxies of the COSMOS samples of GalSim: their HST images, or the Sersic and bulge+disk fits to them.

    Attributes
    ----------
    file_name, dir : str
        ``real_galaxy_catalog_*.fits``; the files beside it are found as GalSim does. A relative `dir` is relative to
        the checkout.
    use_real : bool
        Inject the images, deconvolved by their PSF; else the fits.
    exclusion_level : str
        As of `galsim.COSMOSCatalog`.
    mag_columns : mapping of str to str, optional
        Columns of the ``_fits`` table (or the catalogue) with the magnitude of each band; F814W (``mag_auto``,
        ``MAG``) in every band when not given.
    n_step : float
        Sersic indices are rounded to whole steps.
    chromatic : bool
        Bulges and disks have the spectra that GalSim gives them, at their photometric redshifts; of the fits only.
    bandpass : Passband, optional
        What they are seen through; `image.bandpass` when not given.
    """

    file_name: str
    dir: str = ""
    use_real: bool = True
    chromatic: bool = False
    bandpass: Passband | None = None
    exclusion_level: Literal["none", "bad_stamp", "bad_fits", "marginal"] = "marginal"
    mag_columns: Mapping[str, str] | None = None
    n_step: Annotated[float, Field(gt=0)] = 0.05

    @pydantic.model_validator(mode="after")
    def _spectra(self) -> CosmosCatalog:
        if self.chromatic and self.use_real:
            raise ValueError("HST images are of one band and have no spectra: chromatic needs use_real: false")
        if self.chromatic and self.mag_columns:
            raise ValueError("chromatic has the fluxes of every band from spectra: remove mag_columns")
        return self

    def path(self, base: Path, tile: str) -> Path:
        """Return the catalogue's file."""
        return place(base, self.dir, self.file_name)

    def paths(self, base: Path, tile: str, bands: Sequence[str]) -> list[Path]:
        """Return the catalogue's file and the band passes."""
        passes = [self.bandpass.of_band(base, band) for band in bands] if self.chromatic and self.bandpass else []
        return [self.path(base, tile), *passes]


class MedsCatalog(Source):
    """Real objects: stamps of MEDS files, cleaned and deconvolved by their PSF stamps.

    Attributes
    ----------
    file_name, dir : str
        One MEDS file a band, with PSF stamps; ``BAND`` in the name stands for the band, ``TILE`` for the tile's. A
        relative `dir` is relative to the checkout.
    epoch : {"coadd", "best"}
        The stamp of the coadd, or of the exposure in which a point source would be measured best.
    margin : float, optional
        arcsec; what is farther from the object's pixels of the segmentation is set to 0. With null the whole stamp is
        injected, noise and all.
    resolution : float
        FWHM in arcsec of the round Gaussian that the deconvolved objects are left with. What it and the PSF of a chip
        make together should be no sharper than the PSF of the stamps, or their noise is amplified.
    param_catalog : str, optional
        Table with ``id`` and ``flux_<band>`` or ``mag_<band>``: fluxes instead of the stamps' sums; objects that it
        lacks are left out.
    snr_min, snr_max : float, optional
        Cuts on the signal to noise of the flux, all bands together.
    size_min, size_max : float, optional
        Cuts on the half-light radius without the PSF, arcsec.
    masked_max : float
        Objects with a larger share of pixels that are bad or a neighbour's, in any band, are left out.
    """

    file_name: str
    dir: str = ""
    epoch: Literal["coadd", "best"] = "coadd"
    margin: Annotated[float, Field(ge=0)] | None = 1.5
    resolution: Annotated[float, Field(ge=0)] = 0.8
    param_catalog: str | None = None
    snr_min: float | None = None
    snr_max: float | None = None
    size_min: float | None = None
    size_max: float | None = None
    masked_max: Annotated[float, Field(ge=0, le=1)] = 0.2

    @pydantic.model_validator(mode="after")
    def _one_a_band(self) -> MedsCatalog:
        if "BAND" not in self.file_name:
            raise ValueError("file_name names one file a band: write BAND where the band stands")
        return self

    def of_band(self, base: Path, tile: str, band: str) -> Path:
        """Return the file of a band."""
        return place(base, self.dir, self.file_name.replace("TILE", tile).replace("BAND", band))

    def path(self, base: Path, tile: str) -> Path:
        """Return the pattern of the files' names."""
        return self.of_band(base, tile, "BAND")

    def table(self, base: Path, tile: str) -> Path | None:
        """Return the table of fluxes, where there is one."""
        return None if self.param_catalog is None else place(base, self.dir, self.param_catalog.replace("TILE", tile))

    def paths(self, base: Path, tile: str, bands: Sequence[str]) -> list[Path]:
        """Return the files of the bands and the table of fluxes."""
        table = self.table(base, tile)
        return [*(self.of_band(base, tile, band) for band in bands), *([] if table is None else [table])]


class RulesFile(Source):
    """Objects drawn by a rules file, the one that ``balrog image`` takes, in the pixels of the tile.

    Attributes
    ----------
    file_name, dir : str
        The Python file. A relative `dir` is relative to the checkout.
    args : list
        The file's own arguments, as on a command line; ``BAND`` and ``TILE`` in a word stand for band and tile. With
        ``BAND`` the rules are evaluated for each band, and magnitudes may differ.
    n_step : float, optional
        Sersic indices are rounded to whole steps, so that GalSim tabulates few profiles.
    truncation : float, optional
        Sersic profiles end at this many half-light radii.
    fulltraceback : bool
        Errors in the file quote all lines, not its own alone.
    """

    file_name: str
    dir: str = ""
    args: tuple[str | int | float, ...] = ()
    n_step: Annotated[float, Field(gt=0)] | None = None
    truncation: Annotated[float, Field(gt=1)] | None = None
    fulltraceback: bool = False

    @pydantic.model_validator(mode="after")
    def _rows(self) -> RulesFile:
        if self.weight is not None:
            raise ValueError("the rules file says which rows are drawn: remove weight")
        return self

    def path(self, base: Path, tile: str) -> Path:
        """Return the rules file."""
        return place(base, self.dir, self.file_name)

    @property
    def banded(self) -> bool:
        """Whether the arguments speak of the band."""
        return any("BAND" in str(word) for word in self.args)

    def words(self, base: Path, tile: str, band: str) -> list[str]:
        """Return the arguments as they are parsed for one band."""
        found = [str(word).replace("BALROG-BASE", str(base)) for word in self.args]
        return [word.replace("TILE", tile).replace("BAND", band) for word in found]


class Inputs(Strict):
    """The `input` section."""

    ngmix_catalog: NgmixCatalog | None = None
    des_star_catalog: DesStarCatalog | None = None
    galaxy_table: GalaxyTable | None = None
    star_table: StarTable | None = None
    cosmos_catalog: CosmosCatalog | None = None
    meds_catalog: MedsCatalog | None = None
    rules: RulesFile | None = None
