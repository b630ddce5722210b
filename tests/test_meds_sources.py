"""Source images read strip by strip: scaled, background-subtracted and cleaned as their definition says."""

import fitsio
import numpy as np
import pytest
from meds_frames import STAMPS, fits_header, layout_at, tan_header, write_stamps

from balrogutils.errors import ProductError
from balrogutils.fitsfile import Plane, pack, write_images
from balrogutils.meds import MEDS
from balrogutils.meds.sources import PlaneFile, SourceImage
from balrogutils.randomness import stream

# Three strips of 512 rows, the last a short one.
SHAPE = (1100, 90)
SCALE, UNUSABLE = 0.3, 8


@pytest.fixture(scope="module")
def planes():
    rng = stream(51, "sources")
    image = rng.normal(0, 10, SHAPE).astype("f4")
    image[3, 4], image[700, 10], image[1099, 89] = np.nan, np.inf, -np.inf
    weight = rng.uniform(0.1, 1, SHAPE).astype("f4")
    weight[600, 20], weight[601, 20], weight[602, 20] = np.nan, -1, np.inf
    mask = rng.choice([0, 1, 8, 9], SHAPE).astype("i2")
    seg = rng.integers(0, 70000, SHAPE).astype("i4")
    return {"image": image, "weight": weight, "bmask": mask, "seg": seg, "bkg": rng.normal(50, 1, SHAPE).astype("f4")}


def source(place, planes, packed=False, **options):
    files = {}
    for kind, pixels in planes.items():
        path = place / f"{kind}.fits"
        write_images(path, [Plane("SCI", pixels, fits_header(tan_header(SHAPE)))])
        if packed and kind != "bkg":
            pack(path, place / f"{kind}.fits.fz", "test")
            path = path.with_suffix(".fits.fz")
        files[kind] = PlaneFile(path, "SCI")
    return SourceImage(files, 31.0, SCALE, **options)


def whole(image, kinds=tuple(STAMPS)):
    made = {kind: [] for kind in kinds}
    for strip in image.strips(kinds):
        assert strip.height == SHAPE[0]
        assert strip.first == sum(map(len, made[strip.kind]))
        made[strip.kind].append(strip.pixels)
    assert len(made[kinds[0]]) == 3
    return {kind: np.vstack(parts) for kind, parts in made.items()}


def expected(planes, unusable=0):
    image = ((planes["image"].astype(float) - planes["bkg"]) * SCALE).astype("f4")
    weight = (planes["weight"].astype(float) * (1 / SCALE**2)).astype("f4")
    bad = ~np.isfinite(image)
    weight[bad | ~np.isfinite(weight) | ~(weight > 0) | ((planes["bmask"] & unusable) != 0)] = 0
    return {"image": np.where(bad, 0, image), "weight": weight, "seg": planes["seg"], "bmask": planes["bmask"]}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("unusable", [0, UNUSABLE])
def test_strips_are_the_planes_scaled(tmp_path, planes, packed, unusable, caplog):
    one = source(tmp_path, planes, packed=packed, unusable_bmask=unusable)
    # Packing changes the values; what it made of them is cut out.
    stored = {kind: fitsio.read(str(file.path), ext=file.ext) for kind, file in one.files.items()}
    assert (stored["image"] != planes["image"])[10:500].any() == packed
    made = whole(one)
    for kind, pixels in expected(stored, unusable).items():
        np.testing.assert_array_equal(made[kind], pixels)
    assert one.unusable_pixels == np.sum(~np.isfinite(stored["image"])) >= 1
    assert not one.weightless
    assert f"{one.unusable_pixels} pixels are not finite" in caplog.text


def test_cutouts_across_strips(tmp_path, planes):
    """Stamps over the edges of strips and of the image, of both."""
    one = source(tmp_path, planes)
    at = [(0, 511.0, 40.0), (0, 1023.0, 3.0), (0, 1099.0, 88.0), (0, 0.0, 0.0), (0, 1097.0, 45.0), (0, 500.0, 89.0)]
    layout, box = layout_at([[place] for place in at], [32, 96, 128, 32, 256, 48])
    path = write_stamps(tmp_path / "m.fits", layout, box, [one])
    reference = expected(planes)
    with MEDS(path) as meds:
        for i, side in enumerate(box):
            top, left = meds["orig_start_row"][i, 0], meds["orig_start_col"][i, 0]
            for kind, pixels in reference.items():
                wide = np.pad(pixels.astype("i8" if pixels.dtype.kind == "i" else "f4"), 300)
                if kind == "bmask":
                    wide = np.pad(pixels.astype("i8"), 300, constant_values=2**30)
                part = wide[top + 300 : top + 300 + side, left + 300 : left + 300 + side]
                np.testing.assert_array_equal(meds.get_cutout(i, 0, kind), part)


def test_an_image_without_weight_says_so(tmp_path, planes, caplog):
    one = source(tmp_path, {**planes, "weight": np.zeros(SHAPE, "f4")})
    whole(one)
    assert one.weightless
    assert "no pixel has weight" in caplog.text
    # The last strip alone has some.
    weight = np.zeros(SHAPE, "f4")
    weight[-1, 5] = 1
    one = source(tmp_path, {**planes, "weight": weight})
    whole(one)
    assert not one.weightless


def test_values_beyond_single_precision_are_not_finite(tmp_path, planes):
    image = np.zeros(SHAPE)
    image[5, 5] = 1e39 / SCALE
    one = source(tmp_path, {**planes, "image": image})
    made = whole(one)
    assert made["image"][5, 5] == made["weight"][5, 5] == 0
    assert one.unusable_pixels == 1


def test_bad_planes_are_named(tmp_path, planes):
    one = source(tmp_path, {**planes, "seg": planes["seg"][:9]})
    with pytest.raises(ProductError, match=r"seg plane has shape \(9, 90\)"):
        whole(one)
    one = source(tmp_path, planes)
    one.files["seg"].path.unlink()
    with pytest.raises(ProductError, match="is not there"):
        whole(one)
    one = source(tmp_path, planes)
    with fitsio.FITS(str(one.files["seg"].path), "rw", clobber=True) as fits:
        fits.write(None)
        fits.write(np.zeros(2, [("x", "i4")]), extname="SCI")
    with pytest.raises(ProductError, match="is a table"):
        whole(one)
    one = source(tmp_path, planes)
    path = one.files["weight"].path
    path.write_bytes(path.read_bytes()[: 2880 * 60])
    with pytest.raises(ProductError, match="cannot be read") as caught:
        whole(one)
    assert caught.value.where["file"] == str(path)
    one.files["seg"] = PlaneFile(one.files["seg"].path, "NONE")
    with pytest.raises(ProductError, match="no HDU 'NONE'"):
        whole(one)
