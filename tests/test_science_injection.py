"""What injection does to the pixels of the null-weight images, against the truth tables."""

import numpy as np
import pytest
from astropy.io import fits
from identical import same
from science_tile import BANDS, EXPONENTIALS, NOISELESS, NOISY, SPARSE, STARS

from balrogutils.exposures.lists import read_zero_points
from balrogutils.fitsfile import read_image, read_table
from balrogutils.injection.flags import ChipFlag
from balrogutils.layout import chip_of

pytestmark = pytest.mark.science

PLANES = ("SCI", "WGT", "WGT_ME", "MSK")
# A stamp holds all but 1e-4 of an object's light: the limit injection itself promises.
FLUX_TOLERANCE = 1e-4
# Rounding and Poisson noise are random; with some 1e4 comparisons, 5 sigma is passed once in a hundred runs by chance.
SIGMAS = 5.0


class Chip:
    """One chip before and after injection, and what the truth says about it."""

    def __init__(self, base, path, rows):
        self.base, self.path, self.rows = base, path, rows
        before, after = (read_image(name, "SCI") for name in (base, path))
        self.shape = before.shape
        self.gained = after.astype(np.float64) - before
        # Each pixel of the new image was rounded once to single precision: uniform within one spacing.
        self.rounding = np.spacing(np.abs(after)).astype(np.float64) ** 2 / 12.0
        header = fits.getheader(path, "SCI")
        self.gain = 0.5 * (header["GAINA"] + header["GAINB"])

    def stamp(self, row):
        return slice(row["ymin"] - 1, row["ymax"]), slice(row["xmin"] - 1, row["xmax"])

    def alone(self, row):
        """Whether no other stamp touches this one."""
        others = self.rows[self.rows["bal_id"] != row["bal_id"]]
        apart = (others["xmin"] > row["xmax"]) | (others["xmax"] < row["xmin"])
        apart |= (others["ymin"] > row["ymax"]) | (others["ymax"] < row["ymin"])
        return bool(apart.all())


def chips(science, realization):
    """Yield every chip of every band of a realization that holds light."""
    context = science.context(realization)
    truth = read_table(context.tree.truth_chips)
    for band in BANDS:
        for path, _ in read_zero_points(context.tree.flist("nullwt", band)):
            rows = truth[(truth["band"] == band) & (truth["chip"] == chip_of(path))]
            if len(rows):
                yield Chip(context.base_tree.nullwt(band, chip_of(path)), path, rows)


def measure(science, realizations, poisson):
    """Compare every chip, and every object alone on its piece of a chip, with the truth.

    Returns
    -------
    dict
        For chips that hold a centre, chips that hold wings only (without noise: their few photons are not normally
        distributed) and objects: number, largest |gained - true| / true flux, largest |gained - true| over what is
        allowed, rms of (gained - true) over its noise, and sum of gained - true over the sum of true.
    """
    found = {"chips": [], "wings": [], "objects": []}
    for realization in realizations:
        for chip in chips(science, realization):
            true = chip.rows["flux_on_chip"].sum()
            # Of objects that reach the chip with a wing only, light of either sign: its variance is in the table.
            noise = chip.rows["poisson_variance"].sum() if poisson else 0.0
            centred = (chip.rows["flags"] & ChipFlag.CENTRE_ON_CHIP).any()
            if centred or not poisson:
                kind = "chips" if centred else "wings"
                found[kind].append((chip.gained.sum() - true, true, chip.rounding.sum(), noise))
            light = np.zeros(chip.shape, bool)
            for row in chip.rows:
                box = chip.stamp(row)
                light[box] = True
                if not row["flags"] & ChipFlag.CLIPPED_BY_EDGE and chip.alone(row):
                    true = row["flux_expected"]
                    noise = true / chip.gain if poisson else 0.0
                    found["objects"].append((chip.gained[box].sum() - true, true, chip.rounding[box].sum(), noise))
            assert not chip.gained[~light].any()
    return {kind: summary(np.array(values)) for kind, values in found.items() if values}


def summary(values):
    error, true, rounding, noise = values.T
    allowed = FLUX_TOLERANCE * np.abs(true) + SIGMAS * np.sqrt(rounding) + SIGMAS * np.sqrt(noise)
    random = np.sqrt(rounding + noise)
    return {
        "n": len(values),
        "fraction": np.abs(error / true).max(),
        "allowed": np.abs(error / allowed).max(),
        "pull": np.sqrt(np.mean((error / random) ** 2)),
        "total": error.sum() / true.sum(),
    }


@pytest.fixture(scope="module")
def sparse(science):
    """One star and one galaxy without noise: most chips hold neither."""
    counts = (r"^  bands: from_tile$", "  bands: from_tile\n  n_objects: {ngmix_catalog: 1, des_star_catalog: 1}")
    alone = (r"^  pos_sampling:\n(    .*\n)+", "  pos_sampling: uniform\n")
    quiet = (r"^  noise: .*\n", "")
    path = science.configuration("bal_config_sparse.yaml", "bal_config_hex.yaml", counts, alone, quiet)
    science.make(path, SPARSE, 9)
    return science


# Nearest neighbours 29 arcsec (110 pixels) apart: no two stamps of stars, and few of galaxies, touch.
WIDE = (r"grid_spacing: 15\.0", "grid_spacing: 25.0")


@pytest.fixture(scope="module")
def noiseless(science):
    """The default kinds of injections, wide apart and without photon noise."""
    quiet = (r"^  noise: .*\n", "")
    science.make(science.configuration("bal_config_noiseless.yaml", "bal_config_hex.yaml", WIDE, quiet), NOISELESS, 9)
    return science


@pytest.fixture(scope="module")
def noisy(science):
    """Stars and galaxies with photon noise, wide apart and as close as the other science tests have them."""
    science.make(science.configuration("bal_config_noisy.yaml", "bal_config_hex.yaml", WIDE), NOISY, 9)
    science.make("bal_config_stars.yaml", STARS, 9)
    science.make("bal_config_exp.yaml", EXPONENTIALS, 9)
    return science


def test_chips_without_injections_are_identical(sparse):
    context = sparse.context(SPARSE[0])
    truth = read_table(context.tree.truth_chips)
    rows = []
    for band in BANDS:
        paths = [path for path, _ in read_zero_points(context.tree.flist("nullwt", band))]
        lit = set(truth["chip"][truth["band"] == band])
        empty = [path for path in paths if chip_of(path) not in lit]
        identical = [same(context.base_tree.nullwt(band, chip_of(path)), path) for path in empty]
        altered = [same(context.base_tree.nullwt(band, chip_of(path)), path) for path in paths if chip_of(path) in lit]
        rows.append((band, len(paths), len(empty), sum(identical), len(altered) - sum(altered)))
        assert all(identical)
        assert empty
        # The comparison does see a difference where there is one.
        assert altered
        assert not any(altered)
    header = ("band", "CCDs", "without injections", "of them identical in every HDU", "with injections, differing")
    sparse.figures("3a CCDs without injections", header, rows)


def test_injection_changes_the_image_plane_only(noisy):
    context = noisy.context(STARS[0])
    for band in BANDS:
        for path, _ in read_zero_points(context.tree.flist("nullwt", band)):
            for plane in PLANES[1:]:
                base = read_image(context.base_tree.nullwt(band, chip_of(path)), plane)
                np.testing.assert_array_equal(read_image(path, plane), base)


def test_chip_fluxes_are_the_catalogue_fluxes_at_the_zero_point_of_the_chip(noisy):
    """Within the rounding of double precision: the truth per chip is the truth per object, scaled."""
    for realization in (STARS[0], EXPONENTIALS[0]):
        tree = noisy.context(realization).tree
        truth, rows = read_table(tree.truth), read_table(tree.truth_chips)
        index = {number: at for at, number in enumerate(truth["bal_id"])}
        at = np.array([index[number] for number in rows["bal_id"]])
        for band in BANDS:
            zero_points = {chip_of(path): value for path, value in read_zero_points(tree.flist("nullwt", band))}
            mine = rows["band"] == band
            magzp = np.array([zero_points[name] for name in rows["chip"][mine]])
            expected = truth[f"flux_{band}"][at[mine]] * 10 ** (0.4 * (magzp - 30.0))
            np.testing.assert_allclose(rows["flux_expected"][mine], expected, rtol=1e-9)


HEADER = ("injections", "", "N", "largest error / flux", "largest error / allowed", "sum of errors / sum of flux")


def table(measured, label, pull=False):
    keys = ("fraction", "allowed", "total", *(("pull",) if pull else ()))
    return [
        (label, kind, values["n"], *(f"{values[key]:.2e}" if key != "pull" else f"{values[key]:.4f}" for key in keys))
        for kind, values in measured.items()
    ]


def test_difference_equals_truth_without_noise(noiseless):
    """Every error within 1e-4 of the flux and 5 sigma of rounding; no noise was asked for."""
    measured = measure(noiseless, NOISELESS, poisson=False)
    noiseless.figures("3b difference and truth without noise", HEADER, table(measured, "stars and galaxies, wide"))
    assert measured["chips"]["n"] >= 30
    assert measured["objects"]["n"] >= 500
    assert max(values["allowed"] for values in measured.values()) < 1.0


def test_difference_equals_truth_with_noise(noisy):
    """The same plus 5 sigma of Poisson noise, whose variance is the true flux over the mean gain of the chip.

    The errors themselves must have that variance: their rms in sigmas is 1 within 5 / sqrt(2 N), and 1 % for the
    lobes of the PSF models, where the drawn light is negative and takes no noise.
    """
    kinds = {"stars and galaxies, wide": NOISY, "stars": STARS, "exponential galaxies": EXPONENTIALS}
    measured = {label: measure(noisy, realizations, poisson=True) for label, realizations in kinds.items()}
    rows = [row for label, values in measured.items() for row in table(values, label, pull=True)]
    noisy.figures("3c difference and truth with Poisson noise", (*HEADER, "rms error / sigma"), rows)
    assert all(values["chips"]["n"] >= 30 for values in measured.values())
    assert max(part["allowed"] for values in measured.values() for part in values.values()) < 1.0
    objects = measured["stars and galaxies, wide"]["objects"]
    assert objects["n"] >= 500
    assert abs(objects["pull"] - 1.0) < 5.0 / np.sqrt(2.0 * objects["n"]) + 0.01
