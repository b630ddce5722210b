"""Objects drawn by a rules file, in the pixels of the tile."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balrogutils.archive.geometry import Geometry
from balrogutils.errors import BalrogError, ConfigError, InputError
from balrogutils.injection.catalogs import ZERO_POINT, Catalog, sane_rows
from balrogutils.injection.profiles import sersics_radius
from balrogutils.injection.sources.tables import SERSIC_RANGE, quantised
from balrogutils.randomness import seed32
from balrogutils.rules.defaults import COSMOS, defaults
from balrogutils.rules.parsing import Parser
from balrogutils.rules.pyconfig import PyConfig, for_user
from balrogutils.rules.sampling import Sample, component_fluxes, sample
from balrogutils.settings.sources import RULES_TYPE, RulesFile
from balrogutils.wcs import Jacobian

__all__ = ["grid_angle", "read"]

_log = logging.getLogger(__name__)

_KEY = "input.rules"
# Sides of the tile.
_FAR = 1000.0
_UNDRAWABLE = "a position, size, index, shape, shear or flux out of range"


def read(
    section: RulesFile,
    geometry: Geometry,
    base: Path,
    bands: Sequence[str],
    count: int,
    seed: int,
    realization: str,
) -> Catalog:
    """Have a rules file draw its objects; those that cannot be drawn are counted.

    Parameters
    ----------
    section : RulesFile
        The `input` section.
    geometry : Geometry
        The tile, whose pixels are those of the rules: x and y count from 1, angles from x towards y.
    base : pathlib.Path
        Directory that relative names start from.
    bands : sequence of str
        Bands to have fluxes in.
    count : int
        Number of objects.
    seed : int
        Seed of the run.
    realization : str
        Names the random streams, with the tile.

    Returns
    -------
    Catalog
        Rows are the numbers of the objects. Columns: g1, g2 (of all components, in proportion to their light),
        r50_arcsec, truncation; of each component ``sersic_n_<k>``, ``r50_arcsec_<k>`` (circularised), ``g1_<k>``,
        ``g2_<k>``, ``share_<k>`` or ``share_<k>_<band>``; shear_g1, shear_g2, magnification; ``own_<name>`` of the
        user's own.

    Raises
    ------
    ConfigError, InputError
        When the file, its arguments or its rules are wrong.
    """
    file = section.path(base, geometry.tilename)
    config = PyConfig(file, full=section.fulltraceback, key=f"{_KEY}.file_name", switch=f"{_KEY}.fulltraceback: true")
    config.seed = seed32(seed, "rules", geometry.tilename, realization)
    every = bands if section.banded else bands[:1]
    drawn = {band: _drawn(section, config, geometry, base, band, count) for band in every}
    first = next(iter(drawn.values()))
    for band, other in drawn.items():
        _same(first, other, file, band)
    fluxes = {band: component_fluxes(one.components["magnitude"], ZERO_POINT) for band, one in drawn.items()}
    row, col = first.objects["y"] - 1.0, first.objects["x"] - 1.0
    near = np.hypot(row / geometry.naxis2, col / geometry.naxis1) < _FAR
    # No WCS knows the sky there.
    row, col = np.where(near, row, 0.0), np.where(near, col, 0.0)
    wcs = geometry.wcs()
    sky = np.column_stack(wcs.pixel_to_sky(row, col))
    shape, good = _shapes(section, first, fluxes, *grid_angle(wcs.jacobian(row, col)))
    flux = {band: (fluxes[band] if section.banded else next(iter(fluxes.values()))).sum(axis=0) for band in bands}
    good &= (
        near
        & sane_rows(shape, flux)
        & (np.hypot(shape["shear_g1"], shape["shear_g2"]) < 1)
        & (shape["magnification"] > 0)
    )
    shape |= _own(drawn)
    whole = Catalog(
        RULES_TYPE, "sersics", file, np.arange(count), shape, flux, sky=sky, tables=tuple(dict.fromkeys(first.tables))
    )
    return whole.chosen(good, _UNDRAWABLE)


def _drawn(section: RulesFile, config: PyConfig, geometry: Geometry, base: Path, band: str, count: int) -> Sample:
    """Return what the file draws, with the arguments of one band; the randomness of all bands is the same."""
    file, key = config.file, config.seed
    native: dict[str, object] = {"ngal": count, "seed": key, "noiseseed": key, "indexstart": 0, "pyconfig": file}
    native |= {"xmin": 1, "xmax": geometry.naxis1, "ymin": 1, "ymax": geometry.naxis2}
    # There is no one image, and the chips have gains of their own.
    native |= {"zeropoint": ZERO_POINT, "gain": 1.0, "imageext": 0, "weightext": 0}
    native |= dict.fromkeys(("image", "weight", "psf"), "")
    parser = Parser(prog=f"{_KEY}.args", add_help=False, allow_abbrev=False, remedy=f"correct {_KEY}.args")
    config.custom_args(parser)
    try:
        own = parser.parse_args(section.words(base, geometry.tilename, band))
    except InputError as error:
        raise ConfigError(error.message, file=file, key=f"{_KEY}.args", remedy=error.remedy or "") from error
    taken = [name for name in vars(own) if name in native]
    if taken:
        text = f"an argument of the rules file, {taken[0]}, has the name of a native one"
        raise ConfigError(text, file=file, key=f"{_KEY}.args", remedy="give it another name")
    args = Namespace(**native, **vars(own))
    config.own_arguments(args, native)
    users = for_user(args)
    try:
        return sample(config, users, defaults(users, base / COSMOS), accuracy=False)
    except BalrogError as error:
        error.locate(file=file)
        raise


def _same(first: Sample, other: Sample, file: Path, band: str) -> None:
    """Refuse rules that put another object into another band; only magnitudes may differ."""
    parts = [(name, first.objects[name], other.objects[name]) for name in first.objects]
    if first.profiles == other.profiles:
        names = [name for name in first.components if name != "magnitude"]
        parts += [(name, first.components[name], other.components[name]) for name in names]
    differing = [name for name, one, two in parts if not np.array_equal(one, two)]
    if first.profiles != other.profiles:
        differing.append("nProfiles")
    if differing:
        raise ConfigError(
            f"rules.{differing[0]} is not the same in every band",
            file=file,
            band=band,
            key=f"{_KEY}.args",
            remedy="let BAND change magnitudes alone",
        )


def grid_angle(local: Jacobian) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how the pixel grid lies on the sky.

    Parameters
    ----------
    local : Jacobian
        The WCS at each position.

    Returns
    -------
    angle : ndarray of float64
        From u (west) to x, counter-clockwise towards v (north), radians: that of the rotation nearest to the Jacobian.
    parity : ndarray of float64
        1 where x, y are right-handed in u, v, else -1.
    """
    parity = np.sign(local.dudcol * local.dvdrow - local.dudrow * local.dvdcol)
    # With y turned round, a left-handed grid is a rotation too.
    return np.arctan2(local.dvdcol - parity * local.dudrow, local.dudcol + parity * local.dvdrow), parity


def _shapes(
    section: RulesFile,
    drawn: Sample,
    fluxes: dict[str, NDArray[np.float64]],
    angle: NDArray[np.float64],
    parity: NDArray[np.float64],
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.bool_]]:
    """Return the columns of the profiles, on the sky, and which objects have parameters that can be drawn."""
    names = ("sersicindex", "halflightradius", "axisratio", "beta")
    index, major, ratio, beta = (drawn.components[name] for name in names)
    good = (index >= SERSIC_RANGE[0]) & (index <= SERSIC_RANGE[1]) & (major >= 0) & (ratio > 0) & (ratio <= 1)
    index = quantised(index, section.n_step)
    safe = np.where(good, ratio, 1.0)
    turn = np.exp(2j * angle)

    def on_sky(shear: Any) -> Any:
        return turn * np.where(parity > 0, shear, np.conj(shear))

    g = on_sky((1.0 - safe) / (1.0 + safe) * np.exp(2j * np.radians(beta)))
    # GalSim's shear keeps the area: half of the light lies in the ellipse with the major axis that was asked for.
    radius = np.where(good, major * np.sqrt(safe), 0.0)
    with np.errstate(invalid="ignore"):
        shares = {band: light / light.sum(axis=0) for band, light in fluxes.items()}
    share = next(iter(shares.values()))
    lensing = on_sky(drawn.objects["g1"] + 1j * drawn.objects["g2"])
    whole = np.sum(share * g, axis=0)
    found = {"g1": whole.real, "g2": whole.imag}
    found |= {"r50_arcsec": sersics_radius(share, radius, np.where(good, index, 1.0))}
    found |= {"truncation": np.full(len(drawn), section.truncation or 0.0)}
    found |= {"shear_g1": lensing.real, "shear_g2": lensing.imag, "magnification": drawn.objects["magnification"]}
    for k in range(drawn.profiles):
        found |= {f"sersic_n_{k}": index[k], f"r50_arcsec_{k}": radius[k], f"g1_{k}": g[k].real, f"g2_{k}": g[k].imag}
        found |= {(f"share_{k}_{band}" if section.banded else f"share_{k}"): one[k] for band, one in shares.items()}
    return found, np.all(good, axis=0)


def _own(drawn: dict[str, Sample]) -> dict[str, NDArray[np.float64]]:
    """Return the user's own columns of numbers, by band where bands differ."""
    found: dict[str, NDArray[np.float64]] = {}
    first = next(iter(drawn.values()))
    for number, column in enumerate(first.extras):
        if column.values.dtype.kind not in "iufb":
            _log.info("%s holds texts, which the truth of a tile has no room for: it is left out", column.name)
            continue
        values = {band: one.extras[number].values.astype(np.float64) for band, one in drawn.items()}
        if all(np.array_equal(one, column.values, equal_nan=True) for one in values.values()):
            found[f"own_{column.name}"] = values[next(iter(values))]
        else:
            found |= {f"own_{column.name}_{band}": one for band, one in values.items()}
    return found
