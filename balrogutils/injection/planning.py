"""The plan: every object of a realization with its position, shape and fluxes, drawn once for all bands."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balrogutils.archive.geometry import Geometry
from balrogutils.errors import InjectionError, InputError, ProductError
from balrogutils.fitsfile import read_table
from balrogutils.identity import object_ids
from balrogutils.injection import positions, profiles
from balrogutils.injection.catalogs import SHAPE_COLUMNS, Catalog
from balrogutils.randomness import stream
from balrogutils.settings.injection import Injection
from balrogutils.settings.sampling import INJ_TYPES

__all__ = ["UNITS", "make_plan", "plan_bands", "read_plan"]

log = logging.getLogger(__name__)

UNITS = {"ra": "deg", "dec": "deg", "rotation": "deg", "T": "arcsec2", "r50_arcsec": "arcsec"}
"""Units of the plan's columns; fluxes are counts at zero point 30."""


def _dtype(bands: Sequence[str]) -> np.dtype[Any]:
    return np.dtype(
        [("bal_id", "i8"), ("inj_type", "U11"), ("cat_row", "i8"), ("ra", "f8"), ("dec", "f8")]
        + [(f"flux_{band}", "f8") for band in bands]
        + [("model", "U5"), ("T", "f8"), ("g1", "f8"), ("g2", "f8"), ("fracdev", "f8"), ("TdByTe", "f8")]
        + [("r50_arcsec", "f8"), ("rotation", "f8")]
    )


def make_plan(
    settings: Injection,
    catalogs: Mapping[str, Catalog],
    geometry: Geometry,
    bands: Sequence[str],
    seed: int,
    realization: str,
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

    Returns
    -------
    numpy.ndarray
        One row an object: bal_id, inj_type, cat_row, ra, dec (deg), flux_<b> (zero point 30, after extinction where
        asked), model, T (arcsec^2), g1, g2 (u west, v north, as drawn), fracdev, TdByTe, r50_arcsec (circularised
        half-light radius), rotation (deg, counter-clockwise from u towards v).

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
    tile = geometry.tilename
    places = _positions(settings, geometry, seed, realization)
    parts = []
    for inj_type, spots in places.items():
        if not len(spots):
            raise InjectionError(
                f"no {inj_type} gets a position in realization {realization}",
                tile=tile,
                key="image.pos_sampling",
                remedy="ask for more objects, or remove the type from gal",
            )
        rows = np.zeros(len(spots), dtype=_dtype(bands))
        catalog = catalogs[inj_type]
        chosen, turn = _choices(
            seed, (tile, realization, inj_type), len(spots), len(catalog), bool(settings.image.rotate_objs)
        )
        rows["inj_type"], rows["model"] = inj_type, catalog.model
        rows["cat_row"], rows["rotation"] = catalog.row[chosen], turn
        rows["ra"], rows["dec"] = spots.T
        for name in SHAPE_COLUMNS:
            rows[name] = catalog.shape[name][chosen]
        turned = (rows["g1"] + 1j * rows["g2"]) * np.exp(2j * np.radians(turn))
        rows["g1"], rows["g2"] = turned.real, turned.imag
        for band in bands:
            rows[f"flux_{band}"] = catalog.flux[band][chosen] * _extinction(settings, geometry, band)
        rows["r50_arcsec"] = _half_light(rows)
        parts.append(rows)
    plan = np.concatenate(parts)
    plan["bal_id"] = object_ids(tile, realization, np.arange(1, len(plan) + 1))
    log.info("planned %s", ", ".join(f"{len(part)} {part['inj_type'][0]}" for part in parts))
    return plan


def _positions(settings: Injection, geometry: Geometry, seed: int, realization: str) -> dict[str, NDArray[np.float64]]:
    """Return sky positions, shape (n, 2) in degrees, by type."""
    tile = geometry.tilename
    types = [item.type for item in settings.gal.items]
    chosen = {name: getattr(settings.image.pos_sampling, INJ_TYPES[name]) for name in types}
    shape = (geometry.naxis2, geometry.naxis1)
    wcs = geometry.wcs()

    def to_sky(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack(wcs.pixel_to_sky(points[:, 0], points[:, 1]))

    if any(one.type == "MixedGrid" for one in chosen.values()):
        merged: dict[str, Any] = {}
        for one in chosen.values():
            merged.update({key: getattr(one, key) for key in one.model_fields_set})
        shared = next(iter(chosen.values())).model_copy(update=merged)
        points = positions.grid(str(shared.grid_type), shared, shape, geometry.pixelscale, seed, (tile, realization))
        order = stream(seed, "mixed grid", tile, realization).permutation(len(points))
        shares = [one.inj_frac if one.inj_frac is not None else 1.0 for one in chosen.values()]
        counts = [int(np.floor(share * len(points) + 1e-9)) for share in shares]
        counts[-1] = len(points) - sum(counts[:-1])
        ends = np.cumsum(counts)
        return {
            name: to_sky(points[np.sort(order[end - count : end])])
            for name, count, end in zip(types, counts, ends, strict=True)
        }
    box = (geometry.uramin, geometry.uramax, geometry.udecmin, geometry.udecmax)
    out: dict[str, NDArray[np.float64]] = {}
    grids = 0
    for name, one in chosen.items():
        if one.type == "uniform":
            count = getattr(settings.image.n_objects, INJ_TYPES[name], None)
            if count is None:
                count = round(getattr(settings.image.object_density, INJ_TYPES[name]) * positions.unique_area(*box))
            if count > positions.MAX_OBJECTS:
                raise InjectionError(
                    f"{count} positions of {name} are asked for, at most {positions.MAX_OBJECTS} can be",
                    tile=tile,
                    key="image.n_objects, image.object_density",
                    remedy="ask for fewer; the density is per square arcmin",
                )
            out[name] = positions.uniform(seed, ("position", tile, realization, name), count, box)
        else:
            # The orientation is common to all inputs, so that the holes of one grid stay its holes.
            points = positions.grid(one.type, one, shape, geometry.pixelscale, seed, (tile, realization), hole=grids)
            out[name] = to_sky(points)
            grids += 1
    return out


def _choices(
    seed: int, names: tuple[str, ...], count: int, rows: int, rotate: bool
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return a catalogue row and a rotation in degrees for each object."""
    chosen, turn = np.zeros(count, dtype=np.int64), np.zeros(count)
    for number in range(count):
        random = stream(seed, "object", *names, number)
        chosen[number] = random.integers(rows)
        angle = 360.0 * random.random()
        turn[number] = angle if rotate else 0.0
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
