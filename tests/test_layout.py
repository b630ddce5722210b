"""Directories and product names."""

import pytest

from balrogutils.errors import ConfigError
from balrogutils.layout import Site, chip_of


def test_defaults_lie_under_run(tmp_path):
    site = Site.from_environment("y3v02", {"BALROG_BASE": str(tmp_path)})
    tree = site.tree("DES0239+0216")
    assert tree.meds("g") == tmp_path / "run/meds/y3v02/DES0239+0216/DES0239+0216_g_meds-y3v02.fits.fz"
    assert tree.fit("sof") == tmp_path / "run/meds/y3v02-sof/output/DES0239+0216-y3v02-sof.fits"


def test_a_realization_looks_like_a_fresh_meds_data(tmp_path):
    site = Site.from_environment("y3v02", {"BALROG_BASE": str(tmp_path), "MEDS_DATA": str(tmp_path / "m")})
    tree = site.tree("DES0239+0216", "1")
    assert tree.dir == tmp_path / "m/y3v02/balrog_images/1/y3v02/DES0239+0216"
    assert tree.truth.name == "DES0239+0216_1_balrog_truth_cat.fits"
    assert tree.fit("sof") == tmp_path / "m/balrog_images/1/y3v02-sof/output/DES0239+0216-y3v02-sof.fits"
    chip = "D00572501_z_c01_r3624p01"
    assert tree.nullwt("z", chip).name == f"{chip}_immasked_nullwt.fits"
    assert tree.injected("z", chip) == tree.dir / "z" / f"{chip}_balrog_inj.fits"


def test_contradictions_are_errors(tmp_path):
    with pytest.raises(ConfigError, match="MEDS_DIR"):
        Site.from_environment("y3v02", {"MEDS_DATA": "/a", "MEDS_DIR": "/b"})
    with pytest.raises(ConfigError, match="medsconf=y6"):
        Site.from_environment("y3v02", {"medsconf": "y6"})
    assert (
        Site.from_environment("y3v02", {"MEDS_DIR": "/b"}).meds_data
        == Site.from_environment("y3v02", {"MEDS_DATA": "/b"}).meds_data
    )


def test_an_empty_variable_counts_as_unset(tmp_path):
    site = Site.from_environment("y3v02", {"BALROG_BASE": str(tmp_path), "MEDS_DATA": "", "TMPDIR": ""})
    assert site.meds_data == tmp_path / "run/meds"
    assert site.tmp == tmp_path / "run/tmp"


def test_chip_names():
    assert chip_of("/a/b_c/D00572501_z_c01_r3624p01_immasked.fits.fz") == "D00572501_z_c01_r3624p01"
