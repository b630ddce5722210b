"""Catalogues of many tiles as one."""

import json
import warnings

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from merge_tiles import SHAPES, elsewhere, make_source, make_tables, renamed, site_of, tile_name, write_source

from balrogutils.errors import InputError, ProductError
from balrogutils.identity import object_ids
from balrogutils.matching.merging import merge
from balrogutils.matching.metacal_file import metacal_columns
from balrogutils.parquetfile import read_parquet
from balrogutils.tilelist import tile_names

ONE, TWO = "DES0239+0216", "DES0240-0216"


@pytest.fixture
def site(tmp_path):
    return site_of(tmp_path / "base")


def rows_of(out, kind="matched"):
    return pq.read_table(out / kind)


def test_rows_of_all_tiles_and_realizations_in_order(site, tmp_path):
    places = [(ONE, "0"), (ONE, "1"), (TWO, "0")]
    sources = [make_source(site, *place, count=count) for place, count in zip(places, (7, 5, 9), strict=True)]
    done = merge(sources, tmp_path / "out", file_rows=8, group_bytes=1)
    assert done.whole
    assert done.rows == {"matched": 21, "metacal": 21, "detection": 21}
    want = np.concatenate([object_ids(*place, np.arange(1, n + 1)) for place, n in zip(places, (7, 5, 9), strict=True)])
    for kind, name in (("matched", "true_bal_id"), ("detection", "bal_id")):
        table = rows_of(tmp_path / "out", kind)
        assert table[name].to_pylist() == want.tolist()
        assert table["tilename"].to_pylist() == [ONE] * 12 + [TWO] * 9
        assert table["realization"].to_pylist() == [0] * 7 + [1] * 5 + [0] * 9
        # A new file after 8 rows.
        assert sorted(path.name for path in (tmp_path / "out" / kind).iterdir()) == [
            *("part-00000.parquet", "part-00001.parquet")
        ]
    back = read_parquet(tmp_path / "out" / "matched" / "part-00000.parquet")
    assert back.cards["BANDS"] == "g,r,i,z"
    assert "TILENAME" not in back.cards
    report = json.loads((tmp_path / "out" / "merge.json").read_text())
    assert report["rows"] == done.rows
    assert len(report["inputs"]) == 6
    # Again, in its place: the same bytes.
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*.*") if path.name != "merge.json"}
    merge(sources, tmp_path / "out", file_rows=8, group_bytes=1)
    after = {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*.*") if path.name != "merge.json"}
    assert before == after
    assert not list(tmp_path.glob(".part-*"))


def test_the_layout_of_metacal(site, tmp_path):
    source = make_source(site, ONE, count=10)
    merge([source], tmp_path / "out")
    with h5py.File(tmp_path / "out" / "metacal.h5") as file:
        assert sorted(file["catalog"]) == ["sheared_1m", "sheared_1p", "sheared_2m", "sheared_2p", "unsheared"]
        main, plus = file["catalog/unsheared"], file["catalog/sheared_1p"]
        ids = object_ids(ONE, "0", np.arange(1, 11))
        seen = np.arange(10) % 5 != 4
        assert main["bal_id"][:].tolist() == np.where(seen, ids, -1).tolist()
        assert main["injection_id"][:].tolist() == ids.tolist()
        assert set(main["tilename"][:].tolist()) == {ONE.encode()}
        assert main["flags"][:][~seen].tolist() == [-9999, -9999]
        for name, value in (("R11", 0.7), ("R12", 0.1), ("R21", 0.2), ("R22", 0.8)):
            assert main[name][:][seen] == pytest.approx(value), name
            assert np.isnan(main[name][:][~seen]).all()
        assert main["e_1"][:][seen] == pytest.approx(0.1)
        assert plus["e1"][:][seen] == pytest.approx(0.107)
        # The size of each kind of image, not the unsheared one for all.
        assert main["size_ratio"][:][seen] == pytest.approx(0.6 / 0.3)
        assert plus["size_ratio"][:][seen] == pytest.approx(0.61 / 0.3)
        assert np.isnan(plus["size_ratio"][:][~seen]).all()
        for band in SHAPES:
            assert main[f"flux_{band}"][:][seen] == pytest.approx(1000.0 / 0.8)
            # The square root of the variance.
            assert main[f"flux_err_{band}"][:][seen] == pytest.approx(20.0 / 0.8)
            assert main[f"ext_fact_{band}"][:] == pytest.approx(0.8)
        assert main["covmat_0_1"][:][seen] == pytest.approx(0.0)
        assert main["covmat_2_2"][:][seen] == pytest.approx(0.01)
        assert main["bal_id"].chunks == (10,)


def test_what_was_not_measured_is_no_number():
    """Fills of -9999 give no response of zero and no size."""
    matched, _ = make_tables(ONE, "0", 5)
    for name in matched.dtype.names:
        if name.startswith("meas_mcal_") and matched[name].dtype.kind == "f":
            matched[name] = 9999.0 if "cov" in name or "err" in name else -9999.0
    groups = metacal_columns(matched, SHAPES)
    for group in groups.values():
        for name, values in group.items():
            if values.dtype.kind == "f" and not name.startswith(("ext_fact", "ra", "dec")):
                assert np.isnan(values).all(), name
    assert metacal_columns(matched[:0], SHAPES)["unsheared"]["R11"].size == 0


def test_tiles_with_and_without_a_kind_of_fits(site, tmp_path):
    sources = [make_source(site, ONE, count=4, fits=("sof",)), make_source(site, TWO, count=6)]
    done = merge(sources, tmp_path / "out")
    assert done.whole
    assert done.rows == {"matched": 10, "metacal": 6, "detection": 10}
    assert [str(one) for one in done.without_metacal] == [f"{ONE} realization 0"]
    table = rows_of(tmp_path / "out")
    assert table["meas_mcal_flags"].null_count == 4
    assert table["meas_mcal_g_1p"].null_count == 4
    back = read_parquet(tmp_path / "out" / "matched" / "part-00000.parquet").rows
    assert back["meas_mcal_flags"].tolist() == [-9999] * 4 + [0] * 4 + [-9999, 0]
    assert np.isnan(back["meas_mcal_g"][:4]).all()
    assert back["meas_mcal_g"][4:8] == pytest.approx(np.tile([0.1, -0.2], (4, 1)))
    none = merge(sources[:1], tmp_path / "none")
    assert none.rows == {"matched": 4, "detection": 4}
    assert not (tmp_path / "none" / "metacal.h5").exists()
    assert "metacal" not in merge(sources, tmp_path / "no", hdf5=False).rows


def test_what_is_missing_or_damaged_is_listed(site, tmp_path):
    whole = make_source(site, ONE, count=3)
    gone, edited, strange, swapped, empty = (make_source(site, tile_name(k), count=2) for k in range(5))
    never = make_source(site, tile_name(9), count=2)
    never.manifest.unlink()
    gone.files["matched"].unlink()
    edited.files["matched"].write_bytes(whole.files["matched"].read_bytes())
    write_source(site, strange.tile, "0", make_tables(TWO, "0", 2))
    write_source(site, swapped.tile, "0", (make_tables(swapped.tile, "0", 2)[0], make_tables(swapped.tile, "0", 1)[1]))
    write_source(site, empty.tile, "0", make_tables(empty.tile, "0", 0))
    done = merge([gone, edited, strange, swapped, empty, never, whole], tmp_path / "out")
    assert not done.whole
    assert {one.source.tile: one.why for one in done.lacking} == {
        gone.tile: f"{gone.files['matched'].name} is gone",
        edited.tile: f"{edited.files['matched'].name} is not as block 1024 left it",
        strange.tile: f"{strange.files['matched'].name} is of another tile or realization",
        swapped.tile: "its two catalogues are not of the same injections",
        never.tile: "it has not been made",
    }
    # A tile without injections is whole.
    assert done.sources == 2
    assert done.rows["matched"] == 3
    for name in (gone.tile, never.tile):
        assert name in str(done)
    assert len(json.loads((tmp_path / "out" / "merge.json").read_text())["lacking"]) == 5


def test_identifiers_that_come_twice_are_told_and_never_kept(site, tmp_path):
    first = make_source(site, ONE, count=6)
    other = elsewhere(site, tmp_path / "second run")
    again = write_source(other, ONE, "0", make_tables(ONE, "0", 8, seed=1))
    done = merge([first, again, make_source(other, TWO, count=2)], tmp_path / "out")
    assert not done.whole
    ids = object_ids(ONE, "0", np.arange(1, 9))
    assert done.duplicates.tolist() == ids[:6].tolist()
    table = rows_of(tmp_path / "out")
    assert table["true_bal_id"].to_pylist() == [*ids.tolist(), *object_ids(TWO, "0", [1, 2]).tolist()]
    # The first of them stays.
    want = [*make_tables(ONE, "0", 6)[0]["true_ra"], *make_tables(ONE, "0", 8, seed=1)[0]["true_ra"][6:]]
    assert table["true_ra"].to_pylist()[:8] == want
    assert "6 identifiers" in str(done)
    with h5py.File(tmp_path / "out" / "metacal.h5") as file:
        assert file["catalog/unsheared/injection_id"][:].tolist() == table["true_bal_id"].to_pylist()


@pytest.mark.parametrize(("key", "value"), [("BANDS", "g,r,z"), ("RADIUS", 1.0), ("BANDMCAL", "g,r,i")])
def test_tiles_made_in_different_ways_are_refused(site, tmp_path, key, value):
    sources = [make_source(site, ONE, count=2), make_source(site, TWO, count=2, **{key: value})]
    with pytest.raises(InputError, match=rf"{TWO} realization 0 has {key} {value}, others have"):
        merge(sources, tmp_path / "out")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_columns_of_different_types_are_refused(site, tmp_path):
    matched, detection = make_tables(TWO, "0", 2)
    dtype = [(name, "f4" if name == "true_ra" else matched.dtype[name]) for name in matched.dtype.names]
    sources = [make_source(site, ONE, count=2), write_source(site, TWO, "0", (matched.astype(dtype), detection))]
    with pytest.raises(InputError, match="true_ra is of type double elsewhere, of type float"):
        merge(sources, tmp_path / "out")


def test_nothing_to_merge_and_places_that_are_taken(site, tmp_path):
    source = make_source(site, ONE, count=2)
    (tmp_path / "file").write_text("x")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    for name, says in (("file", "is a file"), ("mine", "holds other things")):
        with pytest.raises(InputError, match=says):
            merge([source], tmp_path / name)
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "x"
    source.manifest.unlink()
    with pytest.raises(ProductError, match="nothing to merge: it has not been made"):
        merge([source], tmp_path / "out")
    with pytest.raises(ProductError, match="nothing to merge: no tile is named"):
        merge([], tmp_path / "out")


def test_a_failed_merge_leaves_the_one_of_before(site, tmp_path):
    source = make_source(site, ONE, count=2)
    merge([source], tmp_path / "out")
    with pytest.raises(InputError):
        merge([source, make_source(site, TWO, count=2, RADIUS=3.0)], tmp_path / "out")
    assert rows_of(tmp_path / "out").num_rows == 2
    assert not list(tmp_path.glob(".part-*"))


def test_lists_of_tiles(tmp_path):
    (tmp_path / "tiles").write_text(f"# mine\n{ONE}\n\n  {TWO}  # good\n")
    assert tile_names(tmp_path / "tiles") == {2: ONE, 4: TWO}
    with pytest.raises(InputError, match="cannot be read"):
        tile_names(tmp_path / "none")


def test_the_command(command, base, tmp_path):
    site = site_of(base)
    make_source(site, ONE, "0", 4)
    out = str(tmp_path / "out")
    done = command("balrog", "merge", out, ONE, "-r", "0")
    assert done.returncode == 0, done.stderr
    assert "matched 4, metacal 4, detection 4" in done.stdout
    done = command("balrog", "merge", out, ONE)
    assert done.returncode == 1
    assert f"Left out: {ONE} realization 1: it has not been made" in done.stdout
    assert rows_of(tmp_path / "out").num_rows == 4
    for words, says in (
        (("balrog", "merge", out), "no tile is named"),
        (("balrog", "merge", out, "DES0239+0217"), "did you mean"),
        (("balrog", "merge", out, ONE, "--from", "/nowhere"), "directory of a run is not there"),
    ):
        done = command(*words)
        assert done.returncode == 2
        assert says in done.stderr


@pytest.mark.long
def test_many_tiles_make_exact_counts(site, tmp_path):
    """60 tiles of two realizations and 50 injections; benchmarks/merging.py has 2000 and the memory."""
    template = make_tables(ONE, "0", 50)
    sources = []
    for number in range(60):
        for name in ("0", "1"):
            tile = tile_name(number)
            sources.append(write_source(site, tile, name, renamed(template, tile, name)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = merge(sources, tmp_path / "out", group_bytes=2**22)
    assert done.whole
    assert done.rows == {"matched": 6000, "metacal": 6000, "detection": 6000}
    ids = rows_of(tmp_path / "out", "detection")["bal_id"].to_numpy()
    assert np.unique(ids).size == 6000
    with h5py.File(tmp_path / "out" / "metacal.h5") as file:
        found = file["catalog/unsheared/bal_id"][:]
        assert np.count_nonzero(found == -1) == 1200
        assert np.array_equal(file["catalog/unsheared/injection_id"][:], ids)
