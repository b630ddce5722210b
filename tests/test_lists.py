"""Lists and SCAMP heads: real DES files are read, and what is written has their format exactly."""

import re
from pathlib import Path

import fitsio
import numpy as np
import pytest
import yaml

from balrogutils.errors import ArchiveError, ProductError
from balrogutils.exposures.chip import PreparedChip, numbers_of
from balrogutils.exposures.lists import fileconf, read_flist, read_psfmap, read_zero_points, write_lists
from balrogutils.exposures.scamphead import WCS_KEYS, read_ohead, replace_wcs
from balrogutils.layout import Site
from balrogutils.wcs import ImageWCS

DES = Path(__file__).parent / "data" / "des"
HEAD = DES / "DES2041-5248_r4575p02_D00572501_z_c01_scamp.ohead"
TILE = "DES2122+0001"


def tree(directory):
    return Site.from_environment("y3v02", {"BALROG_BASE": str(directory)}).tree(TILE)


def chips(directory, count=3):
    names = [f"D{229342 + i:08d}_g_c{4 + i:02d}_r2356p01" for i in range(count)]
    points = (31.23681640625, 31.2344131469726563, 31.0)
    return [
        PreparedChip(
            name, points[i], *(directory / f"{name}.{kind}" for kind in ("nullwt", "seg", "bkg", "psf")), 0, 0, False
        )
        for i, name in enumerate(names)
    ]


@pytest.mark.parametrize("text", ["nothing", "/a/b.fits ", "/a/b.fits x", "/a/b.fits nan", "31.2"])
def test_a_line_without_path_and_zero_point_is_refused(tmp_path, text):
    path = tmp_path / "list.dat"
    path.write_text("/a/first.fits 31.2\n" + text + "\n")
    with pytest.raises(ProductError, match="line 2"):
        read_zero_points(path)


@pytest.mark.parametrize("text", ["", "00229342 45 /a\n", "-9999 -9999 /a\n-9999 -9999 /b\n", "-9999 -9999\n"])
def test_a_psf_map_without_its_one_coadd_is_refused(tmp_path, text):
    path = tmp_path / "map.dat"
    path.write_text(text)
    with pytest.raises(ProductError):
        read_psfmap(path)


def test_lists_that_are_not_there(tmp_path):
    for read in (read_flist, read_zero_points, read_psfmap):
        with pytest.raises(ProductError, match="not there"):
            read(tmp_path / "none.dat")


def test_the_lists_of_a_real_tile_are_read(monkeypatch):
    monkeypatch.setenv("MEDS_DIR", "/some/where")
    images = read_zero_points(DES / f"{TILE}_g_fcut-flist-y3v02.dat")
    segs, bkgs = (read_flist(DES / f"{TILE}_g_{kind}-flist-y3v02.dat") for kind in ("seg", "bkg"))
    psfs = read_psfmap(DES / f"{TILE}_g_psfmap-y3v02.dat")
    assert len(images) == len(segs) == len(bkgs) == len(psfs) - 1 == 66
    assert images[0][1] == 31.23681640625
    assert psfs[0].expnum == psfs[0].ccdnum == "-9999"
    assert psfs[1][:2] == ("00229342", "45")
    assert psfs[1].path == Path("/some/where/y3v02/DES2122+0001/psfs/D00229342_g_c45_r2356p01_psfexcat.psf")
    for (image, _), seg, bkg, psf in zip(images, segs, bkgs, psfs[1:], strict=True):
        assert numbers_of(image.name) == numbers_of(seg.name) == numbers_of(bkg.name) == psf[:2]


def test_lists_are_written_as_the_survey_writes_them(tmp_path):
    here = tree(tmp_path)
    made = chips(tmp_path)
    coadd = tmp_path / f"{TILE}_r2601p01_g_psfcat.psf"
    written = write_lists(here, "g", made, coadd, {})
    assert all(path.is_file() for path in written)
    assert here.flist("nullwt", "g").read_text().splitlines()[1] == f"{made[1].nullwt} 31.23441314697266"
    for kind in ("nullwt", "seg", "bkg"):
        real = (DES / f"{TILE}_g_{'fcut' if kind == 'nullwt' else kind}-flist-y3v02.dat").read_text()
        pattern = re.compile(r"^\S+( \d+\.\d+)?$")
        for line in (*real.splitlines()[:3], *here.flist(kind, "g").read_text().splitlines()[:2]):
            assert pattern.match(line)
            assert (" " in line) == (kind == "nullwt")
    assert read_zero_points(here.flist("nullwt", "g")) == [
        (chip.nullwt, pytest.approx(chip.magzp, rel=1e-15)) for chip in made
    ]
    assert read_flist(here.flist("seg", "g")) == [chip.seg for chip in made]
    assert read_flist(here.flist("bkg", "g")) == [chip.bkg for chip in made]
    assert here.psfmap("g").read_text().splitlines()[0] == f"-9999 -9999 {coadd}"
    assert read_psfmap(here.psfmap("g"))[1:] == [(*numbers_of(chip.chip), chip.psf) for chip in made]


def test_the_fileconf_has_the_keys_of_a_real_one(tmp_path):
    here = tree(tmp_path)
    real = yaml.safe_load((DES / f"{TILE}_g_fileconf-y3v02.yaml").read_text())
    write_lists(here, "g", chips(tmp_path), tmp_path / "psf", {"image": tmp_path / "coadd.fits.fz"})
    text = here.fileconf("g").read_text()
    mine = yaml.safe_load(text)
    # The object map is added when there is a catalogue; everything else is there, in the same order.
    assert list(mine) == [key for key in real if key != "coadd_object_map"]
    assert mine["coadd_magzp"] == real["coadd_magzp"] == 30
    assert mine["coadd_image_url"] == str(tmp_path / "coadd.fits.fz")
    assert mine["coadd_cat_url"] == str(here.catalog("g"))
    assert [Path(mine[key]).name for key in ("seg_flist", "bkg_flist", "meds_url")] == [
        Path(real[key]).name for key in ("seg_flist", "bkg_flist", "meds_url")
    ]
    assert all(line.count(": ") == 1 for line in text.splitlines())
    assert fileconf(here, "g", {}, 29.5)["coadd_magzp"] == 29.5


@pytest.mark.parametrize("name", ["", "x", "D_g_c01", "D0012_g_cxx_r1p1", "DES0239+0216_g_cat.fits"])
def test_what_is_no_chip_name_is_refused(name):
    with pytest.raises(ArchiveError, match="single-epoch"):
        numbers_of(name)


def test_a_real_scamp_head_is_read():
    cards = read_ohead(HEAD)
    # Terms 3 are the radial ones, which SCAMP does not fit.
    assert list(cards) == [key for key in WCS_KEYS if key not in ("PV1_3", "PV2_3")]
    assert cards["CTYPE1"] == "RA---TPV"
    assert cards["CRPIX1"] == 13436.0896946
    ra, dec = ImageWCS(cards).pixel_to_sky(2047.5, 1023.5)
    # The chip of tile DES2041-5248 lies in it: within a tile's half diagonal of its centre (20h41m, -52 deg 48').
    assert np.hypot((ra[0] - 310.25) * np.cos(np.deg2rad(dec[0])), dec[0] + 52.8) < 0.75


@pytest.mark.parametrize("damage", ["absent", "empty", "cut", "text", "nan"])
def test_a_damaged_scamp_head_is_refused(tmp_path, damage):
    path = tmp_path / "x.ohead"
    text = HEAD.read_text()
    if damage != "absent":
        path.write_text(
            {
                "empty": "",
                "cut": text[: text.index("CD2_2")],
                "text": text.replace("3.115416715848E+02", "3.1x5416715848E+02"),
                "nan": text.replace(" 3.115416715848E+02", " nan               "),
            }[damage]
        )
    with pytest.raises(ProductError, match="SCAMP head"):
        read_ohead(path)


def test_the_old_wcs_leaves_no_trace():
    header = fitsio.FITSHDR()
    for key, value in {
        "BAND": "g",
        "CRVAL1": 1.0,
        "PV1_3": 0.5,
        "PV1_30": 2.0,
        "CDELT1": 1.0,
        "RADECSYS": "FK5",
        "LTV1": 3,
    }.items():
        header.add_record({"name": key, "value": value})
    cards = read_ohead(HEAD)
    new = replace_wcs(header, cards)
    assert new["BAND"] == "g"
    assert {key: new[key] for key in cards} == cards
    assert not {"PV1_3", "PV1_30", "CDELT1", "RADECSYS", "LTV1"} & set(new.keys())
    assert header["PV1_3"] == 0.5
