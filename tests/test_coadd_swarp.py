"""What the pipeline takes for granted about SWarp and SExtractor, checked against the installed programs."""

from __future__ import annotations

from pathlib import Path

import fitsio
import numpy as np
import pytest
from coadd_sky import CENTRE, SCALE, Sky, frame_header, tile_header, write_frame
from numpy.typing import NDArray
from scipy.special import gamma

from balrogutils.coadd.assembly import Coadd, fill_columns, write_coadd
from balrogutils.coadd.sextractor import Recipe, check_catalog, extract
from balrogutils.coadd.swarp import Frame, Grid, coadd_band, coadd_chi_mean
from balrogutils.errors import InputError, ToolError
from balrogutils.randomness import stream
from balrogutils.scratch import link_into, scratch

ETC = Path(__file__).parents[1] / "etc"
CONFIG = ETC / "Y3A1_v1_swarp.config"
RECIPE = Recipe(ETC / "Y3A2_v2_sex.config", ETC / "balrog_sex.param", ETC / "gauss_3.0_7x7.conv")


def write_plane(path: Path, pixels: NDArray) -> None:
    cards = [
        {"name": key, "value": value} for key, value in tile_header(len(pixels)).items() if not key.startswith("NAXIS")
    ]
    fitsio.write(str(path), pixels.astype(np.float32), header=cards, clobber=True)


def chi_planes(directory: Path, offset: float = 0.0) -> tuple[dict[str, NDArray], dict[str, NDArray]]:
    """Write three bands of noise with holes in one, two and all of them."""
    size = 300
    images, weights = {}, {}
    for band, sigma in (("r", 3.0), ("z", 5.0), ("i", 8.0)):
        image = stream(1, "test", band).normal(offset, sigma, (size, size))
        image[150, 150] += 100 * sigma
        weight = np.full((size, size), sigma**-2)
        hole = np.zeros((size, size), bool)
        hole[10:20, 10:20] = True
        hole[50:60] = band == "r"
        hole[70:80] = band != "z"
        image[hole], weight[hole] = 0, 0
        images[band], weights[band] = image.astype("f4").astype(float), weight.astype("f4").astype(float)
        write_plane(directory / f"{band}_sci.fits", image)
        write_plane(directory / f"{band}_wgt.fits", weight)
    return images, weights


def test_chi_mean_is_the_normalized_chi_and_its_weight_says_where_a_band_has_weight(tmp_path: Path) -> None:
    images, weights = chi_planes(tmp_path)
    got = coadd_chi_mean(
        ["r", "z", "i"], Grid(*CENTRE, (300, 300), SCALE), tmp_path, config=CONFIG, log=tmp_path / "log"
    )
    bands = sum((weights[band] > 0).astype(int) for band in images)
    chi = np.sqrt(sum(images[band] ** 2 * weights[band] for band in images))
    for n in (2, 3):
        # Mean and standard deviation of the chi distribution with n degrees of freedom.
        mean = np.sqrt(2) * gamma((n + 1) / 2) / gamma(n / 2)
        expected = (chi - mean) / np.sqrt(n - mean**2)
        assert np.allclose(got.sci[bands == n], expected[bands == n], atol=1e-4)
    alone = images["z"] * np.sqrt(weights["z"])
    assert np.allclose(got.sci[bands == 1], alone[bands == 1], atol=1e-4)
    # What makes a second pass with the mask weights unnecessary.
    assert np.array_equal(got.wgt, (bands > 0).astype("f4"))
    assert (got.sci[bands == 0] == 0).all()


def test_detection_image_gets_no_second_background_subtraction(tmp_path: Path) -> None:
    """SUBTRACT_BACK Y stands in the configuration; a pedestal of the inputs must still be there afterwards."""
    images, weights = chi_planes(tmp_path, offset=20.0)
    got = coadd_chi_mean(
        ["r", "z", "i"], Grid(*CENTRE, (300, 300), SCALE), tmp_path, config=CONFIG, log=tmp_path / "log"
    )
    chi = np.sqrt(sum(images[band] ** 2 * weights[band] for band in images))
    mean = np.sqrt(2) * gamma(2) / gamma(1.5)
    assert np.median(got.sci[100:]) == pytest.approx(np.median((chi[100:] - mean) / np.sqrt(3 - mean**2)), rel=1e-3)
    assert np.median(got.sci[100:]) > 5


def test_weights_come_from_their_own_planes(tmp_path: Path) -> None:
    """HDU 1 for the mask weight, HDU 2 for the image weight: told apart by their values."""
    header = frame_header(240, 0.0, 0.0, 0.0)
    planes = Sky().draw("one", header, 30.0)
    planes["WGT"][:], planes["WGT_ME"][:] = 4.0, 9.0
    write_frame(tmp_path / "one.fits", planes, header)
    logs = tmp_path / "a", tmp_path / "b"
    with scratch(tmp_path, "job") as directory:
        got = coadd_band(
            [Frame(tmp_path / "one.fits", 30.0)], Grid(*CENTRE, (200, 200), SCALE), directory,
            config=CONFIG, reference=30.0, logs=logs, tile="DES0239+0216", band="r",
        )  # fmt: skip
    # Resampled to pixels of another area, up to 2 % here, which counts twice in a weight; so only nearly the same.
    assert np.allclose(got.wgt[5:-5, 5:-5], 9.0, rtol=0.05)
    assert np.allclose(got.mask_weight[5:-5, 5:-5], 4.0, rtol=0.05)


def test_frame_beside_the_tile_adds_nothing(tmp_path: Path) -> None:
    header, far = frame_header(240, 0.0, 0.0, 0.0), frame_header(240, 5000.0, 0.0, 0.0)
    sky = Sky()
    write_frame(tmp_path / "one.fits", sky.draw("one", header, 30.0), header)
    write_frame(tmp_path / "far.fits", sky.draw("far", far, 30.0), far)
    grid = Grid(*CENTRE, (200, 200), SCALE)
    got = []
    for names in (("one",), ("one", "far")):
        with scratch(tmp_path, "job") as directory:
            frames = [Frame(tmp_path / f"{name}.fits", 30.0) for name in names]
            logs = tmp_path / "a", tmp_path / "b"
            got.append(
                coadd_band(frames, grid, directory, config=CONFIG, reference=30.0, logs=logs, tile="t", band="r")
            )
    assert np.array_equal(got[0].sci, got[1].sci)
    with scratch(tmp_path, "job") as directory, pytest.raises((InputError, ToolError)):
        coadd_band(
            [Frame(tmp_path / "far.fits", 30.0)], grid, directory,
            config=CONFIG, reference=30.0, logs=logs, tile="t", band="r",
        )  # fmt: skip


def crowd(path: Path) -> None:
    """Write a coadd whose whole sky is above the threshold in blobs."""
    image = stream(3, "test", "crowd").normal(0, 1, (200, 200)).astype("f4")
    image[50:150, 50:150] += 50
    header = fitsio.FITSHDR([{"name": key, "value": value} for key, value in tile_header(200).items()])
    msk = np.zeros(image.shape, np.int16)
    write_coadd(path, Coadd(image, msk, np.ones_like(image), header, fill_columns(image, msk)), {})


def test_detections_that_sextractor_drops_for_want_of_room_are_an_error(tmp_path: Path) -> None:
    crowd(tmp_path / "c.fits")
    small = tmp_path / "small.config"
    small.write_text(
        (ETC / "Y3A2_v2_sex.config").read_text().replace("MEMORY_PIXSTACK  2000000", "MEMORY_PIXSTACK  1500")
    )
    recipe = Recipe(small, RECIPE.parameters, RECIPE.kernel)
    with scratch(tmp_path, "job") as directory, pytest.raises(ToolError, match="ran out of room") as caught:
        extract(tmp_path / "c.fits", tmp_path / "c.fits", directory, recipe, log=tmp_path / "log", tile="t", band="r")
    assert caught.value.where["key"] == "MEMORY_PIXSTACK"


def test_catalogue_checks() -> None:
    names = (
        "NUMBER",
        "X_IMAGE",
        "Y_IMAGE",
        "MAG_AUTO",
        "XMIN_IMAGE",
        "XMAX_IMAGE",
        "YMIN_IMAGE",
        "YMAX_IMAGE",
        "FLUX_RADIUS",
    )
    rows = np.zeros(2, dtype=[(name, "i4") for name in names])
    rows["NUMBER"] = 1, 2
    seg = np.array([[0, 1], [2, 2]], np.int32)
    check_catalog(rows, seg, tile="t", band="r")
    with pytest.raises(InputError, match="nothing was detected"):
        check_catalog(rows[:0], np.zeros((2, 2), np.int32), tile="t", band="r")
    with pytest.raises(ToolError, match="2 rows but the segmentation 1 labels"):
        check_catalog(rows, np.minimum(seg, 1), tile="t", band="r")
    with pytest.raises(ToolError, match="3 labels"):
        check_catalog(rows, np.array([[0, 1], [2, 3]], np.int32), tile="t", band="r")
    with pytest.raises(ToolError, match="NUMBER does not run"):
        check_catalog(rows[::-1], seg, tile="t", band="r")
    with pytest.raises(ToolError, match="lacks MAG_AUTO"):
        check_catalog(rows[[name for name in names if name != "MAG_AUTO"]], seg, tile="t", band="r")


def test_scratch_goes_away_and_links_are_plain(tmp_path: Path) -> None:
    odd = tmp_path / "a, b[1] +c.fits"
    odd.write_text("x")
    with pytest.raises(RuntimeError, match="stop"), scratch(tmp_path / "new", "DES0239+0216 g/h") as directory:
        name = link_into(directory, odd)
        assert (directory / name).read_text() == "x"
        assert not set(name) & set(" ,[]")
        raise RuntimeError("stop")
    assert not any((tmp_path / "new").iterdir())
    assert odd.exists()
