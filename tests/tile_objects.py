"""Objects of a tile for the tests of metacal and BFD: two bands of three epochs, and a catalogue of models."""

from __future__ import annotations

from dataclasses import replace

import galsim
import numpy as np
from simulated_stamps import observe

from balrogutils.context import Context
from balrogutils.fitsfile import Table, write_tables
from balrogutils.fitting.flags import ObjectFlag
from balrogutils.fitting.observation import PSFStamp
from balrogutils.fitting.psffit import PSFOptions, fit_psf
from balrogutils.layout import Site
from balrogutils.measurement.catalogue import model_rows
from balrogutils.measurement.target import Epoch, Target
from balrogutils.settings.campaign import Campaign
from balrogutils.settings.pipeline import Pipeline

BANDS = ("g", "r")


def target(edit=None, noise=1.0, profile=None, size=48, number=17):
    """An object of flux 2000 and 4000; `edit` changes epochs, or drops them."""
    rng = np.random.default_rng(1)
    galaxy = profile or galsim.Exponential(half_light_radius=0.5).shear(g1=0.1, g2=-0.05)
    bands = []
    for band in range(len(BANDS)):
        seen = [observe(rng, galaxy, 2000.0 * (1 + band), noise, size) for _ in range(3)]
        seen = [one if edit is None else edit(band, k, one) for k, one in enumerate(seen)]
        bands.append(tuple(Epoch(one, k + 1, k + 1, 100.0, 200.0) for k, one in enumerate(seen) if one is not None))
    return Target(number, 1, 40.0, 2.0, size, tuple(bands))


def stamps(**changes):
    """An edit that gives parts of every epoch anew."""
    return lambda band, k, one: replace(one, **{name: make(one) for name, make in changes.items()})


def catalogue(path, flags=(0, 0)):
    """Write fits of two exponentials 3 arcsec apart, the second to the north of the first."""
    rows = model_rows("exp", 2, 2)
    rows["id"], rows["ra"], rows["dec"], rows["box_size"] = (17, 18), 40.0, (2.0, 2.0 + 3.0 / 3600.0), 48
    rows["flags"] = flags
    rows["exp_pars"] = [[0, 0, 0, 0, 0.5, 2000, 4000], [0, 0, 0.1, 0, 0.4, 3000, 1000]]
    rows["exp_flux"] = rows["exp_pars"][:, 5:]
    meta = np.zeros(1, dtype=[("model", "S3"), ("bands", "S3")])
    meta["model"], meta["bands"] = b"exp", b"g,r"
    write_tables(path, [Table("model_fits", rows), Table("meta_data", meta)])
    return path


def fit_light(models, one, band):
    """The second object of the catalogue in a stamp of the first."""
    psf = fit_psf(one.psf, one.wcs, PSFOptions("coellip", 3)).mixture
    return models.image(1, band, one.wcs, psf, one.image.shape, models.offset(0, 1))


def make_context(root, **settings):
    """A tile of these bands with settings of its own."""
    site = Site.from_environment("y3v02", {"BALROG_BASE": str(root)})
    campaign = Campaign(kind="desdm", database="sqlite://", archive="file:///", bands=BANDS, det=BANDS, name="test")
    return Context(site, Pipeline(bands=BANDS, **settings), campaign, "DES0239+0216")


BROKEN = {
    "NaN images": (stamps(image=lambda one: one.image * np.nan), ObjectFlag.IMAGE_FLAGS),
    "zero weights": (stamps(weight=lambda one: one.weight * 0), ObjectFlag.IMAGE_FLAGS),
    "all masked": (stamps(bmask=lambda one: np.full(one.image.shape, 2)), ObjectFlag.IMAGE_FLAGS),
    "a fifth masked": (
        stamps(bmask=lambda one: 2 * (np.indices(one.image.shape)[0] < 10)),
        ObjectFlag.IMAGE_FLAGS,
    ),
    "no pixel of its own": (stamps(region=lambda one: one.weight * 0), ObjectFlag.IMAGE_FLAGS),
    "no PSF": (stamps(psf=lambda one: None), ObjectFlag.PSF_FIT_FAILURE),
    "NaN PSF": (stamps(psf=lambda one: PSFStamp(one.psf.image * np.nan, 20, 20)), ObjectFlag.PSF_FIT_FAILURE),
    "singular Jacobian": (stamps(wcs=lambda one: one.wcs._replace(dudrow=0.0, dudcol=0.0)), ObjectFlag.IMAGE_FLAGS),
    "no exposure in r": (lambda band, k, one: None if band == 1 else one, ObjectFlag.NO_CUTOUTS),
}
"""Edits of the stamps of an object that make a flagged row, with the flag."""
