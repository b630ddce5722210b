"""The GalSim profile of any planned object, as it is seen on the sky: of flux 1, rotated, sheared, magnified."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import galsim
import numpy as np

from balrogutils.errors import InjectionError
from balrogutils.injection import profiles
from balrogutils.injection.galsimtypes import GalSimObjects
from balrogutils.injection.planning import plan_bands
from balrogutils.injection.spectra import passband, through
from balrogutils.randomness import seed32

if TYPE_CHECKING:
    from balrogutils.injection.medsstamps import MedsStamps
    from balrogutils.settings.injection import Injection

__all__ = ["Shapes", "table_profile"]


class Shapes:
    """Makes profiles of rows of a plan.

    Parameters
    ----------
    settings : Injection
        The injection configuration.
    base : pathlib.Path
        The checkout.
    tile, realization : str
        Keys of the random streams; `realization` is the twin's of a shear pair.
    seed : int
        Seed of the run.
    """

    def __init__(self, settings: Injection, base: Path, tile: str, realization: str, seed: int) -> None:
        self._settings, self._base, self._tile, self._seed = settings, base, tile, seed
        self._realization = realization
        self._native = GalSimObjects(settings, base, tile, realization, seed)

    @cached_property
    def _cosmos(self) -> Any:
        from balrogutils.injection.sources.cosmos import open_catalog

        section = self._settings.section("cosmos_catalog")
        assert section is not None  # the plan has such objects, so the configuration has the section
        return section, open_catalog(section, self._base, self._tile)

    @cached_property
    def _meds(self) -> MedsStamps:
        from balrogutils.injection.medsstamps import MedsStamps

        section = self._settings.input.meds_catalog
        assert section is not None  # as for COSMOS
        return MedsStamps(section, self._base, self._tile)

    def profile(self, row: Any, band: str = "", mirrored: bool = False) -> galsim.GSObject | None:
        """Return the profile of flux 1 in sky coordinates (u west, v north, arcsec), before the PSF; None for a star.

        Parameters
        ----------
        row : numpy.void
            Row of the plan.
        band : str
            Band, for objects that look different in every band.
        mirrored : bool
            With the opposite shear, as in the other realization of a shear pair.

        Raises
        ------
        InjectionError
            When it cannot be made.
        """
        model = str(row["model"])
        if model == "star":
            return None
        try:
            if model in profiles.MODELS:
                whole = profiles.profile(*(row[name] for name in profiles.PARAMETERS))
            else:
                whole = self._intrinsic(model, row, band)
            return whole if not _lensed(row) else _lens(whole, row, -1.0 if mirrored else 1.0)
        except (galsim.GalSimError, OSError) as error:
            raise InjectionError(
                f"GalSim cannot make object {row['bal_id']} ({row['inj_type']}, row {row['cat_row']}): {error}",
                remedy="cut such objects",
            ) from error

    def _intrinsic(self, model: str, row: Any, band: str) -> galsim.GSObject:
        """Return the profile before lensing of a model that ngmix does not have."""
        if model == "galsim":
            native = self._native.build(str(row["inj_type"]), int(row["number"]), band, plan_bands(row))
            return native.rotate(float(row["rotation"]) * galsim.degrees).withFlux(1.0)
        if model == "cosmos":
            section, catalog = self._cosmos
            if section.chromatic:
                from balrogutils.injection.sources.cosmos import light_in

                seen = light_in(catalog, int(row["cosmos_index"]), section)
                whole = through(seen, passband(section.bandpass, self._base, band))
                return whole.rotate(float(row["rotation"]) * galsim.degrees).withFlux(1.0)
            rng = galsim.BaseDeviate(self._key(row, "cosmos"))
            whole = catalog.makeGalaxy(
                int(row["cosmos_index"]),
                gal_type="real" if section.use_real else "parametric",
                sersic_prec=section.n_step,
                noise_pad_size=0,
                rng=rng,
            )
            return whole.rotate(float(row["rotation"]) * galsim.degrees).withFlux(1.0)
        if model == "meds":
            whole = self._meds.profile(int(row["cat_row"]), band, int(row[f"stamp_slot_{band}"]))
            return whole.rotate(float(row["rotation"]) * galsim.degrees).withFlux(1.0)
        if model == "sersics":
            return _sersics(row, band).rotate(float(row["rotation"]) * galsim.degrees)
        return table_profile(model, row, self._key(row, "knots"), band)

    def _key(self, row: Any, purpose: str) -> int:
        names = (purpose, self._tile, self._realization, str(row["inj_type"]), int(row["number"]))
        return seed32(self._seed, *names)

    def reach(self, row: Any) -> float:
        """Return the radius in arcsec outside which at most `profiles.LOST_LIGHT` of the flux lies, before the PSF."""
        model = str(row["model"])
        if model in profiles.MODELS:
            return _stretch(row) * profiles.light_radius(*(row[name] for name in profiles.PARAMETERS))
        if model == "meds":
            return _stretch(row) * float(row["stamp_reach"])
        # What looks different in every band has a reach for each.
        banded = any(name.startswith(("wavelength_", "parts", "share_0_")) for name in row.dtype.names)
        bands = plan_bands(row) if banded else ("",)
        reaches = []
        for band in bands:
            whole = self.profile(row, band)
            assert whole is not None  # only stars have none
            if model == "cosmos" and self._cosmos[0].use_real:
                return _image_reach(whole)
            # GalSim's step in Fourier space is pi / R, with R the radius that holds all but folding_threshold of the
            # light.
            reaches.append(float(np.pi / whole.withGSParams(folding_threshold=profiles.LOST_LIGHT).stepk))
        return max(reaches)


def table_profile(model: str, row: Any, seed: int, band: str = "") -> galsim.GSObject:
    """Return the profile of flux 1 of a galaxy of a table, sheared by its own g1 and g2.

    Parameters
    ----------
    model : {"sersic", "bulge_disk", "knots"}
        What it is.
    row : numpy.void or mapping
        Its columns; see `balrogutils.settings.sources.GalaxyTable`.
    seed : int
        Of the places of knots.
    band : str
        Band, for bulges and disks of different spectra.

    Raises
    ------
    InjectionError
        For another model.
    """
    if model == "sersic":
        whole = _sersic(row["sersic_n"], row["r50_arcsec"], row["truncation"])
    elif model == "bulge_disk":
        names: Any = row.dtype.names if isinstance(row, np.void) else row
        share = float(row[name if (name := f"bulge_fraction_{band}") in names else "bulge_fraction"])
        bulge = _sersic(row["bulge_n"], row["bulge_r50_arcsec"], row["truncation"]).withFlux(share)
        disk = galsim.Exponential(half_light_radius=float(row["disk_r50_arcsec"]), flux=1.0 - share)
        whole = galsim.Add([part for part in (bulge, disk) if part.flux > 0])
    elif model == "knots":
        rng = galsim.BaseDeviate(seed)
        whole = galsim.RandomKnots(int(row["knots"]), half_light_radius=float(row["r50_arcsec"]), rng=rng)
    else:
        raise InjectionError(f"unknown model {model!r}", key="model", remedy="make the plan again")
    return whole.shear(g1=float(row["g1"]), g2=float(row["g2"]))


def _sersics(row: Any, band: str) -> galsim.GSObject:
    """Return the components of an object that rules drew, each sheared by its own g1 and g2; points have no size."""
    parts = []
    count = sum(name.startswith("sersic_n_") for name in row.dtype.names)
    for k in range(count):
        share = float(row[name if (name := f"share_{k}_{band}") in row.dtype.names else f"share_{k}"])
        if share > 0 and row[f"r50_arcsec_{k}"] > 0:
            part = _sersic(row[f"sersic_n_{k}"], row[f"r50_arcsec_{k}"], row["truncation"]).withFlux(share)
            parts.append(part.shear(g1=float(row[f"g1_{k}"]), g2=float(row[f"g2_{k}"])))
        elif share > 0:
            parts.append(galsim.DeltaFunction(flux=share))
    return galsim.Add(parts)


def _lensed(row: Any) -> bool:
    return bool(row["shear_g1"] or row["shear_g2"] or row["magnification"] != 1.0)


def _stretch(row: Any) -> float:
    """Return the factor by which lensing lengthens an object at most."""
    if not _lensed(row):
        return 1.0
    g = float(np.hypot(row["shear_g1"], row["shear_g2"]))
    return float(np.sqrt(row["magnification"] * (1.0 + g) / (1.0 - g)))


def _lens(whole: galsim.GSObject, row: Any, sign: float) -> galsim.GSObject:
    # The magnification of the flux is in the flux columns of the plan.
    return whole.shear(g1=sign * float(row["shear_g1"]), g2=sign * float(row["shear_g2"])).dilate(
        float(np.sqrt(row["magnification"]))
    )


def _sersic(index: float, radius: float, truncation: float) -> galsim.GSObject:
    trunc = float(truncation) * float(radius)
    return galsim.Sersic(n=float(index), half_light_radius=float(radius), trunc=trunc)


def _image_reach(whole: galsim.GSObject) -> float:
    """Return half the diagonal of the HST stamp of a real galaxy, as it is sheared and magnified."""
    inner, stretch = whole, 1.0
    while isinstance(inner, galsim.Transformation):
        stretch *= float(np.linalg.svd(inner.jac, compute_uv=False)[0])
        inner = inner.original
    image = inner.original_gal
    while isinstance(image, galsim.Transformation):
        stretch *= float(np.linalg.svd(image.jac, compute_uv=False)[0])
        image = image.original
    bounds = image.image.bounds
    size = np.hypot(bounds.xmax - bounds.xmin + 1, bounds.ymax - bounds.ymin + 1)
    return 0.5 * stretch * float(size * image.image.scale)
