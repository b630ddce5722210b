"""A field of noise as blocks 1 leaves it, for measurements of injected shear: blocks 8, 16, 32 and 256 on top of it."""

from pathlib import Path

import numpy as np
import yaml
from injection_tile import header

from balrogutils.archive.geometry import Geometry
from balrogutils.blocks.catalog import catalog
from balrogutils.blocks.coadd import coadd, detection
from balrogutils.blocks.inject import inject, plan, truth
from balrogutils.blocks.mcal import mcal
from balrogutils.blocks.meds import meds
from balrogutils.context import Context
from balrogutils.exposures.chip import PreparedChip
from balrogutils.exposures.lists import write_lists
from balrogutils.fitsfile import Plane, write_images
from balrogutils.layout import Site
from balrogutils.psf import PSFEx
from balrogutils.randomness import stream
from balrogutils.settings.campaign import Campaign
from balrogutils.settings.pipeline import Pipeline

CHECKOUT = Path(__file__).resolve().parents[1]
EXAMPLE = CHECKOUT / "inputs" / "examples" / "12_shear_pairs.yaml"
TILE, BAND = "DES0239+0216", "r"
RA, DEC = 39.9634, 2.2744
# Angle, offset of the centre (pixels), zero point, noise of the sky (chip units), FWHM and shape of the PSF.
EXPOSURES = (
    (0.20, (0, 0), 31.0, 10.0, 3.8, (0.03, -0.01)),
    (1.80, (31, -18), 31.3, 12.0, 4.2, (-0.01, 0.02)),
    (-0.04, (-22, 40), 30.8, 9.0, 3.6, (0.02, 0.02)),
)


def psf_model(side, fwhm, shape, seed):
    """An elliptical Moffat whose width and shape change over the image by a few per cent."""
    rng = stream(1, "shear tile", "psf", seed)
    y, x = (np.mgrid[:51, :51] - 25.0) * 0.7

    def moffat(width, g1, g2):
        # The image of a round profile under a shear.
        u, v = (1 - g1) * x - g2 * y, -g2 * x + (1 + g1) * y
        scale = width / 2 / np.sqrt(2 ** (1 / 3.0) - 1)
        image = (1 + (u**2 + v**2) / (1 - g1**2 - g2**2) / scale**2) ** -3.0
        return image / image.sum()

    mean = moffat(fwhm, *shape)
    slopes = [moffat(fwhm * (1 + 0.03 * a), shape[0] + 0.01 * b, shape[1] + 0.01 * c) - mean
              for a, b, c in rng.uniform(-1, 1, (2, 3))]  # fmt: skip
    half = (side + 1) / 2
    return PSFEx(np.array([mean, *slopes]), 1, (half, half), (side / 2, side / 2), 0.7, fwhm)


def make_field(root, side, shear, realizations):
    """Write the base tile, `side` pixels wide, and return the context of its base run.

    The injections are those of the example of shear pairs, with another shear.
    """
    root.mkdir(parents=True, exist_ok=True)
    config = yaml.safe_load(EXAMPLE.read_text())
    config["gal"]["shear"] |= {"g1": shear[0], "g2": shear[1]}
    config["image"]["realizations"] = [int(name) for name in realizations]
    (root / "pairs.yaml").write_text(yaml.safe_dump(config))
    # No catalogue of fitted groups: the galaxies stand alone.
    metacal = {"run": "pairs-mcal", "jobs": {"bands": "from_tile"}, "correct_meds": {"mof_run": None}}
    (root / "run-pairs-mcal.yaml").write_text(yaml.safe_dump(metacal))
    places = {"BALROG_BASE": str(CHECKOUT), "MEDS_DATA": str(root / "meds"), "TMPDIR": str(root / "tmp")}
    names = {"galsim_config": str(root / "pairs.yaml"), "shr_config": str(root / "run-pairs-mcal.yaml")}
    campaign = Campaign(kind="desdm", database="sqlite://", archive="file:///", bands=(BAND,), det=(BAND,), name="test")
    pipeline = Pipeline(**names, desmeds_config="meds-y3v02.yaml", bands=(BAND,), realizations=realizations)
    context = Context(Site.from_environment("y3v02", places), pipeline, campaign, TILE)
    tree = context.tree
    Geometry.tangent(TILE, RA, DEC, side, side, 0.263).write(tree.geometry)
    chips = [_exposure(tree, number, side + 160, *about) for number, about in enumerate(EXPOSURES, start=1)]
    _, _, _, _, fwhm, shape = EXPOSURES[0]
    psf_model(side, fwhm, shape, 0).write(tree.coadd_psf(BAND))
    write_lists(tree, BAND, chips, tree.coadd_psf(BAND), {})
    return context


def _exposure(tree, number, side, angle, offset, magzp, noise, fwhm, shape):
    name = f"D{100 + number:08d}_{BAND}_c{number:02d}_r0001p01"
    cards = header((side, side), offset, BAND, number, angle)
    for key in ("GAINA", "GAINB"):
        cards.add_record({"name": key, "value": 4.0 if key == "GAINA" else 4.3})
    shape_of_image = (side, side)
    sci = stream(1, "shear tile", "sky", number).normal(0.0, noise, shape_of_image).astype(np.float32)
    weight = np.full(shape_of_image, noise**-2, np.float32)
    mask = np.zeros(shape_of_image, np.int16)
    planes = [Plane("SCI", sci, cards), Plane("WGT", weight), Plane("WGT_ME", weight), Plane("MSK", mask, cards)]
    write_images(tree.nullwt(BAND, name), planes)
    write_images(tree.chip_bkg(BAND, name), [Plane("SCI", np.zeros(shape_of_image, np.float32))])
    write_images(tree.chip_segmap(BAND, name), [Plane("SCI", np.zeros(shape_of_image, np.int32))])
    psf_model(side, fwhm, shape, number).write(tree.psf(name))
    files = tree.nullwt(BAND, name), tree.chip_segmap(BAND, name), tree.chip_bkg(BAND, name), tree.psf(name)
    return PreparedChip(name, magzp, *files, 0, 0, False)


def measured(context):
    """Take one realization through blocks 8, 16, 32 and 256, one process, and remove its images."""
    plan(context)
    inject(context, BAND)
    truth(context)
    coadd(context, BAND)
    detection(context)
    catalog(context, BAND)
    meds(context, BAND)
    mcal(context, workers=1)
    tree = context.tree
    for name in (*tree.nullwt_dir(BAND).glob("*.fits"), *(tree.dir / BAND).glob("*.fits"), tree.meds(BAND)):
        name.unlink()
