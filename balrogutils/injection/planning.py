"""The plan: every object of a realization with its position, shape and fluxes, drawn once for all bands."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.lib import recfunctions
from numpy.typing import NDArray

from balrogutils.archive.geometry import Geometry
from balrogutils.errors import InjectionError, InputError, ProductError
from balrogutils.fitsfile import read_table
from balrogutils.identity import object_ids
from balrogutils.injection import profiles
from balrogutils.injection.catalogs import SHAPE_COLUMNS, ZERO_POINT, Catalog
from balrogutils.injection.galsimtypes import GalSimObjects
from balrogutils.injection.placing import Masked, place
from balrogutils.randomness import stream
from balrogutils.settings.galsection import LENSING, GalItem
from balrogutils.settings.injection import Injection
from balrogutils.settings.sources import RULES_TYPE

if TYPE_CHECKING:
    import galsim

__all__ = ["UNITS", "make_plan", "plan_bands", "plan_digest", "read_plan"]

log = logging.getLogger(__name__)

UNITS = {"ra": "deg", "dec": "deg", "rotation": "deg", "T": "arcsec2", "r50_arcsec": "arcsec", "stamp_reach": "arcsec"}
UNITS |= {f"wavelength_{band}": "nm" for band in "ugrizY"}
"""Units of the plan's columns; fluxes are counts at zero point 30."""

_TYPE_WIDTH = len("ngmixGalaxy")
_MODEL_WIDTH = len("gauss")

# Pixels to the radius that holds 99.5 % of the light; the half-light radius is then good to a hundredth.
_RADIUS_PIXELS = 128

# Columns of every plan that rules fill and other catalogues do not have.
_LENSED = ("shear_g1", "shear_g2", "magnification")

_Keys: TypeAlias = tuple[int, tuple[str, ...], NDArray[np.int64], bool]


def _dtype(
    bands: Sequence[str], extra: Sequence[str] = (), width: int = _TYPE_WIDTH, model_width: int = _MODEL_WIDTH
) -> np.dtype[Any]:
    return np.dtype(
        [("bal_id", "i8"), ("inj_type", f"U{width}"), ("number", "i8"), ("cat_row", "i8"), ("cat_id", "i8")]
        + [("ra", "f8"), ("dec", "f8")]
        + [(f"flux_{band}", "f8") for band in bands]
        + [(f"extinction_{band}", "f8") for band in bands]
        + [("model", f"U{model_width}"), *((name, "f8") for name in SHAPE_COLUMNS)]
        + [(name, "f8") for name in extra]
        + [("r50_arcsec", "f8"), ("rotation", "f8"), ("shear_g1", "f8"), ("shear_g2", "f8")]
        + [("magnification", "f8"), ("light_scale", "f8"), ("noise_key", "i8")]
    )


def make_plan(
    settings: Injection,
    catalogs: Mapping[str, Catalog],
    geometry: Geometry,
    bands: Sequence[str],
    seed: int,
    realization: str,
    base: Path = Path(),
    masked: Masked | None = None,
) -> NDArray[Any]:
    """Choose what is injected where.

    Parameters
    ----------
    settings : Injection
        The injection configuration.
    catalogs : mapping of str to Catalog
        The objects to choose from, by type.
    geometry : Geometry
        The tile.
    bands : sequence of str
        Bands to inject into.
    seed : int
        Seed of the run.
    realization : str
        Name of the realization, a whole number.
    base : pathlib.Path
        Directory that relative names of tables start from.
    masked : callable, optional
        See `balrogutils.injection.placing.place`.

    Returns
    -------
    numpy.ndarray
        One row an object: bal_id, inj_type, number (within its type), cat_row, cat_id, ra, dec (deg), flux_<b> (zero
        point 30, as drawn), extinction_<b> (the factor in it), model, T (arcsec^2), g1, g2 (u west, v north, rotated,
        before shear), fracdev, TdByTe, more columns where a catalogue has them, r50_arcsec (circularised half-light
        radius before lensing), rotation (deg, counter-clockwise from u towards v), shear_g1, shear_g2, magnification,
        light_scale (both are in flux_<b>), noise_key (names its noise), and parts where GalSim's constructions hold
        objects of our catalogues: type and row of each.

    Raises
    ------
    InjectionError
        When a type of object would get no position.
    InputError
        When a band has no extinction though it is asked for.

    Notes
    -----
    Every object has its own random streams, keyed by tile, realization, type and its number within the type: more
    realizations, or more objects, change nothing of the others.
    """
    tile, twin = geometry.tilename, settings.twin(realization)
    places = place(settings, catalogs, geometry, seed, twin, base, masked)
    added = {f"wavelength_{band}" for band in bands if any(item.chromatic for item in settings.gal.items)}
    added |= {name for one in catalogs.values() for name in one.shape}
    extra = sorted(added - {*SHAPE_COLUMNS, "r50_arcsec", *_LENSED})
    width = max(_TYPE_WIDTH, *(len(name) for name in places))
    models = max(_MODEL_WIDTH, len("galsim"), *(len(one.model) for one in catalogs.values()), 0)
    objects = GalSimObjects(settings, base, tile, twin, seed)
    parts, made_of = [], list[str]()
    for item in settings.gal.items:
        name = item.label if item.native else item.type
        spots = places[name]
        if not len(spots.sky):
            raise InjectionError(
                f"no {name} gets a position in realization {realization}",
                tile=tile,
                key="image.pos_sampling",
                remedy="ask for more objects, or remove the type from gal",
            )
        rows = np.zeros(len(spots.sky), dtype=_dtype(bands, extra, width, models))
        rows["inj_type"], rows["number"], rows["magnification"], rows["light_scale"] = name, spots.number, 1.0, 1.0
        rows["ra"], rows["dec"] = spots.sky.T
        for band in bands:
            rows[f"extinction_{band}"] = _extinction(settings, geometry, band)
        keys = seed, (tile, twin, name), spots.number, bool(settings.image.rotate_objs)
        if item.native:
            made_of += _fill_native(rows, item, objects, bands, keys)
        else:
            _fill(rows, catalogs[name], bands, keys, spots.row)
            made_of += [""] * len(rows)
        _transform(rows, item, settings, objects, bands, odd=settings.image.shear_pairs and twin != realization)
        for band in bands:
            flux = rows[f"flux_{band}"]
            flux *= rows[f"extinction_{band}"] * rows["light_scale"] * rows["magnification"]
            if not (np.isfinite(flux) & (flux > 0)).all():
                raise InputError(
                    f"an object of {name} has the flux {flux[~(np.isfinite(flux) & (flux > 0))][0]:g}",
                    band=band,
                    key="gal",
                    remedy="give a flux (zero point 30) above 0, or mag",
                )
        parts.append(rows)
    plan = np.concatenate(parts)
    if any(item.nested for item in settings.gal.items):
        plan = recfunctions.append_fields(plan, "parts", np.array(made_of), usemask=False, asrecarray=False)
    plan["bal_id"] = object_ids(tile, realization, np.arange(1, len(plan) + 1))
    plan["noise_key"] = object_ids(tile, twin, np.arange(1, len(plan) + 1))
    log.info("planned %s", ", ".join(f"{len(part)} {part['inj_type'][0]}" for part in parts))
    return plan


def _fill(
    rows: NDArray[Any], catalog: Catalog, bands: Sequence[str], keys: _Keys, given: NDArray[np.int64] | None
) -> None:
    """Choose rows of a catalogue."""
    chosen, turn = _choices(*keys, len(catalog), catalog.weight)
    chosen = chosen if given is None else given
    rows["model"] = catalog.model
    rows["cat_row"], rows["rotation"] = catalog.row[chosen], turn
    rows["cat_id"] = (catalog.row if catalog.ids is None else catalog.ids)[chosen]
    for name, values in catalog.shape.items():
        rows[name] = values[chosen]
    turned = (rows["g1"] + 1j * rows["g2"]) * np.exp(2j * np.radians(turn))
    rows["g1"], rows["g2"] = turned.real, turned.imag
    for band in bands:
        rows[f"flux_{band}"] = catalog.flux[band][chosen]
    if "r50_arcsec" not in catalog.shape:
        rows["r50_arcsec"] = _half_light(rows)


def _fill_native(
    rows: NDArray[Any], item: GalItem, objects: GalSimObjects, bands: Sequence[str], keys: _Keys
) -> list[str]:
    """Have GalSim make objects of a type of its own, for their fluxes and sizes; return what they are made of."""
    import galsim

    parts, told = [], ""
    _, rows["rotation"] = _choices(*keys, 1)
    rows["model"], rows["cat_row"], rows["cat_id"] = "galsim", -1, -1
    for row in rows:
        name, number = str(row["inj_type"]), int(row["number"])
        for band in bands if item.banded else bands[:1]:
            whole = objects.build(name, number, band, tuple(bands))
            row[f"flux_{band}"] = whole.flux
            if item.banded:
                wavelength, told = objects.told(name, number, band, tuple(bands))
                if item.chromatic:
                    row[f"wavelength_{band}"] = wavelength
        if not item.banded:
            for band in bands:
                row[f"flux_{band}"] = whole.flux
        parts.append(told)
        try:
            row["r50_arcsec"] = 0.0 if isinstance(whole, galsim.DeltaFunction) else _radius_of(whole)
        except galsim.GalSimError:
            # Not every profile has a size that GalSim can tell.
            row["r50_arcsec"] = np.nan
    return parts


def _radius_of(whole: galsim.GSObject) -> float:
    """Return the half-light radius of a profile of GalSim's."""
    import galsim

    if hasattr(whole, "half_light_radius"):
        return float(whole.half_light_radius)
    # GalSim's own way may integrate over pixels in real space, which takes minutes for a profile with a cusp.
    scale = np.pi / whole.stepk / _RADIUS_PIXELS
    side = 2 * _RADIUS_PIXELS
    blurred = galsim.Convolve(whole, galsim.Gaussian(fwhm=2.0 * scale))
    image = blurred.drawImage(nx=side, ny=side, scale=scale, method="no_pixel", dtype=float)
    return float(image.calculateHLR(center=image.true_center + whole.centroid / scale, flux=whole.flux))


def _transform(
    rows: NDArray[Any], item: GalItem, settings: Injection, objects: GalSimObjects, bands: Sequence[str], odd: bool
) -> None:
    """Shear, magnify, scale and dim objects as the `gal` item says; those of rules come sheared and magnified."""
    ruled = item.type == RULES_TYPE
    if ruled and odd:
        rows["shear_g1"], rows["shear_g2"] = -rows["shear_g1"], -rows["shear_g2"]
    if not any(getattr(item, key) is not None for key in (*LENSING, "ebv", "mag")):
        return
    for row in rows:
        values = objects.values(str(row["inj_type"]), int(row["number"]), tuple(bands))
        row["light_scale"] = values["light_scale"]
        if not ruled:
            shear = -values["shear"] if odd else values["shear"]
            row["shear_g1"], row["shear_g2"] = shear.real, shear.imag
            row["magnification"] = values["magnification"]
        for band in bands:
            if values["mag"] is not None and not item.chromatic:
                row[f"flux_{band}"] = 10.0 ** (0.4 * (ZERO_POINT - values["mag"][band]))
            if values["ebv"]:
                if band not in settings.image.extinction_coefficients:
                    raise InputError(
                        "ebv needs the extinction coefficient of every band",
                        band=band,
                        key="image.extinction_coefficients",
                        remedy="add the band: A_b / E(B-V)",
                    )
                coefficient = settings.image.extinction_coefficients[band]
                row[f"extinction_{band}"] *= 10.0 ** (-0.4 * coefficient * values["ebv"])


def _choices(
    seed: int,
    names: tuple[str, ...],
    numbers: NDArray[np.int64],
    rotate: bool,
    rows: int,
    weight: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return a catalogue row and a rotation in degrees for each object."""
    chosen, turn = np.zeros(len(numbers), dtype=np.int64), np.zeros(len(numbers))
    share = None if weight is None else np.cumsum(weight) / np.sum(weight)
    for index, number in enumerate(numbers):
        random = stream(seed, "object", *names, int(number))
        if share is None:
            chosen[index] = random.integers(rows)
        else:
            chosen[index] = min(int(np.searchsorted(share, random.random(), side="right")), rows - 1)
        angle = 360.0 * random.random()
        turn[index] = angle if rotate else 0.0
    return chosen, turn


def _extinction(settings: Injection, geometry: Geometry, band: str) -> float:
    if not settings.image.extinct_objs:
        return 1.0
    if band not in geometry.extfact:
        raise InputError(
            "the tile's geometry has no extinction for a band",
            tile=geometry.tilename,
            band=band,
            key="image.extinct_objs",
            remedy="set extinct_objs: False, or give the archive's geometry table EXTFACT",
        )
    return geometry.extfact[band]


def _half_light(rows: NDArray[Any]) -> NDArray[np.float64]:
    parts = np.array([profiles.component_radii(*(row[name] for name in profiles.PARAMETERS)) for row in rows])
    share = np.where(np.isin(rows["model"], ("bdf", "cm")), rows["fracdev"], np.where(rows["model"] == "dev", 1.0, 0.0))
    return profiles.half_light_radius(parts[:, 0], parts[:, 1], share, rows["model"] == "gauss")


def read_plan(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read a plan.

    Raises
    ------
    ProductError
        When it is missing, empty or lacks a column.
    """
    rows = read_table(path, "PLAN")
    lacking = [name for name in _dtype(()).names or () if name not in (rows.dtype.names or ())]
    if lacking:
        raise ProductError(
            f"the injection plan lacks {', '.join(lacking)}",
            file=path,
            remedy="run the injection block (mode bit 8) again",
        )
    if not len(rows):
        raise ProductError(
            "the injection plan is empty", file=path, remedy="run the injection block (mode bit 8) again"
        )
    return rows


def plan_bands(plan: NDArray[Any]) -> tuple[str, ...]:
    """Return the bands a plan has fluxes for."""
    return tuple(name.removeprefix("flux_") for name in plan.dtype.names or () if name.startswith("flux_"))


def plan_digest(plan: NDArray[Any], band: str) -> str:
    """Return a digest of what a plan says of one band: of all its columns but those that belong to another band."""
    whole = hashlib.sha256()
    names, others = plan.dtype.names or (), set(plan_bands(plan)) - {band}
    for name in names:
        stem, _, last = name.rpartition("_")
        if last in others and f"{stem}_{band}" in names:
            continue
        values = plan[name]
        if values.dtype.kind in "SU":
            # A text is as wide as the longest in its table.
            body = "\n".join(np.char.strip(values.astype(str))).encode()
        else:
            body = values.astype(values.dtype.newbyteorder("<")).tobytes()
        whole.update(name.encode() + b"\0" + body + b"\0")
    return whole.hexdigest()[:32]
