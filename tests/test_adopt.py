"""Tiles made elsewhere: what is checked, what is taken over, and that later blocks work on it."""

import json
import os
import re
import shutil
from dataclasses import replace

import fitsio
import numpy as np
import pytest
import yaml
from foreign_tile import age, state
from injection_tile import configuration
from meds_frames import BAND, COADD_SHAPE, RA, SCALE, TILE, catalogue, positions, psf_model, write_tile
from test_workflow import counted

from balrogutils.archive.geometry import Geometry
from balrogutils.blocks.catalog import catalog
from balrogutils.blocks.coadd import detection
from balrogutils.blocks.inject import inject, plan, truth
from balrogutils.blocks.meds import meds
from balrogutils.errors import InputError, ProductError
from balrogutils.exposures.lists import fileconf
from balrogutils.fitsfile import Table, read_header, read_image, read_table, write_tables
from balrogutils.injection.listing import base_chips
from balrogutils.meds import MEDS
from balrogutils.products import Step, read_manifest, sha256
from balrogutils.settings.pipeline import Pipeline
from balrogutils.upkeep.adopt import adopt
from balrogutils.upkeep.moved import Moved

STEPS = [("prep", BAND), ("coadd", BAND), ("coadd", "det"), ("coadd", "all"), ("catalog", BAND), ("meds", BAND)]
NOWHERE = Moved()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The directory of a foreign tile, with its context; and an untouched copy of it."""
    root = tmp_path_factory.mktemp("foreign tile")
    made = write_tile(root / "here")
    tree = made.tree
    row, col = positions()
    rows = catalogue(row, col)
    full = np.zeros(len(rows), dtype=[*rows.dtype.descr, ("IMAFLAGS_ISO", "i4"), ("MAGERR_AUTO", "f4")])
    for name in rows.dtype.names:
        full[name] = rows[name]
    write_tables(tree.catalog(BAND), [Table("OBJECTS", full)])
    shutil.copyfile(tree.image(BAND), tree.image("det"))
    shutil.copyfile(tree.psfmap(BAND), tree.all_psfmap)
    tree.fileconf(BAND).write_text(yaml.safe_dump(fileconf(tree, BAND, {})))
    meds(made, BAND)
    age(tree, (BAND,))
    shutil.copytree(root / "here", root / "untouched")
    return root, made


@pytest.fixture
def tile(place):
    """The context of a foreign tile that a test may spoil."""
    root, made = place
    shutil.rmtree(root / "here")
    shutil.copytree(root / "untouched", root / "here")
    return made


def image_of(tree, number=0):
    """Return a null-weight image of the list."""
    return sorted(tree.nullwt_dir(BAND).iterdir())[number]


def edited(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def rewritten(path, change):
    """Write an image file anew with some planes and headers changed; `change` gets name, pixels and header."""
    with fitsio.FITS(str(path)) as fits:
        planes = [(hdu.get_extname(), hdu.read(), hdu.read_header()) for hdu in fits]
    with fitsio.FITS(str(path), "rw", clobber=True) as fits:
        for plane in planes:
            name, pixels, header = change(*plane)
            for key in ("EXTNAME", "CHECKSUM", "DATASUM"):
                header.delete(key)
            fits.write(pixels, header=header, extname=name)


def in_plane(which, what):
    """Return a change of one plane."""
    return lambda name, pixels, header: (name, what(pixels) if name == which else pixels, header)


def in_header(which, **cards):
    def change(name, pixels, header):
        if name == which:
            for key, value in cards.items():
                header[key] = value
        return name, pixels, header

    return change


def without_wcs(name, pixels, header):
    for key in ("CTYPE1", "CTYPE2"):
        header.delete(key)
    return name, pixels, header


def spoilt(pixels):
    pixels = pixels.copy()
    pixels[3, 4] = np.nan
    return pixels


def cut(path):
    os.truncate(path, path.stat().st_size * 2 // 3)


def swapped(path):
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[1], lines[0], *lines[2:]]) + "\n")


def doubled(path):
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[0], *lines[2:]]) + "\n")


def table(path, change, extname="OBJECTS"):
    rows = change(read_table(path, "OBJECTS"))
    write_tables(path, [Table(extname, rows)])


def without(*names):
    def change(rows):
        return rows[[name for name in rows.dtype.names if name not in names]].copy()

    return change


def renumbered(rows):
    rows["NUMBER"] += 1
    return rows


def refused(tile, *messages):
    """Adopt, be refused with these messages, and find nothing changed."""
    before = state(tile.tree.dir)
    with pytest.raises(ProductError) as caught:
        adopt(tile, (BAND,), NOWHERE)
    text = str(caught.value)
    for message in messages:
        assert message in text, text
    assert state(tile.tree.dir) == before
    assert not (tile.tree.dir / "manifests").exists()
    return text


# what is not there


def test_no_tree_at_all(tile):
    shutil.rmtree(tile.tree.dir)
    with pytest.raises(InputError, match="there is no tree of this tile"):
        adopt(tile, (BAND,), NOWHERE)
    assert not tile.tree.dir.exists()


def test_a_tree_with_nothing_whole(tile):
    shutil.rmtree(tile.tree.dir)
    tile.tree.dir.mkdir()
    text = refused(tile, "no step of DES0239+0216 is whole")
    # The joined PSF maps are for people: no step needs them.
    needed = [step for step in STEPS if step != ("coadd", "all")]
    assert [f"{step} {band}: " in text for step, band in needed] == [True] * len(needed)


def test_steps_that_are_not_there_are_named_and_the_others_taken(tile, caplog):
    tree = tile.tree
    for path in (tree.image("det"), tree.catalog(BAND), tree.meds(BAND)):
        path.unlink()
    taken = adopt(tile, (BAND,), NOWHERE)
    assert [(one.step, one.band) for one in taken] == [("prep", BAND), ("coadd", BAND), ("coadd", "all")]
    assert sorted(path.name for path in (tree.dir / "manifests").iterdir()) == [
        f"{TILE}_coadd_all.json",
        f"{TILE}_coadd_{BAND}.json",
        f"{TILE}_prep_{BAND}.json",
    ]
    for step, path in (
        ("coadd det", tree.image("det")),
        ("catalog r", tree.catalog(BAND)),
        ("meds r", tree.meds(BAND)),
    ):
        assert f"not adopted: {step}: {path} is not there" in caplog.text


def test_only_the_bands_asked_for(tile):
    wider = replace(tile, campaign=tile.campaign.model_copy(update={"bands": (BAND, "z")}))
    shutil.copyfile(tile.tree.image(BAND), tile.tree.image("z"))
    assert [(one.step, one.band) for one in adopt(wider, (BAND,), NOWHERE)] == STEPS


def test_bands_that_detect_nothing_leave_the_detection_image_out(tile):
    update = {"bands": (BAND, "z"), "det": ("z",)}
    pipeline = tile.pipeline.model_copy(update={"bands": (BAND,)})
    other = replace(tile, campaign=tile.campaign.model_copy(update=update), pipeline=pipeline)
    expected = [step for step in STEPS if step != ("coadd", "det")]
    for _ in range(2):
        assert [(one.step, one.band) for one in adopt(other, (BAND,), NOWHERE)] == expected


# damage: degenerate input first


@pytest.mark.parametrize(
    ("kind", "message"),
    [("seg", "a file of step prep is not there"), ("bkg", "a file of step prep is not there")],
)
def test_a_list_is_missing(tile, kind, message):
    tile.tree.flist(kind, BAND).unlink()
    assert f"{kind}-flist" in refused(tile, message, "band r", "remedy: restore it")


LISTS = {
    "images without their list": (lambda t: t.flist("nullwt", BAND).unlink(), "null-weight images have no list"),
    "no PSF map": (lambda t: t.psfmap(BAND).unlink(), "a file of step prep is not there"),
    "no fileconf": (lambda t: t.fileconf(BAND).unlink(), "a file of step prep is not there"),
    "empty": (lambda t: [t.flist(k, BAND).write_text("") for k in ("nullwt", "seg", "bkg")], "list is empty"),
    "empty alike": (
        lambda t: [
            *(t.flist(k, BAND).write_text("") for k in ("nullwt", "seg", "bkg")),
            t.psfmap(BAND).write_text(t.psfmap(BAND).read_text().splitlines()[0]),
        ],
        "the null-weight list is empty",
    ),
    "no text": (lambda t: t.flist("seg", BAND).write_bytes(b"\xff\xfe\x00"), "a list is not text"),
    "shorter": (
        lambda t: t.flist("bkg", BAND).write_text(t.flist("bkg", BAND).read_text().split("\n", 1)[1]),
        "nullwt 4, seg 4, bkg 3, psfmap 4",
    ),
    "another order": (
        lambda t: swapped(t.flist("seg", BAND)),
        "line 1 is of another CCD than that of the null-weight list",
    ),
    "zero point nan": (lambda t: edited(t.flist("nullwt", BAND), "31.2", "nan"), "line 1 is not a path and a zero"),
    "no zero point": (lambda t: edited(t.flist("nullwt", BAND), " 31.2", ""), "line 1 is not a path and a zero point"),
    "twice": (lambda t: [doubled(t.flist(k, BAND)) for k in ("nullwt", "seg", "bkg")], "names a CCD twice"),
    "of no CCD": (lambda t: edited(t.flist("nullwt", BAND), "/D00229342_r", "/X00229342_r"), "line 1 names no image D"),
    "of another band": (lambda t: edited(t.flist("nullwt", BAND), "/D00229342_r", "/D00229342_i"), "names no image D"),
    "map with words": (lambda t: edited(t.psfmap(BAND), "00229342 10", "first 10"), "line 2 is not an exposure number"),
    "map without coadd": (lambda t: edited(t.psfmap(BAND), "-9999 -9999", "0001 01"), "begins with one coadd line"),
    "map of another CCD": (lambda t: edited(t.psfmap(BAND), "00229342 10", "00229342 11"), "no model of a CCD"),
    "fileconf of another tree": (lambda t: edited(t.fileconf(BAND), "seg_flist: ", "seg_flist: /x"), "seg_flist is /x"),
    "fileconf of another band": (lambda t: edited(t.fileconf(BAND), "band: r", "band: i"), "band is i, not r"),
    "fileconf no YAML": (lambda t: t.fileconf(BAND).write_text("a: [1\n"), "line 2"),
}  # fmt: skip


@pytest.mark.parametrize("damage", LISTS)
def test_damaged_lists(tile, damage):
    spoil, message = LISTS[damage]
    spoil(tile.tree)
    refused(tile, message, f"tile {TILE}, band r", "remedy: ")


IMAGES = {
    "cut short": (cut, "it ends after SCI WGT WGT_ME"),
    "no FITS": (lambda p: p.write_text("x"), "cannot be read"),
    "empty": (lambda p: p.write_text(""), "cannot be read"),
    "a plane missing": (
        lambda p: rewritten(p, lambda n, x, h: ("WEIGHT" if n == "WGT" else n, x, h)),
        "the HDUs are SCI WEIGHT WGT_ME MSK, not SCI WGT WGT_ME MSK",
    ),
    "a smaller plane": (lambda p: rewritten(p, in_plane("MSK", lambda x: x[:-1])), "the planes have different shapes"),
    "a cube": (lambda p: rewritten(p, in_plane("WGT", lambda x: x[None])), "not an image of rows and columns"),
    "no WCS": (lambda p: rewritten(p, without_wcs), "no usable celestial WCS"),
    "a singular WCS": (
        lambda p: rewritten(p, in_header("SCI", CD1_1=0.0, CD1_2=0.0, CD2_1=0.0, CD2_2=0.0)),
        "WCS",
    ),
    "NaN": (lambda p: rewritten(p, in_plane("SCI", spoilt)), "1 pixels of SCI are no finite numbers"),
    "NaN weight": (lambda p: rewritten(p, in_plane("WGT_ME", spoilt)), "1 pixels of WGT_ME are no finite numbers"),
}


@pytest.mark.parametrize("damage", IMAGES)
def test_damaged_images(tile, damage):
    path = image_of(tile.tree)
    spoil, message = IMAGES[damage]
    spoil(path)
    refused(tile, message, f"tile {TILE}, band r, chip {path.name[:22]}", f"file {path}", "remedy: restore it")


SIDES = {
    "segmentation cut short": ("segmap.fits", cut, "ends before the image does"),
    "segmentation of another shape": (
        "segmap.fits",
        lambda p: rewritten(p, in_plane("SCI", lambda x: x[1:])),
        "that of the null-weight image",
    ),
    "segmentation without SCI": ("segmap.fits", lambda p: rewritten(p, lambda n, x, h: ("SEG", x, h)), "no HDU sci"),
    "background missing": ("bkg.fits", lambda p: p.unlink(), "is not there"),
    "background cut short": ("bkg.fits", cut, "ends before the image does"),
}


@pytest.mark.parametrize("damage", SIDES)
def test_damaged_side_files(tile, damage):
    suffix, spoil, message = SIDES[damage]
    path = sorted(tile.tree.sources(BAND).glob(f"*_{suffix}"))[1]
    spoil(path)
    refused(tile, message, f"chip {path.name[:22]}", f"file {path}")


@pytest.mark.parametrize("which", ["psfexcat", "psfcat"])
@pytest.mark.parametrize("gone", [True, False])
def test_damaged_psf_models(tile, which, gone):
    path = min(tile.tree.psfs.glob(f"*_{which}.psf"))
    if gone:
        path.unlink()
    else:
        path.write_text("x")
    text = refused(tile, "is not there" if gone else "not a PSFEx model", f"file {path}")
    assert (f"chip {path.name[:22]}" in text) == (which == "psfexcat")


def test_an_image_is_missing(tile):
    path = image_of(tile.tree, 2)
    path.unlink()
    refused(tile, "is not there", f"chip {path.name[:22]}", f"file {path}", "if the tile was moved")


COADDS = {
    "order": (
        lambda t: rewritten(t.image(BAND), lambda n, x, h: ({"MSK": "WGT", "WGT": "MSK"}.get(n, n), x, h)),
        "the HDUs are SCI WGT MSK, not SCI MSK WGT",
    ),
    "shape": (lambda t: rewritten(t.image(BAND), in_plane("WGT", lambda x: x[1:])), "different shapes"),
    "WCS": (lambda t: rewritten(t.image(BAND), in_header("WGT", CRVAL1=RA + 1e-4)), "SCI and WGT have different WCSs"),
    "no WCS": (lambda t: rewritten(t.image(BAND), without_wcs), "no usable celestial WCS"),
    "cut short": (lambda t: cut(t.image(BAND)), "it ends after SCI MSK"),
    "no catalogue": (lambda t: t.catalog(BAND).write_text("x"), "cannot be opened"),
    "another table": (lambda t: table(t.catalog(BAND), lambda r: r, extname="LDAC_OBJECTS"), "no HDU 'OBJECTS'"),
    "no rows": (lambda t: table(t.catalog(BAND), lambda r: r[:0]), "no objects"),
    "numbers": (lambda t: table(t.catalog(BAND), renumbered), "NUMBER does not run from 1 to 24"),
    "no segmentation": (lambda t: t.segmap(BAND).unlink(), "a file of step catalog is not there"),
    "segmentation shape": (
        lambda t: rewritten(t.segmap(BAND), in_plane("SCI", lambda x: x[:, 1:])),
        f"the coadd {COADD_SHAPE}",
    ),
    "segmentation of others": (
        lambda t: rewritten(t.segmap(BAND), in_plane("SCI", lambda x: np.where(x == 24, 0, x))),
        "the last label of the segmentation is 23, the catalogue has 24 rows",
    ),
    "object map": (lambda t: table(t.objmap(BAND), lambda r: r[:-1]), "different objects (23 and 24)"),
    "no object map": (lambda t: t.objmap(BAND).unlink(), "a file of step catalog is not there"),
    "MEDS cut short": (lambda t: cut(t.meds(BAND)), "a MEDS file is cut short"),
    "no MEDS": (lambda t: t.meds(BAND).write_text("x"), "cannot be opened"),
}


@pytest.mark.parametrize("damage", COADDS)
def test_damaged_coadds_and_catalogues(tile, damage):
    spoil, message = COADDS[damage]
    spoil(tile.tree)
    refused(tile, message, f"tile {TILE}, band r", "remedy: restore it")


def test_a_meds_file_of_another_catalogue(tile):
    table(tile.tree.catalog(BAND), lambda rows: rows[:-1])
    table(tile.tree.objmap(BAND), lambda rows: rows[:-1])
    rewritten(tile.tree.segmap(BAND), in_plane("SCI", lambda x: np.where(x == 24, 0, x)))
    refused(tile, "the file has 24 objects, the catalogue 23")


def test_bands_of_different_catalogues(tile):
    tree = tile.tree
    wider = replace(tile, campaign=tile.campaign.model_copy(update={"bands": (BAND, "z")}))
    shutil.copyfile(tree.image(BAND), tree.image("z"))
    for path in (tree.catalog, tree.objmap):
        shutil.copyfile(path(BAND), path("z"))
        table(path("z"), lambda rows: rows[:-1])
    shutil.copyfile(tree.segmap(BAND), tree.segmap("z"))
    rewritten(tree.segmap("z"), in_plane("SCI", lambda x: np.where(x == 24, 0, x)))
    with pytest.raises(ProductError, match="23 rows, that of band r 24"):
        adopt(wider, (BAND, "z"), NOWHERE)


def test_every_problem_is_told_not_only_the_first(tile):
    tree = tile.tree
    cut(image_of(tree, 1))
    image_of(tree, 3).unlink()
    min(tree.psfs.glob("*_psfexcat.psf")).write_text("x")
    cut(tree.image("det"))
    tree.objmap(BAND).unlink()
    refused(
        tile,
        "5 problems",
        "it ends after SCI WGT WGT_ME",
        "not a PSFEx model",
        "band det",
        "objmap-y3v02.fits",
        image_of(tree, 1).name,
    )


# older formats that cannot be taken over


def test_a_catalogue_without_columns_that_later_blocks_need_is_left_to_block_2(tile, caplog):
    # The columns that the old pipeline's parameter file lacks (P 3.2).
    table(tile.tree.catalog(BAND), without("ISOAREA_IMAGE", "X2_IMAGE", "Y2_IMAGE", "ERRX2_IMAGE", "ERRY2_IMAGE"))
    taken = adopt(tile, (BAND,), NOWHERE)
    assert [(one.step, one.band) for one in taken] == [step for step in STEPS if step[0] != "catalog"]
    assert "lacks ISOAREA_IMAGE X2_IMAGE ERRX2_IMAGE Y2_IMAGE ERRY2_IMAGE" in caplog.text
    assert "mode 2 makes it anew" in caplog.text


def test_a_meds_file_without_psfs_is_left_to_block_4(tile, caplog):
    path = tile.tree.meds(BAND)
    with fitsio.FITS(str(path)) as fits:
        tables = {name: fits[name].read() for name in ("object_data", "image_info", "metadata")}
        images = {f"{kind}_cutouts": fits[f"{kind}_cutouts"].read() for kind in ("image", "weight", "seg", "bmask")}
    names = [name for name in tables["object_data"].dtype.names if not name.startswith("psf_")]
    tables["object_data"] = tables["object_data"][names].copy()
    with fitsio.FITS(str(path), "rw", clobber=True) as fits:
        for name, rows in tables.items():
            fits.write_table(rows, extname=name)
        for name, pixels in images.items():
            fits.write(pixels, extname=name)
    taken = adopt(tile, (BAND,), NOWHERE)
    assert [(one.step, one.band) for one in taken] == STEPS[:-1]
    assert "has no PSF stamps, which block 64 needs" in caplog.text


# manifests


def test_manifests_say_what_was_taken(tile):
    tree = tile.tree
    before = state(tree.dir)
    taken = adopt(tile, (BAND,), NOWHERE)
    assert [(one.step, one.band) for one in taken] == STEPS
    mtimes = []
    for step, band in STEPS:
        path = tree.manifest(step, band)
        mtimes.append(path.stat().st_mtime_ns)
        document = read_manifest(path)
        about = {"step": step, "tile": TILE, "band": band, "realization": None, "adopted": True, "inputs": []}
        assert about.items() <= document.items()
        for entry in document["outputs"]:
            assert entry["sha256"] == sha256(entry["path"])
            assert entry["size"] > 0
        assert {"version", "config_sha256", "seeds", "counts", "started", "ended", "wall_seconds"} <= set(document)
        assert {"cpu_seconds", "peak_memory_bytes", "config"} <= set(document)
    assert mtimes == sorted(mtimes)
    told = {entry["path"] for entry in read_manifest(tree.manifest("prep", BAND))["outputs"]}
    files = [*tree.nullwt_dir(BAND).iterdir(), *tree.psfs.iterdir(), *tree.sources(BAND).iterdir(), tree.psfmap(BAND)]
    files += [*(tree.flist(kind, BAND) for kind in ("nullwt", "seg", "bkg")), tree.fileconf(BAND)]
    assert told == {str(path) for path in files}
    assert read_manifest(tree.manifest("prep", BAND))["counts"] == {"chips": 4, "exposures": 4}
    assert read_manifest(tree.manifest("catalog", BAND))["counts"]["detections"] == 24
    after = state(tree.dir)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {
        *(str(tree.manifest(*step).relative_to(tree.dir)) for step in STEPS),
        str(tree.geometry.relative_to(tree.dir)),
    }


def test_adopting_twice_changes_nothing(tile):
    adopt(tile, (BAND,), NOWHERE)
    times = {step: tile.tree.manifest(*step).stat().st_mtime_ns for step in STEPS}
    assert [(one.step, one.band) for one in adopt(tile, (BAND,), NOWHERE)] == STEPS
    assert {step: tile.tree.manifest(*step).stat().st_mtime_ns for step in STEPS} == times


def test_a_changed_file_renews_its_manifest_and_the_age_of_those_that_follow(tile):
    adopt(tile, (BAND,), NOWHERE)
    tree = tile.tree
    old = {step: tree.manifest(*step).read_text() for step in STEPS}
    times = {step: tree.manifest(*step).stat().st_mtime_ns for step in STEPS}
    psf_model(4.4).write(min(tree.psfs.glob("*_psfexcat.psf")))
    adopt(tile, (BAND,), NOWHERE)
    assert {step for step in STEPS if tree.manifest(*step).read_text() != old[step]} == {("prep", BAND)}
    new = [tree.manifest(*step).stat().st_mtime_ns for step in STEPS]
    assert all(time > times[step] for time, step in zip(new, STEPS, strict=True))
    assert new == sorted(new)


def test_a_manifest_of_our_own_is_left_alone(tile, caplog):
    caplog.set_level("INFO", logger="balrogutils")
    own = tile.tree.manifest("coadd", BAND)
    with Step(own, "coadd", about=tile.about(BAND)) as step:
        step.wrote(tile.tree.image(BAND))
    text = own.read_text()
    assert [(one.step, one.band) for one in adopt(tile, (BAND,), NOWHERE)] == [s for s in STEPS if s != ("coadd", BAND)]
    assert own.read_text() == text
    assert "coadd r was made here; its manifest is left alone" in caplog.text


def test_a_manifest_that_is_none_is_a_problem(tile):
    path = tile.tree.manifest("prep", BAND)
    path.parent.mkdir()
    path.write_text("{")
    with pytest.raises(ProductError, match="a manifest cannot be read"):
        adopt(tile, (BAND,), NOWHERE)
    assert path.read_text() == "{"


# a tile that was moved


@pytest.mark.parametrize("word", ["", "=", "/a", "/a=", "=/b", "/a=b", "/=/b"])
def test_words_that_rename_nothing(word):
    with pytest.raises(InputError, match="OLD=NEW"):
        Moved.parse([word])


def test_renaming():
    moved = Moved.parse(["/old/meds/=/new", "/data=/data/two", "$MEDS_DIR=/m"])
    assert moved("/old/meds/y3v02/x") == "/new/y3v02/x"
    assert moved("/old/meds2/x") == "/old/meds2/x"
    assert moved("/data/x") == "/data/two/x"
    assert moved(moved("/data/x")) == "/data/two/x"
    assert moved("$MEDS_DIR/x") == "/m/x"
    assert (
        moved.lines("1 2 /data/x\n\n3 4 /y\n", lambda line: line.split(" ")[-1].strip())
        == "1 2 /data/two/x\n\n3 4 /y\n"
    )


@pytest.fixture
def gone(tile):
    """The tile under another name, and the directory that its lists speak of, which is no more."""
    old = tile.site.meds_data
    new = old.with_name("an other place")
    shutil.rmtree(new, ignore_errors=True)
    shutil.move(old, new)
    return replace(tile, site=replace(tile.site, meds_data=new)), old


def test_a_moved_tile_is_recognised_and_the_option_named(gone):
    made, old = gone
    text = refused(made, "none of the 4 files of a list is there", f"'{old}={made.site.meds_data}'")
    # One problem a list and one for the fileconf, not one a file.
    assert "; 5 problems:" in text


def test_a_moved_tile_is_adopted_and_its_lists_speak_of_today(gone):
    made, old = gone
    tree = made.tree
    zero_points = [line.rpartition(" ")[2] for line in tree.flist("nullwt", BAND).read_text().splitlines()]
    moved = Moved.parse([f"{old}={made.site.meds_data}"])
    assert [(one.step, one.band) for one in adopt(made, (BAND,), moved)] == STEPS
    lists = [tree.flist(kind, BAND) for kind in ("nullwt", "seg", "bkg")]
    for path in (*lists, tree.psfmap(BAND), tree.all_psfmap, tree.fileconf(BAND)):
        assert f"{old}/" not in path.read_text()
    assert [line.rpartition(" ")[2] for line in lists[0].read_text().splitlines()] == zero_points
    assert yaml.safe_load(tree.fileconf(BAND).read_text()) == fileconf(tree, BAND, {})
    # The same command again finds nothing to do.
    times = {step: tree.manifest(*step).stat().st_mtime_ns for step in STEPS}
    adopt(made, (BAND,), moved)
    assert {step: tree.manifest(*step).stat().st_mtime_ns for step in STEPS} == times


def test_a_copy_does_not_lean_on_the_tile_it_was_copied_from(tile):
    copy = tile.site.meds_data.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(tile.site.meds_data, copy)
    made = replace(tile, site=replace(tile.site, meds_data=copy))
    refused(made, "4 of 4 null-weight images are not in", f"'{tile.site.meds_data}={copy}'")
    assert len(adopt(made, (BAND,), Moved.parse([f"{tile.site.meds_data}={copy}"]))) == len(STEPS)


@pytest.mark.parametrize("name", ["$MEDS_DIR", "${MEDS_DIR}", "~", "meds"])
def test_paths_that_are_not_whole(tile, name, monkeypatch):
    monkeypatch.setenv("MEDS_DIR", str(tile.site.meds_data))
    monkeypatch.setenv("HOME", str(tile.site.meds_data))
    tree = tile.tree
    tree.psfmap(BAND).write_text(tree.psfmap(BAND).read_text().replace(str(tile.site.meds_data), name))
    refused(tile, "5 paths are not whole", f"{name}/y3v02", "--moved")
    taken = adopt(tile, (BAND,), Moved.parse([f"{name}={tile.site.meds_data}"]))
    assert len(taken) == len(STEPS)
    assert name not in tree.psfmap(BAND).read_text().replace(str(tile.site.meds_data), "")


def test_files_of_lists_outside_the_tile_are_named(tile, tmp_path, caplog):
    tree = tile.tree
    for path in tree.sources(BAND).glob("*_bkg.fits"):
        shutil.move(path, tmp_path)
    tree.flist("bkg", BAND).write_text(
        tree.flist("bkg", BAND).read_text().replace(str(tree.sources(BAND)), str(tmp_path))
    )
    assert len(adopt(tile, (BAND,), NOWHERE)) == len(STEPS)
    assert "4 files that lists name lie outside the tile's directory" in caplog.text


# geometry


def test_the_geometry_comes_from_a_coadd_where_no_database_knows_the_tile(tile, caplog):
    adopt(tile, (BAND,), NOWHERE)
    header = read_header(tile.tree.image(BAND), "SCI")
    rows, cols = COADD_SHAPE
    expected = Geometry.tangent(TILE, header["CRVAL1"], header["CRVAL2"], cols, rows, 0.263)
    made = Geometry.read(tile.tree.geometry)
    assert made == expected
    assert "knows no extinction" in caplog.text


def test_corners_of_the_header_are_kept(tile):
    rewritten(tile.tree.image(BAND), in_header("SCI", RAC1=39.911, DECC1=2.26))
    adopt(tile, (BAND,), NOWHERE)
    made = Geometry.read(tile.tree.geometry)
    assert (made.rac1, made.decc1) == (39.911, 2.26)


def test_the_geometry_comes_from_the_database_that_knows_the_tile(tile, tmp_path):
    import sqlalchemy as sa

    from balrogutils.archive import tables

    header = read_header(tile.tree.image(BAND), "SCI")
    given = Geometry.tangent(TILE, header["CRVAL1"], header["CRVAL2"], COADD_SHAPE[1], COADD_SHAPE[0], 0.263)
    row = {column.name: getattr(given, column.name, None) for column in tables.y3a2_coaddtile_geom.c}
    engine = sa.create_engine(f"sqlite:///{tmp_path}/archive.db", poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        tables.metadata.create_all(connection)
        connection.execute(sa.insert(tables.y3a2_coaddtile_geom), [row | {"id": 77, "crossra0": "N", "extmag_r": 0.1}])
    engine.dispose()
    campaign = tile.campaign.model_copy(update={"database": f"sqlite:///{tmp_path}/archive.db"})
    adopt(replace(tile, campaign=campaign), (BAND,), NOWHERE)
    made = Geometry.read(tile.tree.geometry)
    assert (made.tileid, made.extmag) == (77, {"r": 0.1})


def test_a_prepared_tile_alone_has_no_geometry(tile):
    for band in (BAND, "det"):
        tile.tree.image(band).unlink()
    refused(tile, "there is no coadd to tell the tile's geometry", "--set campaign=NAME")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ra_cent": RA + 0.02 * SCALE, "crval1": RA + 0.02 * SCALE}, "0.02 pixels off the tile's geometry"),
        ({"naxis1": 279}, "the tile's geometry (300, 279)"),
        ({"tilename": "DES0240+0216"}, "the geometry is that of DES0240+0216"),
    ],
)
def test_a_geometry_of_another_grid(tile, change, message):
    adopt(tile, (BAND,), NOWHERE)
    shutil.rmtree(tile.tree.dir / "manifests")
    replace(Geometry.read(tile.tree.geometry), **change).write(tile.tree.geometry)
    refused(tile, message)


def test_a_geometry_file_that_is_none(tile):
    tile.tree.geometry.write_text("{}")
    refused(tile, "the tile's geometry cannot be read", "remedy: remove it")


def test_a_tilted_coadd_gives_no_geometry(tile):
    turn = np.radians(1.0)
    cards = {"CD1_1": -SCALE * np.cos(turn), "CD1_2": SCALE * np.sin(turn)}
    cards |= {"CD2_1": SCALE * np.sin(turn), "CD2_2": SCALE * np.cos(turn)}
    for band in (BAND, "det"):
        for name in ("SCI", "MSK", "WGT"):
            rewritten(tile.tree.image(band), in_header(name, **cards))
    refused(tile, "not a tangent plane with north up", f"file {tile.tree.image(BAND)}")


# later blocks on an adopted tile


def injecting(tile, tmp_path, **image):
    """Return the context of a realization of an adopted tile."""
    path = tmp_path / "injection.yaml"
    path.write_text(yaml.safe_dump(configuration(**image)))
    pipeline = Pipeline(galsim_config=str(path), realizations=("0",), desmeds_config="meds-y3v02.yaml")
    return replace(tile, pipeline=pipeline, realization="0")


def test_objects_are_injected_into_an_adopted_tile(tile, tmp_path):
    # A map by another maker, without leading zeros.
    tree = tile.tree
    tree.psfmap(BAND).write_text(re.sub(r"^0+", "", tree.psfmap(BAND).read_text(), flags=re.MULTILINE))
    adopt(tile, (BAND,), NOWHERE)
    assert len(base_chips(tree, tree, BAND)) == 4
    before = state(tree.dir)
    made = injecting(tile, tmp_path)
    plan(made)
    inject(made, BAND)
    truth(made)
    rows = read_table(made.tree.truth)
    assert len(rows) > 20
    assert (rows["outcome"] == 0).any()
    changed = [
        not np.array_equal(read_image(path, "SCI"), read_image(made.tree.nullwt_dir(BAND) / path.name, "SCI"))
        for path in tree.nullwt_dir(BAND).iterdir()
    ]
    assert all(changed)
    assert state(tree.dir) == before


def test_extinction_is_refused_where_the_geometry_knows_none(tile, tmp_path):
    adopt(tile, (BAND,), NOWHERE)
    with pytest.raises(InputError, match="the tile's geometry has no extinction for a band") as caught:
        plan(injecting(tile, tmp_path, extinct_objs=True))
    assert caught.value.where["key"] == "image.extinct_objs"


def test_a_file_that_changes_after_adoption_stops_the_next_block(tile, tmp_path):
    adopt(tile, (BAND,), NOWHERE)
    path = image_of(tile.tree)
    rewritten(path, in_plane("SCI", lambda pixels: pixels + 1))
    made = injecting(tile, tmp_path)
    plan(made)
    with pytest.raises(ProductError, match="a product is not as step prep left it"):
        inject(made, BAND)


def test_meds_files_are_made_of_an_adopted_tile(tile):
    tile.tree.meds(BAND).unlink()
    adopt(tile, (BAND,), NOWHERE)
    meds(tile, BAND)
    with MEDS(tile.tree.meds(BAND)) as file:
        assert file["id"].tolist() == list(range(24))
        assert file["number"].tolist() == list(range(1, 25))
        assert file.get_cutout(3, 0, "bmask").dtype == np.dtype("i4")


def test_detection_and_catalogues_are_made_on_adopted_coadds(tile):
    tree = tile.tree
    for path in (tree.image("det"), tree.catalog(BAND), tree.meds(BAND)):
        path.unlink()
    column = round(positions()[1][5])
    rewritten(tree.image(BAND), in_plane("MSK", lambda x: np.where(np.arange(x.shape[1]) == column, 1, x)))
    adopt(tile, (BAND,), NOWHERE)
    coadd = tree.image(BAND).read_bytes()
    detection(tile)
    catalog(tile, BAND)
    assert tree.image(BAND).read_bytes() == coadd
    rows = read_table(tree.catalog(BAND))
    labels, mask = read_image(tree.segmap(BAND), "SCI"), read_image(tree.image(BAND), "MSK")
    assert mask.dtype == np.dtype("i8")
    touched = np.unique(labels[(mask != 0) & (labels > 0)])
    assert touched.size > 0
    assert set(rows["NUMBER"][rows["IMAFLAGS_ISO"] != 0]) == set(touched)


# as a user calls it


@pytest.fixture
def here(base, place, tile):
    """Environment of a user whose MEDS_DATA is the foreign tile's."""
    return {"MEDS_DATA": str(tile.site.meds_data)}


def test_the_command_and_what_is_left_to_do(command, here, tile):
    done = command("balrog", "adopt", TILE, "--band", BAND, "--set", f"bands={BAND}", **here)
    assert done.returncode == 0, done.stderr
    assert f"adopted coadd {BAND} det all" in done.stderr
    assert f"snakemake --cores all tile={TILE} --config mode=8" in done.stderr
    told = command("balrog", "summary", TILE, "--set", f"bands={BAND}", **here)
    assert told.returncode == 0
    assert "adopted, made elsewhere: 1 of 1 jobs of block 4 MEDS" in told.stdout
    told = command("balrog", "verify", TILE, "--set", f"bands={BAND}", **here)
    assert told.returncode == 0
    assert "Adopted, made elsewhere: 1 prep (base), 2 coadd+catalogue (base), 4 MEDS (base)." in told.stdout
    run = command("snakemake", "-n", f"tile={TILE}", "--config", "mode=63", f"bands={BAND}", "realizations=0", **here)
    assert run.returncode == 0, run.stderr
    jobs = counted(run.stdout + run.stderr)
    assert jobs == {
        **{"plan": 1, "inject": 1, "truth": 1, "coadd": 1, "detection": 1, "psf_maps": 1, "catalog": 1, "meds": 1},
        **{f"tile={TILE}": 1, "total": 9},
    }
    assert "balrog_images/0" in run.stdout + run.stderr


def test_the_command_is_refused_with_status_1_and_the_log_tells_too(command, here, tile, tmp_path):
    cut(tile.tree.image(BAND))
    log = tmp_path / "adopt.log"
    done = command("balrog", "adopt", TILE, "--band", BAND, "--log", str(log), **here)
    assert done.returncode == 1
    for text in (done.stderr, log.read_text()):
        assert "nothing is written; 1 problem" in text
        assert "it ends after SCI MSK" in text
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([TILE, "--band", "u"], "no band u"),
        ([TILE, "--moved", "/a"], "OLD=NEW"),
        (["DES0239+0217"], "did you mean"),
        (["DES0001+0001", "--set", "campaign=synthetic"], "there is no tree of this tile"),
    ],
)
def test_words_that_are_refused_with_status_2(command, here, words, message):
    done = command("balrog", "adopt", *words, **here)
    assert done.returncode == 2
    assert message in done.stderr
    assert "remedy:" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_tile_no_campaign_lists(command, place, tile):
    """Its own name in the files, as another survey's tile has."""
    new = "DES1111+1111"
    root = tile.site.meds_data / "y3v02"
    shutil.move(root / TILE, root / new)
    for path in sorted((root / new).rglob("*"), reverse=True):
        if TILE in path.name:
            path.rename(path.with_name(path.name.replace(TILE, new)))
    for path in (root / new).rglob("*"):
        if path.suffix in (".dat", ".yaml"):
            path.write_text(path.read_text().replace(TILE, new))
    words = ["balrog", "adopt", new, "--band", BAND]
    environment = {"MEDS_DATA": str(tile.site.meds_data)}
    assert command(*words, **environment).returncode == 2
    done = command(*words, "--set", "campaign=synthetic", **environment)
    assert done.returncode == 0, done.stderr
    assert "mode=8 campaign=synthetic bands=r" in done.stderr
    assert json.loads((root / new / "manifests" / f"{new}_prep_r.json").read_text())["adopted"] is True


def test_a_new_name_that_is_not_there_is_refused(tmp_path):
    Moved.parse([f"/old={tmp_path}"]).check()
    with pytest.raises(InputError, match="is not a directory"):
        Moved.parse([f"/old={tmp_path}/absent"]).check()
