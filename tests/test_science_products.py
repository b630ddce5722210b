"""Tables and plots of matched catalogues: mock ones whose answers are known, and ones with nothing in them."""

import itertools
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from documented import CHECKOUT, blocks

from balrogutils.analysis import mock
from balrogutils.analysis.binning import even_edges
from balrogutils.analysis.conditions import aperture_depth, mean_seeing
from balrogutils.analysis.matched import Matched, Variable, read_matched
from balrogutils.analysis.mock import mock_matched
from balrogutils.analysis.pairs import magnification_table, shared_rows, shear_bias_table
from balrogutils.analysis.products import (
    class_table,
    detection_model,
    efficiency_tables,
    input_row_table,
    metacal_table,
    pull_tables,
    transfer_tables,
)
from balrogutils.analysis.skymap import efficiency_map
from balrogutils.analysis.transfer import pull_statistics, transfer_function
from balrogutils.errors import InputError, ProductError
from balrogutils.fitsfile import Table as FitsTable
from balrogutils.fitsfile import write_tables
from balrogutils.report.efficiencyplot import efficiency_figure, input_row_figure, map_figure
from balrogutils.report.style import save_svg
from balrogutils.report.transferplot import (
    bias_figure,
    confusion_figure,
    pull_figure,
    response_figure,
    transfer_figure,
)


def changed(matched, **columns):
    rows = matched.rows.copy()
    for name, value in columns.items():
        rows[name] = value
    return Matched(rows, matched.bands, matched.zero_point, matched.extra)


def nothing_but_nan():
    rows = mock_matched(30, shear=(0.0, 0.0)).rows.copy()
    for name in rows.dtype.names:
        if rows.dtype[name].base.kind == "f":
            rows[name] = np.nan
    return Matched(rows, mock.BANDS)


DEGENERATE = {
    "zero rows": lambda: mock_matched(0, shear=(0.0, 0.0)),
    "one row": lambda: mock_matched(1, shear=(0.0, 0.0)),
    "all detected": lambda: changed(mock_matched(40), match_reason=0),
    "none detected": lambda: changed(mock_matched(40), match_reason=1, meas_flags=-9999),
    "NaN everywhere": nothing_but_nan,
    "no fits": lambda: Matched(
        mock_matched(40).rows[["true_bal_id", "true_ra", "true_dec", "match_reason", "true_mag_i", "true_flux_i"]],
        mock.BANDS,
    ),
}


def figures_of(matched):
    model = detection_model(matched)
    rows = matched.clear
    sky = efficiency_map(matched.number("true_ra")[rows], matched.number("true_dec")[rows], matched.detected[rows])
    yield "efficiency", efficiency_figure(efficiency_tables(matched), "efficiency", model)
    yield "map", map_figure(sky, "map")
    yield "rows", input_row_figure(input_row_table(matched), "rows")
    for name, panels in transfer_tables(matched).items():
        if panels:
            yield name, transfer_figure(panels, name)
    for kind in ("galaxies", "stars"):
        yield f"pulls-{kind}", pull_figure(pull_tables(matched), "pulls", kind=kind)
    yield "classes", confusion_figure(class_table(matched), "classes")
    yield "response", response_figure(metacal_table(matched), "response")
    yield "bias", bias_figure(shear_bias_table(matched, matched), "bias")


@pytest.mark.parametrize("case", DEGENERATE)
def test_nothing_to_show_is_said_in_tables_and_plots(case, tmp_path):
    matched = DEGENERATE[case]()
    # Two bands hold every kind of panel.
    matched = Matched(matched.rows, ("g", "i") if case == "no fits" else ("g", "r"))
    tables = [*efficiency_tables(matched).values(), detection_model(matched).table(), class_table(matched)]
    tables += [input_row_table(matched), metacal_table(matched), shear_bias_table(matched, matched)]
    for panels in [*transfer_tables(matched).values(), pull_tables(matched)]:
        tables += [table for kinds in panels.values() for table in kinds.values()]
    assert len(tables) > 10
    for table in tables:
        assert table.meta["note"].endswith(".")
        assert all(column.description for column in table.columns.values())
    for name, figure in figures_of(matched):
        assert figure.get_suptitle()
        # Laying out a figure takes the time; a row of one and a sample without a model have all kinds of panels.
        if case == "one row" or (case == "all detected" and name in ("efficiency", "size", "classes", "bias")):
            save_svg(tmp_path / f"{name}.svg", figure)
            assert (tmp_path / f"{name}.svg").stat().st_size > 1000


def numbers_of(axis):
    """The numbers at the ticks of an axis that are seen, of a figure that has been drawn."""
    low, top = axis.get_view_interval()
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    return [tick.label1 for tick in ticks if low <= tick.get_loc() <= top and tick.label1.get_text()]


def test_labels_have_room():
    axis = {"name": "true magnitude", "name_unit": "mag", "edges": [22.9, 23.0, 23.1, 23.25]}
    values = np.linspace(-0.07, 0.07, 60), np.linspace(22.9, 23.25, 60)
    panel = transfer_function(*values, quantity="detected − true, north", unit="arcsec", **axis)
    figure = transfer_figure({"position, north": {"galaxies": panel}}, "", columns=1)
    main, strip = figure.axes
    # The widest numbers that axes have, and one at the very end.
    main.set_ylim(-0.09, 0.09)
    strip.set_xlim(22.9, 23.25)
    strip.set_xticks([22.9, 23.25])
    figure.draw_without_rendering()
    labels = [main.yaxis.label, strip.yaxis.label, strip.xaxis.label]
    numbers = [*numbers_of(main.yaxis), *numbers_of(strip.yaxis), *numbers_of(strip.xaxis)]
    assert len(numbers) > 8
    for box in (text.get_window_extent() for text in (*labels, *numbers)):
        assert box.x0 >= 0.0
        assert box.y0 >= 0.0
        assert box.x1 <= figure.bbox.x1


@pytest.mark.parametrize(("low", "top", "want"), [(15, 450, ["20", "50", "100", "200"]), (20, 2500, ["100", "1000"])])
def test_numbers_of_a_logarithmic_axis_do_not_touch(low, top, want):
    signal = np.geomspace(low, top, 100)
    table = pull_statistics(np.ones(100), np.ones(100), np.ones(100), signal, quantity="flux", name="true S/N")
    figure = pull_figure({"r flux": {"stars": table}}, "", kind="stars", columns=1)
    figure.draw_without_rendering()
    texts = numbers_of(figure.axes[1].xaxis)
    places = sorted((box.x0, box.x1) for box in (text.get_window_extent() for text in texts))
    assert all(left[1] < right[0] for left, right in itertools.pairwise(places))
    assert set(want) <= {text.get_text() for text in texts}


def test_the_same_figure_gives_the_same_bytes(tmp_path):
    matched = mock_matched(200)
    tables = efficiency_tables(matched)
    one = {"true i magnitude": tables["true i magnitude"]}
    for name in ("one.svg", "two.svg"):
        save_svg(tmp_path / name, efficiency_figure(one, "efficiency", detection_model(matched)))
    text = (tmp_path / "one.svg").read_text()
    assert text == (tmp_path / "two.svg").read_text()
    assert not re.search(r"<dc:date>|Matplotlib v", text)
    # Nothing is fetched when it is opened.
    assert not re.search(r'href="http|url\(http', text)


def test_a_mock_campaign_gives_back_what_it_was_made_with():
    matched = mock_matched(20_000)
    model = detection_model(matched)
    for level in (0.5, 0.9):
        got = model.crossing(level)
        want = mock.MIDDLE - mock.WIDTH * np.log(level / mock.ASYMPTOTE / (1.0 - level / mock.ASYMPTOTE))
        assert want == pytest.approx(got.value, abs=1.5 * (got.high - got.low))
    assert got.high - got.low < 0.2
    # Masked injections are not in the fraction: one in fifty.
    assert model.injected == matched.clear.sum() < 0.99 * len(matched)
    unseen = changed(matched, match_reason=np.where(np.arange(len(matched)) < 100, 4, matched.rows["match_reason"]))
    assert unseen.clear.sum() == matched.clear[100:].sum()
    magnitudes = efficiency_tables(matched)["true i magnitude"]
    assert np.allclose(np.diff(magnitudes["low"]), 0.5)
    transfers = transfer_tables(matched)
    stars = transfers["magnitude"]["r"]["stars"]
    assert np.abs(stars["median"] / stars["median_err"]).max() < 4.5
    # The colour term of galaxies' fluxes in g: slope of the median over the true colour.
    galaxies = matched.fitted & ~matched.star
    colour = (matched.true_magnitude("g") - matched.true_magnitude("r"))[galaxies]
    off = (matched.magnitude("g") - matched.true_magnitude("g"))[galaxies]
    bright = matched.true_magnitude("g")[galaxies] < 22.0
    slope = np.polyfit(colour[bright], off[bright], 1)[0]
    assert slope == pytest.approx(mock.COLOUR_TERM, abs=0.01)
    pulls = pull_tables(matched)
    for name in ("r flux", "i flux", "g1", "g2", "position north", "position west", "T"):
        table = pulls[name]["galaxies"]
        # Detection prefers nothing here, so that pulls are normal: 12 bins, 5 sigma.
        assert np.abs((table["width"] - 1.0) / table["width_err"]).max() < 5.0, name
        assert np.abs(table["median"] / table["median_err"]).max() < 5.0, name
        assert np.mean(table["width"]) == pytest.approx(1.0, abs=0.05)
    assert class_table(matched).meta["galaxy_completeness"][0] > 0.8
    assert input_row_table(matched)["injected"].sum() == matched.clear.sum()


def test_must_show_6_m_and_c_of_a_pair_with_their_errors():
    shear = 0.02
    plus, minus = mock_matched(3000, shear=(shear, 0.0)), mock_matched(3000, shear=(-shear, 0.0))
    table = shear_bias_table(plus, minus)
    assert list(table["component"]) == ["g1"]
    assert table["pairs"][0] > 500
    assert abs(table["m"][0]) < 4 * table["m_err"][0]
    assert abs(table["c"][0]) < 4 * table["c_err"][0]
    assert table.meta["note"].startswith("g1: m = ")
    response = metacal_table(plus)
    assert response["R"][0] == pytest.approx(mock.RESPONSE, abs=5 * response["R_err"][0])
    # A selection that follows the shear responds: the cut on T, which grows with e.g.
    assert abs(response["RS_err"][0]) > 0.0
    assert "same shear" in shear_bias_table(plus, plus).meta["note"]
    assert "share no injection" in shear_bias_table(plus, changed(minus, true_noise_key=-np.arange(3000))).meta["note"]
    assert "no metacal" in shear_bias_table(mock_matched(50), mock_matched(50)).meta["note"]
    with pytest.raises(InputError, match="not unique"):
        shared_rows(plus, changed(minus, true_noise_key=1))


def test_magnification_of_a_catalogue():
    plain = mock_matched(2000, shear=(0.0, 0.0))
    rows = np.zeros(len(plain), dtype=[*plain.rows.dtype.descr, ("true_magnification", "f8")])
    for name in plain.rows.dtype.names:
        rows[name] = plain.rows[name]
    rows["true_magnification"] = 1.02
    for name in ("meas_cm_flux", "meas_psf_flux"):
        rows[name] *= 1.02
    table = magnification_table(plain, Matched(rows, plain.bands), 22.0)
    assert table["lost"][0] == 0
    assert table["gained"][0] > 0
    assert table["response"][0] == pytest.approx(table["gained"][0] / table["plain"][0] / 0.01)
    assert table.meta["note"].startswith("i < 22: d ln N / d kappa = ")
    with pytest.raises(InputError, match="no magnification"):
        magnification_table(plain, plain, 22.0)


def test_notebook_tables_are_as_good_as_arrays():
    matched = mock_matched(300)
    own = efficiency_tables(matched)["true i magnitude"]
    for rows in (Table(matched.rows), Table(matched.rows).filled()):
        other = Matched(rows, matched.bands)
        assert np.array_equal(efficiency_tables(other)["true i magnitude"]["detected"], own["detected"])
        assert detection_model(other).note == detection_model(matched).note
    # Parquet holds matrices flat.
    flat = Table(matched.rows)
    for name in ("meas_cm_flux_cov", "meas_cm_g_cov", "meas_cm_pars_cov"):
        flat.replace_column(name, flat[name].reshape(len(flat), -1))
    for got, want in zip(Matched(flat, matched.bands).flux("z"), matched.flux("z"), strict=True):
        assert np.array_equal(got, want, equal_nan=True)
    both = Matched(flat, matched.bands).parameter("pars", 1)[1], matched.parameter("pars", 1)[1]
    assert np.array_equal(*both, equal_nan=True)
    with pytest.raises(InputError, match="no matched catalogue"):
        Matched(Table({"a": [1]}), ("i",))
    with pytest.raises(InputError, match="no column"):
        matched.column("nothing")
    with pytest.raises(InputError, match="no true magnitude"):
        Matched(matched.rows, ("u",)).band  # noqa: B018
    assert Matched(matched.rows, ("g", "r", "z")).band == "r"


def of_groups(matched):
    """The same catalogue with its fits under the names of those of groups."""
    own = re.compile(r"meas_(flags|(cm|psf)_.*)")
    fields = matched.rows.dtype.descr
    new = [(own.sub(r"meas_mof_\1", name).replace("class_sof", "class_mof"), *rest) for name, *rest in fields]
    return Matched(matched.rows.view(new), matched.bands)


def test_fits_of_groups_stand_in_for_single_ones():
    single = mock_matched(3000)
    groups = of_groups(single)
    assert (single.fits.kind, groups.fits.kind, groups.model) == ("sof", "mof", "cm")
    for make in (transfer_tables, pull_tables):
        one, other = make(single), make(groups)
        assert repr(one) == repr(other)
    assert transfer_tables(groups)["magnitude"]["i"]["galaxies"]["objects"].sum() > 500
    np.testing.assert_array_equal(class_table(single)["stars"], class_table(groups)["stars"])
    # Where both are there single fits are compared, and a flag of the fits of groups takes nothing away.
    both = single.rows.dtype.descr + [one for one in groups.rows.dtype.descr if one[0].startswith("meas_mof")]
    rows = np.zeros(3000, dtype=both)
    for name in single.rows.dtype.names:
        rows[name] = single.rows[name]
    rows["meas_mof_flags"] = 1
    assert Matched(rows, mock.BANDS).fits.kind == "sof"
    np.testing.assert_array_equal(Matched(rows, mock.BANDS).fitted, single.fitted)
    # Magnitudes of one band are at that band's place, whatever the order.
    turned = Matched(groups.rows, mock.BANDS[::-1])
    np.testing.assert_array_equal(turned.flux("g")[0], groups.flux("z")[0])
    assert Matched(groups.rows[["true_ra", "true_dec", "match_reason"]], mock.BANDS).fits is None


def test_files_are_stacked(tmp_path):
    parts = [mock_matched(20, seed) for seed in (1, 2)]
    for number, part in enumerate(parts):
        write_tables(
            tmp_path / f"{number}.fits", [FitsTable("match", part.rows, {}, {"BANDS": "g,r,i,z", "MAGZERO": 30.0})]
        )
    depth = np.linspace(22, 24, 40)
    got = read_matched([tmp_path / "0.fits", tmp_path / "1.fits"], {"depth": (depth, "mag")})
    assert len(got) == 40
    assert got.bands == ("g", "r", "i", "z")
    assert np.array_equal(got.number("true_mag_i"), np.concatenate([p.number("true_mag_i") for p in parts]))
    assert got.number("meas_cm_g").shape == (40, 2)
    assert got.extra[0] == Variable("depth", got.extra[0].values, "mag")
    assert efficiency_tables(got)["depth"]["injected"].sum() == got.clear.sum()
    with pytest.raises(InputError, match="no matched catalogue is given"):
        read_matched([])
    write_tables(tmp_path / "other.fits", [FitsTable("match", parts[0].rows, {}, {"BANDS": "g", "MAGZERO": 30.0})])
    with pytest.raises(InputError, match="differ"):
        read_matched([tmp_path / "0.fits", tmp_path / "other.fits"])
    write_tables(tmp_path / "old.fits", [FitsTable("match", parts[0].rows, {}, {})])
    with pytest.raises(ProductError, match="no matched catalogue"):
        read_matched([tmp_path / "old.fits"])


def test_the_lines_of_the_document_run(tmp_path, monkeypatch, capsys):
    (text,) = [text for language, text in blocks(CHECKOUT / "docs" / "science-analysis.md") if language == "python"]
    for seed in (0, 1):
        table = FitsTable("match", mock_matched(300, seed).rows, {}, {"BANDS": "g,r,i,z", "MAGZERO": 30.0})
        write_tables(tmp_path / f"DES0239+0216_{seed}_match_cat.fits", [table])
    monkeypatch.chdir(tmp_path)
    exec(text, {})
    # The form that the document shows.
    told = r"\d+ of 586 injections detected; 50 % at true i magnitude = 2\d\.\d+ \+0\.\d+ -0\.\d+ mag, 90 % at "
    assert re.match(told, capsys.readouterr().out)


def test_lensed_shapes_and_the_position_across_0h():
    matched = mock_matched(50, shear=(0.1, 0.0))
    zero = changed(matched, true_g1=0.0, true_g2=0.0)
    assert zero.true_shape() == pytest.approx(np.tile([0.1, 0.0], (50, 1)))
    turned = changed(matched, true_ra=359.99999, meas_ra=0.00001, true_dec=0.0)
    assert turned.offset()[0] == pytest.approx(0.072, abs=1e-6)


def test_depth_and_seeing():
    weight = np.full((50, 50), 4.0)
    weight[:, 30:] = 0.0
    got = aperture_depth(weight, [10, 10, -5, np.nan], [10, 40, 10, 1], 30.0, 0.263)
    pixels = np.pi * (1.95 / 2 / 0.263) ** 2
    assert got[0] == pytest.approx(30 - 2.5 * np.log10(10 * np.sqrt(pixels) / 2))
    assert np.isnan(got[1:]).all()
    assert mean_seeing([7, 5, 9], [5, 5, 7, 8], [1.0, 1.2, np.nan, 3.0])[1] == pytest.approx(1.1)
    assert np.isnan(mean_seeing([7, 5, 9], [5, 5, 7, 8], [1.0, 1.2, np.nan, 3.0])[[0, 2]]).all()
    assert np.isnan(mean_seeing([1, 2], [], [])).all()
    assert mean_seeing([], [1], [1.0]).size == 0
    assert even_edges(got, 0.5).size == 2


@pytest.mark.long
def test_the_example_runs(tmp_path):
    script = Path(__file__).parents[1] / "examples" / "science_products.py"
    command = [sys.executable, "-W", "error", str(script), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "50 % at true i magnitude = 23.3" in done.stdout
    assert "g1: m = " in done.stdout
    assert len(list((tmp_path / "out").glob("*.svg"))) == 13
