"""The template of the survey and the production-like example on both embedded tiles, audited to the last pixel."""

import re

import pytest
from conftest import REAL_TILE
from science_tile import TILE

from balrogutils.blocks.audit import audit
from balrogutils.context import Installation
from balrogutils.fitsfile import read_table
from balrogutils.injection.flags import ChipFlag

EXAMPLES = {"14_production": "30", "15_des_template": "31"}


def check(found, truth, chips):
    """An audit with every object drawn again, and what the truth says of itself."""
    assert found.sound, str(found)
    assert found.objects == len(truth) > 0
    assert {str(name) for name in truth["inj_type"]} == {"ngmixGalaxy", "desStar"}
    for band in found.bands:
        assert band.lit > 0
        assert band.worst < 1.0
        assert band.rows == (chips["band"] == band.band).sum() > 0
    # An object that no chip clips has all its light there.
    whole = chips[(chips["flags"] & (ChipFlag.CLIPPED_BY_EDGE | ChipFlag.ON_BAD_PIXELS)) == 0]
    assert (abs(whole["flux_on_chip"] / whole["flux_expected"] - 1.0) <= 1e-4).all()


@pytest.mark.long
@pytest.mark.parametrize("name", EXAMPLES)
def test_on_the_tile_of_real_sky(archive, base, command, name):
    given = [f"galsim_config=examples/{name}.yaml", "realizations=0", "mode=9"]
    if name == "15_des_template":
        # The tile has 66 arcsec a side, and the grid keeps one spacing from its border.
        file = base / "inputs" / "examples" / f"{name}.yaml"
        file.write_text(file.read_text().replace("grid_spacing: 20", "grid_spacing: 10"))
    done = command("snakemake", "--cores", "2", f"tile={REAL_TILE}", "--config", *given)
    assert done.returncode == 0, done.stderr[-3000:]
    words = [word for one in given[:2] for word in ("--set", one)]
    told = command("balrog", "audit", REAL_TILE, "--redraw", *words)
    assert told.returncode == 0, told.stdout + told.stderr
    assert re.search(
        r"realization 0: \d+ objects in the truth\n(?:  [grz]: .* 0 problems\n){3}  pixels are", told.stdout
    )
    places = {"BALROG_BASE": str(base), "TMPDIR": str(base.parent)}
    context = Installation.load(dict(one.split("=") for one in given[:2]), places).context(REAL_TILE, "0")
    truth, chips = read_table(context.tree.truth, "TRUTH"), read_table(context.tree.truth_chips, "CHIPS")
    check(audit(context), truth, chips)


@pytest.mark.science
@pytest.mark.parametrize("name", EXAMPLES)
def test_on_the_tile_of_the_synthetic_survey(science, name):
    realization = EXAMPLES[name]
    science.make(f"examples/{name}.yaml", [realization], mode=9)
    given = {"realizations": realization, "galsim_config": f"examples/{name}.yaml"}
    context = Installation.load(given, science.environment).context(TILE, realization)
    truth, chips = read_table(context.tree.truth, "TRUTH"), read_table(context.tree.truth_chips, "CHIPS")
    found = audit(context, redraw=True)
    check(found, truth, chips)
    rows = [
        (band.band, f"{band.lit} of {band.chips}", band.rows, band.groups, f"{band.worst:.2f}") for band in found.bands
    ]
    header = ["band", "CCDs injected", "stamps", "groups", "largest difference of what is allowed"]
    science.figures(f"audit_{name}_{len(truth)}_objects", header, rows)
