"""A foreign tile of real sky: adopted, injected into and measured, as a user does it."""

import re
import shlex
import shutil

import numpy as np
import pytest
from conftest import REAL_TILE as TILE
from conftest import fit_exponentials
from foreign_tile import age, state
from test_workflow import counted

from balrogutils.archive.geometry import Geometry
from balrogutils.fitsfile import read_image, read_table
from balrogutils.layout import Site
from balrogutils.meds import MEDS

BANDS = "grz"
pytestmark = pytest.mark.long


@pytest.mark.slowest
def test_a_foreign_tile_is_adopted_and_injected_into(archive, base, command):
    def succeed(*words, **environment):
        done = command(*words, **environment)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout + done.stderr

    fit_exponentials(base, "sof")
    succeed("snakemake", "--cores", "2", f"tile={TILE}", "--config", "mode=3")
    old, new = base / "run" / "meds", base / "brought here"
    tree = Site.from_environment("y3v02", {"BALROG_BASE": str(base), "MEDS_DATA": str(new)}).tree(TILE)
    shutil.move(old, new)
    geometry = Geometry.read(tree.geometry)
    age(tree, BANDS)
    # Nothing here knows the tile but its own files.
    shutil.rmtree(archive)
    here = {"MEDS_DATA": str(new)}

    before = state(tree.dir)
    refused = command("balrog", "adopt", TILE, **here)
    assert refused.returncode == 1
    assert "none of the 2 files of a list is there" in refused.stderr
    assert state(tree.dir) == before
    option = re.search(r"remedy: the tile was moved: balrog adopt \S+ (--moved .*)", refused.stderr)
    told = succeed("balrog", "adopt", TILE, "--set", "campaign=decam", *shlex.split(option[1]), **here)
    assert "adopted prep g r z" in told
    assert "adopted coadd g r z det" in told
    assert "adopted catalog g r z" in told
    assert f"meds g: {tree.meds('g')} is not there" in told
    made = Geometry.read(tree.geometry)
    # SWarp's header has the centre to the last digit and the scale to ten; the archive's identifier is not in it.
    assert made.wcs().offset(geometry.wcs(), (geometry.naxis2, geometry.naxis1)) < 1e-6
    assert (made.ra_cent, made.dec_cent, made.pixelscale) == (geometry.ra_cent, geometry.dec_cent, geometry.pixelscale)

    adopted = state(tree.dir)
    succeed(
        "snakemake", "--cores", "2", f"tile={TILE}", "--config", "campaign=decam", "mode=12", "realizations=0", **here
    )
    after = state(tree.dir)
    assert {name: after[name] for name in adopted} == adopted
    injected = Site.from_environment("y3v02", {"BALROG_BASE": str(base), "MEDS_DATA": str(new)}).tree(TILE, "0")
    truth = read_table(injected.truth)
    assert len(truth) > 50
    assert (truth["outcome"] == 0).sum() > len(truth) / 2
    for band in BANDS:
        images = sorted(tree.nullwt_dir(band).iterdir())
        gained = [
            read_image(injected.nullwt_dir(band) / image.name, "SCI").astype(float) - read_image(image, "SCI")
            for image in images
        ]
        assert all(np.count_nonzero(difference) > 100 and difference.sum() > 0 for difference in gained)
        with MEDS(tree.meds(band)) as file:
            assert file.size == len(read_table(tree.catalog(band)))

    # All that can follow, with nothing of the adopted steps made again.
    plan = command(
        "snakemake", "-n", f"tile={TILE}", "--config", "campaign=decam", "mode=1150", "realizations=0", **here
    )
    assert counted(plan.stdout + plan.stderr) == {
        **{"coadd": 3, "detection": 1, "psf_maps": 1, "catalog": 3, "meds": 3, "sof": 2, "match": 1, "tile_report": 1},
        **{f"tile={TILE}": 1, "total": 16},
    }
    succeed(
        "snakemake", "--cores", "2", f"tile={TILE}", "--config", "campaign=decam", "mode=1150", "realizations=0", **here
    )
    assert len(read_table(injected.match)) == len(truth)
    after = state(tree.dir)
    assert {name: after[name] for name in adopted} == adopted
    again = succeed(
        "snakemake", "--cores", "2", f"tile={TILE}", "--config", "campaign=decam", "mode=1150", "realizations=0", **here
    )
    assert "Nothing to be done" in again
