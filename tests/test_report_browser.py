"""The report in a browser: nothing fails, nothing is fetched, tables sort by mouse and keys, dark mode can be read."""

import re
import shutil

import numpy as np
import pytest
from chromium import Browser
from match_tile import make_tile

from balrogutils.analysis.mock import mock_matched
from balrogutils.analysis.results import Results
from balrogutils.blocks.match import match
from balrogutils.blocks.report import report
from balrogutils.report.headline import cards, sentences
from balrogutils.report.page import Page, write_page
from balrogutils.report.sections import science_sections

pytestmark = pytest.mark.long

TABLES = "document.querySelectorAll('table.sortable')"
BROKEN = "[...document.images].filter((one) => !(one.complete && one.naturalWidth > 0)).length"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Reports of a made tile and of a mock catalogue with metacal."""
    root = tmp_path_factory.mktemp("pages")
    context = make_tile(root / "tile")
    match(context)
    pipeline = context.pipeline.model_copy(update={"realizations": ("0",)})
    tile = report(type(context)(context.site, pipeline, context.campaign, context.tile))
    results = Results(mock_matched(1500, shear=(0.02, 0.0)))
    sections = science_sections(results, "mock_")
    write_page(root / "mock.html", Page("Mock", "a test", tuple(sentences(results)), cards(results), sections))
    # Opened where nothing else lies beside it.
    shutil.copy(tile, root / "tile.html")
    return {"tile": root / "tile.html", "mock": root / "mock.html"}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


def column(browser, table, number):
    cells = f"[...{TABLES}[{table}].tBodies[0].rows].map((row) => row.cells[{number}])"
    return browser.ask(f"{cells}.map((cell) => cell.dataset.key ?? cell.textContent)")


def number_column(browser, table):
    """The first column of a table that holds more than one number."""
    heads = browser.ask(f"[...{TABLES}[{table}].tHead.rows[0].cells].map((one) => one.classList.contains('number'))")
    for place, is_number in enumerate(heads):
        values = column(browser, table, place)
        if is_number and len(set(values)) > 2:
            return place
    raise AssertionError("no column of numbers")


@pytest.mark.parametrize("name", ["tile", "mock"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_opens_without_a_word_and_fits(browser, pages, name, width):
    browser.told.clear()
    browser.size(width, 900)
    browser.open(pages[name])
    assert browser.told == []
    assert browser.ask(BROKEN) == 0
    # Every image and figure says what it shows.
    assert browser.ask("[...document.images].every((one) => one.alt.length > 20)")
    assert browser.ask(
        "[...document.querySelectorAll('svg[role=img]')].every((one) => one.firstElementChild.textContent.length > 20)"
    )
    # The page is never wider than the window; wide tables scroll inside.
    assert browser.ask("document.documentElement.scrollWidth") <= width
    assert browser.ask("document.querySelectorAll('main, nav, header, footer').length") == 4
    assert browser.ask(f"[...{TABLES}].every((one) => one.caption.textContent.trim().length > 3)")


def test_tables_sort_by_mouse_and_keys(browser, pages):
    browser.told.clear()
    browser.size(1280, 900)
    browser.open(pages["mock"])
    browser.ask("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    place = number_column(browser, 0)
    button = f"{TABLES}[0].querySelectorAll('th button')[{place}]"

    def values():
        return np.array([float(value or "nan") for value in column(browser, 0, place)])

    before = values()
    browser.click(button)
    up = values()
    assert np.all(np.diff(up[np.isfinite(up)]) >= 0)
    browser.click(button)
    down = values()
    assert np.all(np.diff(down[np.isfinite(down)]) <= 0)
    assert sorted(before[np.isfinite(before)]) == list(up[np.isfinite(up)])
    assert browser.ask(f"{button}.parentElement.getAttribute('aria-sort')") == "descending"
    browser.ask(f"{button}.focus()")
    for key, order in (("Enter", "ascending"), (" ", "descending")):
        browser.press(key)
        assert browser.ask(f"{button}.parentElement.getAttribute('aria-sort')") == order
    browser.press("Tab")
    # From head to head, in the order in which they are read.
    assert browser.ask(f"document.activeElement === {TABLES}[0].querySelectorAll('th button')[{place + 1}]")
    assert "sorted by" in browser.ask("document.querySelector('.status').textContent")
    assert browser.told == []


def test_what_has_no_value_comes_last(browser, pages):
    browser.open(pages["mock"])
    browser.ask(f"{TABLES}[0].tBodies[0].rows[0].cells[0].dataset.key = ''")
    for _ in range(2):
        browser.ask(f"{TABLES}[0].querySelector('th button').click()")
        assert column(browser, 0, 0)[-1] == ""


def test_layers_of_the_map_are_switched(browser, pages):
    browser.told.clear()
    browser.open(pages["tile"])
    shown = "getComputedStyle(document.getElementById('layer-{}')).display !== 'none'"
    assert browser.ask(shown.format("found"))
    assert not browser.ask(shown.format("original"))
    for kind, now in (("found", False), ("original", True)):
        browser.click(f"document.querySelector('input[value=layer-{kind}]')")
        assert browser.ask(shown.format(kind)) == now
    assert browser.told == []


def brightness(colour):
    red, green, blue = (int(value) for value in re.findall(r"\d+", colour)[:3])
    return (0.299 * red + 0.587 * green + 0.114 * blue) / 255


def test_light_and_dark(browser, pages):
    paper = "getComputedStyle(document.body).backgroundColor"
    ink = "getComputedStyle(document.querySelector('figure svg')).fill"
    seen = {}
    for dark in (False, True):
        browser.dark(dark)
        browser.open(pages["mock"])
        seen[dark] = brightness(browser.ask(paper)), brightness(browser.ask(ink))
        # No colour of a plot is left that was meant for white paper.
        styles = "[...document.querySelectorAll('figure svg [style]')].map((one) => one.getAttribute('style'))"
        fixed = f"{styles}.filter((text) => /#(222222|000000)/.test(text)).length"
        assert browser.ask(fixed) == 0
    browser.dark(False)
    assert seen[False][0] > 0.9 > 0.3 > seen[False][1]
    assert seen[True][0] < 0.2 < 0.8 < seen[True][1]
