"""The oracles M1 to M11 of the MEDS format, each as a test of that name."""

import json
import subprocess
import sys
from pathlib import Path

import fitsio
import galsim
import galsim.des
import numpy as np
import pytest
from meds_frames import COADD_SHAPE, FRAMES, STAMPS, Frame, layout_at, tan_header, tpv_header, write_stamps
from numpy.lib.recfunctions import repack_fields
from scipy.ndimage import distance_transform_edt

from balrogutils.fitsfile import Plane, write_images
from balrogutils.meds import MEDS
from balrogutils.meds.cutouts import FILL, Grid, find, lay_out
from balrogutils.meds.extract import extract_range
from balrogutils.meds.sources import PlaneFile, SourceImage, relative_scale
from balrogutils.meds.weights import coadd_weight, uberseg
from balrogutils.meds.writer import Packing
from balrogutils.randomness import stream
from balrogutils.wcs import ImageWCS

BENCHMARK = Path(__file__).resolve().parents[1] / "benchmarks" / "meds_writer.py"
IDENTITY = 0.263 * np.eye(2)
NMAX = 7


def random_frames(count, shape=(150, 140)):
    rng = stream(21, "frames")
    frames = []
    for _ in range(count):
        planes = {"image": rng.normal(0, 5, shape), "weight": rng.random(shape)}
        planes |= {"seg": rng.integers(0, 900, shape), "bmask": rng.integers(0, 2**15, shape)}
        frames.append(Frame({kind: pixels.astype(STAMPS[kind]) for kind, pixels in planes.items()}))
    return frames


def random_layout(count=40, nmax=NMAX, shape=(150, 140)):
    """Objects with 1 to nmax cut-outs on random images, the box of each its own."""
    rng = stream(22, "objects")
    found = [[] for _ in range(count)]
    for cutouts in found:
        for file_id in sorted(rng.choice(nmax, rng.integers(1, nmax + 1), replace=False)):
            cutouts.append((int(file_id), rng.uniform(0, shape[0] - 1), rng.uniform(0, shape[1] - 1)))
    found[3] = [(k, 20.0 + k, 30.0) for k in range(nmax)]
    return layout_at(found, rng.choice([2, 6, 16, 32, 48], count))


def test_m1_what_is_written_is_read(tmp_path):
    """Random stamps by (object, slot, type) and as mosaics; unused slots -9999; every HDU of sum(box^2 ncutout)."""
    frames, (layout, box) = random_frames(NMAX), random_layout()
    path = write_stamps(tmp_path / "m.fits", layout, box, frames)
    total = int((box**2 * layout.ncutout).sum())
    with fitsio.FITS(str(path)) as fits:
        for kind in STAMPS:
            assert fits[f"{kind}_cutouts"].get_dims() == [total]
    with MEDS(path) as meds:
        assert meds["file_id"].shape == (len(box), NMAX)
        assert meds["ncutout"].min() < meds["ncutout"].max() == NMAX
        unused = np.arange(NMAX) >= meds["ncutout"][:, np.newaxis]
        for name in ("file_id", "start_row", "orig_row", "orig_start_col", "cutout_row", "dudrow", "dvdcol"):
            assert (meds[name][unused] == FILL).all()
            assert (meds[name][~unused] != FILL).all()
        for i, side in enumerate(box):
            for kind, dtype in STAMPS.items():
                stamps = []
                for k in range(meds["ncutout"][i]):
                    pixels = frames[meds["file_id"][i, k]].pixels[kind]
                    top, left = meds["orig_start_row"][i, k], meds["orig_start_col"][i, k]
                    wide = np.pad(pixels, 60, constant_values=2**30 if kind == "bmask" else 0)
                    expected = wide[top + 60 : top + 60 + side, left + 60 : left + 60 + side]
                    stamp = meds.get_cutout(i, k, kind)
                    assert stamp.dtype == np.dtype(dtype)
                    np.testing.assert_array_equal(stamp, expected)
                    stamps.append(stamp)
                np.testing.assert_array_equal(meds.get_mosaic(i, kind), np.vstack(stamps))


def placed(frame=FRAMES[1], count=50):
    """Objects on a distorted image, laid out alone."""
    angle, parity, row0, col0, rows, cols, _ = frame
    grid = Grid(ImageWCS(tpv_header((rows, cols), angle, parity, row0, col0)), (rows, cols))
    rng = stream(23, "placed")
    ra, dec = grid.wcs.pixel_to_sky(rng.uniform(0, rows - 1, count), rng.uniform(0, cols - 1, count))
    return grid, ra, dec, lay_out([find(grid, ra, dec)], [grid], np.full(count, 32))


@pytest.mark.parametrize("frame", FRAMES)
def test_m2_stamps_lie_where_the_table_says(frame):
    """orig_start + cutout = orig exactly; WCS(orig) = (ra, dec) within 1e-3 arcsec."""
    grid, ra, dec, layout = placed(frame)
    table = layout.per_object
    for axis in ("row", "col"):
        origin, inside, whole = (table[f"{name}_{axis}"][:, 0] for name in ("orig_start", "cutout", "orig"))
        # The sum is exact: the difference of two doubles less than a factor of two apart has no rounding, others one.
        np.testing.assert_allclose(origin + inside, whole, rtol=0, atol=1e-13 * 512)
        np.testing.assert_array_equal(inside, whole - origin)
    ra1, dec1 = grid.wcs.pixel_to_sky(table["orig_row"][:, 0], table["orig_col"][:, 0])
    assert (np.abs(ra1 - ra) * 3600 * np.cos(np.radians(dec))).max() < 1e-3
    assert (np.abs(dec1 - dec) * 3600).max() < 1e-3


def test_m3_jacobians_are_differences_of_the_wcs():
    """Central differences of half a pixel in the plane tangent at the object, relative 1e-6; sqrt|det| = 0.263."""
    shape = COADD_SHAPE
    wcs = ImageWCS(tan_header(shape))
    rng = stream(24, "jacobians")
    row, col = rng.uniform(0, shape[0] - 1, 40), rng.uniform(0, shape[1] - 1, 40)
    ra0, dec0 = (np.radians(angle) for angle in wcs.pixel_to_sky(row, col))

    def plane(r, c):
        ra, dec = (np.radians(angle) for angle in wcs.pixel_to_sky(r, c))
        cosine = np.sin(dec0) * np.sin(dec) + np.cos(dec0) * np.cos(dec) * np.cos(ra - ra0)
        u = -np.cos(dec) * np.sin(ra - ra0) / cosine
        v = (np.cos(dec0) * np.sin(dec) - np.sin(dec0) * np.cos(dec) * np.cos(ra - ra0)) / cosine
        return np.array([u, v]) * 648000 / np.pi

    jacobian = wcs.jacobian(row, col)
    differences = {"row": plane(row + 0.5, col) - plane(row - 0.5, col)}
    differences["col"] = plane(row, col + 0.5) - plane(row, col - 0.5)
    for axis, (du, dv) in differences.items():
        np.testing.assert_allclose(getattr(jacobian, f"dud{axis}"), du, atol=0.263e-6)
        np.testing.assert_allclose(getattr(jacobian, f"dvd{axis}"), dv, atol=0.263e-6)
    det = jacobian.dudrow * jacobian.dvdcol - jacobian.dudcol * jacobian.dvdrow
    np.testing.assert_allclose(np.sqrt(np.abs(det)), 0.263, rtol=1e-4)


def test_m4_off_image_pixels(tmp_path):
    """An object three rows from an edge, box 32: image, weight, seg 0 and bmask 2^30 beyond it, the source within."""
    (frame,) = random_frames(1)
    layout, box = layout_at([[(0, 3.0, 70.0)], [(0, 146.0, 70.0)], [(0, 70.0, 3.0)], [(0, 70.0, 136.0)]], [32] * 4)
    path = write_stamps(tmp_path / "m.fits", layout, box, [frame])
    off = {"image": 0, "weight": 0, "seg": 0, "bmask": 2**30}
    with MEDS(path) as meds:
        assert meds["orig_start_row"][0, 0] == 3 - 16 + 1
        for kind, fill in off.items():
            pixels = frame.pixels[kind]
            low, high, left, right = (meds.get_cutout(i, 0, kind) for i in range(4))
            assert (low[:12] == fill).all()
            np.testing.assert_array_equal(low[12:], pixels[:20, 55:87])
            # 131 + 19 = 150 rows
            assert (high[19:] == fill).all()
            np.testing.assert_array_equal(high[:19], pixels[131:, 55:87])
            assert (left[:, :12] == fill).all()
            np.testing.assert_array_equal(left[:, 12:], pixels[55:87, :20])
            assert (right[:, 19:] == fill).all()
            np.testing.assert_array_equal(right[:, :19], pixels[55:87, 121:])


def test_m5_fluxes_are_scaled_to_one_zero_point(tmp_path):
    """magzp 31.5 to 30: image x 0.2511886, weight x 15.848932; image^2 weight stays."""
    shape = (60, 50)
    rng = stream(25, "scale")
    cards = tan_header(shape)
    header = fitsio.FITSHDR([{"name": key, "value": value} for key, value in cards.items()])
    image, weight = rng.normal(100, 5, shape).astype("f4"), rng.uniform(0.5, 1, shape).astype("f4")
    write_images(tmp_path / "i.fits", [Plane("SCI", image, header), Plane("WGT", weight)])
    files = {"image": PlaneFile(tmp_path / "i.fits", "SCI"), "weight": PlaneFile(tmp_path / "i.fits", "WGT")}
    source = SourceImage(files, 31.5, relative_scale(31.5, 30.0))
    layout, box = layout_at([[(0, 30.2, 25.1)]], [16])
    path = write_stamps(tmp_path / "m.fits", layout, box, [source], kinds=("image", "weight"))
    with MEDS(path) as meds:
        top, left = meds["orig_start_row"][0, 0], meds["orig_start_col"][0, 0]
        part = (slice(top, top + 16), slice(left, left + 16))
        new_image, new_weight = meds.get_cutout(0, 0).astype(float), meds.get_cutout(0, 0, "weight").astype(float)
    assert f"{10**-0.6:.7f} {10**1.2:.6f}" == "0.2511886 15.848932"
    # One rounding to single precision, half of 2^-23.
    np.testing.assert_allclose(new_image / image[part], 10**-0.6, rtol=6e-8)
    np.testing.assert_allclose(new_weight / weight[part], 10**1.2, rtol=6e-8)
    # Three such roundings.
    np.testing.assert_allclose(new_image**2 * new_weight, image[part].astype(float) ** 2 * weight[part], rtol=1.8e-7)


def test_m6_packing(tmp_path):
    """Zero weights exactly zero, whole numbers exact, rms of the change 0.25 / sqrt(12) of the noise within 10 %."""
    shape = (700, 700)
    rng = stream(26, "packing")
    weight = np.where(rng.random(shape) < 0.1, 0, 1 + 0.02 * rng.random(shape))
    planes = {"image": rng.normal(0, 3, shape), "weight": weight, "seg": rng.integers(0, 90, shape)}
    planes["bmask"] = rng.integers(0, 2**15, shape)
    frame = Frame({kind: pixels.astype(STAMPS[kind]) for kind, pixels in planes.items()})
    layout, box = layout_at([[(0, 300.0, 300.0)], [(0, 300.0, 380.0)]], [256, 256])
    plain, packed = tmp_path / "m.fits", tmp_path / "m.fits.fz"
    write_stamps(packed, layout, box, [frame], packing=Packing(("m6",)), keep_plain=plain)
    with MEDS(plain) as before, MEDS(packed) as after:
        for i in range(2):
            for kind in ("seg", "bmask"):
                np.testing.assert_array_equal(before.get_cutout(i, 0, kind), after.get_cutout(i, 0, kind))
            zero = before.get_cutout(i, 0, "weight") == 0
            assert zero.any()
            np.testing.assert_array_equal(after.get_cutout(i, 0, "weight") == 0, zero)
            change = after.get_cutout(i, 0).astype(float) - before.get_cutout(i, 0)
            assert change.std() / 3 == pytest.approx(0.25 / np.sqrt(12), rel=0.1)


def test_m7_uberseg():
    """Labels 1 at (16, 10), 2 at (16, 22): columns up to 16, the tie, keep the weight. Brute force off ties."""
    seg = np.zeros((32, 32), np.int32)
    seg[16, 10], seg[16, 22] = 1, 2
    weight = np.ones((32, 32), np.float32)
    here = (IDENTITY, 16.0, 10.0)
    kept = uberseg(weight, seg, here, here, 1)
    np.testing.assert_array_equal(kept, np.where(np.arange(32) <= 16, weight, 0))
    rng = stream(27, "uberseg")
    checked = 0
    for _ in range(30):
        seg = np.zeros((40, 40), np.int32)
        for number in range(1, 6):
            r, c = rng.integers(2, 36, 2)
            seg[r : r + 3, c : c + 4] = number
        number = int(rng.choice(np.unique(seg[seg > 0])))
        r, c = np.argwhere(seg == number)[0]
        here = (IDENTITY, float(r), float(c))
        nearest = [distance_transform_edt(~mask) for mask in (seg == number, (seg != 0) & (seg != number))]
        expected = (nearest[0] < nearest[1]) & ((seg == 0) | (seg == number))
        off = nearest[0] != nearest[1]
        kept = uberseg(np.ones((40, 40)), seg, here, here, number) != 0
        np.testing.assert_array_equal(kept[off], expected[off])
        checked += int((~expected).sum())
    assert checked > 1000


def test_m8_cweight():
    """The epoch of the coadd's own Jacobian and centre sees the map itself; two rows further down it shifts by two."""
    rng = stream(28, "cweight")
    seg = np.where(rng.random((32, 32)) < 0.3, rng.integers(1, 4, (32, 32)), 0).astype(np.int32)
    seg[16, 10] = 2
    weight = rng.uniform(1, 2, (32, 32))
    coadd = (IDENTITY, 16.0, 10.0)
    same = coadd_weight(weight, seg, coadd, coadd)
    np.testing.assert_array_equal(same, np.where((seg == 0) | (seg == 2), weight, 0))
    shifted = coadd_weight(weight, seg, coadd, (IDENTITY, 18.0, 10.0))
    np.testing.assert_array_equal(shifted[2:] != 0, same[:-2] != 0)


@pytest.mark.parametrize("packed", [False, True])
def test_m9_a_range_is_its_parent(tmp_path, packed):
    """Every cut-out of rows a to b equals the parent's; the first start_row is 0."""
    frames, (layout, box) = random_frames(NMAX), random_layout()
    path = tmp_path / ("m.fits.fz" if packed else "m.fits")
    write_stamps(path, layout, box, frames, packing=Packing(("m9",)) if packed else None)
    extract_range(path, 7, 25, tmp_path / "part.fits")
    with MEDS(path) as parent, MEDS(tmp_path / "part.fits") as part:
        assert part.size == 19
        assert part["start_row"][0, 0] == 0
        np.testing.assert_array_equal(part["id"], parent["id"][7:26])
        for i in range(part.size):
            for k in range(part["ncutout"][i]):
                for kind in STAMPS:
                    np.testing.assert_array_equal(part.get_cutout(i, k, kind), parent.get_cutout(i + 7, k, kind))


def peak(tmp_path, **options):
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), *words, "--scratch", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=500,
    )
    return json.loads(done.stdout)


def test_m10_memory_does_not_follow_the_pixels(tmp_path):
    """Ten times the cut-outs: the peak of the writer stays within one source image."""
    # Enough objects in both for every strip of the image to be read whole.
    few = peak(tmp_path, objects=600, exposures=1, rows=1500, cols=1200)
    many = peak(tmp_path, objects=6000, exposures=1, rows=1500, cols=1200)
    assert many["plain_MB"] > 8 * few["plain_MB"]
    assert abs(many["peak_MB"] - few["peak_MB"]) < few["image_MB"]


def galsim_objects(psf=True):
    rng = stream(29, "galsim")
    made = []
    for number in (1, 2, 3):
        images = [galsim.Image(rng.normal(0, 1, (48, 48)), scale=0.27) for _ in range(number)]
        weights = [galsim.Image(rng.uniform(1, 2, (48, 48)), scale=0.27) for _ in images]
        segs = [galsim.ImageI(np.full((48, 48), number, np.int32)) for _ in images]
        psfs = [galsim.Image(rng.random((48, 48))) for _ in images] if psf else None
        wcs = [galsim.PixelScale(0.27).affine(image_pos=galsim.PositionD(23.5, 23.5)) for _ in images]
        made.append(
            galsim.des.MultiExposureObject(images=images, weight=weights, seg=segs, psf=psfs, wcs=wcs, id=number)
        )
    return made


def test_m11_files_of_galsim_and_files_that_lack_columns(tmp_path):
    """A file GalSim wrote, and the same without psf, number and wcs columns."""
    objects = galsim_objects()
    galsim.des.WriteMEDS(objects, str(tmp_path / "galsim.fits"))
    with fitsio.FITS(str(tmp_path / "galsim.fits")) as fits, fitsio.FITS(str(tmp_path / "bare.fits"), "rw") as bare:
        rows = fits["object_data"].read()
        keep = [name for name in rows.dtype.names if name != "number" and not name.startswith("psf")]
        bare.write(None)
        bare.write_table(repack_fields(rows[keep]), extname="object_data")
        for name in ("image_info", "metadata"):
            bare.write_table(fits[name].read(), extname=name)
        for name in ("image_cutouts", "weight_cutouts", "seg_cutouts"):
            bare.write(fits[name].read(), extname=name)
    for name, psf in (("galsim", True), ("bare", False)):
        with MEDS(tmp_path / f"{name}.fits") as meds:
            assert meds.has_psf() is psf
            assert meds.get_wcs_cards(2, 1) is None
            for i, one in enumerate(objects):
                assert meds.get_number(i) == i + 1
                block = meds.read_objects(i, i + 1, ["image", "weight", "seg"])
                for k, image in enumerate(one.images):
                    np.testing.assert_array_equal(meds.get_cutout(i, k), image.array)
                    np.testing.assert_array_equal(block.get_cutout(i, k, "weight"), meds.get_cutout(i, k, "weight"))
                    np.testing.assert_array_equal(meds.get_uberseg(i, k), meds.get_cutout(i, k, "weight"))
                    if psf:
                        np.testing.assert_array_equal(meds.get_psf(i, k), one.psf[k].array)
