"""GalSim's own object types and values in the `gal` section, evaluated with named randomness."""

from __future__ import annotations

import copy
import importlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from balrogutils.errors import ConfigError, did_you_mean
from balrogutils.injection.catalogs import ZERO_POINT
from balrogutils.randomness import seed32
from balrogutils.settings.galsection import LENSING

if TYPE_CHECKING:
    import galsim

    from balrogutils.settings.galsection import GalItem
    from balrogutils.settings.injection import Injection

__all__ = ["GalSimObjects"]


_TRANSFORMS = ("flux", "dilate", "dilation", "ellip", "rotate", "shift", "redshift", "sed", "gsparams", *LENSING)


class GalSimObjects:
    """Evaluates the `gal` items of a configuration, object by object.

    Parameters
    ----------
    settings : Injection
        The injection configuration.
    base : pathlib.Path
        Directory that relative names of files start from.
    tile, realization : str
        Keys of the random streams.
    seed : int
        Seed of the run.
    """

    def __init__(self, settings: Injection, base: Path, tile: str, realization: str, seed: int) -> None:
        self._settings, self._root, self._tile, self._seed = settings, base, tile, seed
        self._realization = realization
        self._bases: dict[tuple[str, ...], dict[str, Any]] = {}
        self._items = {item.type if not item.native else item.label: item for item in settings.gal.items}

    def _prepared(self, bands: tuple[str, ...]) -> dict[str, Any]:
        if bands not in self._bases:
            self._bases[bands] = self._prepare(bands)
        return self._bases[bands]

    def _prepare(self, bands: tuple[str, ...]) -> dict[str, Any]:
        import galsim.config
        import galsim.des

        base: dict[str, Any] = {"input": copy.deepcopy(self._settings.galsim_inputs(self._root))}
        nested = dict.fromkeys(name for item in self._items.values() for name in item.nested)
        if nested:
            # Makes our own types known to GalSim.
            importlib.import_module("balrogutils.injection.plugins")
        for name in nested:
            section = self._settings.section(name).model_dump(mode="json", exclude_none=True)
            base["input"][name] = {**section, "bands": list(bands), "tile": self._tile, "base": str(self._root)}
        if self._settings.eval_variables:
            base["eval_variables"] = dict(self._settings.eval_variables)
        try:
            galsim.config.ProcessInput(base)
        except (galsim.GalSimError, OSError) as error:
            raise ConfigError(
                f"GalSim cannot use an input: {error}", key="input", remedy="see GalSim's manual"
            ) from error
        return base

    def _base(
        self, label: str, number: int, purpose: str, item: dict[str, Any], bands: tuple[str, ...]
    ) -> dict[str, Any]:
        import galsim

        rng = galsim.BaseDeviate(seed32(self._seed, purpose, self._tile, self._realization, label, number))
        # A copy for each object: GalSim keeps the last value of everything it has evaluated.
        return {
            **self._prepared(bands),
            "gal": copy.deepcopy(item),
            "obj_num": number,
            "index_key": "obj_num",
            "rng": rng,
            "obj_rng": rng,
        }

    def build(self, label: str, number: int, band: str, bands: tuple[str, ...]) -> galsim.GSObject:
        """Return the profile of one object of a type of GalSim's, the same on every chip of a band.

        Parameters
        ----------
        label : str
            Name of its kind.
        number : int
            Number of the object within its kind.
        band : str
            Band, for objects with spectra, and with parts from our own catalogues.
        bands : tuple of str
            All bands that are injected into.

        Raises
        ------
        ConfigError
            When GalSim does not take the configuration, or its object cannot be seen band by band.
        """
        import galsim

        whole, _ = self._made(label, number, band, bands)
        if isinstance(whole, galsim.GSObject):
            return whole
        from balrogutils.injection.spectra import through

        seen = through(whole, self._passband(band))
        for given, magnitude in (self.values(label, number, bands)["mag"] or {}).items():
            normal = through(whole, self._passband(given))
            seen *= 10.0 ** (0.4 * (ZERO_POINT - magnitude)) / normal.flux
        return seen

    def told(self, label: str, number: int, band: str, bands: tuple[str, ...]) -> tuple[float, str]:
        """Return what the truth says of an object: mean wavelength (nm) in a band, and parts from our own catalogues.

        Returns
        -------
        tuple of (float, str)
            NaN without spectra; type and row of each part, "" where there are none.
        """
        import galsim

        whole, parts = self._made(label, number, band, bands)
        if isinstance(whole, galsim.GSObject):
            return float("nan"), ", ".join(parts)
        from balrogutils.injection.spectra import mean_wavelength

        return mean_wavelength(whole.sed, self._passband(band)), ", ".join(parts)

    def _passband(self, band: str) -> galsim.Bandpass:
        from balrogutils.injection.spectra import passband

        section = self._settings.image.bandpass
        assert section is not None  # checked when the settings were read
        return passband(section, self._root, band)

    def _made(
        self, label: str, number: int, band: str, bands: tuple[str, ...]
    ) -> tuple[galsim.GSObject | galsim.ChromaticObject, list[str]]:
        import galsim
        import galsim.config

        item = self._items[label]
        base = self._base(label, number, "galsim object", item.profile, bands)
        parts: list[str] = []
        base |= {"balrog_band": band, "balrog_parts": parts}
        try:
            whole, _ = galsim.config.BuildGSObject(base, "gal")
        except (galsim.GalSimError, ValueError, TypeError, KeyError, OSError) as error:
            raise self._refused(item, error) from error
        if whole is None:
            raise ConfigError(f"GalSim skips objects of {label}", key="gal", remedy="remove what makes it skip them")
        return whole, parts

    def values(self, label: str, number: int, bands: tuple[str, ...]) -> dict[str, Any]:
        """Return what else the item says of one object.

        Returns
        -------
        dict
            ``shear`` (complex g1 + i g2), ``magnification``, ``light_scale``, ``ebv``, and ``mag`` by band or None; of
            objects with spectra that of the band that is given.
        """
        import galsim
        import galsim.config

        item = self._items[label]
        given = {
            key: value
            for key in ("shear", "magnify", "lens", "scale_flux", "ebv", "mag")
            if (value := getattr(item, key)) is not None
        }
        base = self._base(label, number, "galsim values", given, bands)
        values: dict[str, Any] = {"shear": 0j, "magnification": 1.0, "light_scale": 1.0, "ebv": 0.0, "mag": None}

        def parsed(place: dict[str, Any], key: str, kind: type) -> Any:
            return galsim.config.ParseValue(place, key, base, kind)[0]

        here = base["gal"]
        try:
            if "shear" in here:
                shear = parsed(here, "shear", galsim.Shear)
                values["shear"] = complex(shear.g1, shear.g2)
            if "magnify" in here:
                values["magnification"] = parsed(here, "magnify", float)
            if "lens" in here:
                shear = parsed(here["lens"], "shear", galsim.Shear)
                values["shear"] = (values["shear"] + complex(shear.g1, shear.g2)) / (
                    1.0 + np.conj(complex(shear.g1, shear.g2)) * values["shear"]
                )
                values["magnification"] *= parsed(here["lens"], "mu", float)
            if "scale_flux" in here:
                values["light_scale"] = parsed(here, "scale_flux", float)
            if "ebv" in here:
                values["ebv"] = parsed(here, "ebv", float)
            if isinstance(here.get("mag"), dict) and "type" not in here["mag"]:
                names = tuple(here["mag"]) if item.chromatic else bands
                values["mag"] = {band: parsed(here["mag"], band, float) for band in names}
            elif "mag" in here:
                values["mag"] = dict.fromkeys(bands, parsed(here, "mag", float))
        except (galsim.GalSimError, ValueError, TypeError, KeyError, AttributeError, OSError) as error:
            raise self._refused(item, error) from error
        if not (values["magnification"] > 0 and values["light_scale"] > 0 and abs(values["shear"]) < 1):
            raise ConfigError(
                f"an object of {label} would have shear {abs(values['shear']):g}, magnification "
                f"{values['magnification']:g} and flux scale {values['light_scale']:g}",
                key="gal",
                remedy="the shear must be below 1, the others above 0",
            )
        return values

    def _refused(self, item: GalItem, error: Exception) -> ConfigError:
        """Return GalSim's complaint, with what may have been meant."""
        import galsim

        # GalSim lists everything it knows.
        text = str(error).partition(" not in dict_keys")[0]
        given = item.profile
        kind = getattr(galsim, item.type, None)
        # What makes the profile, and what GalSim does to any profile.
        known = [*(inspect.signature(kind).parameters if kind else ()), *_TRANSFORMS]
        strange = [key for key in given if key not in known and key != "type"]
        hints = [did_you_mean(word, [name for name in known if name not in given]) for word in strange]
        hint = f" ({word})" if (word := "; ".join(hint for hint in hints if hint.startswith("did"))) else ""
        return ConfigError(
            f"GalSim does not take the {item.type} of gal: {text}{hint}",
            key="gal",
            remedy="see GalSim's manual of the configuration",
        )
