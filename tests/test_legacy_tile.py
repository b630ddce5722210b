"""Every command users know, with its old arguments, on a tile of real sky: base run and realization."""

import pytest
from conftest import CHECKOUT, REAL_TILE, fit_exponentials

from balrogutils.fitsfile import read_table
from balrogutils.meds import MEDS

pytestmark = pytest.mark.long

BIN = CHECKOUT / "bin"
GALSIM, SOF = "bal_config_DES1226+2527.yaml", "run-y3v02-sof.yaml"
MOF, SHR = "run-y3v02-mof.yaml", "run-all-mcal.yaml"


def rows(path, ext=1):
    return len(read_table(path, ext))


@pytest.mark.slowest
def test_the_old_commands_make_a_tile(archive, base, command, tmp_path):
    for name in ("Snakefile", "rules", "profiles"):
        (base / name).symlink_to(CHECKOUT / name)
    fit_exponentials(base, "sof", "mof")
    # A relative meds base starts above the checkout.
    meds_data, workdir = base.parent / "meds here", tmp_path / "workdir"
    tree = meds_data / "y3v02" / REAL_TILE
    realization = meds_data / "y3v02" / "balrog_images" / "1" / "y3v02" / REAL_TILE

    def run(name, *words, status=0, **environment):
        done = command(str(BIN / name), *words, **environment)
        assert done.returncode == status, done.stderr[-3000:]
        return done.stderr

    # -g NAME is looked up in Balrog-GalSim/config first; the literal BALROG-BASE stands for the checkout.
    shelf = base / "Balrog-GalSim" / "config"
    shelf.mkdir(parents=True)
    text = (base / "inputs" / GALSIM).read_text()
    assert "dir: inputs" in text
    (shelf / "mine.yaml").write_text(text.replace("dir: inputs", "dir: BALROG-BASE/inputs"))

    # The number of cores is the number of bands when none is given.
    run("RunBase.sh", "meds here", REAL_TILE, "mine.yaml", "7")
    assert "Provided cores: 3" in (workdir / f"base_{REAL_TILE}.log").read_text()
    assert {path.name for path in tree.glob("*meds-y3v02.fits.fz")} == {
        f"{REAL_TILE}_{band}_meds-y3v02.fits.fz" for band in "grz"
    }

    run("RunInject.sh", str(meds_data / "y3v02"), REAL_TILE, "mine.yaml", "2")
    injected = rows(realization / f"{REAL_TILE}_1_balrog_truth_cat.fits")
    assert injected > 50
    assert "Nothing to be done" not in (workdir / f"base_{REAL_TILE}.log").read_text()

    options = ["-c", "meds-y3v02.yaml", "-t", REAL_TILE, "-g", str(shelf / "mine.yaml"), "-n", "2", "-m", "48"]
    run("BalrogBase.py", *options, MEDS_DATA=str(meds_data))
    with MEDS(realization / f"{REAL_TILE}_g_meds-y3v02.fits.fz") as meds:
        objects = meds.size
    assert objects > injected / 2

    run("RunSof.sh", "meds here", REAL_TILE, SOF, "2")
    # The fits held the tile as every run does.
    assert "snakemake" in (tree / "logs" / f"{REAL_TILE}_run.lock").read_text()
    assert "Provided cores: 2" in (workdir / f"sof_{REAL_TILE}.log").read_text()
    run("RunSof.sh", "meds here/y3v02/balrog_images/1", REAL_TILE, SOF, "2")
    base_fit = meds_data / "y3v02-sof" / "output" / f"{REAL_TILE}-y3v02-sof.fits"
    fit = meds_data / "balrog_images" / "1" / "y3v02-sof" / "output" / f"{REAL_TILE}-y3v02-sof.fits"
    assert rows(fit, "model_fits") == objects
    assert rows(base_fit, "model_fits") == rows(tree / "coadd" / f"{REAL_TILE}_g_cat.fits")

    options = ["-c", str(base / "sof-config" / SOF), "-t", REAL_TILE, "-n", "2"]
    run("BalrogSofMegamixer.py", *options, MEDS_DATA=str(meds_data / "y3v02" / "balrog_images" / "0"))
    assert (meds_data / "balrog_images" / "0" / "y3v02-sof" / "output" / f"{REAL_TILE}-y3v02-sof.fits").is_file()

    run("RunMof.sh", "meds here", REAL_TILE, MOF, "2")
    assert "Provided cores: 2" in (workdir / f"mof_{REAL_TILE}.log").read_text()
    assert rows(meds_data / "y3v02-mof" / "output" / f"{REAL_TILE}-y3v02-mof.fits", "model_fits") == rows(
        base_fit, "model_fits"
    )
    # Metacal of the base run alone, and in one band: what the commands do does not depend on it.
    shapes = base / "shr-config" / SHR
    shapes.write_text(shapes.read_text().replace("from_tile", "[r]"))
    run("RunShr.sh", "meds here", REAL_TILE, SHR, "2")
    assert "Provided cores: 2" in (workdir / f"shr_{REAL_TILE}.log").read_text()
    run("RunBfd.sh", "meds here", REAL_TILE)
    assert "Provided cores: 3" in (workdir / f"bfd_{REAL_TILE}.log").read_text()
    for made in (f"y3v02-mcal/output/{REAL_TILE}-y3v02-mcal.fits", f"y3v02-bfd/output/{REAL_TILE}_BFDgrz.fits"):
        assert rows(meds_data / made, "model_fits") == rows(base_fit, "model_fits")
    options = ["-c", str(base / "mof-config" / MOF), "-t", REAL_TILE, "-n", "2"]
    run("BalrogMofMegamixer.py", *options, MEDS_DATA=str(meds_data / "y3v02" / "balrog_images" / "0"))
    assert (meds_data / "balrog_images" / "0" / "y3v02-mof" / "output" / f"{REAL_TILE}-y3v02-mof.fits").is_file()

    # A realization that nobody made.
    told = run("RunSof.sh", str(meds_data / "y3v02/balrog_images/7"), REAL_TILE, SOF, "2", status=2)
    assert "block 32 makes it" in told
    # A run that fails hands its status on.
    (tree / f"{REAL_TILE}_r_meds-y3v02.fits.fz").unlink()
    (tree / "coadd" / f"{REAL_TILE}_r.fits").write_bytes(b"no FITS")
    told = run("RunBase.sh", str(meds_data), REAL_TILE, "mine.yaml", "4", "2", status=1)
    assert "is not as step coadd left it" in told
