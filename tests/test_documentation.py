"""The documents: their links, the site made of them, and examples that run as they stand."""

import re
import tomllib

import numpy as np
import yaml
from documented import CHECKOUT, DOCUMENTS, blocks, prose
from simulated_stamps import write_meds

DOCS = CHECKOUT / "docs"


def anchors(file):
    """The names that headings of a document have in links."""
    titles = re.findall(r"^#+ (.+)$", prose(file), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


def test_links_of_the_documents_hold():
    found = 0
    for file in DOCUMENTS:
        for target, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)]*))?\)", prose(file)):
            found += 1
            path = file.parent / target if target else file
            assert path.exists(), (file.name, target)
            assert not anchor or anchor in anchors(path), (file.name, target, anchor)
    assert found > 60


def test_the_site_has_every_document_and_takes_nothing_from_elsewhere():
    site = yaml.safe_load((CHECKOUT / "mkdocs.yml").read_text())
    listed = [
        page
        for part in site["nav"]
        for pages in part.values()
        for page in ([pages] if isinstance(pages, str) else [next(iter(one.values())) for one in pages])
    ]
    assert sorted(listed) == sorted(["index.md", *(file.name for file in DOCS.glob("*.md"))])
    # Of what MkDocs brings, this alone would come from another server.
    assert site["theme"]["highlightjs"] is False
    levels = [*site["validation"]["nav"].values(), *site["validation"]["links"].values()]
    assert set(levels) == {"warn"}


def test_what_the_site_needs_is_pinned():
    extra = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["docs"]
    pinned = dict(re.findall(r"^([\w-]+)==(\S+) +# .+$", (DOCS / "requirements.txt").read_text(), re.MULTILINE))
    assert {re.split(r"[\[>]", one)[0] for one in extra} <= set(pinned)
    others = re.findall(r"^([\w-]+)==", (CHECKOUT / "requirements.txt").read_text(), re.MULTILINE)
    assert not {name.lower() for name in pinned} & {name.lower() for name in others}


def test_fits_by_hand(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number, band in enumerate(("g", "r")):
        write_meds(tmp_path / f"{band}.fits", number, 4)
    (tmp_path / "DES1226+2527_r_meds-y3v02.fits.fz").symlink_to("r.fits")
    tile, stamps, file = [text for language, text in blocks(DOCS / "measurement.md") if language == "python"]
    exec(tile, {})
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[:2] for row in rows] == [["1", "0"], ["2", "0"], ["3", "0"]]
    names = {}
    exec(stamps, names)
    fit = names["fit"]
    assert fit.flags == 0
    assert np.isfinite(fit.cov).all()
    # Fluxes are drawn from 640 to 1200 in r; three exposures of S/N 50 leave some 1.4 per cent.
    assert 600.0 < fit.pars[-1] < 1250.0
    exec(file, names)
    # The coadd and three exposures of object 3; the coadd of the last.
    assert [stamp.shape for stamp in names["stamps"]] == [weight.shape for weight in names["weights"]] == [(48, 48)] * 4
    assert names["image"].shape == (48, 48)
