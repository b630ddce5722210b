"""A small base tile for tests of injection: two bands, four chips a band, as the prep block leaves them."""

from pathlib import Path

import fitsio
import numpy as np
import yaml

from balrogutils.archive.geometry import Geometry
from balrogutils.context import Context
from balrogutils.fitsfile import Plane, write_images
from balrogutils.layout import Site
from balrogutils.psf import PSFEx
from balrogutils.settings.campaign import Campaign
from balrogutils.settings.pipeline import Pipeline

TILE = "DES0239+0216"
RA, DEC = 39.9634, 2.2744
SIDE = 260
MAGZP = {1: 31.2, 2: 30.4, 3: 31.0, 4: 30.7}
# Offsets of the chip centres from the tile's, pixels: whole tile, half outside, far away, whole tile but masked.
PLACES = {1: (0, 0), 2: (130, 40), 3: (2000, 0), 4: (-5, 8)}


def header(shape, place, band, chip, angle=0.2):
    """A TPV header with a rotation and a mild distortion, and what DES images say about themselves."""
    scale = 0.263 / 3600.0
    c, s = np.cos(angle), np.sin(angle)
    cards = {
        **{"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "CUNIT1": "deg", "CUNIT2": "deg", "RADESYS": "ICRS"},
        **{"EQUINOX": 2000.0, "CRVAL1": RA, "CRVAL2": DEC},
        **{"CRPIX1": (shape[1] + 1) / 2 - place[0], "CRPIX2": (shape[0] + 1) / 2 - place[1]},
        **{"CD1_1": -scale * c, "CD1_2": scale * s, "CD2_1": scale * s, "CD2_2": scale * c},
        **{"PV1_0": 0.0, "PV1_1": 1.001, "PV1_2": 0.0004, "PV1_3": 0.0, "PV1_4": 0.02, "PV1_5": 0.01, "PV1_6": 0.01},
        **{"PV2_0": 0.0, "PV2_1": 0.999, "PV2_2": 0.0, "PV2_3": 0.0, "PV2_4": 0.01, "PV2_5": 0.02, "PV2_6": 0.01},
        **{"BAND": band, "EXPNUM": 100 + chip, "CCDNUM": chip, "SKYBRITE": 300.0, "SKYSIGMA": 17.0},
        **{"GAINA": 1.9, "GAINB": 2.1, "RDNOISEA": 6.0, "RDNOISEB": 6.0, "SATURATE": 150000.0, "FWHM": 4.0},
    }
    out = fitsio.FITSHDR()
    for key, value in cards.items():
        out.add_record({"name": key, "value": value})
    return out


def psf_model(fwhm=4.0, sampling=0.8, size=35, shape=(SIDE, SIDE)):
    """A round Moffat PSF whose width changes along x."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    r2 = (x**2 + y**2) * sampling**2

    def moffat(width):
        alpha = width / 2 / np.sqrt(2 ** (1 / 3.5) - 1)
        image = (1 + r2 / alpha**2) ** -3.5
        return image / image.sum()

    mean, slope = moffat(fwhm), moffat(1.05 * fwhm) - moffat(fwhm)
    zero = ((shape[1] + 1) / 2, (shape[0] + 1) / 2)
    return PSFEx(np.array([mean, slope, 0 * mean]), 1, zero, (shape[1] / 2, shape[0] / 2), sampling, fwhm)


def chip_name(band, chip):
    return f"D{100 + chip:08d}_{band}_c{chip:02d}_r0001p01"


def configuration(**image):
    """An injection configuration as a dict."""
    return {
        "input": {
            "ngmix_catalog": {
                "dir": "inputs",
                "file_name": "galaxies_cosmos_hsc.fits",
                "catalog_type": "bdf",
                "t_max": 1.5,
            },
            "des_star_catalog": {"base_dir": "inputs", "model_type": "stars"},
        },
        "gal": {"type": "List", "items": [{"type": "ngmixGalaxy"}, {"type": "desStar"}]},
        "psf": {"type": "DES_PSFEx"},
        "stamp": {"draw_method": "no_pixel"},
        "image": {
            "type": "Balrog",
            "pos_sampling": {
                "ngmix_catalog": {"type": "MixedGrid", "grid_type": "HexGrid", "grid_spacing": 9.0, "inj_frac": 0.5},
                "des_star_catalog": {"type": "MixedGrid", "inj_frac": 0.5},
            },
            "rotate_objs": "Random",
        }
        | image,
    }


def make_tile(root: Path, inputs: Path, config, bands=("g", "r"), realization="0") -> Context:
    """Write the base tile and return the context of a realization of it; `config` is written as its galsim_config."""
    root.mkdir(exist_ok=True)
    if not (root / "inputs").exists():
        (root / "inputs").symlink_to(inputs)
    path = root / "galsim.yaml"
    path.write_text(yaml.safe_dump(config))
    site = Site.from_environment("y3v02", {"BALROG_BASE": str(root)})
    campaign = Campaign(kind="desdm", database="sqlite://", archive="file:///", bands=bands, det=bands, name="test")
    pipeline = Pipeline(galsim_config=str(path), bands=bands, realizations=(realization,))
    context = Context(site, pipeline, campaign, TILE, realization)
    tree = context.base_tree
    if tree.geometry.exists():
        return context
    Geometry.tangent(TILE, RA, DEC, SIDE, SIDE, 0.263, {"g": 0.1, "r": 0.07}).write(tree.geometry)
    for band in bands:
        _make_band(tree, band)
    return context


def _make_band(tree, band):
    random = np.random.default_rng(5)
    lists = {"nullwt": [], "seg": [], "bkg": []}
    coadd_psf = tree.psfs / f"{TILE}_{band}_psfcat.psf"
    psf_model().write(coadd_psf)
    psfmap = [f"-9999 -9999 {coadd_psf}"]
    for chip, place in PLACES.items():
        name = chip_name(band, chip)
        sci = random.normal(0, 17, (SIDE, SIDE)).astype("f4")
        wgt = np.full((SIDE, SIDE), 1 / 17**2, "f4")
        msk = np.zeros((SIDE, SIDE), "i2")
        if chip == 4:
            wgt[:], msk[:] = 0, 1
        head = header(sci.shape, place, band, chip)
        planes = [Plane("SCI", sci, head), Plane("WGT", wgt), Plane("WGT_ME", wgt), Plane("MSK", msk, head)]
        write_images(tree.nullwt(band, name), planes)
        psf_model().write(tree.psf(name))
        lists["nullwt"].append(f"{tree.nullwt(band, name)} {MAGZP[chip]:.16g}")
        lists["seg"].append(f"/archive/{name}_segmap.fits.fz")
        lists["bkg"].append(f"/archive/{name}_bkg.fits.fz")
        psfmap.append(f"{100 + chip:08d} {chip:02d} {tree.psf(name)}")
    for kind, lines in lists.items():
        tree.flist(kind, band).write_text("\n".join(lines) + "\n")
    tree.psfmap(band).write_text("\n".join(psfmap) + "\n")
    conf = {
        **{"band": band, "tilename": TILE, "coadd_image_url": "/archive/coadd.fits.fz", "coadd_magzp": 30},
        **{"coadd_cat_url": str(tree.catalog(band)), "coadd_seg_url": str(tree.segmap(band))},
        **{
            f"{key}_flist": str(tree.flist(kind, band))
            for key, kind in (("nwgint", "nullwt"), ("seg", "seg"), ("bkg", "bkg"))
        },
        "meds_url": str(tree.meds(band)),
    }
    tree.fileconf(band).write_text(yaml.safe_dump(conf))
