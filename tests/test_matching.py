"""Truth to measurement, the block and its plot."""

import fitsio
import numpy as np
import pytest

from balrogutils.archive.geometry import Geometry
from balrogutils.bfd.columns import bfd_dtype
from balrogutils.blends.catalogue import group_rows
from balrogutils.blocks.match import _samples, match
from balrogutils.context import Context
from balrogutils.errors import InputError, ProductError
from balrogutils.fitsfile import Plane, Table, write_images, write_tables
from balrogutils.graph import Job
from balrogutils.layout import Site
from balrogutils.matching.positions import Reason, match_positions, nearest
from balrogutils.matching.table import match_table, take_rows
from balrogutils.measurement.catalogue import common_dtype, model_rows
from balrogutils.metacal.columns import metacal_dtype
from balrogutils.products import read_manifest
from balrogutils.report.deltamag import Sample, plot_delta_mag, running_median
from balrogutils.settings.campaign import Campaign
from balrogutils.settings.pipeline import Pipeline

ARCSEC = 1 / 3600
BANDS = ("g", "r", "z")
TILE = "DES0239+0216"


def test_nothing_matches_nothing():
    for first, second in (([], []), ([10.0], []), ([], [10.0])):
        found = match_positions(first, first, second, second, 0.5)
        assert found.row.tolist() == [-1] * len(first)
        assert found.reason.tolist() == [Reason.NOT_FOUND] * len(first)
        assert nearest(first, first, second, second)[0].tolist() == [-1] * len(first)


def test_positions_that_are_none_match_nothing():
    bad = [np.nan, np.inf, -9999.0, 10.0]
    found = match_positions(bad, [0.0, 0.0, -9999.0, np.nan], bad, [0.0] * 4, 0.5)
    assert found.reason.tolist() == [Reason.BAD_POSITION] * 4
    assert np.isnan(found.distance).all()


@pytest.mark.parametrize("radius", [0.0, -1.0, np.nan, 1e6])
def test_impossible_radius(radius):
    with pytest.raises(InputError, match="radius"):
        match_positions([1.0], [1.0], [1.0], [1.0], radius)


def test_ragged_lists():
    with pytest.raises(InputError, match="one length"):
        match_positions([1.0, 2.0], [1.0], [1.0], [1.0], 0.5)


def test_radius_is_on_the_sky():
    """0.49 arcsec match and 0.51 do not, at the pole as at the equator, across RA 0."""
    for dec in (0.0, 60.0, 89.0):
        for apart, reason in ((0.49, Reason.MATCHED), (0.51, Reason.NOT_FOUND)):
            found = match_positions(
                [359.99999], [dec], [359.99999 - 360 + apart * ARCSEC / np.cos(np.radians(dec))], [dec], 0.5
            )
            assert found.reason[0] == reason
            if reason == Reason.MATCHED:
                assert found.distance[0] == pytest.approx(apart, abs=1e-4)


def test_one_to_one_nearest_first_in_any_order():
    # Two truths near one detection: the nearer gets it, the other is told so.
    dec1 = np.array([0.30, 0.10, 5.0, 0.0]) * ARCSEC
    dec2 = np.array([0.15, 9.0, 5.2]) * ARCSEC
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]):
        found = match_positions(np.zeros(4), dec1[order], np.zeros(3), dec2, 0.5)
        back = np.argsort(order)
        assert found.row[back].tolist() == [-1, 0, 2, -1]
        assert found.reason[back].tolist() == [Reason.TAKEN, Reason.MATCHED, Reason.MATCHED, Reason.TAKEN]


def test_matches_are_those_of_brute_force():
    rng = np.random.default_rng(3)
    ra1, dec1 = rng.uniform(10, 10.003, 60), rng.uniform(-30.003, -30, 60)
    ra2, dec2 = rng.uniform(10, 10.003, 80), rng.uniform(-30.003, -30, 80)
    found = match_positions(ra1, dec1, ra2, dec2, 0.8)
    apart = np.hypot((ra1[:, None] - ra2) * np.cos(np.radians(-30)), dec1[:, None] - dec2) * 3600
    want = np.full(60, -1)
    while apart.min() < 0.8:
        i, j = np.unravel_index(np.argmin(apart), apart.shape)
        want[i] = j
        apart[i], apart[:, j] = np.inf, np.inf
    assert np.array_equal(found.row, want)
    assert 5 < np.count_nonzero(want >= 0) < 60


def test_unmatched_rows_have_fills():
    rows = np.zeros(2, dtype=[("A", "f4"), ("B", "i8"), ("C", "f8", (2,)), ("D", "S3"), ("E", ">i4")])
    rows["B"], rows["E"] = [5, 6], [7, 8]
    taken = take_rows(rows, np.array([1, -1]), "x_")
    assert set(taken) == {"x_a", "x_b", "x_c", "x_d", "x_e"}
    assert np.isnan(taken["x_a"][1])
    assert np.isnan(taken["x_c"][1]).all()
    assert taken["x_b"].tolist() == [6, -9999]
    assert taken["x_e"].tolist() == [8, -9999]
    assert taken["x_e"].dtype.isnative


def test_every_injection_is_a_row():
    truth = np.zeros(3, dtype=[("bal_id", "i8"), ("ra", "f8")])
    truth["bal_id"] = [4, 5, 6]
    found = match_positions([0.0, 1.0, np.nan], [0.0] * 3, [0.0], [0.0], 0.5)
    measured = np.array([(3.0,)], dtype=[("MAG", "f8")])
    table = match_table(truth, found, [("_g", measured)], np.array([1, 2, -9999]), np.array([0.1, 9.0, np.nan]), 0.5)
    assert table["true_bal_id"].tolist() == [4, 5, 6]
    assert table["match_reason"].tolist() == [Reason.MATCHED, Reason.NOT_FOUND, Reason.BAD_POSITION]
    assert table["ambiguous"].tolist() == [True, False, False]
    assert table["meas_mag_g"][0] == 3.0
    assert np.isnan(table["meas_mag_g"][1:]).all()


def test_running_median():
    assert running_median(np.array([np.nan]), np.array([1.0]))[0].size == 0
    x = np.linspace(18, 24, 400)
    centres, low, middle, high = running_median(x, np.where(x > 21, 0.5, 0.0))
    assert centres.size == 12
    assert np.all((low <= middle) & (middle <= high))
    assert set(middle) == {0.0, 0.5}


def test_plot_of_nothing_is_a_plot(tmp_path):
    empty = Sample(np.empty(0), np.empty(0), np.empty(0))
    some = Sample(np.array([20.0, 21.0]), np.array([np.nan, 21.1]), np.array([np.nan, 0.1]))
    samples = {"g": {"galaxies": empty, "stars": empty}, "r": {"galaxies": some, "stars": empty}}
    for _ in range(2):
        plot_delta_mag(tmp_path / "plot.png", "a tile", ("g", "r"), samples)
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"
    again = tmp_path / "again.png"
    plot_delta_mag(again, "a tile", ("g", "r"), samples)
    assert again.read_bytes() == (tmp_path / "plot.png").read_bytes()


# --- the block


def make_context(root, realization="0"):
    site = Site.from_environment("y3v02", {"BALROG_BASE": str(root)})
    campaign = Campaign(kind="desdm", database="sqlite://", archive="file:///", bands=BANDS, det=BANDS, name="test")
    return Context(site, Pipeline(bands=BANDS), campaign, TILE, realization)


def write_catalogue(path, row, col):
    single = ("MAG_AUTO", "MAGERR_AUTO", "FLUX_AUTO", "FLUXERR_AUTO", "FLUX_RADIUS", "X_IMAGE", "Y_IMAGE")
    dtype = [
        ("NUMBER", "i4"),
        ("FLAGS", "i2"),
        ("IMAFLAGS_ISO", "i4"),
        ("ISOAREA_IMAGE", "i4"),
        *((name, "f4") for name in single),
    ]
    rows = np.zeros(len(row), dtype=dtype)
    rows["NUMBER"], rows["X_IMAGE"], rows["Y_IMAGE"] = np.arange(len(row)) + 1, col + 1, row + 1
    write_tables(path, [Table("OBJECTS", rows)])


@pytest.fixture
def tile(tmp_path):
    """Ten injections, eight detected and fitted; four base detections, one of them 0.2 arcsec from injection 0."""
    rng = np.random.default_rng(5)
    context = make_context(tmp_path)
    tree, base = context.tree, context.base_tree
    geometry = Geometry.tangent(TILE, 39.8, 2.27, 400, 400, 0.263)
    geometry.write(base.geometry)
    row, col = rng.uniform(20, 380, 10), rng.uniform(20, 380, 10)
    ra, dec = geometry.wcs().pixel_to_sky(row, col)
    truth = np.zeros(
        10,
        dtype=[("bal_id", "i8"), ("inj_type", "U11"), ("ra", "f8"), ("dec", "f8"), ("outcome", "i4")]
        + [(f"flux_{band}", "f8") for band in BANDS],
    )
    truth["bal_id"], truth["ra"], truth["dec"] = np.arange(10) + 1, ra, dec
    truth["inj_type"] = ["ngmixGalaxy", "desStar"] * 5
    for band in BANDS:
        truth[f"flux_{band}"] = 1000.0
    write_tables(tree.truth, [Table("truth", truth)])
    # Detections 1 and 2 are of the base run, the others of injections 9 ... 2, a quarter of a pixel off.
    found_row = np.concatenate([[5.0, 395.0], row[:1:-1] + 0.25])
    found_col = np.concatenate([[5.0, 395.0], col[:1:-1]])
    for band in BANDS:
        write_catalogue(tree.catalog(band), found_row, found_col)
        write_catalogue(
            base.catalog(band), np.array([5.0, 395.0, row[0], 200.0]), np.array([5.0, 395.0, col[0] + 0.76, 5.0])
        )
    for one in (tree, base):
        for band in BANDS:
            noise = rng.normal(0, 1, (400, 400)).astype("f4")
            planes = (("SCI", noise), ("MSK", np.zeros((400, 400), "i2")), ("WGT", np.ones((400, 400), "f4")))
            write_images(one.image(band), [Plane(name, pixels) for name, pixels in planes])
    fits = model_rows("exp", 3, 10)
    fits["number"], fits["flags"] = np.arange(10) + 1, 0
    fits["exp_flux"], fits["psf_flux"], fits["psf_flux_err"] = 1010.0, 990.0, 5.0
    fits["exp_flux_cov"] = np.eye(3) * 25
    meta = np.array([(b"g,r,z", b"exp")], dtype=[("bands", "S5"), ("model", "S3")])
    write_tables(tree.fit("sof"), [Table("model_fits", fits), Table("meta_data", meta)])
    return context


def test_block_matches_every_injection(tile):
    match(tile)
    table = fitsio.read(str(tile.tree.match), ext="match")
    assert len(table) == 10
    assert table["match_reason"].tolist() == [1, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    assert table["meas_number"].tolist() == [-9999, -9999, 10, 9, 8, 7, 6, 5, 4, 3]
    assert table["match_distance"][2:] == pytest.approx(0.25 * 0.263, rel=1e-2)
    assert table["ambiguous"].tolist() == [True] + [False] * 9
    assert table["base_number"][0] == 3
    assert table["base_distance"][0] == pytest.approx(0.2, abs=1e-3)
    assert np.all(table["meas_exp_flux"][2:] == 1010.0)
    assert np.isnan(table["meas_exp_flux"][:2]).all()
    assert "meas_mag_auto_z" in table.dtype.names
    assert tile.tree.match_plot.read_bytes()[:4] == b"\x89PNG"
    samples = _samples(table, "r", 1, "exp")
    # Galaxies by the model's flux, 1010, stars by the PSF flux, 990, against 1000.
    for kind, ratio in (("galaxies", 1.01), ("stars", 0.99)):
        assert samples[kind].measured - samples[kind].true == pytest.approx(np.full(4, -2.5 * np.log10(ratio)))
    assert read_manifest(tile.tree.manifest("match"))["counts"] == {"injected": 10, "matched": 8, "ambiguous": 1}


def test_base_run_has_no_truth(tmp_path):
    with pytest.raises(InputError, match="no truth in the base run"):
        match(make_context(tmp_path, None))


@pytest.mark.parametrize(
    ("lose", "bit"), [("truth", "8"), ("fit", "64"), ("catalog", "16"), ("base", "2"), ("geometry", "1")]
)
def test_missing_products_name_the_block_that_makes_them(tile, lose, bit):
    tree, base = tile.tree, tile.base_tree
    paths = {
        "truth": tree.truth,
        "fit": tree.fit("sof"),
        "catalog": tree.catalog("r"),
        "base": base.catalog("g"),
        "geometry": base.geometry,
    }
    paths[lose].unlink()
    with pytest.raises(ProductError, match=rf"mode {bit}\b"):
        match(tile)
    assert not tile.tree.manifest("match").exists()


def test_fits_of_other_objects_are_refused(tile):
    fits = model_rows("exp", 3, 9)
    write_tables(tile.tree.fit("sof"), [Table("model_fits", fits)])
    with pytest.raises(ProductError, match="not of the objects"):
        match(tile)


def test_an_empty_truth_is_refused(tile):
    rows = fitsio.read(str(tile.tree.truth), ext=1)
    write_tables(tile.tree.truth, [Table("TRUTH", rows[:0])])
    with pytest.raises(ProductError, match="truth catalogue is empty"):
        match(tile)


def test_fits_of_groups_are_matched_where_they_are_there(tile):
    groups = group_rows("exp", len(BANDS), 10)
    groups["number"] = np.arange(1, 11)
    groups["exp_mof_num_itr"] = 7
    with Job("mof", tile).open({}) as step:
        write_tables(tile.tree.fit("mof"), [Table("model_fits", groups)])
        step.wrote(tile.tree.fit("mof"))
    match(tile)
    table = fitsio.read(str(tile.tree.match), ext=1)
    found = table["match_reason"] == 0
    assert set(table["meas_mof_exp_mof_num_itr"][found]) == {7}
    assert table["meas_mof_exp_flux"].shape == table["meas_exp_flux"].shape
    assert "meas_mof_number" not in table.dtype.names
    groups["number"] += 1
    write_tables(tile.tree.fit("mof"), [Table("model_fits", groups)])
    with pytest.raises(ProductError, match=r"block 128|not as step mof left it"):
        match(tile)


def test_shapes_and_moments_are_matched_under_their_own_names(tile):
    """Metacal in other bands than the rest; both in the same table, and no column of one is another's."""
    shapes = np.zeros(10, dtype=common_dtype(2) + metacal_dtype(2, ("noshear", "1p", "1m"), ("wmom",)))
    moments = np.zeros(10, dtype=common_dtype(3) + bfd_dtype(3))
    shapes["number"] = moments["number"] = np.arange(1, 11)
    shapes["mcal_g"], moments["bfd_even"][:, 0] = 0.1, np.arange(1, 11)
    mcal, bfd = Job("mcal", tile), Job("bfd", tile)
    for job, rows in ((mcal, shapes), (bfd, moments)):
        with job.open({}) as step:
            write_tables(job.product, [Table("model_fits", rows)])
            step.wrote(job.product)
    match(tile)
    table = fitsio.read(str(tile.tree.match), ext=1)
    found = table["match_reason"] == 0
    assert np.all(table["meas_mcal_g"][found] == 0.1)
    assert table["meas_bfd_even"][found, 0].tolist() == table["meas_number"][found].tolist()
    assert np.isnan(table["meas_bfd_even"][~found]).all()
    assert table["meas_bfd_band_even_cov"].shape == (10, 3, 5, 5)
    # What SOF says of the object stays SOF's.
    assert np.all(table["meas_psf_flux"][found] == 990.0)
    begin = ("mcal_", "bfd_")
    own = [name for name in (*shapes.dtype.names, *moments.dtype.names) if name.startswith(begin)]
    assert len([name for name in table.dtype.names if name.removeprefix("meas_").startswith(begin)]) == len(own)
    write_tables(bfd.product, [Table("model_fits", moments[:9])])
    with pytest.raises(ProductError, match=r"block 512|not as step bfd left it"):
        match(tile)
