"""Where the objects of a realization go: positions of every kind, and what is left of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from balrogutils.archive.geometry import Geometry
from balrogutils.errors import InjectionError, InputError
from balrogutils.injection import positions
from balrogutils.injection.catalogs import Catalog
from balrogutils.injection.sources.columns import Columns
from balrogutils.randomness import stream
from balrogutils.settings.injection import Injection
from balrogutils.settings.sampling import of_input

__all__ = ["Masked", "Places", "object_count", "place"]

log = logging.getLogger(__name__)

Masked = Callable[[NDArray[np.float64]], NDArray[np.bool_]]
"""Says of sky positions, shape (n, 2) in degrees, which are masked on every exposure of some band."""


class Places(NamedTuple):
    """Positions of one kind of object.

    Attributes
    ----------
    number : ndarray of int64, shape (n,)
        Number of each object within its kind; keys its random streams, and stays when others are left out.
    sky : ndarray of float64, shape (n, 2)
        Right ascension and declination, degrees.
    row : ndarray of int64, shape (n,), or None
        Which object of the catalogue it is, where the position says so.
    """

    number: NDArray[np.int64]
    sky: NDArray[np.float64]
    row: NDArray[np.int64] | None = None

    def kept(self, where: NDArray[np.bool_]) -> Places:
        """Return some of them."""
        return Places(self.number[where], self.sky[where], None if self.row is None else self.row[where])


def place(
    settings: Injection,
    catalogs: Mapping[str, Catalog],
    geometry: Geometry,
    seed: int,
    realization: str,
    base: Path,
    masked: Masked | None = None,
) -> dict[str, Places]:
    """Return the positions of every kind of object.

    Parameters
    ----------
    settings : Injection
        The injection configuration.
    catalogs : mapping of str to Catalog
        By type; star catalogues can have positions.
    geometry : Geometry
        The tile.
    seed : int
        Seed of the run.
    realization : str
        Names the random streams.
    base : pathlib.Path
        Directory that relative names of tables start from.
    masked : callable, optional
        Needed for ``avoid: {masked: true}``.

    Returns
    -------
    dict
        By type (or name, for GalSim's own types), in the order of the `gal` list.

    Raises
    ------
    InjectionError
        When more positions are asked for than can be, or a grid does not fit.
    InputError
        When a table is missing or wrong.
    """
    found = _everywhere(settings, catalogs, geometry, seed, realization, base)
    box = (geometry.uramin, geometry.uramax, geometry.udecmin, geometry.udecmax)
    if settings.image.unique_area:
        found = _without(found, lambda sky: ~positions.inside(sky, box), "outside the unique area")
    stars = settings.image.avoid.table(base)
    if stars is not None:
        circles = _circles(stars, settings.image.avoid.radius)
        found = _without(found, lambda sky: _near(sky, *circles), "near bright stars")
    if settings.image.avoid.masked and masked is not None:
        found = _without(found, masked, "masked on every exposure of a band")
    if settings.image.min_separation is not None:
        found = _apart(found, settings.image.min_separation)
    return found


def _without(
    found: dict[str, Places], bad: Callable[[NDArray[np.float64]], NDArray[np.bool_]], why: str
) -> dict[str, Places]:
    out = {}
    for name, places in found.items():
        drop = bad(places.sky) if len(places.sky) else np.zeros(0, dtype=bool)
        if drop.any():
            log.info("%d of %d positions of %s left out: %s", drop.sum(), len(drop), name, why)
        out[name] = places.kept(~drop)
    return out


def _vectors(sky: NDArray[np.float64]) -> NDArray[np.float64]:
    ra, dec = np.radians(sky).T
    return np.column_stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])


def _chord(arcsec: Any) -> Any:
    return 2.0 * np.sin(0.5 * np.radians(np.asarray(arcsec) / 3600.0))


def _circles(file: Path, radius: float | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    table = Columns(file, "image.avoid.file_name")
    sky = np.column_stack([table["ra"], table["dec"]])
    radii = np.full(len(table), radius) if radius is not None else table["radius_arcsec"]
    if not (np.isfinite(sky).all() and np.isfinite(radii).all() and (radii >= 0).all()):
        raise InputError(
            "a bright star has no position or radius",
            file=file,
            key="image.avoid.file_name",
            remedy="give ra, dec in degrees and radius_arcsec of every one",
        )
    return sky, radii


def _near(sky: NDArray[np.float64], stars: NDArray[np.float64], radii: NDArray[np.float64]) -> NDArray[np.bool_]:
    # Imported when used, as in `_apart`: replaying an object starts faster.
    from scipy.spatial import cKDTree

    near = np.zeros(len(sky), dtype=bool)
    if len(stars):
        for hits in cKDTree(_vectors(sky)).query_ball_point(_vectors(stars), _chord(radii)):
            near[hits] = True
    return near


def _apart(found: dict[str, Places], least: float) -> dict[str, Places]:
    """Leave out every object that lies too near to an earlier one that stays."""
    from scipy.spatial import cKDTree

    owner = np.concatenate([np.full(len(places.sky), index) for index, places in enumerate(found.values())])
    sky = np.concatenate([places.sky for places in found.values()])
    keep = np.ones(len(sky), dtype=bool)
    pairs = (
        cKDTree(_vectors(sky)).query_pairs(float(_chord(least)), output_type="ndarray")
        if len(sky)
        else np.zeros((0, 2))
    )
    for first, second in sorted(tuple(sorted(pair)) for pair in pairs.tolist()):
        if keep[first]:
            keep[second] = False
    if not keep.all():
        log.info("%d of %d positions left out: nearer than %g arcsec to another", np.sum(~keep), len(keep), least)
    return {name: places.kept(keep[owner == index]) for index, (name, places) in enumerate(found.items())}


def _everywhere(
    settings: Injection,
    catalogs: Mapping[str, Catalog],
    geometry: Geometry,
    seed: int,
    realization: str,
    base: Path,
) -> dict[str, Places]:
    """Return all positions, in the whole tile."""
    tile = geometry.tilename
    chosen = {(item.label if item.native else item.type): settings.positions(item.label) for item in settings.gal.items}
    labels = {(item.label if item.native else item.type): item.label for item in settings.gal.items}
    shape = (geometry.naxis2, geometry.naxis1)
    wcs = geometry.wcs()

    def to_sky(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack(wcs.pixel_to_sky(points[:, 0], points[:, 1]))

    def numbered(sky: NDArray[np.float64]) -> Places:
        return Places(np.arange(len(sky)), sky)

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
            name: numbered(to_sky(points[np.sort(order[end - count : end])]))
            for name, count, end in zip(chosen, counts, ends, strict=True)
        }
    box = (geometry.uramin, geometry.uramax, geometry.udecmin, geometry.udecmax)
    out: dict[str, Places] = {}
    grids = 0
    for name, one in chosen.items():
        if one.type == "rules":
            out[name] = _of_rules(catalogs[name], wcs, shape)
        elif one.counted:
            count = object_count(settings, labels[name], name, geometry)
            scatter = positions.uniform if one.type == "uniform" else positions.halton
            out[name] = numbered(scatter(seed, ("position", tile, realization, name), count, box))
        elif one.type == "sahar":
            out[name] = _of_catalog(settings, catalogs[name], wcs, shape, seed, tile, realization)
        elif one.type == "Table":
            file = one.table(base)
            assert file is not None  # checked when the settings were read
            out[name] = _of_table(file, wcs, shape)
        else:
            # The orientation is common to all inputs, so that the holes of one grid stay its holes.
            points = positions.grid(one.type, one, shape, geometry.pixelscale, seed, (tile, realization), hole=grids)
            out[name] = numbered(to_sky(points))
            grids += 1
    return out


def object_count(settings: Injection, label: str, name: str, geometry: Geometry) -> int:
    """Return how many objects of one kind are asked for.

    Parameters
    ----------
    settings : Injection
        The injection configuration.
    label, name : str
        What the configuration and messages call the kind.
    geometry : Geometry
        The tile.

    Raises
    ------
    InjectionError
        When there are too many.
    """
    count = of_input(settings.image.n_objects, label)
    if count is None:
        density = of_input(settings.image.object_density, label)
        assert density is not None  # checked when the settings were read
        box = (geometry.uramin, geometry.uramax, geometry.udecmin, geometry.udecmax)
        count = round(density * positions.unique_area(*box))
    if count > positions.MAX_OBJECTS:
        raise InjectionError(
            f"{count} positions of {name} are asked for, at most {positions.MAX_OBJECTS} can be",
            tile=geometry.tilename,
            key="image.n_objects, image.object_density",
            remedy="ask for fewer; the density is per square arcmin",
        )
    return count


def _on_tile(sky: NDArray[np.float64], wcs: Any, shape: tuple[int, int], what: str) -> NDArray[np.bool_]:
    """Return which positions lie on the tile; log how many do not."""
    good = np.isfinite(sky).all(axis=1) & (np.abs(sky[:, 1]) <= 90.0)
    # Far from its centre a gnomonic projection has no position: only the same hemisphere is asked for.
    centre = _vectors(np.column_stack(wcs.pixel_to_sky(0.5 * (shape[0] - 1), 0.5 * (shape[1] - 1))))[0]
    good[good] = _vectors(sky[good]) @ centre > 0.9
    row, col = wcs.sky_to_pixel(sky[good, 0], sky[good, 1])
    good[good] = (row >= -0.5) & (row < shape[0] - 0.5) & (col >= -0.5) & (col < shape[1] - 0.5)
    if not good.all():
        log.info("%d of %d positions of %s are no numbers or lie outside the tile", np.sum(~good), len(good), what)
    return good


def _of_table(file: Path, wcs: Any, shape: tuple[int, int]) -> Places:
    table = Columns(file, "image.pos_sampling.file_name")
    if "x" in table and "ra" not in table:
        x, y = table["x"], table["y"]
        finite = np.isfinite(x) & np.isfinite(y)
        ra, dec = wcs.pixel_to_sky(np.where(finite, y, 1.0) - 1.0, np.where(finite, x, 1.0) - 1.0)
        sky = np.where(finite[:, np.newaxis], np.column_stack([ra, dec]), np.nan)
    else:
        sky = np.column_stack([table["ra"] % 360.0, table["dec"]])
    good = _on_tile(sky, wcs, shape, file.name)
    if not good.any():
        raise InputError(
            f"none of the {len(good)} positions of the table lies on the tile",
            file=file,
            key="image.pos_sampling.file_name",
            remedy="give ra and dec in degrees, or x and y in pixels of the tile, from 1",
        )
    return Places(np.flatnonzero(good), sky[good])


def _of_rules(catalog: Catalog, wcs: Any, shape: tuple[int, int]) -> Places:
    """Return where a rules file puts its objects; the number of each is that in the file's arrays."""
    assert catalog.sky is not None  # its reader gives it one
    good = _on_tile(catalog.sky, wcs, shape, catalog.file.name)
    return Places(catalog.row[good], catalog.sky[good], np.flatnonzero(good))


def _of_catalog(
    settings: Injection, catalog: Catalog, wcs: Any, shape: tuple[int, int], seed: int, tile: str, realization: str
) -> Places:
    """Return the catalogue's own positions, every realization another part of them."""
    if catalog.sky is None:
        raise InputError(
            "sahar positions are those of the catalogue, and it has none",
            file=catalog.file,
            key="image.pos_sampling",
            remedy="give it ra and dec, or use another type",
        )
    total = settings.image.n_realizations or len(settings.image.realizations)
    share = stream(seed, "sahar", tile).permutation(len(catalog))[int(realization) % total :: total]
    sky = np.column_stack([catalog.sky[share, 0] % 360.0, catalog.sky[share, 1]])
    good = _on_tile(sky, wcs, shape, catalog.file.name)
    return Places(np.flatnonzero(good), sky[good], share[good])
