"""The default tile as a user makes it, for measurements too large for every commit."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from conftest import CONFIGURATION
from scipy.spatial import cKDTree

from balrogutils.context import Installation
from balrogutils.fitsfile import read_table

CHECKOUT = Path(__file__).resolve().parents[1]
TILE = "DES0239+0216"
NEIGHBOUR = "DES0240+0216"
BANDS = ("g", "r", "i", "z")
ISOLATION = 5.0
"""No other source of truth, and no other detection, is nearer than this (arcsec)."""

# The galaxies of the science runs are exponential, and are fit as such.
FITS = "sof_config=run-exp-sof.yaml"

# Realizations of the base run's one tile: each injection configuration has its own numbers.
STARS = ("0", "1")
EXPONENTIALS = ("10", "11", "12")
SPARSE = ("20",)
NOISELESS = ("21",)
NOISY = ("22",)

_VARIABLES = ("MEDS_DIR", "medsconf", "NGMIXER_OUTPUT_DIR", "DESDATA", "DESMEDS_CONFIG_DIR", "DES_SERVICES")


class ScienceRun:
    """One directory in which a tile is made, block by block, with the command a user types.

    Parameters
    ----------
    directory : pathlib.Path
        Where configuration, products and figures go. What is there already is not made again.
    """

    def __init__(self, directory):
        self.directory = directory
        self.base = directory / "base"
        self.environment = {key: value for key, value in os.environ.items() if key not in _VARIABLES} | {
            "BALROG_BASE": str(self.base),
            "MEDS_DATA": str(directory / "meds"),
            "TMPDIR": str(directory / "tmp"),
            "XDG_CACHE_HOME": str(directory / "cache"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        self._prepare()

    def _prepare(self):
        for name in ("tmp", "wd", "figures"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        for name in ("Snakefile", "rules", "profiles"):
            if not (self.directory / "wd" / name).exists():
                (self.directory / "wd" / name).symlink_to(CHECKOUT / name)
        if self.base.exists():
            return
        for name in CONFIGURATION:
            shutil.copytree(CHECKOUT / name, self.base / name, ignore=shutil.ignore_patterns("images", "calib"))
        archive = CHECKOUT / "run" / "archive" / "synthetic"
        (self.base / "run" / "archive").mkdir(parents=True)
        if (archive / "truth" / "truth.fits").is_file():
            (self.base / "run" / "archive" / "synthetic").symlink_to(archive)
        else:
            self._call("balrog", "archive", TILE)
        # Every campaign's database must be there, though only one is asked.
        (self.base / "run" / "archive" / "decam").mkdir()
        (self.base / "run" / "archive" / "decam" / "archive.db").touch()

    def _call(self, *words):
        done = subprocess.run(
            words, cwd=self.directory / "wd", env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-4000:]

    def make(self, configuration, realizations, mode=1151):
        """Make the tile with an injection configuration (a name in inputs/ or a path) and these realizations."""
        words = [f"galsim_config={configuration}", f"realizations={','.join(realizations)}", f"mode={mode}", FITS]
        self._call("snakemake", "--cores", "2", f"tile={TILE}", "--config", *words)

    def make_base(self, tile):
        """Make a tile without injections: blocks 1, 2 and 4, and the fits of the base run alone."""
        self._call("snakemake", "--cores", "2", f"tile={tile}", "--config", "mode=7", FITS)
        if not self.context(tile=tile).tree.fit("sof").is_file():
            self._call("balrog", "sof", tile, "--workers", "2", "--set", FITS)

    def configuration(self, name, source, *changes):
        """Write a variant of a shipped injection configuration: each (pattern, text) must replace something."""
        text = (CHECKOUT / "inputs" / source).read_text()
        for pattern, new in changes:
            text, count = re.subn(pattern, new, text, flags=re.MULTILINE)
            assert count, pattern
        path = self.directory / name
        # A file that is written again would make everything that depends on it again.
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
        return path

    def context(self, realization=None, tile=TILE):
        """Return the context of the base run or of one realization."""
        overrides = {} if realization is None else {"realizations": realization}
        return Installation.load(overrides, self.environment).context(tile, realization)

    def survey_truth(self):
        """Return every source the survey drew."""
        return read_table(self.base / "run" / "archive" / "synthetic" / "truth" / "truth.fits")

    def figures(self, name, header, rows):
        """Keep a table as Markdown, and show it."""
        write_figures(self.directory / "figures", name, header, rows)


def write_figures(directory, name, header, rows):
    """Write a table as Markdown into a directory, and show it."""
    lines = [list(map(str, header)), ["---"] * len(header), *([str(cell) for cell in row] for row in rows)]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    (directory / f"{name}.md").write_text(text + "\n")
    sys.stdout.write(f"\n{name}\n{text}\n")


def robust_width(values):
    """Return 1.4826 times the median absolute deviation."""
    return 1.4826 * np.median(np.abs(values - np.median(values)))


def plane(ra, dec, origin):
    """Return (west, north) in arcsec for separations: 5 arcsec are exact to 1e-3 anywhere on a tile of minutes."""
    ra, dec = np.asarray(ra, float), np.asarray(dec, float)
    return np.column_stack([-(ra - origin[0]) * np.cos(np.radians(dec)), dec - origin[1]]) * 3600.0


def neighbours(places, others):
    """Return how many of `others` are nearer than `ISOLATION` to each place."""
    near = cKDTree(others).query_ball_point(places, ISOLATION, return_length=True)
    return np.asarray(near)


def injected(science, realizations):
    """Return the matched catalogues of realizations, the isolated, matched and wholly drawn rows of them.

    Isolated: no source of the survey's truth, no other injected one and no other detection within 5 arcsec.
    """
    survey = science.survey_truth()
    chosen = []
    for name in realizations:
        context = science.context(name)
        table = read_table(context.tree.match)
        detections = read_table(context.tree.fit("sof"), "model_fits")
        origin = table["true_ra"].mean(), table["true_dec"].mean()
        places = plane(table["true_ra"], table["true_dec"], origin)
        matched = table["match_reason"] == 0
        count = neighbours(places, plane(survey["ra"], survey["dec"], origin))
        # Of the injected ones each is its own neighbour, and a matched one has its own detection within 0.5 arcsec.
        count += neighbours(places, places) - 1
        count += neighbours(places, plane(detections["ra"], detections["dec"], origin)) - matched
        chosen.append(table[matched & (count == 0) & (table["true_outcome"] == 0)])
    return np.concatenate(chosen)
