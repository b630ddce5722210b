"""What can be wrong with a run on one image: its files, its arguments, its rules file; each is in run.log.txt too."""

from functools import partial

import numpy as np
from row import Row

from balrogutils.fitsfile import Plane, write_images

EXAMPLE = "inputs/decam_galaxy_r_1exp"
RULES = "inputs/pyconfig/02_catalogue.py"
OUT = "run/image"
PSF = f"--psf {EXAMPLE}/example.psf"


def _logged(world, seen):
    """Check that run.log.txt holds every line of the message."""
    log = (world.base / OUT / "balrog_log" / "run.log.txt").read_text()
    for line in seen.told.splitlines():
        assert line.strip() in world._shortened(log), line
    return "new: run.log.txt, which holds the message"


IMAGE = partial(Row, "One image", leaves=(f"{OUT}/balrog_log/*",), check=_logged)
LONG = partial(IMAGE, long=True)


LISTED = partial(Row, "One image", long=True)


def _list(text):
    """Have a list of images."""
    return lambda world: (world.base / "list.csv").write_text(text)


def _rules(*lines):
    """Have the rules file say something else."""
    text = "from model_class import *\n\ndef SimulationRules(args, rules, sampled):\n"
    text += "".join(f"    {line}\n" for line in lines)
    return lambda world: world.replace(RULES, text.encode())


def rule(wrong, says, *lines, kind=LONG):
    return kind(wrong, "balrog image -sv q", says, breaks=_rules(*lines))


def _small_weight(world):
    write_images(world.base / "small.fits", [Plane("WGT", np.ones((50, 60), dtype=np.float32))])


def _no_wcs(world):
    write_images(world.base / "flat.fits", [Plane("SCI", np.ones((50, 60), dtype=np.float32))])


def _went_on(world, seen):
    """Check that the image was made all the same."""
    assert list((world.base / OUT / "balrog_image").glob("*.sim.fits"))
    return _logged(world, seen)


WARNED = partial(
    Row, "One image", status=0, remedy=False, leaves=(f"{OUT}/*",), check=_went_on, long=True, stage="bare"
)

ROWS = [
    IMAGE("image that is not there", f"balrog image -i nowhere.fits {PSF}", "code: 101.*nowhere.fits, key --image"),
    LONG("weight map that is not there", "balrog image --weight nowhere.fits", "code: 102.*key --weight"),
    LONG("PSF model that is not there", "balrog image --psf nowhere.psf", "code: 103.*key --psf"),
    LONG("image without a PSF model", "balrog image -i mine.fits", "code: 104.*no PSF model.*key --psf"),
    IMAGE("image that is no FITS file", f"balrog image -i inputs/README.md {PSF}", "code: 111.*inputs/README.md"),
    LONG("weight map that is no FITS file", "balrog image -w inputs/README.md", "code: 112.*key --weight"),
    LONG("PSF model that is no FITS file", "balrog image -p inputs/README.md", "code: 113.*key --psf"),
    LONG("HDU that is not there", "balrog image -ie 5", "code: 121.*no HDU 5, only 0 to 0.*key --imageext"),
    LONG("PSF model that is not PSFEx", f"balrog image -p {EXAMPLE}/cosmos.fits", "code: 123.*not a PSFEx model"),
    LONG("table instead of an image", f"balrog image -i {EXAMPLE}/cosmos.fits -ie 1 {PSF}", "code: 131.*no image"),
    LONG(
        "weight map of another shape",
        "balrog image -w small.fits",
        "code: 135.*60 x 50 pixels, the image 280 x 375.*file small.fits",
        breaks=_small_weight,
    ),
    LONG("first column behind the last", "balrog image -x1 90 -x2 80", "code: 136.*--xmin 90 is larger than --xmax 80"),
    LONG("first row behind the last", "balrog image -y1 90 -y2 80", "code: 137.*--ymin 90 is larger than --ymax 80"),
    LONG("SExtractor that is not there", "balrog image -sex /nowhere/sex", "code: 140.*not at /nowhere/sex"),
    LONG(
        "SExtractor that fails on one image",
        "balrog image -n 2",
        "sextractor ended with status 3",
        status=1,
        breaks=lambda world: world.program("sex source-extractor sextractor", "echo no >&2; exit 3"),
        leaves=(f"{OUT}/*",),
    ),
    LONG(
        "columns for SExtractor that are not there",
        "balrog image -sp nowhere.param",
        "a file for SExtractor does not exist.*nowhere.param, key --sexparam",
    ),
    LONG("argument misspelt", "balrog image --ngall 3", "unrecognized arguments: --ngall 3"),
    LONG("number of galaxies in words", "balrog image -n many", "-n/--ngal: invalid int value: 'many'"),
    LONG("no galaxies", "balrog image -n 0", "--ngal is 0.*key --ngal"),
    LONG("no realizations", "balrog image --realizations 0", "--realizations is 0.*key --realizations"),
    LONG("PSF stamp that is none", f"balrog image -p {EXAMPLE}/example.fits", "code: 123.*no PSF stamp"),
    LONG("weight map of an unknown kind", "balrog image --weighttype sigma", "invalid choice: 'sigma'"),
    LONG(
        "variance that is not to be read",
        "balrog image --weighttype var --noweightread",
        "a weight map of var must be read.*key --weighttype",
    ),
    IMAGE(
        "output directory that is a file",
        "balrog image",
        f"code: 201.*file {OUT}, key --outdir",
        breaks=lambda world: (world.base / OUT).write_text("taken"),
        leaves=(),
        check=None,
    ),
    LONG("rules file that is not there", "balrog image -pc nowhere.py", "code: 150.*file nowhere.py, key --pyconfig"),
    rule("rules file that is no Python", f"code: 151.*file {RULES}, key line 4", "rules.x = = 3"),
    rule("rules file that raises", "code: 152.*NameError: name 'xx'.*key line 4.*\n.*\n *rules.x = xx", "rules.x = xx"),
    rule("parameter misspelt", "code: 301.*did you mean 'magnitude'.*key line 4", "rules.magnitud = 20"),
    rule(
        "rules in a circle",
        "code: 303.*rules.x .line 4 of .*needs rules.y .line 5 of .*needs rules.x",
        "rules.x = sampled.y",
        "rules.y = sampled.x",
        kind=IMAGE,
    ),
    rule("sum of what is not sampled yet", "code: 303.*sampled.y has no values yet", "rules.x = sampled.y + 1"),
    rule(
        "too few rules for the components",
        "code: 306.*needs a list of 2.*key line 5",
        "InitializeSersic(rules, sampled, nProfiles=2)",
        "rules.beta = 0",
    ),
    rule(
        "function that returns the wrong length",
        "code: 501.*rules.x: the function zeros returned an array of shape .51,..*key line 4",
        "rules.x = Function(np.zeros, [args.ngal + 1])",
    ),
    rule(
        "function that returns NaN",
        "code: 501.*rules.x: the function full gives nan for object 0, 50 such of 50.*key line 4",
        "rules.x = Function(np.full, [args.ngal, np.nan])",
    ),
    rule(
        "catalogue that is not there",
        "code: 504.*nowhere.fits.*key line 4",
        "rules.x = Catalog('nowhere.fits', 1, 'X')",
    ),
    rule(
        "column misspelt",
        "code: 506.*no column IMAGG: did you mean 'IMAG'.*key line 4",
        f"rules.magnitude = Catalog('{EXAMPLE}/cosmos.fits', 1, 'IMAGG')",
    ),
    LISTED("no list of images", "balrog images nowhere.csv", "the list of images is not there.*nowhere.csv"),
    LISTED(
        "column that no argument has",
        "balrog images list.csv",
        "no argument wieght: did you mean 'weight'.*key image 1",
        breaks=_list("image,wieght\na.fits,b.fits\n"),
    ),
    LISTED(
        "two images of one name",
        "balrog images list.csv",
        "two images are called a.*key image 2",
        breaks=_list("image,psf\na.fits,a.psf\na.fits,b.psf\n"),
    ),
    LISTED(
        "image that the list does not have",
        "balrog images list.csv --name b",
        "the list has no image b.*key --name",
        breaks=_list("image,psf\na.fits,a.psf\n"),
    ),
    LISTED("no list of images for Snakemake", "snakemake -s rules/image.smk -n", "no list of images is named"),
    WARNED(
        "image without WCS or cards",
        f"balrog image -i flat.fits -w flat.fits -we 0 {PSF} -io -n 1 -s 1",
        "flat.fits has no WCS; 0.263 arcsec per pixel is taken",
        breaks=_no_wcs,
    ),
    WARNED(
        "part that goes beyond the image", "balrog image -x1 0 -io -n 1 -s 1", "--xmin 0 lies outside the image: 1 is"
    ),
]
