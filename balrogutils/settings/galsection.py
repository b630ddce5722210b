"""The `gal` section of the injection configuration: which kinds of objects there are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import pydantic

from balrogutils.errors import did_you_mean
from balrogutils.settings.sources import INJ_TYPES, RULES_TYPE
from balrogutils.settings.yamlfile import Strict

__all__ = ["LENSING", "Gal", "GalItem"]

LENSING = ("shear", "magnify", "lens", "scale_flux")
"""GalSim's keys for what is done to an object after its profile is made; they work for every type."""

_OWN = ("type", "name", "ebv", "mag", *LENSING)
_SKIPPING = ("skip", "skip_failures", "retry_failures")


class GalItem(Strict):
    """One kind of object.

    Attributes
    ----------
    type : str
        A type of this package (`INJ_TYPES`), or any of GalSim's with GalSim's own keys beside it.
    name : str
        Names the kind in `pos_sampling`, `n_objects` and the truth; the `input` section, or the type of GalSim's.
    shear, magnify, lens, scale_flux : optional
        As in GalSim: applied to every object after rotation; constants or GalSim's values (``{type: Random, ...}``).
    ebv : number or GalSim value, optional
        E(B-V) of each object; its light is dimmed by `image.extinction_coefficients`.
    mag : number, GalSim value, or one of them by band, optional
        Magnitudes of a GalSim type; its `flux` (zero point 30, every band) when not given. With a spectrum (`sed`)
        that of one band, ``{BAND: value}``; the spectrum's own normalisation when not given.
    """

    model_config = pydantic.ConfigDict(extra="allow")

    type: str
    name: Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9_]*$", max_length=32)] = ""
    shear: Any = None
    magnify: Any = None
    lens: Any = None
    scale_flux: Any = None
    ebv: Any = None
    mag: Any = None

    @property
    def label(self) -> str:
        """What the kind is called."""
        return INJ_TYPES.get(self.type) or self.name or self.type

    @property
    def native(self) -> bool:
        """Whether GalSim makes the profile."""
        return self.type not in INJ_TYPES

    @property
    def chromatic(self) -> bool:
        """Whether GalSim makes an object with spectra."""
        return self.native and any("sed" in part for part in _parts(self.model_extra))

    @property
    def nested(self) -> tuple[str, ...]:
        """Input sections of this package that parts of the object draw from."""
        parts = list(_parts(self.model_extra)) if self.native else []
        names = [INJ_TYPES[part["type"]] for part in parts if part.get("type") in INJ_TYPES]
        names += [str(part.get("source")) for part in parts if part.get("type") == "SourceValue"]
        return tuple(dict.fromkeys(names))

    @property
    def banded(self) -> bool:
        """Whether GalSim makes another object in every band."""
        return self.chromatic or bool(self.nested)

    @property
    def profile(self) -> dict[str, Any]:
        """What GalSim is to build."""
        return {"type": self.type, **(self.model_extra or {})}

    @property
    def sheared(self) -> bool:
        """Whether objects are sheared, or may be by their rules."""
        return self.shear is not None or self.lens is not None or self.type == RULES_TYPE

    @pydantic.model_validator(mode="after")
    def _known(self) -> GalItem:
        extra = self.model_extra or {}
        skipping = [key for key in _SKIPPING if key in extra]
        if skipping:
            raise ValueError(f"{skipping[0]}: an object that cannot be drawn stops its realization; remove the key")
        if self.native:
            # GalSim takes most of a second to import: only who uses its types waits for it.
            import galsim
            from galsim.config.gsobject import valid_gsobject_types

            profiles = {name: kind for name, kind in vars(galsim).items() if isinstance(kind, type)}
            simple = [name for name, kind in profiles.items() if issubclass(kind, galsim.GSObject)]
            if self.type not in (*simple, *valid_gsobject_types):
                known = [*INJ_TYPES, *simple, *valid_gsobject_types]
                raise ValueError(f"an unknown type of object: {did_you_mean(self.type, known)}")
            if self.chromatic:
                return self._of_spectrum()
            if any(part.get("type") == RULES_TYPE for part in _parts(extra)):
                raise ValueError(f"{RULES_TYPE} cannot be a part of {self.type}: make it an item of its own")
            if any(part.get("type") == "COSMOSGalaxy" for part in _parts(extra)):
                raise ValueError(
                    f"COSMOSGalaxy within {self.type} would be GalSim's own, of one band: make it an item of its own"
                )
            if self.mag is None and "flux" not in extra and not self.nested:
                raise ValueError(f"{self.type} needs flux (zero point 30) or mag")
            if self.mag is not None and "flux" in extra:
                raise ValueError(f"{self.type} has flux and mag: give one of them")
            return self
        if extra:
            word = next(iter(extra))
            raise ValueError(f"unknown key {word!r} of {self.type}: {did_you_mean(word, _OWN)}")
        lensed = [key for key in LENSING[:3] if getattr(self, key) is not None]
        if self.type == RULES_TYPE and lensed:
            raise ValueError(f"the rules file shears and magnifies: remove {lensed[0]}")
        if self.name or self.mag is not None:
            raise ValueError(f"name and mag belong to GalSim's own types; {self.type} has them from its input")
        return self

    def _of_spectrum(self) -> GalItem:
        if "flux" in (self.model_extra or {}):
            raise ValueError("the sed sets the flux of every band: remove flux, or write mag: {BAND: value}")
        if self.mag is not None and (not isinstance(self.mag, dict) or "type" in self.mag or len(self.mag) != 1):
            raise ValueError("with a sed, mag is that of one band: write mag: {BAND: value}")
        return self


def _parts(given: Any) -> Iterator[dict[str, Any]]:
    """Yield every mapping in a piece of configuration."""
    if isinstance(given, dict):
        yield given
    for value in given.values() if isinstance(given, dict) else given if isinstance(given, (list, tuple)) else ():
        yield from _parts(value)


class Gal(Strict):
    """The `gal` section: one type, or ``type: List`` with items."""

    type: str = "List"
    items: tuple[GalItem, ...] = ()

    @pydantic.model_validator(mode="before")
    @classmethod
    def _forms(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("type", "List") != "List":
            return {"type": "List", "items": [value]}
        return value

    @pydantic.model_validator(mode="after")
    def _some(self) -> Gal:
        labels = [item.label for item in self.items]
        if self.type != "List" or not labels or len(set(labels)) != len(labels):
            raise ValueError(
                "gal is one type, or `type: List` with `items` of different types (or names, for those of GalSim)"
            )
        return self
