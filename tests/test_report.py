"""The report of a tile: what it says, of what, and what it does where there is little or nothing to say."""

import io
import json
import re
import shutil

import numpy as np
import pytest
from astropy.table import Table
from match_tile import make_context, make_tile
from PIL import Image

from balrogutils.analysis.matched import Matched, Variable, read_matched
from balrogutils.analysis.mock import mock_matched
from balrogutils.analysis.results import Results, file_name, share_table, stacked
from balrogutils.blocks import portrait
from balrogutils.blocks.match import match
from balrogutils.blocks.portrait import conditions
from balrogutils.blocks.report import report
from balrogutils.errors import InputError, ProductError
from balrogutils.fitsfile import Table as FitsTable
from balrogutils.fitsfile import read_header, read_table, write_tables
from balrogutils.products import Step
from balrogutils.report.gallery import chosen_rows, cut
from balrogutils.report.headline import cards, sentences
from balrogutils.report.page import Grid, Page, Section, write_page
from balrogutils.report.sections import science_sections
from balrogutils.report.tilemap import Marks, grey_png, tile_map


def with_realizations(context, *names):
    pipeline = context.pipeline.model_copy(update={"realizations": names})
    return type(context)(context.site, pipeline, context.campaign, context.tile)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A matched tile: ten injections, eight detected, one of them beside an original."""
    root = tmp_path_factory.mktemp("made")
    match(make_tile(root))
    return root


@pytest.fixture
def tile(made, tmp_path):
    """A copy of it."""
    shutil.copytree(made, tmp_path / "copy")
    context = make_context(tmp_path / "copy")
    manifest = context.tree.manifest("match")
    manifest.write_text(manifest.read_text().replace(str(made), str(tmp_path / "copy")))
    return context


def links(text):
    """Everything in a page that a browser would fetch."""
    return [word for word in re.findall(r'(?:src|href)="([^"]*)"', text) if not word.startswith(("#", "data:"))]


def changed(context, change):
    """Change the matched catalogue of a tile in place."""
    path = context.tree.match
    header, rows = read_header(path, 1), read_table(path)
    cards = {name: header[name] for name in ("RADIUS", "BANDS", "MAGZERO", "TILENAME", "REALIZ", "LACKING", "GOLDBITS")}
    rows = change(rows)
    write_tables(path, [FitsTable("match", rows, None, cards)])
    # What is tested is what the report does with such rows, not that damage is found.
    manifest = context.tree.manifest("match")
    document = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(document | {"outputs": []}))


@pytest.mark.parametrize("number", [0, 1])
def test_no_injection_and_one(number):
    matched = mock_matched(number)
    results = Results(matched)
    said = sentences(results)
    assert said[0].startswith(
        "Nothing was injected" if number == 0 else f"{int(matched.detected.sum())} of 1 injection"
    )
    assert cards(results)[0].value == str(number)
    sections = science_sections(results, "x_")
    assert [one.title for one in sections][:2] == ["Detection efficiency", "Transfer functions"]
    for section in sections:
        assert section.text
    assert all(isinstance(table, Table) for table in results.files().values())


def test_nothing_detected():
    rows = mock_matched(300).rows
    rows["match_reason"] = 1
    results = Results(Matched(rows, tuple("griz")))
    said = sentences(results)
    assert said[0] == "0 of 300 injections detected."
    assert f"0 of {int(results.matched.clear.sum())} clear injections detected" in said[1]
    # No model without anything found, and that is told.
    assert said[2] == results.model.note
    sections = {section.title: section for section in science_sections(results, "")}
    assert not sections["Transfer functions"].pictures
    assert "No object has a value of" in " ".join(sections["Transfer functions"].text)


def test_everything_masked():
    rows = mock_matched(50).rows
    rows["match_reason"] = 6
    results = Results(Matched(rows, tuple("griz")))
    assert sentences(results)[1].startswith("No injection is clear")
    efficiency = science_sections(results, "")[0]
    assert not efficiency.pictures
    assert "so there is no plot" in " ".join(efficiency.text)


def test_columns_of_nan():
    rows = mock_matched(200).rows
    for name in rows.dtype.names:
        if rows.dtype[name].base.kind == "f" and name not in ("true_ra", "true_dec"):
            rows[name] = np.nan
    results = Results(Matched(rows, tuple("griz")))
    assert "detected" in sentences(results)[0]
    extra = Matched(rows, tuple("griz"), extra=(Variable("seeing in i", np.full(200, np.nan), "arcsec"),))
    for section in science_sections(Results(extra), ""):
        assert section.text
        # Nothing is known of any injection but where it is and whether it was found.
        assert not section.pictures or section.title in ("Stars and galaxies", "Shear response", "Input rows")


def test_the_headline_says_what_the_tables_say():
    matched = mock_matched(4000)
    results = Results(matched)
    head = sentences(results)[0]
    found = re.fullmatch(r"(\d+) of 4000 injections detected, 50 % completeness at i = (\d+\.\d+)\s(.*)\.", head)
    assert found is not None, head
    assert int(found[1]) == int(matched.detected.sum())
    # What the mock catalogue was made with, within four of the quoted errors.
    error = float(re.search(r"\d\.\d+", found[3])[0])
    assert abs(float(found[2]) - 23.37) < 4 * error + 0.01
    assert error < 0.1


def test_shear_pairs_give_m_and_c():
    parts = [mock_matched(1500, shear=(sign * 0.02, 0.0)).rows for sign in (1, -1)]
    rows = np.concatenate(parts)
    names = [*rows.dtype.descr, ("realization", "i4")]
    both = np.zeros(len(rows), dtype=names)
    for name in rows.dtype.names:
        both[name] = rows[name]
    both["realization"] = np.repeat([0, 1], [len(part) for part in parts])
    results = Results(Matched(both, tuple("griz")))
    assert set(results.bias) == {"0 and 1"}
    table = results.bias["0 and 1"]
    # The same noise in both: what is left is rounding.
    assert abs(table["m"][0]) < 1e-6
    assert table["pairs"][0] > 100
    assert any("m = " in sentence for sentence in sentences(results))
    single = Results(Matched(both[both["realization"] == 0], tuple("griz")))
    assert single.bias == {}


def test_tables_are_stacked_with_their_numbers():
    one = Results(mock_matched(500)).transfer["magnitude"]
    table = stacked(one)
    assert len(table) == sum(len(part) for kinds in one.values() for part in kinds.values())
    row = table[(table["panel"] == "r") & (table["kind"] == "stars")]
    np.testing.assert_array_equal(row["median"], one["r"]["stars"]["median"])
    assert table["median"].unit == "mag"


def test_shares_of_parts():
    table = share_table("tile", ["a", "b"], np.array([[10, 5, 8, 4], [3, 0, 0, 0]]))
    assert table["efficiency"][0] == 0.5
    assert np.isnan(table["efficiency"][1])
    assert table["efficiency_low"][0] < 0.5 < table["efficiency_high"][0]
    assert file_name("true g − r < 3") == "true_g_minus_r_below_3"


def test_a_page_escapes_and_cuts(tmp_path):
    table = Table({"n": np.arange(700), "x": np.linspace(-1, 1, 700), "t": ["<b>"] * 700}, meta={"note": "a & b"})
    table["x"][3] = np.nan
    write_page(
        tmp_path / "p.html", Page("<T>", "s", ("one",), (), (Section("A b", ("x < y",), (), (Grid("g", table),)),))
    )
    text = (tmp_path / "p.html").read_text()
    assert "&lt;T&gt;" in text
    assert "<b>" not in text
    assert text.count("<tr>") == 501
    assert "200 more rows are in the file" in text
    assert 'id="a_b"' in text
    # What has no value is shown as a dash and sorted by nothing.
    assert '<td class="number" data-key="">–</td>' in text
    assert links(text) == []


def test_the_report_of_a_tile(tile):
    page = report(with_realizations(tile, "0", "1"))
    assert page == tile.base_tree.report
    text = page.read_text()
    assert "Not matched yet, and not in this report: realization 1" in text
    assert links(text) == []
    assert "8 of 10 injections detected" in text
    assert "There is no metacal (block 256)" in text
    assert page.stat().st_size < 15e6
    # Every figure says in words what it shows, and no two parts of the page have one name.
    assert "<svg" in text
    assert re.findall(r"<svg[^>]*>(?!<title>)", text) == []
    names = re.findall(r'\bid="([^"]+)"', text)
    assert len(names) == len(set(names))
    outcomes = Table.read(tile.base_tree.report_table("outcomes"), format="ascii.ecsv")
    assert outcomes["injections"].sum() == 10
    assert outcomes["injections"][0] == 8
    document = json.loads(tile.base_tree.manifest("report").read_text())
    written = {one["path"] for one in document["outputs"]}
    assert {str(page), str(tile.base_tree.efficiency_map)} <= written
    assert document["counts"]["injected"] == 10
    assert str(tile.tree.match) in {one["path"] for one in document["inputs"]}
    # The same catalogues give the same page.
    first = page.read_bytes()
    assert report(with_realizations(tile, "0", "1")).read_bytes() == first


def test_nothing_matched_is_refused(tmp_path):
    context = make_tile(tmp_path)
    with pytest.raises(ProductError, match="no matched catalogue of realizations 0 1"):
        report(with_realizations(context, "0", "1"))
    with pytest.raises(InputError, match="no realization"):
        report(with_realizations(context))
    assert not context.base_tree.report.exists()


def test_a_catalogue_of_another_tile_is_refused(tile):
    def rename(rows):
        rows["tilename"] = "DES0000+0000"
        return rows

    changed(tile, rename)
    with pytest.raises(ProductError, match="of another tile: DES0000"):
        report(with_realizations(tile, "0"))


def test_a_changed_catalogue_is_refused(tile):
    with tile.tree.match.open("r+b") as file:
        file.seek(6000)
        file.write(b"x" * 40)
    with pytest.raises(ProductError, match="not as step match left it"):
        report(with_realizations(tile, "0"))


def test_a_tile_with_an_empty_catalogue(tile):
    changed(tile, lambda rows: rows[:0])
    text = report(with_realizations(tile, "0")).read_text()
    assert "Nothing was injected" in text


def test_with_fits_of_groups_alone(tile):
    def rename(rows):
        names = [re.sub(r"^meas_(flags$|exp_|psf_)", r"meas_mof_\1", name) for name in rows.dtype.names]
        rows.dtype.names = tuple(names)
        return rows

    changed(tile, rename)
    text = report(with_realizations(tile, "0")).read_text()
    assert "so transfer functions and pulls are of the fits of groups" in text
    assert "What fits of groups (MOF, exp) measure less what was put in" in text
    table = Table.read(tile.base_tree.report_table("transfer_magnitude"), format="ascii.ecsv")
    # Eight are detected, half of them stars; one of the former lies on an original and is not clear.
    assert table["objects"].sum() == 3 * 8


def test_without_fits_it_is_shorter(tile):
    changed(tile, lambda rows: rows[[name for name in rows.dtype.names if "exp" not in name and "psf" not in name]])
    text = report(with_realizations(tile, "0")).read_text()
    assert "There are no single fits (SOF, block 64)" in text
    assert "Transfer functions" not in text.replace("transfer functions", "")


def test_the_objects_to_look_at_are_the_extremes():
    matched = mock_matched(3000)
    chosen = chosen_rows(matched)
    off = np.abs(matched.magnitude("i") - matched.true_magnitude("i"))
    good = matched.fitted & np.isfinite(off)
    best, worst = off[chosen["Best measured"]], off[chosen["Worst measured"]]
    np.testing.assert_array_equal(np.sort(best), np.sort(off[good])[:4])
    np.testing.assert_array_equal(worst, np.sort(off[good])[::-1][:4])
    middle = np.median(off[good])
    assert np.all(np.abs(off[chosen["Typical"]] - middle) < 0.02 * middle + 0.002)
    missed = chosen["Brightest missed"]
    assert not matched.detected[missed].any()
    every = np.sort(matched.true_magnitude("i")[~matched.detected & matched.clear])
    np.testing.assert_array_equal(matched.true_magnitude("i")[missed], every[:4])
    # Of one object there is one, and none is shown twice.
    few = chosen_rows(matched.part(np.arange(3000) == np.flatnonzero(good)[0]))
    assert {kind: rows.tolist() for kind, rows in few.items()} == {"Best measured": [0]}
    assert chosen_rows(mock_matched(0)) == {}


def test_stamps_over_the_edge():
    image = np.arange(10_000.0).reshape(100, 100)
    stamp, corner = cut(image, 3.2, 98.9)
    assert corner == (3 - 32, 99 - 32)
    assert stamp[32, 32] == image[3, 99]
    assert np.isnan(stamp[0, 0])
    assert np.isnan(stamp[32, 33])
    assert np.isnan(cut(image, -500.0, 20.0)[0]).all()


def test_pictures_have_their_first_row_below_and_holes():
    levels = np.array([[0.0, 1.0], [2.0, np.nan]])
    pixels = np.asarray(Image.open(io.BytesIO(grey_png(levels, 0.0, 2.0))))
    assert pixels[..., 0].tolist() == [[255, 0], [0, 128]]
    assert pixels[..., 1].tolist() == [[255, 0], [255, 255]]


def test_the_map_marks_what_is_where_it_is():
    pixels = np.zeros((40, 60), "f4")
    marks = [Marks("found", "a & b", np.array([[9.0, 19.0], [np.nan, 3.0]]), ["<star>", "lost"])]
    text = tile_map(pixels, np.zeros_like(pixels), marks, "a map")
    # Row 9 from below is 30.5 from above.
    assert 'cx="19.5" cy="30.5"' in text
    assert text.count("<circle") == 1
    assert "&lt;star&gt;" in text
    assert "a &amp; b (2, 1 of them marked)" in text


def test_conditions_are_those_of_each_injection(tile, monkeypatch):
    def known(base, tree, band, zero_point):
        # In the order of the truth, which is not that of the catalogue.
        return {"seeing": (read_table(tree.truth)["flux_g"], "arcsec")}

    truth = read_table(tile.tree.truth)
    truth["flux_g"] = np.arange(10)
    write_tables(tile.tree.truth, [FitsTable("truth", truth[::-1].copy(), None, {})])
    monkeypatch.setattr(portrait, "injection_conditions", known)
    matched = read_matched([tile.tree.match])
    with Step(tile.base_tree.manifest("try"), "try") as step:
        seen, why = conditions(tile.at(None), ["0"], matched, step)
    assert why == ""
    places = dict(zip(truth["bal_id"].tolist(), truth["flux_g"].tolist(), strict=True))
    assert seen.extra[0].values.tolist() == [places[label] for label in matched.column("true_bal_id")]
