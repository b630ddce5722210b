"""The matched and the detection catalogue: why unmatched, what is doubtful, Gold flags, files, what is refused."""

from pathlib import Path

import fitsio
import numpy as np
import pytest
from match_tile import BANDS, TILE, make_tile, write_catalogue, write_fits

from balrogutils.analysis.matched import read_matched
from balrogutils.bfd.columns import bfd_rows
from balrogutils.blends.catalogue import group_rows
from balrogutils.blocks import match as block
from balrogutils.errors import ConfigError, InputError, ProductError
from balrogutils.fitsfile import Table, read_header, write_tables
from balrogutils.graph import Job, matched_fits, needs
from balrogutils.identity import are_of, object_ids
from balrogutils.injection.flags import OUTCOME_DTYPE, ChipFlag
from balrogutils.matching.ambiguity import FLAG_RADII, flag_name, original_flags, other_flags
from balrogutils.matching.gold import GoldFlag, extended_class, gold_flags
from balrogutils.matching.positions import Reason, match_positions, nearest_other, pairs_within
from balrogutils.matching.table import prefixed
from balrogutils.matching.unseen import unseen, with_unseen
from balrogutils.measurement.catalogue import model_rows
from balrogutils.metacal.columns import metacal_rows
from balrogutils.parquetfile import arrow_table, read_parquet, write_parquet
from balrogutils.settings.pipeline import Pipeline

ARCSEC = 1 / 3600


# --- one to one


@pytest.mark.parametrize("field", range(20))
def test_crowded_fields_are_matched_as_by_brute_force(field):
    """The pairs in the order of their distance, each row once: some three neighbours within the radius of each."""
    rng = np.random.default_rng(100 + field)
    side = 30.0 + 2.0 * field
    dec0 = rng.uniform(-85, 85)
    one, two = rng.uniform(0, side, (2, 400)), rng.uniform(0, side, (2, 900))
    # Copies at the same place: ties.
    two[:, :20] = one[:, :20]
    one[:, 390:] = one[:, :10]
    scale = ARCSEC / np.cos(np.radians(dec0))
    ra1, dec1, ra2, dec2 = 10 + one[0] * scale, dec0 + one[1] * ARCSEC, 10 + two[0] * scale, dec0 + two[1] * ARCSEC
    bad = rng.choice(900, 30, replace=False)
    ra2[bad] = np.nan
    radius = 1.5
    found = match_positions(ra1, dec1, ra2, dec2, radius)

    def vectors(ra, dec):
        lon, lat = np.radians(ra), np.radians(dec)
        return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)

    chord = np.linalg.norm(vectors(ra1, dec1)[:, None] - vectors(ra2, dec2)[None], axis=2)
    apart = np.degrees(2 * np.arcsin(chord / 2)) * 3600
    near = np.argwhere(apart <= radius)
    assert len(near) > 400
    pairs = sorted((apart[i, j], i, j) for i, j in near)
    want, used = np.full(400, -1), set()
    for _, i, j in pairs:
        if want[i] < 0 and j not in used:
            want[i] = j
            used.add(j)
    assert np.array_equal(found.row, want)
    assert 100 < np.count_nonzero(want >= 0) < 400
    taken = (want < 0) & (apart <= radius).any(axis=1)
    assert np.array_equal(found.reason == Reason.TAKEN, taken)


def test_pairs_and_others_of_lists_that_have_nothing():
    for ra, dec in (([], []), ([np.nan], [0.0])):
        assert pairs_within(ra, dec, [1.0], [0.0], 1.0).first.size == 0
        assert nearest_other(ra, dec)[0].tolist() == [-1] * len(ra)
    row, apart = nearest_other([10.0], [0.0])
    assert row.tolist() == [-1]
    assert np.isnan(apart).all()


def test_the_nearest_other_is_never_the_row_itself():
    ra, dec = np.array([10.0, 10.0, np.nan, 10.0, 10.0]), np.array([0.0, 0.0, 0.0, 3.0 * ARCSEC, 4.0 * ARCSEC])
    row, apart = nearest_other(ra, dec)
    assert row.tolist() == [1, 0, -1, 4, 3]
    assert apart == pytest.approx([0.0, 0.0, np.nan, 1.0, 1.0], nan_ok=True, abs=1e-6)


# --- why unmatched


def chips(*rows):
    table = np.zeros(len(rows), dtype=OUTCOME_DTYPE)
    for k, (bal_id, band, flags) in enumerate(rows):
        table["bal_id"][k], table["band"][k], table["flags"][k] = bal_id, band, flags
    return table


D, C, M = ChipFlag.DRAWN, ChipFlag.CENTRE_ON_CHIP, ChipFlag.CENTRE_MASKED


def test_what_had_no_chance_of_a_detection():
    ids = np.array([5, 1, 2, 3, 4, 6])
    table = chips(
        *((5, "g", D | C), (5, "r", D | C)),
        *((1, "r", D), (1, "i", D)),
        *((2, "r", D | C | M), (2, "i", D | C | M), (2, "i", D | C | M)),
        *((3, "r", D | C | M), (3, "i", D | C)),
        *((4, "g", D | C), (6, "r", C), (6, "i", C)),
    )
    # 4 is in g alone, which does not detect.
    want = [0, Reason.OFF_CHIPS, Reason.MASKED, 0, Reason.OFF_CHIPS, Reason.NOT_DRAWN]
    assert unseen(ids, table, ("r", "i")).tolist() == want
    assert unseen(ids, table[:0], ("r",)).tolist() == [Reason.OFF_CHIPS] * 6
    assert unseen(ids, table, ("z",)).tolist() == [Reason.NOT_DRAWN] * 6
    with pytest.raises(ProductError, match="not of the objects"):
        unseen(ids[:3], table, ("r",))


def test_a_match_stays_a_match_and_a_bad_position_bad():
    found = match_positions([0.0, 1.0, np.nan, 2.0], [0.0] * 4, [0.0], [0.0], 0.5)
    why = np.array([Reason.MASKED, Reason.MASKED, Reason.OFF_CHIPS, 0], np.int16)
    told = with_unseen(found, why)
    assert told.reason.tolist() == [Reason.MATCHED, Reason.MASKED, Reason.BAD_POSITION, Reason.NOT_FOUND]
    assert told.row.tolist() == [0, -1, -1, -1]


# --- what is doubtful


def test_match_flags_by_radius_and_brightness():
    truth = {"ra": np.full(4, 10.0), "dec": np.array([0.0, 20.0, 40.0, 60.0]) * ARCSEC}
    originals = {"ra": np.full(4, 10.0), "dec": np.array([0.6, 1.9, 20.9, 40.3]) * ARCSEC}
    bright = np.array([10.0, 10.0, np.nan, 10.0])
    flags = original_flags(truth, bright, originals, np.array([5.0, 50.0, 50.0, 50.0]))
    assert list(flags) == [f"match_flag_{text}_asec" for text in ("0.5", "0.75", "1.0", "1.25", "1.5", "1.75", "2.0")]
    # A fainter one at 0.6 arcsec, a brighter at 1.9.
    assert [int(flags[flag_name(radius)][0]) for radius in FLAG_RADII] == [0, 1, 1, 1, 1, 1, 2]
    assert [int(flags[flag_name(radius)][1]) for radius in FLAG_RADII] == [0, 0, 2, 2, 2, 2, 2]
    # A brightness that is no number is brighter than nothing, and nothing is brighter than it.
    assert flags["match_flag_0.5_asec"].tolist() == [0, 0, 1, 0]
    assert flags["match_flag_2.0_asec"][3] == 0


def test_injections_on_each_other():
    truth = {"ra": np.array([10.0, 10.0, 11.0, np.nan]), "dec": np.array([0.0, 1.5 * ARCSEC, 0.0, 0.0])}
    assert other_flags(truth, np.array([1.0, 2.0, 3.0, 4.0])).tolist() == [2, 1, 0, 0]
    assert other_flags({"ra": np.empty(0), "dec": np.empty(0)}, np.empty(0)).size == 0


# --- Gold


def detections(count=1, **values):
    names = ("MAG_AUTO", "MAGERR_AUTO", "MAG_DETMODEL")
    dtype = [("FLAGS", "i2"), ("IMAFLAGS_ISO", "i4"), *((name, "f4") for name in names)]
    rows = np.zeros(count, dtype)
    for name, value in values.items():
        rows[name] = value
    return rows


def test_gold_flags_bit_by_bit():
    count = 7
    catalogs = {band: detections(count, MAG_AUTO=20.0, MAG_DETMODEL=20.0, MAGERR_AUTO=0.02) for band in "griz"}
    sof, mof = model_rows("cm", 4, count), model_rows("cm", 4, count)
    for fits in (sof, mof):
        fits["flags"], fits["cm_mag"], fits["nimage_use"] = 0, 20.0, 3
    mof["flags"][1] = 8
    sof["flags"][:4] = [0, 2, 1, 4]
    catalogs["r"]["FLAGS"][4] = 4
    # Bit 16 with nothing else: the old code set 2 and 4 there.
    catalogs["z"]["IMAFLAGS_ISO"][4:6] = 1
    sof["nimage_use"][6, 0] = 0
    catalogs["i"]["MAG_DETMODEL"][6] = 19.5
    # A streak: bright in i alone, far above its model, and of no star's colour.
    catalogs["i"]["MAG_AUTO"][0], catalogs["i"]["MAGERR_AUTO"][0], sof["cm_mag"][0, 2] = 15.0, 0.001, 16.0
    flags, known = gold_flags(catalogs, sof, mof, "cm", tuple("griz"))
    assert flags.tolist() == [64, 1 + 2, 2 + 4, 2 + 4, 8 + 16, 16, 32]
    assert known == 127
    # The same brightness in all bands is no streak, and 99 is no colour.
    for band in "griz":
        catalogs[band]["MAG_AUTO"][0], catalogs[band]["MAGERR_AUTO"][0], sof["cm_mag"][0] = 15.0, 0.001, 16.0
    catalogs["g"]["MAG_AUTO"][0] = 99.0
    assert gold_flags(catalogs, sof, mof, "cm", tuple("griz"))[0][0] == 0


def test_gold_flags_of_what_is_not_there():
    flags, known = gold_flags({"r": detections(2, FLAGS=[4, 0])})
    assert flags.tolist() == [8, 0]
    assert known == GoldFlag.SEXTRACTOR | GoldFlag.IMAFLAGS
    assert gold_flags({"r": detections(0)})[0].size == 0


def test_extended_classes():
    size = np.array([0.0, 0.0, 0.0, 0.03, 0.06, 1.0, -9999.0, np.nan, 0.03])
    error = np.array([0.001, 0.021, 0.06, 0.0, 0.001, 0.1, 9999.0, 0.1, np.nan])
    assert extended_class(size, error).tolist() == [0, 1, 2, 1, 2, 3, -9, -9, -9]


# --- columns and files


def test_columns_of_a_kind_have_its_name_once():
    rows = np.zeros(2, dtype=[("flags", "i4"), ("mcal_flags", "i8"), ("mcal_g", "f8", (2,)), ("psfrec_T", "f8")])
    rows["flags"], rows["mcal_flags"] = 1, 2
    new = prefixed(rows, "mcal")
    assert new.dtype.names == ("mcal_flags_object", "mcal_flags", "mcal_g", "mcal_psfrec_T")
    assert new["mcal_flags_object"].tolist() == [1, 1]
    assert prefixed(rows[["flags"]], "mcal").dtype.names == ("mcal_flags",)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_parquet_file_gives_back_what_was_put_in(tmp_path, count):
    dtype = [("a", ">f8"), ("b", "i4"), ("c", "U5"), ("d", "?"), ("e", "f4", (2,)), ("f", "f8", (2, 3)), ("g", "S3")]
    rows = np.zeros(count, dtype)
    for k in range(count):
        rows[k] = (k + 0.5, k, "é" * k, k == 1, (k, np.nan), np.arange(6).reshape(2, 3) + k, b"xy")
    cards = {"RADIUS": 0.5, "TILENAME": TILE}
    for name in ("one.parquet", "two.parquet"):
        write_parquet(tmp_path / name, Table("t", rows, {"a": "deg"}, cards))
    back = read_parquet(tmp_path / "one.parquet")
    assert (back.name, back.cards) == ("t", cards)
    assert back.units == {"a": "deg"}
    assert back.rows.dtype.names == rows.dtype.names
    for name in rows.dtype.names:
        want = rows[name].astype(str) if name == "g" else rows[name]
        assert np.array_equal(back.rows[name], want, equal_nan=rows[name].dtype.kind == "f"), name
        assert back.rows[name].shape == rows[name].shape
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    assert arrow_table(Table("t", rows)).column_names == list(rows.dtype.names)


def test_a_damaged_parquet_file_is_named(tmp_path):
    write_parquet(tmp_path / "a.parquet", Table("t", np.zeros(9, dtype=[("x", "f8")])))
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-40])
    for name in ("a.parquet", "none.parquet"):
        with pytest.raises(ProductError, match=name):
            read_parquet(tmp_path / name)


def test_identifiers_of_a_tile_and_realization():
    ids = object_ids(TILE, "3", [1, 9999999])
    assert are_of(ids, TILE, "3").all()
    for tile, realization in ((TILE, None), (TILE, "2"), ("DES0239-0216", "3"), ("DES0238+0216", "3")):
        assert not are_of(ids, tile, realization).any()


# --- the block


@pytest.fixture
def tile(tmp_path, monkeypatch):
    """The tile of `match_tile`; plots have tests of their own and take seconds."""

    def draw(path, *words, **keys):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(b"\x89PNG")

    monkeypatch.setattr(block, "plot_delta_mag", draw)
    monkeypatch.setattr(block, "before_after", lambda base, injected, path, **keys: draw(path))
    return make_tile(tmp_path)


def rewrite(path, change, cards=None, name=None):
    with fitsio.FITS(str(path)) as fits:
        tables = [Table(hdu.get_extname(), hdu.read(), None, cards) for hdu in fits[1:]]
    changed = [one._replace(rows=change(one.rows)) if name in (None, one.name) else one for one in tables]
    write_tables(path, changed)


def test_both_catalogues_have_every_injection(tile):
    block.match(tile)
    tree = tile.tree
    table, found = fitsio.read(str(tree.match), ext=1), fitsio.read(str(tree.detection), ext=1)
    assert found["bal_id"].tolist() == table["true_bal_id"].tolist() == object_ids(TILE, "0", np.arange(1, 11)).tolist()
    assert found["detected"].tolist() == [0, 0] + [1] * 8
    assert found["meas_id"].tolist() == [-1, -1, *object_ids(TILE, "0", np.arange(10, 2, -1)).tolist()]
    assert found["true_id"].tolist() == list(range(100, 110))
    assert found["true_mag_deredden_r"] == pytest.approx(22.5 + 2.5 * np.log10(0.8))
    assert set(found["tilename"].tolist()) == {TILE}
    # Injection 0 has an original at 0.2 arcsec, of flux 0.
    assert found["match_flag_0.5_asec"].tolist() == [1] + [0] * 9
    assert found["base_flux_r"][0] == 0.0
    assert found["brightness"] == pytest.approx(1000.0)
    assert (found["other_flag"] == 0).all()
    assert table["meas_flags_gold"].tolist() == [-9999, -9999] + [0] * 8
    assert (table["meas_extended_class_sof"][2:] == -9).all()
    card = read_header(tree.match, 1)
    assert (card["FITS"], card["LACKING"], card["GOLDBITS"]) == ("sof", "mof,mcal,bfd", 126 - 32)
    for path in (tree.match, tree.detection):
        same = read_parquet(path.with_suffix(".parquet"))
        rows = fitsio.read(str(path), ext=1)
        assert same.rows.dtype.names == rows.dtype.names
        assert same.cards["FITS"] == "sof"
        for name in rows.dtype.names:
            want = np.char.rstrip(rows[name]) if rows[name].dtype.kind in "SU" else rows[name]
            assert np.array_equal(same.rows[name], want, equal_nan=rows[name].dtype.kind == "f"), name


def test_flagged_measurements_are_neither_detected_nor_not(tile):
    rewrite(tile.tree.fit("sof"), lambda rows: set_at(rows, "flags", 9, 2), name="model_fits")
    block.match(tile)
    assert fitsio.read(str(tile.tree.detection), ext=1)["detected"].tolist() == [0, 0, -1] + [1] * 7


def set_at(rows, name, index, value):
    rows[name][index] = value
    return rows


def test_unmatched_truth_says_why(tile):
    def change(rows):
        rows["flags"][:3] = ChipFlag.DRAWN
        rows["flags"][3:6] = ChipFlag.DRAWN | ChipFlag.CENTRE_ON_CHIP | ChipFlag.CENTRE_MASKED
        return rows

    rewrite(tile.tree.truth_chips, change)
    block.match(tile)
    table = fitsio.read(str(tile.tree.match), ext=1)
    assert table["match_reason"].tolist() == [Reason.OFF_CHIPS, Reason.MASKED] + [0] * 8


def test_no_detection_and_no_original_and_one_injection(tile):
    """Nothing to match: every injection is told, nothing is divided by nothing."""
    tree = tile.tree
    for band in BANDS:
        write_catalogue(tree.catalog(band), np.empty(0), np.empty(0))
        write_catalogue(tile.base_tree.catalog(band), np.empty(0), np.empty(0))
    write_fits(tree.fit("sof"), model_rows("exp", 3, 0))
    rewrite(tree.truth, lambda rows: rows[:1])
    rewrite(tree.truth_chips, lambda rows: rows[:3])
    block.match(tile)
    found = read_parquet(tree.detection.with_suffix(".parquet")).rows
    assert found["detected"].tolist() == [0]
    assert found["match_reason"].tolist() == [Reason.NOT_FOUND]
    assert np.isnan(found["base_distance"]).all()
    assert np.isnan(found["other_distance"]).all()
    assert found["other_bal_id"].tolist() == [-1]
    assert found["match_flag_2.0_asec"].tolist() == [0]


def test_positions_that_are_none(tile):
    rewrite(tile.tree.truth, lambda rows: set_at(rows, "ra", 3, np.nan))
    block.match(tile)
    found = fitsio.read(str(tile.tree.detection), ext=1)
    assert found["match_reason"][3] == Reason.BAD_POSITION
    assert found["detected"].sum() == 7


def with_fits(context, *kinds, **more):
    settings = {"match_fits": kinds, **more}
    changed = Pipeline.model_validate({**context.pipeline.model_dump(), **settings})
    return type(context)(context.site, changed, context.campaign, context.tile, context.realization)


def test_fits_that_are_missing_are_told(tile):
    tile.tree.fit("sof").unlink()
    block.match(with_fits(tile))
    table = fitsio.read(str(tile.tree.match), ext=1)
    card = read_header(tile.tree.match, 1)
    assert (card["FITS"], card["LACKING"], card["GOLDBITS"]) == ("none", "sof,mof,mcal,bfd", 24)
    assert table["meas_id"][2] == object_ids(TILE, "0", 10)
    assert "meas_flags" not in table.dtype.names
    assert fitsio.read(str(tile.tree.detection), ext=1)["detected"].sum() == 8


def test_fits_that_are_asked_for_must_be_there(tile):
    for kind, bit in (("mof", "128"), ("mcal", "256")):
        with pytest.raises(ProductError, match=rf"mode {bit}\b"):
            block.match(with_fits(tile, "sof", kind))


def test_fits_of_groups_alone_give_the_order_of_the_vectors(tile):
    """Bands of the tile are g r z: vectors of these fits are in another order, and lack one."""
    mof = group_rows("exp", 2, 10)
    mof["number"], mof["flags"] = np.arange(1, 11), 0
    mof["exp_flux"], mof["psf_flux"] = [30.0, 10.0], [3000.0, 1000.0]
    mof["exp_flux_cov"], mof["psf_flux_err"] = np.diag([9.0, 4.0]), [3.0, 2.0]
    write_fits(tile.tree.fit("mof"), mof, ("z", "g"))
    tile.tree.fit("sof").unlink()
    block.match(with_fits(tile, "mof"))
    card = read_header(tile.tree.match, 1)
    assert (card["BANDS"], card["FITS"], card["LACKING"]) == ("z,g", "mof", "sof,mcal,bfd")
    matched = read_matched([tile.tree.match])
    assert (matched.fits.kind, matched.bands) == ("mof", ("z", "g"))
    seen = matched.detected & ~matched.star
    for band, flux, error in (("z", 30.0, 3.0), ("g", 10.0, 2.0)):
        assert matched.flux(band)[0][seen] == pytest.approx(flux)
        assert matched.flux(band)[1][seen] == pytest.approx(error)
        assert matched.flux(band)[0][matched.detected & matched.star] == pytest.approx(100 * flux)
    assert np.isnan(matched.flux("r")[0]).all()


def test_all_kinds_side_by_side(tile, monkeypatch):
    mof = group_rows("exp", 3, 10)
    mof["number"], mof["flags"] = np.arange(1, 11), 0
    mcal_dtype = [*((n, mof.dtype[n]) for n in ("id", "number", "ra", "dec", "flags", "mask_frac"))]
    mcal_own = metacal_rows(2, ("noshear", "1p", "1m", "2p", "2m"), count=10)
    mcal = np.zeros(10, dtype=np.dtype([*mcal_dtype, *((n, mcal_own.dtype[n]) for n in mcal_own.dtype.names)]))
    mcal["number"], mcal["mcal_g_1p"], mcal["mcal_flags"] = np.arange(1, 11), 0.25, 7
    write_fits(tile.tree.fit("mof"), mof)
    write_fits(tile.tree.fit("mcal"), mcal, ("r", "z"), "gauss")
    block.match(with_fits(tile, "sof", "mof", "mcal"))
    table = fitsio.read(str(tile.tree.match), ext=1)
    card = read_header(tile.tree.match, 1)
    assert (card["FITS"], card["LACKING"]) == ("sof,mof,mcal", "bfd")
    assert (card["BANDS"], card["BANDMOF"], card["BANDMCAL"], card["MODLMCAL"]) == ("g,r,z", "g,r,z", "r,z", "gauss")
    assert table["meas_mcal_g_1p"][2:] == pytest.approx(0.25)
    assert table["meas_mcal_flags"].tolist() == [-9999, -9999] + [7] * 8
    assert table["meas_mcal_flags_object"].tolist() == [-9999, -9999] + [0] * 8
    assert card["GOLDBITS"] & GoldFlag.MOF
    # A kind of a later version is as the others.
    assert prefixed(bfd_rows(3, 2), "bfd").dtype.names == bfd_rows(3, 2).dtype.names


def test_which_fits_are_asked_for(tile):
    assert matched_fits(tile) == ("sof",)
    assert matched_fits(with_fits(tile)) == ()
    assert matched_fits(with_fits(tile, "mcal", "sof")) == ("sof", "mcal")
    none = Pipeline.model_validate({**tile.pipeline.model_dump(), "mode": 1024})
    without = type(tile)(tile.site, none, tile.campaign, tile.tile, tile.realization)
    assert matched_fits(without) == ()
    with Job("mcal", tile).open({}):
        pass
    assert matched_fits(without) == ("mcal",)
    assert Job("mcal", tile) not in needs(Job("match", with_fits(tile, "sof")))[0]
    with pytest.raises(ConfigError, match="kinds of fits"):
        Pipeline.load(Path(__file__).parents[1] / "etc" / "pipeline.yaml", {"match_fits": "sofa"})
    with pytest.raises(InputError, match="not processed"):
        _ = with_fits(tile, match_bands=("Y",)).match_bands


@pytest.mark.parametrize(
    ("lose", "says"),
    [
        ("truth", "truth catalogue holds objects of another"),
        ("twice", "an object twice"),
        ("header", "of another realization: '1'"),
        ("chips", "of another tile: 'DES0240"),
        ("catalog", "of another tile: 'DES0240"),
        ("base", "of another tile: 'DES0240"),
        ("fits", "fits are of another tile or realization"),
        ("bands", "different lengths or objects"),
    ],
)
def test_catalogues_of_another_tile_or_run_are_refused(tile, lose, says):
    tree = tile.tree
    other = {"TILENAME": "DES0240+0216"}
    strange = object_ids("DES0240+0216", "0", np.arange(1, 11))
    if lose == "truth":
        rewrite(tree.truth, lambda rows: set_at(rows, "bal_id", slice(None), strange))
    if lose == "twice":
        rewrite(tree.truth, lambda rows: set_at(rows, "bal_id", 1, rows["bal_id"][0]))
    if lose == "header":
        rewrite(tree.truth, lambda rows: rows, {"TILENAME": TILE, "CURRREAL": "1"})
    if lose == "chips":
        rewrite(tree.truth_chips, lambda rows: rows, other)
    if lose in ("catalog", "base"):
        rewrite((tree if lose == "catalog" else tile.base_tree).catalog("r"), lambda rows: rows, other)
    if lose == "fits":
        rewrite(tree.fit("sof"), lambda rows: set_at(rows, "id", slice(None), strange), name="model_fits")
    if lose == "bands":
        rewrite(tree.catalog("z"), lambda rows: rows[:-1])
    with pytest.raises(ProductError, match=says):
        block.match(tile)
    assert not tree.manifest("match").exists()
