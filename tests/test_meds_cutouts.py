"""Box sizes, membership, stamp origins and the layout of a MEDS file."""

import numpy as np
import pytest
from meds_frames import COADD_SHAPE, FRAMES, tan_header, tpv_header

from balrogutils.errors import ProductError
from balrogutils.meds.boxes import BoxRule
from balrogutils.meds.cutouts import FILL, Found, Grid, find, lay_out, stamp_origin
from balrogutils.randomness import stream
from balrogutils.wcs import ImageWCS


def side(rule=None, **columns):
    usual = {"flux_radius": 0.0, "a": 1.0, "b": 1.0, "xmin": 5, "xmax": 5, "ymin": 7, "ymax": 7}
    (box,) = (rule or BoxRule()).sides(**{name: [value] for name, value in (usual | columns).items()})
    return box


@pytest.mark.parametrize("radius", [np.nan, np.inf, -3.0, 0.0])
def test_useless_radii_give_the_smallest_box(radius):
    assert side(flux_radius=radius) == 32


@pytest.mark.parametrize(("a", "b"), [(0.0, 0.0), (np.nan, 1.0), (1.0, 2.0), (1.0, np.nan)])
def test_useless_axes_count_as_round(a, b):
    assert side(flux_radius=7.0, a=a, b=b) == side(flux_radius=7.0)


def test_box_follows_the_size_formula():
    # sigma = 2 x 5 / 2.35482 = 4.2466; 2 ceil(5 x 4.2466 x 1.3) = 2 x 28 = 56, next allowed 64.
    assert side(flux_radius=5.0, a=1.0, b=0.7) == 64
    # Round: 2 ceil(21.233) = 44, next allowed 48.
    assert side(flux_radius=5.0) == 48


def test_isophote_wins_when_it_is_larger_and_large_objects_are_cut():
    assert side(xmin=10, xmax=106) == 128  # 97 pixels
    assert side(ymin=10, ymax=105) == 96  # 96 pixels, itself allowed
    assert side(xmin=0, xmax=900) == 256
    assert side(flux_radius=1e300) == 256


def test_odd_sides_are_made_even():
    assert side(BoxRule(smallest=2, largest=3, allowed=(2, 3)), xmin=5, xmax=7) == 4


def test_no_objects():
    empty = np.empty(0)
    assert BoxRule().sides(empty, empty, empty, empty, empty, empty, empty).size == 0
    found = find(Grid(ImageWCS(tan_header((50, 40))), (50, 40)), empty, empty)
    assert found.objects.size == 0
    layout = lay_out([found], [Grid(ImageWCS(tan_header((50, 40))), (50, 40))], np.empty(0, np.int64))
    assert layout.pixels == 0
    assert layout.per_object["file_id"].shape == (0, 2)


@pytest.mark.parametrize("frame", FRAMES)
def test_every_object_whose_centre_is_on_the_image_is_found(frame):
    angle, parity, row0, col0, rows, cols, _ = frame
    wcs = ImageWCS(tpv_header((rows, cols), angle, parity, row0, col0))
    rng = stream(2, "membership")
    row, col = rng.uniform(-40, rows + 40, 4000), rng.uniform(-40, cols + 40, 4000)
    # and the four corner pixels, both sides of the edge
    row = np.append(row, [1e-6, rows - 1 - 1e-6, -0.01, rows - 0.99])
    col = np.append(col, [1e-6, cols - 1 - 1e-6, 10.0, 10.0])
    ra, dec = wcs.pixel_to_sky(row, col)
    # Objects all over the sky, where the WCS cannot be inverted.
    far_ra, far_dec = rng.uniform(0, 360, 500), rng.uniform(-89, 89, 500)
    found = find(Grid(wcs, (rows, cols)), np.append(ra, far_ra), np.append(dec, far_dec))
    inside = (row >= 0) & (row <= rows - 1) & (col >= 0) & (col <= cols - 1)
    np.testing.assert_array_equal(found.objects, np.flatnonzero(inside))
    # GalSim inverts a TPV distortion to 1e-6 pixel or better.
    np.testing.assert_allclose(found.row, row[inside], atol=1e-5)
    np.testing.assert_allclose(found.col, col[inside], atol=1e-5)


def test_an_image_across_ra_zero():
    cards = tan_header(COADD_SHAPE) | {"CRVAL1": 0.0}
    wcs = ImageWCS(cards)
    row, col = np.array([10.0, 150.0, 290.0]), np.array([5.0, 140.0, 275.0])
    ra, dec = wcs.pixel_to_sky(row, col)
    assert ra.max() > 359
    assert ra.min() < 1
    assert find(Grid(wcs, COADD_SHAPE), ra, dec).objects.tolist() == [0, 1, 2]


def test_slack_and_force():
    wcs = ImageWCS(tan_header((50, 40)))
    ra, dec = wcs.pixel_to_sky(np.array([-5e-4, 49.0 + 5e-4, -2e-3]), np.array([3.0, 3.0, 3.0]))
    grid = Grid(wcs, (50, 40))
    assert find(grid, ra, dec).objects.size == 0
    loose = find(grid, ra, dec, slack=1e-3)
    assert loose.objects.tolist() == [0, 1]
    assert loose.row[0] < 0
    forced = find(grid, ra, dec, slack=1e-3, force=True)
    assert forced.row.tolist() == [0.0, 49.0]


def test_not_finite_positions_are_on_no_image():
    grid = Grid(ImageWCS(tan_header((50, 40))), (50, 40))
    assert find(grid, np.array([np.nan]), np.array([2.0])).objects.size == 0


def test_objects_are_centred_within_half_a_pixel():
    position = stream(3, "centres").uniform(0, 500, 1000)
    box = np.full(1000, 48)
    inside = position - stamp_origin(position, box)
    assert inside.min() >= 23
    assert inside.max() < 24


def layout_of(counts, box, **settings):
    grid = Grid(ImageWCS(tan_header((50, 40))), (50, 40))
    found = [
        Found(np.flatnonzero(np.array(counts) > k), *(np.full(sum(n > k for n in counts), 20.0) for _ in range(2)))
        for k in range(max(counts))
    ]
    return lay_out(found, [grid] * len(found), np.array(box), **settings)


def test_stamps_of_an_object_are_contiguous_and_unused_slots_hold_the_fill():
    layout = layout_of([3, 1, 2], [4, 8, 6], psf_sides=[5, 7, 9])
    assert layout.pixels == 3 * 16 + 64 + 2 * 36
    start = layout.per_object["start_row"]
    assert start.tolist() == [[0, 16, 32], [48, FILL, FILL], [112, 148, FILL]]
    assert layout.per_object["psf_start_row"].tolist() == [[0, 25, 74], [155, FILL, FILL], [180, 205, FILL]]
    assert layout.psf_pixels == 25 + 49 + 81 + 25 + 25 + 49
    unused = start == FILL
    for name, values in layout.per_object.items():
        assert (values[unused] == FILL).all(), name


def test_one_cutout_still_has_two_slots():
    assert layout_of([1, 1], [4, 4]).per_object["file_id"].shape == (2, 2)


def test_too_many_cutouts():
    with pytest.raises(ProductError, match="3 cut-outs, more than ncutout_max = 2"):
        layout_of([3, 1], [4, 4], ncutout_max=2)


@pytest.mark.parametrize("frame", FRAMES)
def test_jacobians_are_derivatives_of_the_tangent_plane(frame):
    """Against a five-point difference in the tangent plane at the object, an independent formula, within 1e-6."""
    angle, parity, row0, col0, rows, cols, _ = frame
    wcs = ImageWCS(tpv_header((rows, cols), angle, parity, row0, col0))
    rng = stream(4, "jacobians")
    row, col = rng.uniform(0, rows, 50), rng.uniform(0, cols, 50)
    jacobian = wcs.jacobian(row, col)
    ra0, dec0 = wcs.pixel_to_sky(row, col)

    def plane(r, c):
        ra, dec = (np.radians(x) for x in wcs.pixel_to_sky(r, c))
        d0, along = np.radians(dec0), ra - np.radians(ra0)
        cosine = np.sin(d0) * np.sin(dec) + np.cos(d0) * np.cos(dec) * np.cos(along)
        u = -np.cos(dec) * np.sin(along) / cosine
        v = (np.cos(d0) * np.sin(dec) - np.sin(d0) * np.cos(dec) * np.cos(along)) / cosine
        return np.array([u, v]) * 648000 / np.pi

    h = 2.0
    for name, (dr, dc) in {"row": (h, 0), "col": (0, h)}.items():
        near, far = plane(row + dr, col + dc) - plane(row - dr, col - dc), None
        far = plane(row + 2 * dr, col + 2 * dc) - plane(row - 2 * dr, col - 2 * dc)
        du, dv = (8 * near - far) / (12 * h)
        np.testing.assert_allclose(getattr(jacobian, f"dud{name}"), du, atol=0.263e-6)
        np.testing.assert_allclose(getattr(jacobian, f"dvd{name}"), dv, atol=0.263e-6)
    area = np.abs(jacobian.dudrow * jacobian.dvdcol - jacobian.dudcol * jacobian.dvdrow)
    np.testing.assert_allclose(np.sqrt(area), 0.263, rtol=2e-3)


def test_jacobians_agree_with_galsim():
    import galsim

    wcs = ImageWCS(tpv_header((256, 300), 90.0, 1, 130.3, 148.1))
    row, col = np.array([0.0, 130.2, 255.0]), np.array([0.0, 140.7, 299.0])
    jacobian = wcs.jacobian(row, col)
    for i in range(3):
        local = wcs.galsim.local(image_pos=galsim.PositionD(col[i] + 1, row[i] + 1)).jacobian()
        got = [element[i] for element in jacobian]
        np.testing.assert_allclose(got, [local.dudy, local.dudx, local.dvdy, local.dvdx], atol=0.263e-8)


def test_jacobians_keep_the_shape_of_the_positions():
    wcs = ImageWCS(tan_header((50, 40)))
    assert wcs.jacobian(np.zeros((2, 3)), np.zeros((2, 3))).dudrow.shape == (2, 3)
    assert wcs.jacobian([], []).dvdcol.shape == (0,)
