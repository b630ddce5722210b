"""Examples in the documentation run as they stand."""

import re
from pathlib import Path

import numpy as np
from simulated_stamps import write_meds

DOCS = Path(__file__).resolve().parent.parent / "docs"


def examples(name):
    return re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(), re.DOTALL)


def test_fits_by_hand(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number, band in enumerate(("g", "r")):
        write_meds(tmp_path / f"{band}.fits", number, 4)
    tile, stamps = examples("measurement.md")
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
