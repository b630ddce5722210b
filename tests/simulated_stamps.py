"""Stamps drawn by GalSim, and MEDS files of them, for the tests of fits."""

from __future__ import annotations

from pathlib import Path

import fitsio
import galsim
import galsim.des
import numpy as np

from balrogutils.fitting.observation import LocalWCS, Observation, PSFStamp

SCALE = 0.263


def local_wcs(rng: np.random.Generator, size: int = 48, tilt: float = 0.005) -> LocalWCS:
    """A map with a few parts in a thousand of shear and rotation, centred within half a pixel of the stamp's middle."""
    d = SCALE * (np.eye(2) + rng.normal(0, tilt, (2, 2)))
    middle = (size - 1) / 2
    return LocalWCS(middle + rng.uniform(-0.5, 0.5), middle + rng.uniform(-0.5, 0.5), *d.ravel())


def moffat(rng: np.random.Generator) -> galsim.GSObject:
    """A PSF of some seeing, wings and ellipticity."""
    psf = galsim.Moffat(beta=rng.uniform(2.8, 3.8), fwhm=rng.uniform(0.8, 1.1))
    return psf.shear(g1=rng.normal(0, 0.015), g2=rng.normal(0, 0.015))


def galsim_wcs(wcs: LocalWCS) -> galsim.JacobianWCS:
    return galsim.JacobianWCS(dudx=wcs.dudcol, dudy=wcs.dudrow, dvdx=wcs.dvdcol, dvdy=wcs.dvdrow)


def observe(
    rng: np.random.Generator, profile: galsim.GSObject | None, flux: float, noise: float, size: int = 48
) -> Observation:
    """One epoch of a galaxy, or of a star where `profile` is None."""
    wcs, psf = local_wcs(rng, size), moffat(rng)
    sky = galsim_wcs(wcs)
    scene = (psf if profile is None else galsim.Convolve(profile, psf)).withFlux(flux)
    middle = (size - 1) / 2
    image = scene.drawImage(nx=size, ny=size, wcs=sky, offset=(wcs.col0 - middle, wcs.row0 - middle)).array
    stamp = psf.drawImage(nx=41, ny=41, wcs=sky, dtype=float).array
    pixels = image + (rng.normal(0, noise, image.shape) if noise > 0 else 0.0)
    weight = np.full(image.shape, noise**-2 if noise > 0 else 1.0)
    return Observation(pixels, weight, wcs, PSFStamp(stamp, 20.0, 20.0), np.zeros(image.shape, int))


def write_meds(path: Path, band: int, count: int, epochs: int = 3, size: int = 48) -> None:
    """A MEDS file of `count` galaxies and stars, a coadd and `epochs` exposures each; the same objects in all bands."""
    shared, rng = np.random.default_rng(11), np.random.default_rng(100 + band)
    objects = []
    for number in range(1, count + 1):
        radius, g = shared.uniform(0.2, 0.5), shared.uniform(-0.2, 0.2, 2)
        star = shared.uniform() < 0.3
        flux = 400.0 * shared.uniform(0.8, 1.5)
        galaxy = None if star else galsim.Exponential(half_light_radius=radius).shear(g1=g[0], g2=g[1])
        planes: dict[str, list] = {key: [] for key in ("images", "weight", "seg", "badpix", "psf", "wcs")}
        for _ in range(epochs + 1):
            one = observe(rng, galaxy, flux * (1 + band), 2.0, size)
            seg = np.zeros((size, size), np.int32)
            seg[size // 2 - 3 : size // 2 + 3, size // 2 - 3 : size // 2 + 3] = number
            planes["images"].append(galsim.Image(one.image.astype(np.float32)))
            planes["weight"].append(galsim.Image(one.weight.astype(np.float32)))
            planes["seg"].append(galsim.Image(seg))
            planes["badpix"].append(galsim.Image(np.zeros((size, size), np.int16)))
            # GalSim's writer wants PSF stamps of the size of the others, an even one.
            psf = np.zeros((48, 48))
            psf[3:44, 3:44] = one.psf.image
            planes["psf"].append(galsim.Image(psf))
            w = one.wcs
            origin = galsim.PositionD(w.col0, w.row0)
            planes["wcs"].append(galsim.AffineTransform(w.dudcol, w.dudrow, w.dvdcol, w.dvdrow, origin=origin))
        objects.append(galsim.des.MultiExposureObject(id=number, **planes))
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = path.with_name("plain.fits")
    galsim.des.WriteMEDS(objects, str(plain))
    with fitsio.FITS(str(plain), "rw") as fits:
        fits["image_info"].write_column("image_flags", np.zeros(fits["image_info"].get_nrows(), "i8"))
        columns = fits["object_data"].get_colnames()
        shape = fits["object_data"].read(columns=["dudrow"])["dudrow"].shape
        for name in ("psf_cutout_row", "psf_cutout_col"):
            # The 41-pixel stamp stands at [3, 44): its centre is pixel 23.
            value = np.full(shape, 23.0)
            if name in columns:
                fits["object_data"].write_column(name, value)
            else:
                fits["object_data"].insert_column(name, value)
    plain.replace(path)
