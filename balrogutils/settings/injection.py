"""The injection configuration: a GalSim YAML with the keys Balrog users know."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from balrogutils.errors import ConfigError, did_you_mean
from balrogutils.identity import MAX_REALIZATION
from balrogutils.settings.drawing import Blank, Noise, Psf, Stamp, Wcs
from balrogutils.settings.galsection import Gal
from balrogutils.settings.pipeline import MAX_SEED
from balrogutils.settings.placement import check_placement
from balrogutils.settings.sampling import EVERY, Avoid, Counts, Densities, Positions, Sampling, of_input
from balrogutils.settings.sources import INJ_TYPES, Bands, Inputs
from balrogutils.settings.spectra import Passband
from balrogutils.settings.yamlfile import Strict, load_yaml, parse

__all__ = ["Injection"]

# Keys of other versions of the configuration, with what to do instead.
_REFUSED = {
    "image.geom_file": "the pipeline reads the geometry from the archive: remove the key",
    "image.tile_list": "the tile is given on the command line: remove the key",
    "image.tile_dir": "the directories come from MEDS_DATA: remove the key",
    "image.psf_dir": "the PSF models of the tile are used: remove the key",
    "image.nproc": "the number of processes is Snakemake's --cores: remove the key",
    "image.n_galaxies": "write n_objects: {ngmix_catalog: N}",
    "image.gal_density": "write object_density: {ngmix_catalog: D}",
    "image.nobjects": "write n_objects",
    "output.dir": "the directories come from MEDS_DATA: remove the key",
    "stamp.skip_failures": "an object that cannot be drawn stops its realization: remove the key",
    "image.skip_failures": "an object that cannot be drawn stops its realization: remove the key",
}


class Image(Strict):
    """The `image` section.

    Attributes
    ----------
    type : "Balrog"
        Draw and add to the image.
    bands : str or list of str
        ``from_tile``, or bands the tile has; no object is put into its other bands.
    version : str, optional
        Must be the pipeline's medsconf.
    realizations : int, list of int or {min, max}
        Used when the pipeline's own list is ``from_config``; `max` is included.
    n_objects, object_density : number or {input: number}, optional
        For uniform positions exactly one of them; object_density is per arcmin^2 of the unique area.
    rotate_objs : bool or "Random"
        Turn every object by its own random angle.
    extinct_objs : bool
        Multiply fluxes by the tile's EXTFACT.
    random_seed : int, optional
        Instead of the pipeline's seed.
    noise : {type: Poisson, update_weights}, optional
        Poisson noise of the injected light.
    inj_objs_only : bool or {value, noise}
        Inject on blank images; ``True`` is noise CCD.
    unique_area : bool
        Only inside the tile's unique area, so that neighbouring tiles do not inject twice.
    min_separation : float, optional
        arcsec; objects nearer than this to an earlier one are left out.
    avoid : Avoid
        Where nothing is injected.
    shear_pairs : bool
        Realizations 2k and 2k + 1 are equal but for the sign of the shear.
    extinction_coefficients : mapping of str to float
        A_b / E(B-V) for the `ebv` of `gal`; those of DES DR1 (Abbott et al. 2018).
    mask_bit : int, optional
        Bit of MSK, from 0, that is set under every stamp.
    bandpass : Passband, optional
        What objects with a spectrum are seen through.
    """

    type: Literal["Balrog"]
    bands: Bands = "from_tile"
    version: str | None = None
    run_name: str | None = None
    realizations: tuple[int, ...] = (0,)
    n_realizations: Annotated[int, Field(ge=1)] | None = None
    n_objects: Counts | None = None
    object_density: Densities | None = None
    pos_sampling: Sampling = {EVERY: Positions()}  # noqa: RUF012 (pydantic copies it)
    unique_area: bool = False
    min_separation: Annotated[float, Field(gt=0)] | None = None
    avoid: Avoid = Avoid()
    shear_pairs: bool = False
    extinction_coefficients: dict[str, float] = {  # noqa: RUF012
        **{"g": 3.186, "r": 2.140, "i": 1.569, "z": 1.196, "Y": 1.048}
    }
    mask_bit: Annotated[int, Field(ge=0, le=14)] | None = None
    rotate_objs: bool | Literal["Random"] = False
    extinct_objs: bool = False
    inj_objs_only: Blank | None = None
    bandpass: Passband | None = None
    noise: Noise = Noise()
    random_seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    wcs: Wcs = Wcs()
    xsize: Annotated[int, Field(ge=1)] = 2048
    ysize: Annotated[int, Field(ge=1)] = 4096

    @pydantic.field_validator("realizations", mode="before")
    @classmethod
    def _realizations(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            return (value,)
        if isinstance(value, dict):
            if set(value) != {"min", "max"} or not all(isinstance(item, int) for item in value.values()):
                raise ValueError("write {min: A, max: B} with two integers")
            if value["max"] > MAX_REALIZATION:
                raise ValueError(f"realizations go from 0 to {MAX_REALIZATION}")
            return tuple(range(value["min"], value["max"] + 1))
        return value

    @pydantic.field_validator("realizations")
    @classmethod
    def _distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or min(value) < 0 or max(value) > MAX_REALIZATION or len(set(value)) != len(value):
            raise ValueError(f"realizations are distinct integers from 0 to {MAX_REALIZATION}, at least one")
        return value

    @pydantic.field_validator("noise", "wcs", mode="before")
    @classmethod
    def _nothing(cls, value: Any) -> Any:
        return {} if value is None else value

    @pydantic.field_validator("inj_objs_only", mode="before")
    @classmethod
    def _blank(cls, value: Any) -> Any:
        if isinstance(value, bool):
            return {"noise": "CCD"} if value else None
        return None if isinstance(value, dict) and value.get("value") is False else value

    @pydantic.model_validator(mode="after")
    def _total(self) -> Image:
        if self.n_realizations is not None and self.n_realizations < len(self.realizations):
            raise ValueError(
                f"n_realizations {self.n_realizations} is less than the {len(self.realizations)} realizations listed"
            )
        return self


class Injection(Strict):
    """The whole injection configuration."""

    modules: tuple[Literal["galsim.des", "injector", "ngmix_catalog", "des_star_catalog"], ...] = ()
    eval_variables: dict[str, Any] = {}  # noqa: RUF012
    input: Inputs = Inputs()
    galsim_input: dict[str, Any] = {}  # noqa: RUF012
    gal: Gal
    psf: Psf
    stamp: Stamp
    image: Image

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Injection:
        """Read and check a configuration file.

        Parameters
        ----------
        path : path-like
            GalSim YAML, one document.

        Returns
        -------
        Injection
            The settings.

        Raises
        ------
        ConfigError
            For unknown, missing, contradictory or unsupported keys, and for ``$`` and ``@`` expressions outside
            GalSim's own parts.
        """
        data = load_yaml(path)
        _refuse(data, path)
        settings = parse(cls, _split_inputs(data), path)
        settings._check(path)
        return settings

    def _check(self, path: str | os.PathLike[str]) -> None:
        for item in self.gal.items:
            if not item.native and getattr(self.input, item.label) is None:
                raise ConfigError(
                    f"gal has the type {item.type}, but input has no {item.label}",
                    file=path,
                    key=f"input.{item.label}",
                    remedy="add the section, or remove the type",
                )
            for name in item.nested:
                if getattr(self.input, name, None) is None:
                    raise ConfigError(
                        f"a part of {item.label} draws from {name}, which input does not have",
                        file=path,
                        key=f"input.{name}",
                        remedy="add the section, or remove the part",
                    )
        for name, used in self.input:
            if used is not None and name not in self._drawn_from:
                raise ConfigError(
                    f"input has {name}, but gal does not use it",
                    file=path,
                    key="gal",
                    remedy="add the type, or remove the section",
                )
        for key in ("pos_sampling", "n_objects", "object_density"):
            known = [*self.inputs, *INJ_TYPES.values(), EVERY]
            for name in getattr(self.image, key) or {}:
                if name not in known:
                    raise ConfigError(
                        f"{key} speaks of {name}, which gal does not have: {did_you_mean(name, self.inputs)}",
                        file=path,
                        key=f"image.{key}.{name}",
                        remedy="correct its name, or remove it",
                    )
        chromatic = [item.label for item in self.gal.items if item.chromatic and self.image.bandpass is None]
        sections = [name for name, _ in self.input if getattr(self.section(name), "chromatic", False)]
        chromatic += [name for name in sections if self.section(name).bandpass is None]
        if chromatic:
            raise ConfigError(
                f"{chromatic[0]} has spectra, and there is nothing to see them through",
                file=path,
                key="image.bandpass",
                remedy="write bandpass: {dir: inputs/bandpasses, file_name: DECam_BAND.dat}",
            )
        if self.image.shear_pairs and not any(item.sheared for item in self.gal.items):
            raise ConfigError(
                "shear_pairs needs a shear", file=path, key="gal", remedy="write shear: {type: G1G2, g1: 0.02, g2: 0}"
            )
        check_placement(self.inputs, self.positions, self.image.n_objects, self.image.object_density, path)

    def positions(self, name: str) -> Positions:
        """Return how the positions of one input are chosen."""
        return of_input(self.image.pos_sampling, name) or Positions()

    @property
    def inputs(self) -> tuple[str, ...]:
        """What the kinds of objects are called, in the order of the `gal` list: their input section, or their name."""
        return tuple(item.label for item in self.gal.items)

    @property
    def _drawn_from(self) -> tuple[str, ...]:
        """Names of all inputs, of parts of objects too."""
        return (*self.inputs, *(name for item in self.gal.items for name in item.nested))

    @property
    def realizations(self) -> tuple[str, ...]:
        """The realizations as text, as they stand in directory names."""
        return tuple(str(number) for number in self.image.realizations)

    @property
    def poisson(self) -> bool:
        """Whether the injected light gets Poisson noise."""
        return self.image.noise.type == "Poisson"

    @property
    def blank(self) -> str | None:
        """Noise model of blank images to inject into; None for the images themselves."""
        blank = self.image.inj_objs_only
        return None if blank is None else blank.noise or "None"

    def twin(self, realization: str) -> str:
        """Return the realization that names the random streams: the first of its shear pair, else itself."""
        return str(int(realization) // 2 * 2) if self.image.shear_pairs else realization

    def section(self, name: str) -> Any:
        """Return an input section, or None; its band passes are the image's where it has none of its own."""
        section = getattr(self.input, name)
        if self.image.bandpass is None or getattr(section, "bandpass", self.image.bandpass) is not None:
            return section
        return section.model_copy(update={"bandpass": self.image.bandpass})

    def files(self, base: Path, tile: str, bands: Sequence[str]) -> list[Path]:
        """Return every file the plan reads: catalogues, band passes, tables of positions and of bright stars."""
        ours = [self.section(name) for name, given in self.input if given is not None]
        sources = [file for section in ours for file in section.paths(base, tile, bands)]
        if self.image.bandpass is not None and any(item.chromatic for item in self.gal.items):
            sources += [self.image.bandpass.of_band(base, band) for band in bands]
        tables = [self.positions(name).table(base) for name in self.inputs] + [self.image.avoid.table(base)]
        theirs = [self._placed(one, base) for one in self.galsim_input.values()]
        tables += [Path(one["dir"], one["file_name"]) for one in theirs if isinstance(one, dict) and "dir" in one]
        return list(dict.fromkeys([*sources, *(table for table in tables if table is not None)]))

    @staticmethod
    def _placed(given: Any, base: Path) -> Any:
        """Return an input of GalSim's with its file under the checkout, where the name is relative."""
        if not isinstance(given, dict) or not isinstance(given.get("file_name"), str):
            return given
        return {**given, "dir": str(base / str(given.get("dir", "")).replace("BALROG-BASE", str(base)))}

    def galsim_inputs(self, base: Path) -> dict[str, Any]:
        """Return GalSim's own inputs as GalSim is to read them."""
        return {name: self._placed(given, base) for name, given in self.galsim_input.items()}

    def bands(self, tile_bands: Sequence[str], file: str | os.PathLike[str] | None = None) -> tuple[str, ...]:
        """Return the bands to inject into, in the order of the tile.

        Raises
        ------
        ConfigError
            When the configuration lists a band that the tile lacks.
        """
        wanted = tuple(tile_bands) if self.image.bands == "from_tile" else tuple(self.image.bands)
        strangers = [band for band in wanted if band not in tile_bands]
        if strangers or not wanted:
            raise ConfigError(
                f"the bands {', '.join(strangers) or '(none)'} are not bands of the tile ({', '.join(tile_bands)})",
                file=file,
                key="image.bands",
                remedy="write bands: from_tile",
            )
        for name in self._drawn_from:
            section = getattr(self.input, name, None)
            offered = None if section is None else section.bands
            lacking = [] if offered in (None, "from_tile") else [band for band in wanted if band not in offered]
            if lacking:
                raise ConfigError(
                    f"the bands {', '.join(lacking)} are to be injected but are not in the bands of {name}",
                    file=file,
                    key=f"input.{name}.bands",
                    remedy="write bands: from_tile",
                )
        return tuple(band for band in tile_bands if band in wanted)


def _split_inputs(data: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration with GalSim's own inputs (catalog, dict, real_catalog) apart."""
    given = data.get("input")
    if not isinstance(given, dict) or set(given) <= set(Inputs.model_fields):
        return data
    # GalSim takes most of a second to import: only who has such inputs waits for it.
    from galsim.config.input import valid_input_types

    theirs = {key: value for key, value in given.items() if key not in Inputs.model_fields and key in valid_input_types}
    ours = {key: value for key, value in given.items() if key not in theirs}
    return {**data, "input": ours, "galsim_input": theirs}


def _refuse(data: Any, path: str | os.PathLike[str], where: str = "") -> None:
    """Raise for keys of other versions, and for expressions where GalSim does not evaluate them."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        name = f"{where}.{key}" if where else str(key)
        if name in _REFUSED:
            raise ConfigError(f"the key {name} is not used", file=path, key=name, remedy=_REFUSED[name])
        if isinstance(value, str) and value[:1] in ("$", "@") and not name.startswith(("gal.", "eval_variables.")):
            raise ConfigError(
                f"{value!r} is an expression to evaluate, and expressions are run in gal only",
                file=path,
                key=name,
                remedy="write the value itself",
            )
        _refuse(value, path, name)
