"""Block 8 on a small tile: truth equals pixels, base and injected differ only where something was injected."""

import json
from dataclasses import replace
from pathlib import Path

import fitsio
import numpy as np
import pytest
import yaml
from injection_tile import MAGZP, SIDE, TILE, chip_name, configuration, make_tile
from pyarrow import parquet

from balrogutils.blocks.inject import inject, plan, truth
from balrogutils.context import Context
from balrogutils.errors import ConfigError, InjectionError, InputError, ProductError
from balrogutils.fitsfile import Table, read_header, read_image, read_table, write_tables
from balrogutils.injection import imagefile
from balrogutils.injection.audit import HEADER_KEY
from balrogutils.injection.flags import OUTCOME_DTYPE, ChipFlag, Outcome
from balrogutils.injection.truth import combine
from balrogutils.products import read_manifest

INPUTS = Path(__file__).resolve().parents[1] / "inputs"


def run(context):
    plan(context)
    for band in context.bands:
        inject(context, band)
    truth(context)
    return context.tree


@pytest.fixture(scope="module")
def injected(tmp_path_factory):
    """One realization with Poisson noise, in every product."""
    root = tmp_path_factory.mktemp("injection")
    context = make_tile(root, INPUTS, configuration(noise={"type": "Poisson"}))
    return context, run(context)


def datasums(path):
    with fitsio.FITS(str(path)) as fits:
        return [hdu.read_header().get("DATASUM") for hdu in fits]


def test_every_product_is_there_and_recorded(injected):
    context, tree = injected
    for band in "gr":
        document = read_manifest(tree.manifest("inject", band))
        told = {entry["path"] for entry in document["outputs"]}
        for chip in MAGZP:
            name = chip_name(band, chip)
            assert {str(tree.nullwt(band, name)), str(tree.injected(band, name)), str(tree.psf(name))} <= told
            assert tree.nullwt(band, name).samefile(tree.injected(band, name))
        assert document["counts"]["chips"] == len(MAGZP)
        lines = tree.flist("nullwt", band).read_text().split()
        assert lines == [
            word for chip, zp in MAGZP.items() for word in (str(tree.nullwt(band, chip_name(band, chip))), f"{zp:.16g}")
        ]
        base = context.base_tree
        assert tree.flist("seg", band).read_text() == base.flist("seg", band).read_text()
        assert tree.psfmap(band).read_text() == base.psfmap(band).read_text().replace(str(base.psfs), str(tree.psfs))
        conf = yaml.safe_load(tree.fileconf(band).read_text())
        assert conf["nwgint_flist"] == str(tree.flist("nullwt", band))
        assert conf["meds_url"] == str(tree.meds(band))
        assert conf["coadd_cat_url"] == str(tree.catalog(band))
        assert conf["coadd_image_url"] == "/archive/coadd.fits.fz"
    assert tree.geometry.read_text() == context.base_tree.geometry.read_text()
    assert not list(tree.dir.rglob(".part-*"))


def test_only_the_image_plane_differs_and_only_under_stamps(injected):
    context, tree = injected
    for band in "gr":
        rows = read_table(tree.outcome(band), "CHIPS")
        for chip in MAGZP:
            name = chip_name(band, chip)
            old, new = context.base_tree.nullwt(band, name), tree.nullwt(band, name)
            assert datasums(old)[1:] == datasums(new)[1:]
            with fitsio.FITS(str(old)) as a, fitsio.FITS(str(new)) as b:
                assert len(a) == len(b) == 4
                for one, two in zip(a, b, strict=True):
                    cards = [
                        {
                            c["name"]: c["value"]
                            for c in h.read_header().records()
                            if c["name"] not in ("CHECKSUM", "DATASUM", HEADER_KEY)
                        }
                        for h in (one, two)
                    ]
                    assert cards[0] == cards[1]
                assert all(hdu.verify_checksum() is None for hdu in b)
            here = rows[rows["chip"] == name]
            allowed = np.zeros((SIDE, SIDE), bool)
            for row in here:
                allowed[row["ymin"] - 1 : row["ymax"], row["xmin"] - 1 : row["xmax"]] = True
            differs = read_image(old, "SCI") != read_image(new, "SCI")
            assert not (differs & ~allowed).any()
            assert differs.any() == (chip != 3)
            if chip == 3:  # far away: nothing was injected, so it is the same file
                assert datasums(old) == datasums(new)
                assert len(here) == 0


def test_gained_flux_is_the_truth(injected):
    # 1e-4 of the flux of each object, plus 5 sigma of the rounding to single precision.
    context, tree = injected
    table = read_table(tree.truth, "TRUTH")
    for band in "gr":
        rows = read_table(tree.outcome(band), "CHIPS")
        for chip, zp in MAGZP.items():
            name = chip_name(band, chip)
            here = rows[rows["chip"] == name]
            new, old = (read_image(at.nullwt(band, name), "SCI").astype("f8") for at in (tree, context.base_tree))
            asked = dict(zip(table["bal_id"], table[f"flux_{band}"] * 10 ** (0.4 * (zp - 30)), strict=True))
            whole = (here["flags"] & ChipFlag.CLIPPED_BY_EDGE) == 0
            expected = sum(asked[i] for i in here["bal_id"][whole]) + here["flux_on_chip"][~whole].sum()
            slack = 1e-4 * here["flux_expected"].sum() + 5 * np.sqrt(np.sum(np.spacing(np.abs(new).astype("f4")) ** 2))
            assert abs((new - old).sum() - here["noise_drawn"].sum() - expected) < slack
            # The noise is as large as it should be: 5 sigma of its own variance.
            assert abs(here["noise_drawn"].sum()) < 5 * np.sqrt(here["poisson_variance"].sum()) + 1e-9


def test_outcomes(injected):
    _, tree = injected
    table, stamps = read_table(tree.truth, "TRUTH"), read_table(tree.truth_chips, "CHIPS")
    assert set(stamps["band"]) == {"g", "r"}
    assert len(np.unique(table["bal_id"])) == len(table)
    # Chip 1 holds the whole tile; chip 4 as well, but all masked.
    on_first = stamps[stamps["ccdnum"] == 1]
    assert set(on_first["bal_id"]) == set(table["bal_id"])
    assert ((on_first["flags"] & ChipFlag.CENTRE_MASKED) == 0).all()
    on_masked = stamps[(stamps["ccdnum"] == 4) & ((stamps["flags"] & ChipFlag.CENTRE_ON_CHIP) != 0)]
    assert len(on_masked) > 0
    assert ((on_masked["flags"] & ChipFlag.CENTRE_MASKED) != 0).all()
    assert not (table["outcome"] & (Outcome.CENTRE_MASKED | Outcome.MISSING_BAND | Outcome.NOT_ON_ANY_CHIP)).any()
    # Chip 2 gets light of objects whose centres it does not hold.
    on_second = stamps[stamps["ccdnum"] == 2]
    assert ((on_second["flags"] & ChipFlag.CENTRE_ON_CHIP) == 0).any()
    for band in "gr":
        np.testing.assert_allclose(table[f"mag_{band}"], 30 - 2.5 * np.log10(table[f"flux_{band}"]), rtol=1e-12)
    header = read_header(tree.truth, "TRUTH")
    assert (header["TILENAME"], header["INJBANDS"], header["POISSON"]) == (TILE, "gr", 1)


def test_parquet_is_the_same_table(injected):
    _, tree = injected
    told = {entry["path"] for entry in read_manifest(tree.manifest("truth"))["outputs"]}
    for file, name in ((tree.truth, "TRUTH"), (tree.truth_chips, "CHIPS")):
        assert str(tree.parquet(file)) in told
        rows, header = read_table(file, name), read_header(file, name)
        table = parquet.read_table(tree.parquet(file))
        assert tuple(table.column_names) == rows.dtype.names
        for column in rows.dtype.names:
            values = table[column].to_numpy()
            if rows[column].dtype.kind == "U":
                assert list(values) == list(rows[column])
            else:
                # Bit by bit; FITS is big-endian.
                native = rows[column].astype(rows[column].dtype.newbyteorder("="))
                assert values.dtype == native.dtype
                assert values.tobytes() == native.tobytes()
        about = json.loads(table.schema.metadata[b"cards"])
        assert about["NOBJECTS"] == header["NOBJECTS"]
        assert {key: header[key] for key in about} == about
        units = {field.name: field.metadata[b"unit"].decode() for field in table.schema if field.metadata}
        assert units
        for number, column in enumerate(rows.dtype.names, start=1):
            assert units.get(column, "") == str(header.get(f"TUNIT{number}") or "").strip()


def test_parquet_again_is_the_same_file_and_none_where_none_is_wanted(tmp_path):
    context = make_tile(tmp_path, INPUTS, configuration())
    tree = run(context)
    files = [tree.parquet(file) for file in (tree.truth, tree.truth_chips)]
    before = [file.read_bytes() for file in files]
    truth(context)
    assert [file.read_bytes() for file in files] == before
    without = context.pipeline.model_copy(update={"truth_parquet": False})
    truth(replace(context, pipeline=without))
    assert not any(file.exists() for file in files)
    assert tree.truth.is_file()


def test_the_same_bits_again_and_nothing_old_changes_with_another_realization(injected, tmp_path):
    context, tree = injected
    config = yaml.safe_load(context.galsim_file.read_text())
    again = make_tile(tmp_path / "again", INPUTS, config)
    other = run(again)
    before = datasums(other.truth)
    second = Context(again.site, again.pipeline, again.campaign, again.tile, "1")
    run(second)
    assert datasums(other.truth) == before == datasums(tree.truth)
    for band in "gr":
        for chip in MAGZP:
            name = chip_name(band, chip)
            sums = datasums(tree.nullwt(band, name))
            assert datasums(other.nullwt(band, name)) == sums
            assert (datasums(second.tree.nullwt(band, name)) != sums) == (chip != 3)
    ids = [read_table(one.truth, "TRUTH")["bal_id"] for one in (other, second.tree)]
    assert not set(ids[0]) & set(ids[1])


def test_poisson_noise_differs_between_exposures(injected):
    _, tree = injected
    rows = read_table(tree.outcome("r"), "CHIPS")
    pairs = [rows[rows["ccdnum"] == chip] for chip in (1, 4)]
    both = np.intersect1d(pairs[0]["bal_id"], pairs[1]["bal_id"])
    noise = [part[np.isin(part["bal_id"], both)]["noise_drawn"] for part in pairs]
    assert np.abs(np.corrcoef(*noise)[0, 1]) < 5 / np.sqrt(len(both))


def test_without_noise_the_image_is_exactly_the_light(tmp_path):
    context = make_tile(tmp_path, INPUTS, configuration())
    tree = run(context)
    rows = read_table(tree.outcome("g"), "CHIPS")
    assert (rows["noise_drawn"] == 0).all()
    assert (rows["poisson_variance"] == 0).all()


def test_a_band_that_the_configuration_leaves_out_stays_as_it_is(tmp_path):
    context = make_tile(tmp_path, INPUTS, configuration(bands="r"))
    tree = run(context)
    for chip in MAGZP:
        name = chip_name("g", chip)
        assert tree.nullwt("g", name).samefile(context.base_tree.nullwt("g", name))
    assert "flux_g" not in read_table(tree.truth, "TRUTH").dtype.names


def test_extinction_dims_by_the_tiles_factor(injected, tmp_path):
    context, tree = injected
    config = yaml.safe_load(context.galsim_file.read_text())
    config["image"]["extinct_objs"] = True
    dim = make_tile(tmp_path / "dim", INPUTS, config)
    plan(dim)
    rows, plain = read_table(dim.tree.plan, "PLAN"), read_table(tree.plan, "PLAN")
    np.testing.assert_allclose(rows["flux_g"] / plain["flux_g"], 10 ** (-0.4 * 0.1), rtol=1e-12)
    np.testing.assert_allclose(rows["flux_r"] / plain["flux_r"], 10 ** (-0.4 * 0.07), rtol=1e-12)


def test_a_pixel_that_is_no_number_stays_one_and_is_no_error(tmp_path, caplog):
    context = make_tile(tmp_path, INPUTS, configuration())
    plan(context)
    path = context.base_tree.nullwt("g", chip_name("g", 1))
    with fitsio.FITS(str(path), "rw") as fits:
        image = fits["SCI"].read()
        image[100:110, 50:200] = np.nan
        fits["SCI"].write(image)
    inject(context, "g")
    new = read_image(context.tree.nullwt("g", chip_name("g", 1)), "SCI")
    assert np.array_equal(np.isnan(new), np.isnan(image))
    assert "not finite" in caplog.text


@pytest.mark.parametrize("damage", ["plain copy", "half the light", "elsewhere"])
def test_the_audit_catches_an_image_that_is_not_what_truth_says(tmp_path, monkeypatch, damage):
    context = make_tile(tmp_path, INPUTS, configuration())
    plan(context)
    honest = imagefile.render_all

    def lying(*arguments):
        outcome, light, peaks = honest(*arguments)
        if damage == "plain copy":
            light.added[:] = 0
        elif damage == "half the light":
            light.added *= 0.5
        else:
            outcome["flux_drawn"] *= 1.001
        return outcome, light, peaks

    monkeypatch.setattr(imagefile, "render_all", lying)
    with pytest.raises(InjectionError) as caught:
        inject(context, "g")
    assert caught.value.where["chip"] == chip_name("g", 1)
    assert not context.tree.nullwt("g", chip_name("g", 1)).exists()
    assert not context.tree.flist("nullwt", "g").exists()
    assert not context.tree.manifest("inject", "g").exists()


def test_an_object_that_cannot_be_drawn_stops_the_realization(tmp_path):
    config = configuration()
    config["stamp"]["gsparams"] = {"maximum_fft_size": 64}
    context = make_tile(tmp_path, INPUTS, config)
    plan(context)
    with pytest.raises(InjectionError, match="cannot draw object") as caught:
        inject(context, "g")
    assert caught.value.where["band"] == "g"
    assert "maximum_fft_size" in str(caught.value)


def test_truth_refuses_outcomes_of_another_plan(tmp_path):
    context = make_tile(tmp_path, INPUTS, configuration())
    run(context)
    rows = read_table(context.tree.plan, "PLAN")
    rows["flux_g"] *= 1.01
    # As a plan of its own: one that was edited is refused before.
    context.tree.manifest("plan").unlink()
    with fitsio.FITS(str(context.tree.plan), "rw", clobber=True) as fits:
        fits.write_table(rows, extname="PLAN")
    with pytest.raises(InjectionError, match="not those of the truth"):
        truth(context)


def test_what_is_missing_is_named(tmp_path):
    context = make_tile(tmp_path, INPUTS, configuration())
    with pytest.raises(ProductError, match="file is not there"):
        inject(context, "g")
    plan(context)
    context.base_tree.psf(chip_name("g", 2)).unlink()
    with pytest.raises(ProductError, match=r"file is not there.*c02_r0001p01_psfexcat\.psf"):
        inject(context, "g")
    context.base_tree.flist("nullwt", "g").unlink()
    with pytest.raises(ProductError, match="list is not there"):
        inject(context, "g")


def test_an_empty_plan_is_refused(tmp_path):
    context = make_tile(tmp_path, INPUTS, configuration())
    plan(context)
    rows = read_table(context.tree.plan, "PLAN")
    write_tables(context.tree.plan, [Table("PLAN", rows[:0])])
    # Without its manifest it is not told as a damaged product first.
    context.tree.manifest("plan").unlink()
    for step in (lambda: inject(context, "g"), lambda: truth(context)):
        with pytest.raises(ProductError, match="plan is empty"):
            step()


@pytest.mark.parametrize("part", [0.3, 0.5, 0.9])
def test_a_base_image_that_was_cut_short_is_not_passed_on(tmp_path, part):
    context = make_tile(tmp_path, INPUTS, configuration())
    plan(context)
    name = chip_name("g", next(iter(MAGZP)))
    base = context.base_tree.nullwt("g", name)
    base.write_bytes(base.read_bytes()[: int(part * base.stat().st_size)])
    with pytest.raises(ProductError) as caught:
        inject(context, "g")
    assert str(base) in str(caught.value)
    assert not context.tree.nullwt("g", name).exists()
    assert not context.tree.manifest("inject", "g").exists()


def test_a_base_run_is_refused(tmp_path):
    context = make_tile(tmp_path, INPUTS, configuration())
    with pytest.raises(InputError, match="none is named"):
        plan(context.at(None))


def test_a_configuration_for_another_medsconf_is_refused(tmp_path):
    context = make_tile(tmp_path, INPUTS, configuration(version="y6v1"))
    with pytest.raises(ConfigError, match="medsconf is y3v02"):
        plan(context)


def test_zero_objects_are_an_error_that_names_the_type(tmp_path):
    config = configuration(pos_sampling="uniform", n_objects={"ngmix_catalog": 3, "des_star_catalog": 0})
    context = make_tile(tmp_path, INPUTS, config)
    with pytest.raises(InjectionError, match="no desStar gets a position"):
        plan(context)


def test_poisson_noise_without_a_gain_is_an_error(tmp_path):
    context = make_tile(tmp_path, INPUTS, configuration(noise={"type": "Poisson"}))
    plan(context)
    with fitsio.FITS(str(context.base_tree.nullwt("g", chip_name("g", 1))), "rw") as fits:
        for key in ("GAINA", "GAINB"):
            fits["SCI"].write_key(key, 0.0)
    with pytest.raises(InputError, match="GAINA"):
        inject(context, "g")


def test_outcome_of_an_object_over_all_chips():
    made = [
        # bal_id, band, flags, share of the light on the chip
        (1, "g", ChipFlag.CENTRE_ON_CHIP, 1.0),
        (1, "r", ChipFlag.CENTRE_ON_CHIP, 1.0),
        (2, "g", ChipFlag.CENTRE_ON_CHIP, 1.0),
        (2, "r", ChipFlag(0), 0.3),
        (3, "g", ChipFlag.CENTRE_ON_CHIP | ChipFlag.CENTRE_MASKED, 1.0),
        (3, "g", ChipFlag.CENTRE_ON_CHIP, 0.98),
        (3, "r", ChipFlag.CENTRE_ON_CHIP | ChipFlag.CENTRE_MASKED, 1.0),
        (4, "g", ChipFlag.CENTRE_ON_CHIP | ChipFlag.CLIPPED_BY_EDGE, 0.985),
        (4, "r", ChipFlag.CENTRE_ON_CHIP | ChipFlag.SATURATED | ChipFlag.CLIPPED_BY_EDGE, 0.995),
    ]
    chips_of = np.zeros(len(made), OUTCOME_DTYPE)
    for row, (bal_id, band, flags, share) in zip(chips_of, made, strict=True):
        row["bal_id"], row["band"], row["flags"] = bal_id, band, flags | ChipFlag.DRAWN
        row["flux_expected"], row["flux_on_chip"] = 10.0, 10.0 * share
    planned = np.zeros(5, [("bal_id", "i8")])
    planned["bal_id"] = [5, 4, 3, 2, 1]
    assert list(combine(planned, chips_of, ("g", "r"))) == [
        Outcome.NOT_ON_ANY_CHIP | Outcome.MISSING_BAND,
        Outcome.CLIPPED_BY_EDGE | Outcome.SATURATED,
        Outcome.CENTRE_MASKED,
        Outcome.MISSING_BAND,
        0,
    ]
    with pytest.raises(InjectionError, match="not in the plan"):
        combine(planned[:3], chips_of, ("g", "r"))
