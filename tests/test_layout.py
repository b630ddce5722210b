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
    moments = "m/balrog_images/1/y3v02-bfd/output/DES0239+0216_BFDgriz.fits"
    assert tree.moments(("g", "r", "i", "z")) == tmp_path / moments
    assert tree.dir == tmp_path / "m/y3v02/balrog_images/1/y3v02/DES0239+0216"
    assert tree.truth.name == "DES0239+0216_1_balrog_truth_cat.fits"
    assert tree.fit("sof") == tmp_path / "m/balrog_images/1/y3v02-sof/output/DES0239+0216-y3v02-sof.fits"
    chip = "D00572501_z_c01_r3624p01"
    assert tree.nullwt("z", chip).name == f"{chip}_immasked_nullwt.fits"
    assert tree.injected("z", chip) == tree.dir / "z" / f"{chip}_balrog_inj.fits"


@pytest.mark.parametrize("name", ["MEDS_DATA", "BALROG_BASE", "TMPDIR", "DES_SERVICES"])
def test_a_home_that_is_not_there(name):
    with pytest.raises(ConfigError, match="no home directory"):
        Site.from_environment("y3v02", {name: "~nobody-of-that-name/x"})


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


@pytest.mark.parametrize("name", ["MEDS_DATA", "NGMIXER_OUTPUT_DIR", "TMPDIR"])
def test_directories_that_cannot_be_used_are_told_before_anything_starts(tmp_path, name):
    (tmp_path / "file").write_text("x")
    here = {"BALROG_BASE": str(tmp_path), "TMPDIR": str(tmp_path)}
    Site.from_environment("y3v02", here | {name: str(tmp_path / "new é +" / "below")}).check()
    for bad, message in (
        ("file", "not a directory"),
        ("file/below", "not a directory"),
        ("a{b}", "in its name"),
        ("a[b]", "in its name"),
    ):
        with pytest.raises(ConfigError, match=message):
            Site.from_environment("y3v02", here | {name: str(tmp_path / bad)}).check()
