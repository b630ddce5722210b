"""Shear pairs, injected into chips and measured by metacal on MEDS stamps, as a user's run does it.

More than 2000 galaxies of the example of shear pairs on two realizations of one grid each, 17 arcsec apart, on three
exposures with rotated, distorted WCSs and elliptical PSFs that change over the image. Blocks 8, 16, 32 and 256 run as
they are, detection by SExtractor included; only the exposures are not the survey's: noise without other sources.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from science_tile import plane, write_figures
from scipy.spatial import cKDTree
from shear_tile import make_field, measured

from balrogutils.analysis.response import calibrated_shear, mean_response, pair_bias
from balrogutils.fitsfile import read_table

SHEAR = (0.02, -0.01)
SIDE = 2200
REALIZATIONS = ("0", "1", "2", "3")
TYPES = {"noshear": "", **{name: f"_{name}" for name in ("1p", "1m", "2p", "2m")}}
GROUPS = 50
# arcsec; neighbours on the grid are 17 apart.
NEAR = 1.0

pytestmark = pytest.mark.science


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Where the field and the figures go; kept, and used again, where BALROG_SCIENCE_DIR says."""
    kept = os.environ.get("BALROG_SCIENCE_DIR")
    place = Path(kept).absolute() if kept else tmp_path_factory.mktemp("shear")
    (place / "figures").mkdir(parents=True, exist_ok=True)
    return place


def rows_of(context):
    """Truth and metacal rows of one realization, matched; rows without a match or with a flag have number -1."""
    truth, found = read_table(context.tree.truth, "TRUTH"), read_table(context.tree.fit("mcal"), "model_fits")
    origin = truth["ra"].mean(), truth["dec"].mean()
    tree = cKDTree(plane(found["ra"], found["dec"], origin))
    away, at = tree.query(plane(truth["ra"], truth["dec"], origin))
    good = (away < NEAR) & (found["flags"][at] == 0) & (truth["outcome"] == 0)
    return truth, found[at], good


@pytest.fixture(scope="module")
def pairs(directory):
    """Rows of metacal with +g and -g of the same galaxies, and how many were injected."""
    context = make_field(directory / "shear field", SIDE, SHEAR, REALIZATIONS)
    found, injected = [], 0
    for name in REALIZATIONS:
        if not context.at(name).tree.fit("mcal").is_file():
            measured(context.at(name))
    for first, second in zip(REALIZATIONS[::2], REALIZATIONS[1::2], strict=True):
        (truth, plus, good), (mirror, minus, also) = rows_of(context.at(first)), rows_of(context.at(second))
        np.testing.assert_array_equal(truth["noise_key"], mirror["noise_key"])
        for component in (1, 2):
            given = truth[f"shear_g{component}"]
            np.testing.assert_array_equal(given, -mirror[f"shear_g{component}"])
            assert given == pytest.approx(SHEAR[component - 1])
        injected += len(truth)
        found.append(np.stack([plus[good & also], minus[good & also]], axis=1))
    return np.concatenate(found), injected


def recovered(rows, select=None):
    """Return the shear, half the difference of the calibrated shears of both signs.

    Responses are those of both samples together: the sign does not change them.
    """
    answers = []
    for sign in (0, 1):
        table = rows[:, sign]
        shapes = {name: table[f"mcal_g{end}"] for name, end in TYPES.items()}
        chosen = None if select is None else (lambda name, table=table: select(table, TYPES[name]))
        answers.append(mean_response(shapes, chosen))
    plus, minus = answers
    mean = plus._replace(R=0.5 * (plus.R + minus.R), RS=0.5 * (plus.RS + minus.RS), e=0.5 * (plus.e - minus.e))
    return calibrated_shear(mean), mean


def jackknife(rows, select=None):
    """Return the standard error of `recovered`, by leaving out one of `GROUPS` groups at a time."""
    groups = np.arange(len(rows)) % GROUPS
    left = np.array([recovered(rows[groups != k], select)[0] for k in range(GROUPS)])
    return np.sqrt((GROUPS - 1) / GROUPS * ((left - left.mean(axis=0)) ** 2).sum(axis=0))


def test_metacal_recovers_the_injected_shear(pairs, directory):
    """Within three standard errors, of at most 0.002; a tenth of what is injected, and we are far below."""
    rows, injected = pairs
    assert len(rows) >= 2000
    # Galaxies of S/N 20 and more on an empty field: nearly all are found, and shapes measured.
    assert len(rows) > 0.9 * injected
    table = []
    for index, true in enumerate(SHEAR):
        plus, minus = rows["mcal_g"][:, 0, index], rows["mcal_g"][:, 1, index]
        found = pair_bias(plus, minus, true, rows["mcal_R"][:, :, index, index])
        sigma = found.m_err * abs(true)
        values = (true, true * (1 + found.m), sigma, found.m, found.m_err, found.c, found.c_err)
        texts = [f"{true:+.3f}", *(f"{value:+.5f}" for value in values[1:])]
        table.append((f"g{index + 1}", len(rows), *texts))
    header = ("component", "pairs", "injected", "recovered", "+-", "m", "+-", "c", "+-")
    write_figures(directory / "figures", "7a shear of pairs through metacal", header, table)
    for _, _, true, back, sigma, _, _, offset, offset_err in table:
        assert float(sigma) <= 0.002
        assert abs(float(back) - float(true)) < 3 * float(sigma)
        # Not cancelled by the pair: the galaxies' own shapes, and the noise.
        assert abs(float(offset)) < 3 * float(offset_err)


def test_a_selection_counts_with_its_own_response(pairs, directory):
    """A cut in size and S/N, made on each sign's own measurements: a pair may lose one of the two.

    Galaxies along the shear look larger, so that the cut responds by a part of ten or more of what the shapes do.
    """
    rows, _ = pairs
    limits = {name: np.median(rows[name]) for name in ("mcal_T", "mcal_s2n_r")}

    def select(table, end):
        return (table[f"mcal_T{end}"] > limits["mcal_T"]) & (table[f"mcal_s2n_r{end}"] > 0.7 * limits["mcal_s2n_r"])

    table = []
    for label, chosen in (("all", None), ("large and bright", select)):
        shear, mean = recovered(rows, chosen)
        error = jackknife(rows, chosen)
        bare = calibrated_shear(mean._replace(RS=np.zeros((2, 2))))
        for index, true in enumerate(SHEAR):
            numbers = (shear[index], error[index], bare[index], mean.R[index, index], mean.RS[index, index])
            table.append((label, f"g{index + 1}", mean.number, f"{true:+.3f}", *(f"{value:+.5f}" for value in numbers)))
            assert error[index] <= 0.002
            assert abs(shear[index] - true) < 3 * error[index]
            assert (mean.RS[index, index] > 0.1 * mean.R[index, index]) == (chosen is not None)
    header = ("sample", "component", "N of one sign", "injected", "recovered", "+-", "without RS", "R", "RS")
    write_figures(directory / "figures", "7b shear of a selection", header, table)
