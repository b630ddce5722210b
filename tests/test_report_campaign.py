"""The report of merged catalogues: exact counts of all rows, plots of a sample, in bounded memory."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from click.testing import CliRunner
from merge_tiles import make_source, site_of, tile_name

from balrogutils.analysis import dataset
from balrogutils.analysis.dataset import MatchedDataset, joined, sampled
from balrogutils.analysis.matched import Matched
from balrogutils.analysis.mock import mock_matched
from balrogutils.analysis.skymap import add_counts, count_pixels, efficiency_map, map_of_counts
from balrogutils.blocks.campaign import campaign_report
from balrogutils.cli.main import main
from balrogutils.errors import InputError, ProductError
from balrogutils.matching.merging import merge
from balrogutils.parquetfile import read_parquet


@pytest.fixture(scope="module")
def merged(tmp_path_factory):
    """Twelve tiles of 50 injections, four of five detected; two realizations of the first."""
    root = tmp_path_factory.mktemp("merged")
    site = site_of(root / "base")
    sources = [make_source(site, tile_name(k), count=50) for k in range(12)]
    sources.append(make_source(site, tile_name(0), "1", count=30))
    merge(sources, root / "all", file_rows=200, group_bytes=1)
    return root / "all"


CARDS = {"BANDS": "g", "MAGZERO": 30.0}
COLUMNS = ("match_reason", "true_ra", "true_dec", "true_mag_g")


@pytest.mark.parametrize(
    ("cards", "columns"),
    [
        (json.dumps(CARDS | {"MAGZERO": "x"}), COLUMNS),
        (json.dumps(CARDS | {"MAGZERO": None}), COLUMNS),
        (json.dumps(CARDS | {"MAGZERO": np.nan}), COLUMNS),
        (json.dumps(CARDS | {"BANDS": ""}), COLUMNS),
        ("{}", COLUMNS),
        ("{", COLUMNS),
        ("[1]", COLUMNS),
        *((json.dumps(CARDS), tuple(set(COLUMNS) - {name})) for name in COLUMNS),
    ],
)
def test_tables_of_something_else(tmp_path, cards, columns):
    (tmp_path / "matched").mkdir()
    table = pa.table({name: np.zeros(3) for name in columns}).replace_schema_metadata({"cards": cards})
    pq.write_table(table, tmp_path / "matched" / "part-0.parquet")
    with pytest.raises(InputError, match="this is no merged catalogue") as told:
        MatchedDataset(tmp_path)
    assert told.value.remedy


def test_what_is_no_data_set(tmp_path):
    with pytest.raises(InputError, match="no merged catalogues here"):
        campaign_report(tmp_path)
    (tmp_path / "matched").mkdir()
    (tmp_path / "matched" / "part-00000.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(ProductError, match="cannot be read"):
        campaign_report(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_place_that_is_taken(merged, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="the directory of the report is a file"):
        campaign_report(merged, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_file_changed_since_the_merge_is_refused(merged, tmp_path):
    part = merged / "matched" / "part-00001.parquet"
    content = part.read_bytes()
    try:
        part.write_bytes(content[:-9] + b"x" + content[-8:])
        with pytest.raises(ProductError):
            campaign_report(merged, tmp_path / "out")
    finally:
        part.write_bytes(content)


def test_a_data_set_without_rows(tmp_path):
    site = site_of(tmp_path / "base")
    merge([make_source(site, tile_name(0), count=0)], tmp_path / "none")
    text = campaign_report(tmp_path / "none").read_text()
    assert "Nothing was injected" in text


def test_pieces_hold_what_the_files_hold(merged):
    data = MatchedDataset(merged)
    assert data.rows == 630
    assert data.bands == tuple("griz")
    whole = joined(list(data.pieces()))
    files = [read_parquet(file).rows for file in sorted((merged / "matched").iterdir())]
    for name in ("true_bal_id", "tilename", "meas_cm_flux_cov", "true_mag_i", "meas_mcal_g_1p"):
        np.testing.assert_array_equal(whole.column(name), np.concatenate([rows[name] for rows in files]))
    # What the analysis does not use is not read.
    assert not whole.has("meas_mof_chi2per")


def test_of_the_fits_only_those_that_are_compared_are_read(tmp_path):
    site = site_of(tmp_path / "base")
    merge([make_source(site, tile_name(0), count=20, fits=("mof",))], tmp_path / "mof")
    piece = next(MatchedDataset(tmp_path / "mof").pieces())
    assert piece.fits.kind == "mof"
    assert piece.has("meas_mof_flags", "meas_mof_psf_flux", "meas_mof_cm_flux_cov", "meas_mof_cm_pars_cov")
    merge([make_source(site, tile_name(0), count=20, fits=("sof", "mof"))], tmp_path / "both")
    piece = next(MatchedDataset(tmp_path / "both").pieces())
    assert piece.fits.kind == "sof"
    assert piece.has("meas_cm_flux_cov", "meas_mof_flags")
    assert not piece.has("meas_mof_cm_flux")


def test_a_sample_is_even_and_the_same_every_time():
    rows = mock_matched(20_000).rows
    pieces = [Matched(part, tuple("griz")) for part in np.array_split(rows, 7)]
    one = joined([own for _, own in sampled(pieces, 0.25)])
    other = joined([own for _, own in sampled([Matched(rows, tuple("griz"))], 0.25)])
    np.testing.assert_array_equal(one.column("true_bal_id"), other.column("true_bal_id"))
    # A binomial number of 20 000 trials: 5000 +- 61.
    assert abs(len(one) - 5000) < 5 * 61
    assert abs(one.true_magnitude("i").mean() - Matched(rows, tuple("griz")).true_magnitude("i").mean()) < 0.15
    pair = mock_matched(3000, shear=(0.02, 0.0)), mock_matched(3000, shear=(-0.02, 0.0))
    keys = [next(own for _, own in sampled([part], 0.3)).column("true_noise_key") for part in pair]
    np.testing.assert_array_equal(*keys)


def test_counts_of_pieces_add_to_the_map_of_all():
    matched = mock_matched(3000)
    ra, dec, found = matched.number("true_ra"), matched.number("true_dec"), matched.detected
    parts = [count_pixels(ra[k::3], dec[k::3], found[k::3]) for k in range(3)]
    both = map_of_counts(*add_counts(*(np.concatenate(one) for one in zip(*parts, strict=True))))
    whole = efficiency_map(ra, dec, found)
    np.testing.assert_array_equal(both.valid_pixels, whole.valid_pixels)
    np.testing.assert_array_equal(both[whole.valid_pixels], whole[whole.valid_pixels])


def test_the_report_counts_all_rows_whatever_the_sample(merged, tmp_path):
    page = campaign_report(merged, tmp_path / "small", sample=200)
    text = page.read_text()
    assert "504 of 630 injections detected" in text
    assert "chosen evenly by their identifiers" in text
    assert "Injections in 12 tiles" in text
    tiles = Table.read(tmp_path / "small" / "tiles.ecsv", format="ascii.ecsv")
    assert len(tiles) == 12
    first = tiles[tiles["tile"] == tile_name(0)]
    assert (first["injected"][0], first["detected"][0]) == (80, 64)
    assert tiles["injected"].sum() == 630
    document = json.loads((tmp_path / "small" / "campaign_report.json").read_text())
    assert document["counts"] == {"injected": 630, "detected": 504, "tiles": 12}
    assert {one["path"] for one in document["inputs"]} == {str(file) for file in sorted((merged / "matched").iterdir())}


def test_batches_smaller_than_files_change_nothing(merged, monkeypatch):
    whole = joined(list(MatchedDataset(merged).pieces()))
    monkeypatch.setattr(dataset, "_BATCH", 7)
    pieces = list(MatchedDataset(merged).pieces())
    assert max(len(piece) for piece in pieces) <= 7
    assert len(pieces) >= 90
    np.testing.assert_array_equal(joined(pieces).column("tilename"), whole.column("tilename"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "name tiles, or merged catalogues"),
        (("DES0239+0216", "--merged", "x"), "name tiles, or merged catalogues"),
        (("DES0239+0216", "-o", "x"), "lies with its products"),
        (("--merged", "nowhere"), "no merged catalogues here"),
    ],
)
def test_the_command_refuses(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["report", *words])
    assert done.exit_code == 2
    assert message in done.output
    assert list(tmp_path.iterdir()) == []
