"""Our catalogues and images as parts of GalSim's configuration language.

Importing this module registers them, so ``modules: [balrogutils.injection.plugins]`` makes them known to the ``galsim``
program, and within `gal` they can be parts of GalSim's own constructions (``type: Sum``, ``type: List``).

* inputs ``ngmix_catalog``, ``des_star_catalog``, ``star_table``, ``galaxy_table``, ``meds_catalog`` with the keys of
  `balrogutils.settings.sources`, ``tile`` and ``base``, where relative names start (``BALROG_BASE``);
* objects ``ngmixGalaxy``, ``desStar``, ``tableStar``, ``tableGalaxy``, ``MEDSGalaxy`` with ``band`` (the pipeline's,
  where it draws them) and, if need be, ``index``; their flux is at zero point 30;
* values ``SourceValue``: a column of an input's catalogue;
* image and stamp ``Balrog``: objects drawn one by one, noise on their light alone, the initial image added last.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import galsim
import galsim.config
import numpy as np
from galsim.config.image_scattered import ScatteredImageBuilder
from galsim.config.stamp import StampBuilder

from balrogutils.injection import profiles
from balrogutils.injection.catalogs import Catalog
from balrogutils.injection.medsstamps import MedsStamps
from balrogutils.injection.shapes import table_profile
from balrogutils.injection.sources.loading import READERS
from balrogutils.settings.sources import INJ_TYPES, Inputs

__all__ = ["BAND", "PARTS", "Source"]

BAND, PARTS = "balrog_band", "balrog_parts"
"""Keys of a configuration being built: the band our pipeline wants, and where objects say which rows they took."""

_TYPES = tuple(name for name in INJ_TYPES if name in READERS and name != "COSMOSGalaxy")


class Source:
    """A catalogue, as an input of GalSim.

    Parameters
    ----------
    inj_type : str
        Type of its objects.
    given : mapping
        Keys of the input section, and ``tile``.

    Raises
    ------
    galsim.GalSimConfigError
        For keys that the section does not have.
    InputError
        When the catalogue is missing or wrong.
    """

    def __init__(self, inj_type: str, given: Mapping[str, Any]) -> None:
        keys = dict(given)
        tile, base = str(keys.pop("tile", "")), Path(keys.pop("base", os.environ.get("BALROG_BASE", ".")))
        name = INJ_TYPES[inj_type]
        try:
            section = getattr(Inputs.model_validate({name: keys}), name)
        except ValueError as error:
            raise galsim.GalSimConfigError(f"input.{name}: {error}") from error
        if getattr(section, "chromatic", False) and section.bandpass is None:
            raise galsim.GalSimConfigError(f"input.{name}: spectra need a bandpass")
        bands = ("g", "r", "i", "z") if section.bands in (None, "from_tile") else tuple(section.bands)
        self.catalog: Catalog = READERS[inj_type](section, base, tile, bands)
        self._stamps = MedsStamps(section, base, tile) if inj_type == "MEDSGalaxy" else None

    def getNObjects(self) -> int:
        """Return how many objects there are; the name is GalSim's."""
        return len(self.catalog)

    def profile(self, index: int, band: str, seed: int) -> galsim.GSObject:
        """Return one object with its flux in a band (zero point 30), before the PSF.

        Raises
        ------
        galsim.GalSimConfigError
            When the catalogue has no such row or band.
        """
        catalog = self.catalog
        if not 0 <= index < len(catalog) or band not in catalog.flux:
            raise galsim.GalSimConfigError(
                f"{catalog.inj_type} has {len(catalog)} objects in {''.join(catalog.flux)}, not {index} in {band!r}"
            )
        row = {name: float(values[index]) for name, values in catalog.shape.items()}
        if catalog.model == "star":
            whole = galsim.DeltaFunction()
        elif catalog.model in profiles.MODELS:
            shape = [row[name] for name in profiles.PARAMETERS[1:]]
            whole = profiles.profile(catalog.model, shape[0], shape[1], shape[2], shape[3], shape[4])
        elif self._stamps is not None:
            whole = self._stamps.profile(int(catalog.row[index]), band, int(row[f"stamp_slot_{band}"]))
        else:
            whole = table_profile(catalog.model, row, seed, band)
        return whole.withFlux(float(catalog.flux[band][index]))


class _Loader(galsim.config.InputLoader):
    def __init__(self, inj_type: str) -> None:
        super().__init__(Source, has_nobj=True)
        self._inj_type = inj_type

    def getKwargs(self, config: dict[str, Any], base: dict[str, Any], logger: Any) -> tuple[dict[str, Any], bool]:
        return {
            "inj_type": self._inj_type,
            "given": {key: value for key, value in config.items() if key[0] != "_"},
        }, True


def _builder(inj_type: str) -> Callable[..., tuple[galsim.GSObject, bool]]:
    def build(
        config: dict[str, Any], base: dict[str, Any], ignore: list[str], gsparams: dict[str, Any], logger: Any
    ) -> tuple[galsim.GSObject, bool]:
        source = galsim.config.GetInputObj(INJ_TYPES[inj_type], config, base, inj_type)
        options, _ = galsim.config.GetAllParams(
            config, base, opt={"band": str, "index": int, "num": int}, ignore=ignore
        )
        band = options.get("band", base.get(BAND))
        if band is None:
            raise galsim.GalSimConfigError(f"{inj_type} needs the band")
        rng = galsim.config.GetRNG(config, base, logger, inj_type)
        uniform = galsim.UniformDeviate(rng)
        index = options.get("index", int(uniform() * source.getNObjects()))
        whole = source.profile(index, band, int(uniform() * (2**31 - 2)) + 1)
        base.get(PARTS, []).append(f"{inj_type} {source.catalog.row[index]}")
        return whole.withGSParams(**gsparams) if gsparams else whole, False

    return build


def _value(config: dict[str, Any], base: dict[str, Any], value_type: type) -> tuple[Any, bool]:
    params, safe = galsim.config.GetAllParams(config, base, req={"source": str, "column": str, "index": int})
    name, column, index = params["source"], params["column"], params["index"]
    source = galsim.config.GetInputObj(name, config, base, "SourceValue")
    catalog = source.catalog
    columns = {**catalog.shape, **{f"flux_{band}": flux for band, flux in catalog.flux.items()}, "row": catalog.row}
    if column not in columns or not 0 <= index < len(catalog):
        raise galsim.GalSimConfigError(f"{name} has no column {column} or row {index}; columns: {', '.join(columns)}")
    return value_type(columns[column][index]), safe


def _refuse_skipping(stamp: Mapping[str, Any]) -> None:
    for key in ("skip_failures", "retry_failures"):
        if stamp.get(key):
            raise galsim.GalSimConfigError(f"stamp.{key}: an object that cannot be drawn is an error here")


class _BalrogImage(ScatteredImageBuilder):
    """Scattered objects with noise of their own, to which an image is added: ``initial_image: {file_name, hdu}``."""

    def setup(
        self,
        config: dict[str, Any],
        base: dict[str, Any],
        image_num: int,
        obj_num: int,
        ignore: list[str],
        logger: Any,
    ) -> tuple[int, int]:
        # GalSim skips before the stamp's own builder can object.
        _refuse_skipping(base.get("stamp", {}))
        given = config.get("initial_image")
        if not isinstance(given, dict) or "file_name" not in given:
            raise galsim.GalSimConfigError("image.type Balrog needs initial_image: {file_name: FILE}")
        params, _ = galsim.config.GetAllParams(given, base, req={"file_name": str}, opt={"hdu": int})
        self._initial = galsim.fits.read(params["file_name"], hdu=params.get("hdu"))
        shape = self._initial.array.shape
        config.setdefault("xsize", shape[1])
        config.setdefault("ysize", shape[0])
        return super().setup(config, base, image_num, obj_num, [*ignore, "initial_image"], logger)

    def addNoise(
        self,
        image: galsim.Image,
        config: dict[str, Any],
        base: dict[str, Any],
        image_num: int,
        obj_num: int,
        current_var: float,
        logger: Any,
    ) -> None:
        super().addNoise(image, config, base, image_num, obj_num, current_var, logger)
        image.array[:] += self._initial.array.astype(np.float64)


class _BalrogStamp(StampBuilder):
    """A stamp whose failure is an error, never a warning."""

    def setup(
        self, config: dict[str, Any], base: dict[str, Any], xsize: int, ysize: int, ignore: list[str], logger: Any
    ) -> Any:
        _refuse_skipping(config)
        return super().setup(config, base, xsize, ysize, ignore, logger)


for _name in _TYPES:
    galsim.config.RegisterInputType(INJ_TYPES[_name], _Loader(_name))
    galsim.config.RegisterObjectType(_name, _builder(_name), input_type=INJ_TYPES[_name])
galsim.config.RegisterValueType("SourceValue", _value, [float, int])
galsim.config.RegisterImageType("Balrog", _BalrogImage())
galsim.config.RegisterStampType("Balrog", _BalrogStamp())
