"""The picture of a coadd before and after injection."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from numpy.typing import NDArray

from balrogutils.errors import ProductError
from balrogutils.fitsfile import Plane, write_images
from balrogutils.randomness import stream
from balrogutils.report.picture import before_after, busiest_window


def coadd(path: Path, pixels: NDArray, weight: float = 1.0) -> Path:
    pixels = pixels.astype("f4")
    write_images(
        path,
        [Plane("SCI", pixels), Plane("MSK", np.zeros(pixels.shape, "i2")), Plane("WGT", np.full_like(pixels, weight))],
    )
    return path


@pytest.mark.parametrize(("shape", "weight"), [((1, 1), 1.0), ((3, 50), 0.0)])
def test_blank_images_give_a_picture(tmp_path: Path, shape: tuple[int, int], weight: float) -> None:
    blank = coadd(tmp_path / "a.fits", np.zeros(shape), weight)
    before_after(blank, blank, tmp_path / "p.png", band="r", tile="DES0239+0216")
    assert imread(tmp_path / "p.png").ndim == 3


def test_difference_shows_what_was_injected_and_nothing_else(tmp_path: Path) -> None:
    """The third panel is the injected source on black-free sky; equal pixels give the grey of zero everywhere."""
    sky = stream(1, "test", "picture").normal(100.0, 3.0, (120, 120))
    after = sky.copy()
    rows, cols = np.mgrid[:120, :120]
    # Ten sky sigmas at most, so that the stretch is the same in both pictures.
    after += 30 * np.exp(-((rows - 60) ** 2 + (cols - 60) ** 2) / 18)
    base, injected = coadd(tmp_path / "a.fits", sky), coadd(tmp_path / "b.fits", after)
    pictures = []
    for name, other in (("same", base), ("injected", injected)):
        before_after(base, other, tmp_path / f"{name}.png", band="r", tile="DES0239+0216", realization="0")
        pictures.append(imread(tmp_path / f"{name}.png"))
    same, changed = pictures
    assert same.shape == changed.shape
    different = np.flatnonzero((same != changed).any(axis=(0, 2)))
    # The first panel is the left third; it must not depend on the second image.
    assert different.min() > same.shape[1] / 3


def test_same_pixels_same_file(tmp_path: Path) -> None:
    image = coadd(tmp_path / "a.fits", stream(2, "test", "picture").normal(0, 1, (50, 50)))
    positions = np.array([[10.0, 20.0], [400.0, 3.0]])
    for name in ("one", "two"):
        before_after(image, image, tmp_path / f"{name}.png", band="g", tile="DES0239+0216", positions=positions)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_busiest_window_holds_the_objects() -> None:
    difference = np.zeros((1000, 800), np.float32)
    difference[720:760:10, 310:350:10] = 5
    difference[100, 100] = 1e6
    r0, r1, c0, c1 = busiest_window(difference, 200)
    assert (r1 - r0, c1 - c0) == (200, 200)
    assert r0 <= 720
    assert r1 >= 751
    assert c0 <= 310
    assert c1 >= 341
    assert busiest_window(difference[:50, :60], 200) == (0, 50, 0, 60)


def test_images_of_different_shape_are_refused(tmp_path: Path) -> None:
    one, other = coadd(tmp_path / "a.fits", np.zeros((5, 5))), coadd(tmp_path / "b.fits", np.zeros((5, 6)))
    with pytest.raises(ProductError, match="differ in shape"):
        before_after(one, other, tmp_path / "p.png", band="r", tile="t")
    with pytest.raises(ProductError, match="not there"):
        before_after(one, tmp_path / "none.fits", tmp_path / "p.png", band="r", tile="t")
    assert not (tmp_path / "p.png").exists()
