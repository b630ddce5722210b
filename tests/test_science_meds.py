"""MEDS files of the default tile against the files they were cut from, base run and a realization."""

import dataclasses

import fitsio
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from science_tile import BANDS, STARS, TILE

from balrogutils.blocks.meds import meds
from balrogutils.context import Context
from balrogutils.exposures.lists import read_flist, read_zero_points
from balrogutils.fitsfile import read_image, read_table
from balrogutils.layout import chip_of
from balrogutils.meds import MEDS

pytestmark = pytest.mark.science

PLANES = ("image", "weight", "seg", "bmask")
OFF_IMAGE = {"image": 0, "weight": 0, "seg": 0, "bmask": 2**30}
COMPRESSION_TILE = 10240
# Relative to the pixel scale; central differences over a pixel are good to 1e-9.
JACOBIAN = 1e-6
# Where two WCS libraries may disagree (pixels) about a centre on the very edge of an image.
EDGE = 1e-4
# By how much the header of an image that was not taken may be off before its astrometry is refined, in pixels.
HEADER_OFFSET = 1.0


@dataclasses.dataclass
class Cut:
    """One band's MEDS file as the workflow packed it, and the same before packing."""

    label: str
    band: str
    context: Context
    plain: object

    @property
    def packed(self):
        return self.context.tree.meds(self.band)

    def sources(self):
        """Yield (file_id, image, segmentation, background or None, scale) of each source image."""
        tree, band = self.context.tree, self.band
        yield 0, tree.image(band), tree.segmap(band), None, 1.0
        images = read_zero_points(tree.flist("nullwt", band))
        segs, bkgs = (read_flist(tree.flist(kind, band)) for kind in ("seg", "bkg"))
        for number, ((image, magzp), seg, bkg) in enumerate(zip(images, segs, bkgs, strict=True), 1):
            yield number, image, seg, bkg, 10 ** (0.4 * (30.0 - magzp))


@pytest.fixture(scope="module", params=[None, STARS[0]], ids=["base", f"realization {STARS[0]}"])
def cuts(request, science):
    """Every band of a tile; the MEDS block keeps the uncompressed files in a directory that mirrors the tile's."""
    science.make("bal_config_stars.yaml", STARS, 63)
    context = science.context(request.param)
    room = science.directory / "plain"
    mirror = dataclasses.replace(context, site=dataclasses.replace(context.site, meds_data=room))
    mirror.tree.dir.mkdir(parents=True, exist_ok=True)
    for path in context.tree.dir.iterdir():
        link = mirror.tree.dir / path.name
        if path.name not in ("manifests", "logs") and not path.name.endswith(".fz") and not link.exists():
            link.symlink_to(path)
    label = "base" if request.param is None else f"realization {request.param}"
    made = []
    for band in BANDS:
        plain = mirror.tree.dir / f"plain_{band}.fits"
        meds(mirror, band, keep_plain=plain)
        made.append(Cut(label, band, context, plain))
    yield made
    for cut in made:
        cut.plain.unlink()


def source_planes(image, seg, bkg, scale):
    """Return the four planes scaled and background-subtracted, in double precision rounded once, as the format says."""
    pixels = read_image(image, "SCI").astype(float)
    if bkg is not None:
        pixels -= read_image(bkg, "SCI")
    return {
        "image": (pixels * scale).astype(np.float32),
        "weight": (read_image(image, "WGT").astype(float) * (1.0 / scale**2)).astype(np.float32),
        "seg": read_image(seg, "SCI").astype(np.int32),
        "bmask": read_image(image, "MSK").astype(np.int32),
    }


def paste(expected, planes, objects, file_id):
    """Put every stamp of one source image where the tables say it is, pixel by pixel of the source."""
    for i, k in np.argwhere(objects["file_id"] == file_id):
        box, start = int(objects["box_size"][i]), int(objects["start_row"][i, k])
        rows = int(objects["orig_start_row"][i, k]) + np.arange(box)
        cols = int(objects["orig_start_col"][i, k]) + np.arange(box)
        shape = planes["image"].shape
        on_rows, on_cols = (rows >= 0) & (rows < shape[0]), (cols >= 0) & (cols < shape[1])
        where = np.ix_(on_rows, on_cols)
        for kind, pixels in planes.items():
            stamp = expected[kind][start : start + box * box].reshape(box, box)
            stamp[where] = pixels[np.ix_(rows[on_rows], cols[on_cols])]


def test_cutouts_equal_source_pixels_before_packing(cuts, science):
    """No tolerance: the same pixels, scaled and background-subtracted in double precision and rounded once."""
    rows = []
    for cut in cuts:
        with fitsio.FITS(str(cut.plain)) as file:
            objects = file["object_data"].read()
            found = {kind: file[f"{kind}_cutouts"].read() for kind in PLANES}
        expected = {kind: np.full(pixels.shape, OFF_IMAGE[kind], pixels.dtype) for kind, pixels in found.items()}
        for number, *files, scale in cut.sources():
            paste(expected, source_planes(*files, scale), objects, number)
        for kind in PLANES:
            assert np.isfinite(found[kind]).all()
        differing = [int(np.sum(found[kind] != expected[kind])) for kind in PLANES]
        # Not all on one image, and not all in one place.
        off = int(np.sum(found["bmask"] == OFF_IMAGE["bmask"]))
        assert off > 0
        stamps = int(objects["ncutout"].sum())
        rows.append((cut.label, cut.band, len(objects), stamps, found["image"].size, off, *differing))
    header = ("run", "band", "objects", "cut-outs", "pixels", "off the image", *(f"{kind} differs" for kind in PLANES))
    science.figures(f"6a before packing {cuts[0].label}", header, rows)
    assert all(row[-4:] == (0, 0, 0, 0) for row in rows)


def test_packed_cutouts_are_within_half_a_quantum(cuts, science):
    """The quantum of each compression tile is what fpack wrote down itself, in the column ZSCALE; 0 is without loss.

    Beside half a quantum only rounding is allowed: of the unpacked value to single precision, and of the sums of
    cfitsio in double precision, which count quanta from -2^31 on and so end at 2^31 / 2^53 of a quantum.
    """
    rows = []
    for cut in cuts:
        with fits.open(cut.packed, disable_image_compression=True) as raw:
            quanta = {kind: np.array(raw[f"{kind}_cutouts"].data["ZSCALE"]) for kind in ("image", "weight")}
        worst = {}
        for kind, quantum in quanta.items():
            before, after = (fitsio.read(str(path), ext=f"{kind}_cutouts") for path in (cut.plain, cut.packed))
            assert np.isfinite(quantum).all()
            assert np.median(quantum) > 0
            limit = 0.5 * np.repeat(quantum, COMPRESSION_TILE)[: before.size]
            error = np.abs(after.astype(float) - before)
            rounding = 0.5 * np.spacing(np.maximum(np.abs(after), np.abs(before))).astype(float)
            rounding += 2.0 * limit * 2.0**-22
            worst[kind] = float(np.max((error - rounding)[limit > 0] / limit[limit > 0]))
            assert (error <= limit + rounding).all()
            assert (after[before == 0] == 0).all()
            if kind == "weight":
                zeros, lost = int(np.sum(before == 0)), int(np.sum((before > 0) & (after <= 0)))
        for kind in ("seg", "bmask"):
            before, after = (fitsio.read(str(path), ext=f"{kind}_cutouts") for path in (cut.plain, cut.packed))
            np.testing.assert_array_equal(after, before)
        rows.append((cut.label, cut.band, *(f"{worst[kind]:.4f}" for kind in worst), zeros, 0, lost))
        assert zeros > 0
    header = ("run", "band", "image: largest error (half quanta)", "weight: the same", "weights 0", "of them changed")
    science.figures(f"6b after packing {cuts[0].label}", (*header, "positive weights that became 0"), rows)


def derivatives(wcs, row, col, half=0.5):
    """Return du/drow, du/dcol, dv/drow, dv/dcol in arcsec per pixel (u west, v north), by astropy."""
    _, dec0 = wcs.all_pix2world(col, row, 0)
    elements = []
    for step in ((half, 0.0), (0.0, half)):
        ra1, dec1 = wcs.all_pix2world(col + step[1], row + step[0], 0)
        ra2, dec2 = wcs.all_pix2world(col - step[1], row - step[0], 0)
        # Over a tenth of an arcsec the sphere is flat to 1e-13.
        elements.append(-(ra1 - ra2) * np.cos(np.radians(dec0)) * 3600.0 / (2 * half))
        elements.append((dec1 - dec2) * 3600.0 / (2 * half))
    dudrow, dvdrow, dudcol, dvdcol = elements
    return {"dudrow": dudrow, "dudcol": dudcol, "dvdrow": dvdrow, "dvdcol": dvdcol}


def test_jacobians_equal_derivatives_of_the_wcs(cuts, science):
    """Within 1e-6 of the pixel scale, by another WCS library (wcslib through astropy) than the one that made them."""
    rows = []
    for cut in cuts:
        worst = {"jacobian": 0.0, "position": 0.0}
        with MEDS(cut.packed) as file:
            for number, image, *_ in cut.sources():
                wcs = WCS(fits.getheader(image, "SCI"))
                at = np.nonzero(file["file_id"] == number)
                row, col = file["orig_row"][at], file["orig_col"][at]
                expected = derivatives(wcs, row, col)
                scale = np.sqrt(np.abs(np.linalg.det(wcs.pixel_scale_matrix))) * 3600.0
                for name, values in expected.items():
                    worst["jacobian"] = max(worst["jacobian"], np.max(np.abs(file[name][at] - values)) / scale)
                x, y = wcs.all_world2pix(file["ra"][at[0]], file["dec"][at[0]], 0)
                worst["position"] = max(worst["position"], np.max(np.hypot(x - col, y - row)))
            total = int(file["ncutout"].sum())
        rows.append((cut.label, cut.band, total, *(f"{value:.1e}" for value in worst.values())))
        assert worst["jacobian"] < JACOBIAN
        assert worst["position"] < EDGE
    header = ("run", "band", "cut-outs", "largest Jacobian error (pixel scales)", "largest position error (pixels)")
    science.figures(f"6c Jacobians {cuts[0].label}", header, rows)


def inside(wcs, shape, ra, dec, margin):
    """Return whether centres lie on an image, `margin` pixels or more from outside."""
    x, y = wcs.all_world2pix(ra, dec, 0, quiet=True)
    return (np.minimum(x, y) >= margin) & (x <= shape[1] - 1 - margin) & (y <= shape[0] - 1 - margin)


def test_every_exposure_that_holds_a_centre_has_its_cutout(cuts, science):
    """Counted by another WCS library; and no image of the archive that the tile did not take holds a centre."""
    archive = science.base / "run" / "archive" / "synthetic" / "desarchive"
    rows = []
    for cut in cuts:
        taken = set()
        with MEDS(cut.packed) as file:
            ra, dec, slots = file["ra"], file["dec"], file["file_id"]
            coadd = WCS(fits.getheader(cut.context.tree.image(cut.band), "SCI"))
            catalog = read_table(cut.context.tree.catalog(cut.band))
            order = np.argsort(catalog["NUMBER"])
            x, y = coadd.all_world2pix(ra, dec, 1)
            np.testing.assert_allclose(x, catalog["X_IMAGE"][order], atol=EDGE)
            np.testing.assert_allclose(y, catalog["Y_IMAGE"][order], atol=EDGE)
            held = doubtful = 0
            for number, image, *_ in cut.sources():
                header = fits.getheader(image, "SCI")
                shape = header["NAXIS2"], header["NAXIS1"]
                surely = inside(WCS(header), shape, ra, dec, EDGE)
                perhaps = inside(WCS(header), shape, ra, dec, -EDGE)
                has = (slots == number).any(axis=1)
                assert ((slots == number).sum(axis=1) <= 1).all()
                assert has[surely].all()
                assert not has[~perhaps].any()
                held, doubtful = held + int(surely.sum()), doubtful + int(np.sum(perhaps & ~surely))
                taken.add(chip_of(image))
            total, most = int(file["ncutout"].sum()), int(file["ncutout"].max())
        others = nearby = 0
        for path in sorted(archive.rglob(f"*_{cut.band}_c*_immasked.fits.fz")):
            if chip_of(path) not in taken:
                header = fits.getheader(path, "SCI")
                nearby += int(inside(WCS(header), (header["NAXIS2"], header["NAXIS1"]), ra, dec, HEADER_OFFSET).sum())
                others += 1
        assert others > 0
        assert nearby == 0
        rows.append((cut.label, cut.band, len(ra), held, total, most, doubtful, len(taken) - 1, others, nearby))
    header = ("run", "band", "objects", "centres on images, by astropy", "cut-outs", "most of one object")
    header += ("centres within 1e-4 pixels of an edge", "CCDs taken", "CCDs not taken", "centres on those")
    science.figures(f"6d exposures {cuts[0].label} of {TILE}", header, rows)
