"""The injection configuration: a GalSim YAML with the keys Balrog users know."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from balrogutils.errors import ConfigError, did_you_mean
from balrogutils.identity import MAX_REALIZATION
from balrogutils.settings.pipeline import MAX_SEED
from balrogutils.settings.sampling import INJ_TYPES, Counts, Densities, Sampling
from balrogutils.settings.sources import Bands, Inputs
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


class Noise(Strict):
    """Noise of the injected light: none, or Poisson with the gain of the chip."""

    type: Literal["Poisson"] | None = None


class Wcs(Strict):
    """The WCS is always the one of the chip."""

    type: Literal["Fits"] = "Fits"


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
    noise : {type: Poisson}, optional
        Poisson noise of the injected light.
    """

    type: Literal["Balrog"]
    bands: Bands = "from_tile"
    version: str | None = None
    run_name: str | None = None
    realizations: tuple[int, ...] = (0,)
    n_realizations: Annotated[int, Field(ge=1)] | None = None
    n_objects: Counts | None = None
    object_density: Densities | None = None
    pos_sampling: Sampling = Sampling()
    rotate_objs: bool | Literal["Random"] = False
    extinct_objs: bool = False
    inj_objs_only: Any = None
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

    @pydantic.field_validator("inj_objs_only")
    @classmethod
    def _added_to_image(cls, value: Any) -> Any:
        if value in (None, False) or (isinstance(value, dict) and not value.get("value")):
            return None
        raise ValueError("injection on blank images is not supported in this version; remove the key")

    @pydantic.model_validator(mode="after")
    def _total(self) -> Image:
        if self.n_realizations is not None and self.n_realizations < len(self.realizations):
            raise ValueError(
                f"n_realizations {self.n_realizations} is less than the {len(self.realizations)} realizations listed"
            )
        return self


class GalItem(Strict):
    """One kind of object."""

    type: str

    @pydantic.field_validator("type")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in INJ_TYPES:
            raise ValueError(f"an unknown type of object: {did_you_mean(value, INJ_TYPES)}")
        return value


class Gal(Strict):
    """The `gal` section: one type, or ``type: List`` with items."""

    type: str = "List"
    items: tuple[GalItem, ...] = ()

    @pydantic.model_validator(mode="before")
    @classmethod
    def _forms(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("type") != "List" and "items" not in value:
            return {"type": "List", "items": [value]}
        return value

    @pydantic.model_validator(mode="after")
    def _some(self) -> Gal:
        names = [item.type for item in self.items]
        if self.type != "List" or not names or len(set(names)) != len(names):
            raise ValueError("gal is one type, or `type: List` with `items` of different types")
        return self


class Psf(Strict):
    """The PSF is the PSFEx model of the chip."""

    type: Literal["DES_PSFEx"]


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


class Injection(Strict):
    """The whole injection configuration."""

    modules: tuple[Literal["galsim.des", "injector", "ngmix_catalog", "des_star_catalog"], ...] = ()
    input: Inputs
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
            For unknown, missing, contradictory or unsupported keys, and for ``$`` and ``@`` expressions.
        """
        data = load_yaml(path)
        _refuse(data, path)
        settings = parse(cls, data, path)
        settings._check(path)
        return settings

    def _check(self, path: str | os.PathLike[str]) -> None:
        for item in self.gal.items:
            if getattr(self.input, INJ_TYPES[item.type]) is None:
                raise ConfigError(
                    f"gal has the type {item.type}, but input has no {INJ_TYPES[item.type]}",
                    file=path,
                    key=f"input.{INJ_TYPES[item.type]}",
                    remedy="add the section, or remove the type",
                )
        for name, used in self.input:
            if used is not None and name not in self.inputs:
                raise ConfigError(
                    f"input has {name}, but gal does not use it",
                    file=path,
                    key="gal",
                    remedy="add the type, or remove the section",
                )
        self._check_positions(path)

    def _check_positions(self, path: str | os.PathLike[str]) -> None:
        key = "image.pos_sampling"
        chosen = {name: getattr(self.image.pos_sampling, name) for name in self.inputs}
        mixed = {name: one for name, one in chosen.items() if one.type == "MixedGrid"}
        if mixed:
            if len(mixed) != len(chosen):
                raise ConfigError(
                    "a MixedGrid is shared by all inputs or by none",
                    file=path,
                    key=key,
                    remedy="give every input type: MixedGrid",
                )
            for what in ("grid_type", "grid_spacing", "rotate", "offset", "angle_unit"):
                if len({getattr(one, what) for one in mixed.values() if what in one.model_fields_set}) > 1:
                    raise ConfigError(
                        f"the inputs of a MixedGrid give different {what}",
                        file=path,
                        key=key,
                        remedy="give it once, or alike",
                    )
            if not any(one.grid_type for one in mixed.values()):
                raise ConfigError(
                    "a MixedGrid needs a grid_type", file=path, key=key, remedy="write grid_type: HexGrid or RectGrid"
                )
            shares = [one.inj_frac for one in mixed.values()]
            if len(mixed) > 1 and (None in shares or abs(sum(share or 0.0 for share in shares) - 1.0) > 1e-9):
                raise ConfigError(
                    f"inj_frac of the inputs is {shares}, and must sum to 1",
                    file=path,
                    key=f"{key}.*.inj_frac",
                    remedy="mend the shares",
                )
        for name, one in chosen.items():
            count = getattr(self.image.n_objects, name, None)
            density = getattr(self.image.object_density, name, None)
            if one.type == "uniform" and (count is None) == (density is None):
                raise ConfigError(
                    f"uniform positions of {name} need exactly one of n_objects and object_density",
                    file=path,
                    key="image.n_objects",
                    remedy="give one of them, or choose a grid with pos_sampling",
                )
            if one.type != "uniform" and (count is not None or density is not None):
                raise ConfigError(
                    f"the spacing of the {one.type} sets the number of {name}, and so does n_objects or object_density",
                    file=path,
                    key="image.n_objects",
                    remedy="remove the number, or use uniform positions",
                )

    @property
    def inputs(self) -> tuple[str, ...]:
        """The input sections in use, in the order of the `gal` list."""
        return tuple(INJ_TYPES[item.type] for item in self.gal.items)

    @property
    def realizations(self) -> tuple[str, ...]:
        """The realizations as text, as they stand in directory names."""
        return tuple(str(number) for number in self.image.realizations)

    @property
    def poisson(self) -> bool:
        """Whether the injected light gets Poisson noise."""
        return self.image.noise.type == "Poisson"

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
        for name in self.inputs:
            offered = getattr(self.input, name).bands
            lacking = [] if offered in (None, "from_tile") else [band for band in wanted if band not in offered]
            if lacking:
                raise ConfigError(
                    f"the bands {', '.join(lacking)} are to be injected but are not in the bands of {name}",
                    file=file,
                    key=f"input.{name}.bands",
                    remedy="write bands: from_tile",
                )
        return tuple(band for band in tile_bands if band in wanted)


def _refuse(data: Any, path: str | os.PathLike[str], where: str = "") -> None:
    """Raise for expressions that GalSim would evaluate and for keys of other versions."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        name = f"{where}.{key}" if where else str(key)
        if name in _REFUSED:
            raise ConfigError(f"the key {name} is not used", file=path, key=name, remedy=_REFUSED[name])
        if isinstance(value, str) and value[:1] in ("$", "@"):
            raise ConfigError(
                f"{value!r} is an expression to evaluate, and expressions are not run",
                file=path,
                key=name,
                remedy="write the value itself",
            )
        _refuse(value, path, name)
