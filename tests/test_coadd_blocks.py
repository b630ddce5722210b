"""Blocks 2 and 16 end to end with the real SWarp and SExtractor, on a small sky under an awkward path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import fitsio
import numpy as np
import pytest
from coadd_sky import CENTRE, SCALE, Sky, frame_header, tile_header, write_frame

from balrogutils.archive.geometry import Geometry
from balrogutils.blocks import psfmap
from balrogutils.blocks.catalog import catalog
from balrogutils.blocks.coadd import coadd, detection
from balrogutils.coadd.sextractor import require_one_segmentation
from balrogutils.context import Context
from balrogutils.errors import InputError, ProductError
from balrogutils.fitsfile import read_header, read_image, read_table
from balrogutils.identity import decode_object_ids
from balrogutils.layout import Site
from balrogutils.products import read_manifest, writing_text
from balrogutils.settings.campaign import Campaign
from balrogutils.settings.pipeline import Pipeline
from balrogutils.wcs import ImageWCS

TILE = "DES0239+0216"
SIZE, FRAME = 200, 240
ZERO_POINTS = (30.9, 31.2, 31.0)
POINTINGS = ((3.3, -5.2, 0.3), (-8.1, 4.4, -0.5), (0.5, 9.7, 0.1))
POSITIONS = [(row, col) for row in (40.2, 100.3, 160.4) for col in (35.7, 101.9, 161.1)]
STARS = np.array([(row, col, 19.0 + 0.2 * (5 * i % 7)) for i, (row, col) in enumerate(POSITIONS)])
BAD_COLUMN = 75

FrameEdit = Callable[[int, dict], None]


def make_context(root: Path, bands: tuple[str, ...], det: tuple[str, ...], realization: str | None = None) -> Context:
    """Return a context whose base path holds what path parsing trips over: 'det', '+', '/g/', a blank, a comma."""
    home = root / "det + sky, x" / "g" / "nullwt-g"
    site = Site.from_environment("y3v02", {"MEDS_DATA": str(home), "TMPDIR": str(home / "tmp")})
    campaign = Campaign(name="test", kind="desdm", database="sqlite://", archive="file:///x/", bands=bands, det=det)
    return Context(site, Pipeline(medsconf="y3v02", bands=bands), campaign, TILE, realization)


def fill(context: Context, band: str, sky: Sky, edit: FrameEdit | None = None, offset: float = 0.0) -> None:
    """Write what prep leaves for one band: frames, list, PSF map, geometry."""
    tree = context.tree
    Geometry.tangent(TILE, *CENTRE, SIZE, SIZE, SCALE).write(tree.geometry)
    lines = []
    for i, (pointing, zero_point) in enumerate(zip(POINTINGS, ZERO_POINTS, strict=True)):
        chip = f"D0040000{i}_{band}_c0{i + 1}_r2577p01"
        header = frame_header(FRAME, *pointing)
        # A different flat sky on every frame: SWarp has to take it out before it combines them.
        planes = sky.draw(f"{band}{i}", header, zero_point, sky=offset + 7.0 * i)
        if edit is not None:
            edit(i, planes)
        write_frame(tree.nullwt(band, chip), planes, header)
        lines.append(f"{tree.nullwt(band, chip)} {zero_point:.16g}\n")
    writing_text(tree.flist("nullwt", band), "".join(lines))
    writing_text(tree.psfmap(band), f"-9999 -9999 {band}.psf\n00400000 01 {band}1.psf\n")


def mask_column(_: int, planes: dict) -> None:
    """Mask one column of the detector, and beside a 'star' keep it in WGT_ME."""
    planes["WGT"][:, BAD_COLUMN] = 0
    planes["WGT_ME"][:, BAD_COLUMN] = 0


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """A tile with two bands through coadd, detection and catalogues."""
    context = make_context(tmp_path_factory.mktemp("coadd"), ("g", "r"), ("r", "g"))
    for band, seed in (("g", 5), ("r", 6)):
        fill(context, band, Sky(SIZE, FRAME, STARS, noise=3.0, seed=seed), mask_column)
        coadd(context, band)
    detection(context)
    psfmap.join(context)
    for band in context.bands:
        catalog(context, band)
    return context


def test_coadd_has_its_planes_and_headers(done: Context) -> None:
    for band in ("g", "r", "det"):
        with fitsio.FITS(str(done.tree.image(band))) as fits:
            assert [hdu.get_extname() for hdu in fits] == ["SCI", "MSK", "WGT", "FILLED"]
            for hdu in fits[:3]:
                header = hdu.read_header()
                assert (header["BAND"], header["TILENAME"], header["MAGZERO"]) == (band, TILE, 30.0)
                assert not {"DATE", "AUTHOR", "ORIGIN", "SOFTNAME"} & set(header.keys())
                assert "20" not in header.get_comment("DATASUM")
            assert set(np.unique(fits["MSK"].read())) <= {0, 1}
            assert fits["SCI"].read().dtype == fits["WGT"].read().dtype == np.dtype("f4")
        assert np.isfinite(read_image(done.tree.image(band), "SCI")).all()


def test_stars_keep_their_flux(done: Context) -> None:
    """A star of magnitude m is 10**(0.4 (30 - m)) on the coadd, whatever the frames' zero points and sky."""
    for band in done.bands:
        image = read_image(done.tree.image(band), "SCI").astype(float)
        image -= np.median(image)
        sky_noise = 1.4826 * np.median(np.abs(image))
        rows, cols = np.mgrid[:SIZE, :SIZE]
        for row, col, magnitude in STARS:
            inside = np.hypot(rows - row, cols - col) < 12.5
            flux, truth = image[inside].sum(), 10 ** (0.4 * (30.0 - magnitude))
            # Noise of the aperture: pixel noise correlated by Lanczos by at most a factor 2, and the local sky's error.
            noise = 2 * sky_noise * np.sqrt(inside.sum())
            assert abs(flux / truth - 1) < 0.005 + 3 * noise / truth
            assert 3 * noise / truth < 0.015


def test_median_flux_is_right_to_half_a_percent(done: Context) -> None:
    table = read_table(done.tree.catalog("r"))
    truth = ImageWCS(tile_header(SIZE))
    row, col = truth.sky_to_pixel(*truth.pixel_to_sky(STARS[:, 0], STARS[:, 1]))
    order = [
        int(np.argmin(np.hypot(table["Y_IMAGE"] - 1 - r, table["X_IMAGE"] - 1 - c)))
        for r, c in zip(row, col, strict=True)
    ]
    # The widest of the 12 apertures holds all of a Gaussian of 0.9 arcsec.
    ratio = table["FLUX_APER"][order, 8] / 10 ** (0.4 * (30.0 - STARS[:, 2]))
    assert abs(np.median(ratio) - 1) < 0.005


def test_positions(done: Context) -> None:
    """The centre of every star within 0.05 pixels: TPV frames onto the tile's TAN, and no half-pixel anywhere."""
    for band in done.bands:
        table = read_table(done.tree.catalog(band))
        # At 1.1 sigma a noise peak or two may come along.
        assert len(STARS) <= len(table) <= len(STARS) + 5
        for row, col, _ in STARS:
            distance = np.hypot(table["YWIN_IMAGE"] - 1 - row, table["XWIN_IMAGE"] - 1 - col)
            assert distance.min() < 0.05
        ra, dec = ImageWCS(read_header(done.tree.image(band), "SCI")).pixel_to_sky(
            table["YWIN_IMAGE"] - 1, table["XWIN_IMAGE"] - 1
        )
        assert np.abs(ra - table["ALPHAWIN_J2000"]).max() * 3600 < 1e-3
        assert np.abs(dec - table["DELTAWIN_J2000"]).max() * 3600 < 1e-3


def test_catalogue_segmentation_and_object_map_agree(done: Context) -> None:
    tables = {band: read_table(done.tree.catalog(band)) for band in done.bands}
    maps = {band: read_image(done.tree.segmap(band), "SCI") for band in done.bands}
    for band, table in tables.items():
        assert np.array_equal(table["NUMBER"], np.arange(1, len(table) + 1))
        assert np.array_equal(np.unique(maps[band]), np.arange(len(table) + 1))
        objects = read_table(done.tree.objmap(band), "OBJECTS")
        assert [objects.dtype[name].str[1:] for name in ("object_number", "id")] == ["i4", "i8"]
        assert np.array_equal(objects["object_number"], table["NUMBER"])
        assert all(decoded[:2] == (TILE, None) for decoded in decode_object_ids(objects["id"]))
        peaks = maps[band][table["YPEAK_IMAGE"] - 1, table["XPEAK_IMAGE"] - 1]
        assert np.array_equal(peaks, table["NUMBER"])
        assert {"ISOAREA_IMAGE", "X2_IMAGE", "Y2_IMAGE", "ERRX2_IMAGE", "ERRY2_IMAGE", "A_WORLD", "B_WORLD"} <= set(
            table.dtype.names
        )
    assert np.array_equal(maps["g"], maps["r"])
    require_one_segmentation({band: done.tree.segmap(band) for band in done.bands}, tile=TILE)
    assert np.array_equal(tables["g"]["X_IMAGE"], tables["r"]["X_IMAGE"])


def test_segmentation_of_another_detection_is_refused(done: Context, tmp_path: Path) -> None:
    other = read_image(done.tree.segmap("g"), "SCI")
    other[0, 0] = 1
    with fitsio.FITS(str(tmp_path / "s.fits"), "rw") as fits:
        fits.write(other, extname="SCI")
        fits[0].write_checksum()
    with pytest.raises(ProductError, match="do not share one segmentation"):
        require_one_segmentation({"g": done.tree.segmap("g"), "r": tmp_path / "s.fits"}, tile=TILE)


def test_lists_logs_and_psf_map(done: Context) -> None:
    tree = done.tree
    frames = tree.flist("nullwt", "g").read_text().splitlines()
    images = tree.swarp_list("im", "g").read_text().splitlines()
    assert images == [line.rsplit(maxsplit=1)[0] + "[0]" for line in frames]
    assert tree.swarp_list("wt", "g").read_text().splitlines()[0].endswith("_immasked_nullwt.fits[2]")
    assert tree.swarp_list("msk", "g").read_text().splitlines()[0].endswith("_immasked_nullwt.fits[1]")
    scales = [float(line) for line in tree.swarp_list("fsc", "g").read_text().split()]
    assert scales == pytest.approx([10 ** (0.4 * (30 - zp)) for zp in ZERO_POINTS], rel=1e-14)
    assert "All done" in tree.tool_log("swarp", "g").read_text(errors="replace")
    assert "All done" in tree.tool_log("sextractor", "r").read_text(errors="replace")
    assert tree.all_psfmap.read_text() == tree.psfmap("g").read_text() + tree.psfmap("r").read_text()
    assert list((done.site.tmp).iterdir()) == []
    manifest = read_manifest(tree.manifest("coadd", "g"))
    assert manifest["counts"]["images"] == 3
    assert {Path(entry["path"]).name for entry in manifest["inputs"]} >= {
        Path(line.rsplit(maxsplit=1)[0]).name for line in frames
    }
    assert read_manifest(tree.manifest("catalog", "r"))["counts"]["detections"] == len(read_table(tree.catalog("r")))


def test_masked_pixels_are_interpolated_and_stay_masked(tmp_path: Path) -> None:
    """A block masked on every frame: MSK over it and the fill, WGT untouched, SCI near its surroundings."""
    context = make_context(tmp_path, ("r",), ("r",))
    sky = Sky(SIZE, FRAME, noise=3.0, seed=3)
    tile = ImageWCS(tile_header(SIZE))
    hole = np.s_[90:100, 118:124]

    def mask(i: int, planes: dict) -> None:
        frame = ImageWCS(frame_header(FRAME, *POINTINGS[i]))
        # Every frame pixel whose resampled value can reach into the hole: the hole and 4 pixels around it.
        rows, cols = np.mgrid[:FRAME, :FRAME]
        r, c = tile.sky_to_pixel(*frame.pixel_to_sky(rows.ravel(), cols.ravel()))
        inside = ((r > 85.5) & (r < 103.5) & (c > 113.5) & (c < 127.5)).reshape(rows.shape)
        planes["WGT"][inside] = 0
        planes["WGT_ME"][inside] = 0
        # Inside stars WGT_ME keeps trail pixels that WGT nulls.
        planes["WGT"][20:90, 20:90] = 0
        planes["SCI"][inside] = 1e4

    fill(context, "r", sky, mask)
    coadd(context, "r")
    sci, msk, wgt = (read_image(context.tree.image("r"), name) for name in ("SCI", "MSK", "WGT"))
    assert msk[hole].all()
    assert (wgt[hole] == 0).all()
    assert (sci[hole] != 0).all()
    good = (msk == 0) & (wgt > 0)
    noise = 1.4826 * np.median(np.abs(sci[good]))
    # The fill is a median of some hundred pixels.
    assert np.abs(sci[hole]).max() < noise
    star_only = (msk == 1) & (wgt > 0)
    assert star_only[25:40, 25:40].all(), "mask weight comes from WGT, image weight from WGT_ME"


def test_products_are_the_same_in_every_run(tmp_path: Path, done: Context) -> None:
    again = make_context(tmp_path, ("g", "r"), ("r", "g"))
    for band, seed in (("r", 6), ("g", 5)):
        fill(again, band, Sky(SIZE, FRAME, STARS, noise=3.0, seed=seed), mask_column)
        coadd(again, band)
    detection(again)
    for band in ("r", "g"):
        catalog(again, band)
    products = [
        (tree.image(band), tree.catalog(band), tree.segmap(band), tree.objmap(band))
        for tree in (done.tree, again.tree)
        for band in ("g", "r")
    ]
    half = len(products) // 2
    pairs = [
        pair for old, new in zip(products[:half], products[half:], strict=True) for pair in zip(old, new, strict=True)
    ]
    for one, other in [*pairs, (done.tree.image("det"), again.tree.image("det"))]:
        with fitsio.FITS(str(one)) as a, fitsio.FITS(str(other)) as b:
            assert len(a) == len(b)
            for first, second in zip(a, b, strict=True):
                cards = [
                    [(card["name"], card.get("value"), card.get("comment")) for card in hdu.read_header().records()]
                    for hdu in (first, second)
                ]
                kept = [[card for card in header if card[0] != "CHECKSUM"] for header in cards]
                assert kept[0] == kept[1]
                assert not first.has_data() or any(card[0] == "DATASUM" for card in kept[0])


def test_realization_has_its_own_ids(tmp_path: Path) -> None:
    context = make_context(tmp_path, ("r",), ("r",), realization="0")
    fill(context, "r", Sky(SIZE, FRAME, STARS[:2], noise=3.0))
    coadd(context, "r")
    detection(context)
    catalog(context, "r")
    ids = read_table(context.tree.objmap("r"), "OBJECTS")["id"]
    assert len(ids) >= 2
    assert [tuple(identity) for identity in decode_object_ids(ids)] == [(TILE, "0", i + 1) for i in range(len(ids))]


def test_no_detection_is_refused(tmp_path: Path) -> None:
    context = make_context(tmp_path, ("r",), ("r",))

    def empty(_: int, planes: dict) -> None:
        planes["SCI"][:] = 0
        planes["SCI"][::2] = 1e-3

    fill(context, "r", Sky(SIZE, FRAME), empty)
    coadd(context, "r")
    detection(context)
    with pytest.raises(InputError, match="nothing was detected") as caught:
        catalog(context, "r")
    assert caught.value.where == {"tile": TILE, "band": "r"}
    assert caught.value.remedy
    assert not context.tree.catalog("r").exists()
    assert not context.tree.manifest("catalog", "r").exists()


def test_fully_masked_band_is_refused(tmp_path: Path) -> None:
    context = make_context(tmp_path, ("r",), ("r",))

    def nothing(_: int, planes: dict) -> None:
        planes["WGT"][:] = 0
        planes["WGT_ME"][:] = 0

    fill(context, "r", Sky(SIZE, FRAME), nothing)
    with pytest.raises(InputError, match="none of 3 images has a good pixel") as caught:
        coadd(context, "r")
    assert caught.value.where["band"] == "r"
    assert not context.tree.image("r").exists()
    assert list(context.site.tmp.iterdir()) == []


def test_one_fully_masked_frame_is_left_out(tmp_path: Path) -> None:
    context = make_context(tmp_path, ("r",), ("r",))

    def first(i: int, planes: dict) -> None:
        if i == 0:
            planes["WGT"][:] = 0
            planes["WGT_ME"][:] = 0
            planes["SCI"][:] = 1e6

    fill(context, "r", Sky(SIZE, FRAME, STARS, noise=3.0), first)
    coadd(context, "r")
    image = read_image(context.tree.image("r"), "SCI")
    assert abs(np.median(image)) < 1


def test_nan_in_a_frame_names_the_frame(tmp_path: Path) -> None:
    context = make_context(tmp_path, ("r",), ("r",))

    def nan(i: int, planes: dict) -> None:
        if i == 1:
            planes["SCI"][100:103, 100:103] = np.nan

    fill(context, "r", Sky(SIZE, FRAME, STARS, noise=3.0), nan)
    with pytest.raises(ProductError, match="9 pixels of HDU 0 are not finite") as caught:
        coadd(context, "r")
    assert "D00400001" in caught.value.where["file"]


def test_empty_list_and_missing_files_are_refused(tmp_path: Path) -> None:
    context = make_context(tmp_path, ("r",), ("r",))
    Geometry.tangent(TILE, *CENTRE, SIZE, SIZE, SCALE).write(context.tree.geometry)
    with pytest.raises(ProductError, match="no list"):
        coadd(context, "r")
    writing_text(context.tree.flist("nullwt", "r"), "\n")
    with pytest.raises(InputError, match="no image of this band"):
        coadd(context, "r")
    writing_text(context.tree.flist("nullwt", "r"), "/nowhere/x.fits 30.0\n")
    with pytest.raises(ProductError, match="not there"):
        coadd(context, "r")
    writing_text(context.tree.flist("nullwt", "r"), "x.fits\n")
    with pytest.raises(ProductError, match="line 1"):
        coadd(context, "r")
    with pytest.raises(ProductError):
        detection(context)
    with pytest.raises(ProductError, match="there is no PSF map") as caught:
        psfmap.join(context)
    assert caught.value.where == {"tile": TILE, "band": "r", "file": str(context.tree.psfmap("r"))}
    with pytest.raises(ProductError, match="a coadd is not there"):
        catalog(context, "r")


def test_damaged_frame_stops_the_band(tmp_path: Path) -> None:
    context = make_context(tmp_path, ("r",), ("r",))
    fill(context, "r", Sky(SIZE, FRAME))
    path = Path(context.tree.flist("nullwt", "r").read_text().splitlines()[1].rsplit(maxsplit=1)[0])
    path.write_bytes(b"not a FITS file")
    with pytest.raises(ProductError, match="cannot be opened"):
        coadd(context, "r")
    assert not context.tree.image("r").exists()
