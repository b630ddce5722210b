"""Drawing one object: flux, position, shape and noise."""

import galsim
import numpy as np
import pytest
from injection_tile import header, psf_model
from scipy.special import gammainccinv

from balrogutils.errors import InjectionError
from balrogutils.injection import drawing, profiles
from balrogutils.injection.planning import _dtype
from balrogutils.psf import PSFEx
from balrogutils.randomness import stream
from balrogutils.wcs import ImageWCS

SHAPE = (260, 260)
GS = galsim.GSParams()


@pytest.fixture(scope="module")
def wcs():
    return ImageWCS(header(SHAPE, (0, 0), "r", 1))


def planned(model, t=0.0, g1=0.0, g2=0.0, fracdev=0.0, tdbyte=1.0):
    row = np.zeros(1, _dtype("r"))
    row["model"], row["T"], row["g1"], row["g2"], row["fracdev"], row["TdByTe"] = model, t, g1, g2, fracdev, tdbyte
    return row[0]


def drawn(row, wcs, at=(130.3, 128.8), flux=1000.0, psf=None):
    psf = psf or psf_model()
    reach = profiles.light_radius(*(row[name] for name in profiles.PARAMETERS))
    local = wcs.galsim.local(image_pos=galsim.PositionD(at[1] + 1, at[0] + 1))
    profile = None if row["model"] == "star" else profiles.profile(*(row[name] for name in profiles.PARAMETERS))
    return drawing.draw(row, profile, at, drawing.stamp_half(reach, psf, local), psf, wcs, flux, GS)


def moments(stamp, wcs, at):
    """Flux, centroid (row, col) and moments uu, vv, uv (u west, v north, arcsec) from RA and Dec of the pixels."""
    n = len(stamp.pixels)
    rows, cols = np.mgrid[stamp.row : stamp.row + n, stamp.col : stamp.col + n].astype(float)
    flux = stamp.pixels.sum()
    centre = (stamp.pixels * rows).sum() / flux, (stamp.pixels * cols).sum() / flux
    ra0, dec0 = (value[0] for value in wcs.pixel_to_sky(*at))
    ra, dec = wcs.pixel_to_sky(rows.ravel(), cols.ravel())
    u = -3600 * (ra - ra0) * np.cos(np.radians(dec0))
    v = 3600 * (dec - dec0)
    p = stamp.pixels.ravel() / flux
    u, v = u - (p * u).sum(), v - (p * v).sum()
    return flux, centre, np.array([(p * u * u).sum(), (p * v * v).sum(), (p * u * v).sum()])


PROFILES = [
    planned("star"),
    planned("gauss", 0.8, 0.2, -0.1),
    planned("exp", 0.5, -0.3, 0.4),
    planned("dev", 0.5, 0.1, 0.1),
    planned("bdf", 0.02, 0.5, 0.0, 0.4),
    planned("bdf", 6.0, 0.0, 0.6, 0.9),
    planned("cm", 1.0, 0.2, 0.2, 0.3, 0.1),
]


@pytest.mark.parametrize("row", PROFILES, ids=lambda row: f"{row['model']}-{row['T']}")
@pytest.mark.parametrize("at", [(130.0, 130.0), (130.5, 129.5), (20.27, 241.9)])
def test_flux_is_kept_to_1e_4(row, at, wcs):
    # The promise of the truth table; GalSim's own tails and folding are far below it.
    stamp = drawn(row, wcs, at)
    assert abs(stamp.pixels.sum() / 1000.0 - 1) < 1e-4
    assert stamp.pixels.shape[0] % 2 == 1


@pytest.mark.parametrize("row", PROFILES[:5], ids=lambda row: f"{row['model']}-{row['T']}")
def test_the_centroid_is_where_the_sky_position_is(row, wcs):
    at = (101.37, 155.81)
    _, centre, _ = moments(drawn(row, wcs, at), wcs, at)
    # The PSF model is symmetric; a Lanczos-interpolated stamp leaves some thousandths of a pixel.
    assert np.hypot(centre[0] - at[0], centre[1] - at[1]) < 0.005


@pytest.mark.parametrize(("g1", "g2"), [(0.3, 0.0), (-0.3, 0.0), (0.0, 0.3), (0.0, -0.3)])
def test_signs_of_the_shear_are_u_west_v_north(g1, g2, wcs):
    # Moments measured on the sky through RA and Dec, so that neither GalSim's nor our convention is assumed.
    at = (130.2, 130.4)
    galaxy = moments(drawn(planned("gauss", 2.0, g1, g2), wcs, at), wcs, at)[2]
    star = moments(drawn(planned("star"), wcs, at), wcs, at)[2]
    uu, vv, uv = galaxy - star
    e1, e2 = (uu - vv) / (uu + vv), 2 * uv / (uu + vv)
    distortion = 2 * 0.3 / (1 + 0.3**2)
    assert e1 == pytest.approx(distortion * np.sign(g1), abs=0.01)
    assert e2 == pytest.approx(distortion * np.sign(g2), abs=0.01)
    # ngmix T is the sum of the moments of the sheared profile; the distortion of the WCS changes areas by 0.2 %.
    assert uu + vv == pytest.approx(2.0, rel=0.01)


def test_a_star_of_magnitude_m_has_the_counts_of_the_zero_point(wcs):
    magnitude, zero_point = 19.3, 31.17
    flux = 10 ** (0.4 * (30 - magnitude)) * 10 ** (0.4 * (zero_point - 30))
    stamp = drawn(planned("star"), wcs, flux=flux)
    assert stamp.pixels.sum() == pytest.approx(10 ** (0.4 * (zero_point - magnitude)), rel=1e-12)


@pytest.mark.parametrize("sampling", [0.65, 0.9, 0.976, 1.1])
def test_a_star_keeps_its_flux_at_every_sub_pixel_phase(sampling, wcs):
    # Lanczos interpolation alone loses up to half a per cent at a sampling near one pixel.
    psf = psf_model(fwhm=3.6, sampling=sampling, size=35)
    for phase in np.linspace(0, 1, 5):
        stamp = drawn(planned("star"), wcs, (130 + phase, 130 - 0.7 * phase), psf=psf)
        assert stamp.pixels.sum() == pytest.approx(1000.0, rel=1e-12)


def inside(profile, radius):
    """Flux within a radius of a round profile, by integration of its surface brightness; good to 1e-4."""
    r = np.concatenate([[1e-9 * radius], np.geomspace(1e-6, 1, 1500) * radius])
    brightness = np.array([profile.xValue(x, 0.0) for x in r])
    return np.trapezoid(2 * np.pi * r * r * brightness, np.log(r))


@pytest.mark.parametrize("model", ["exp", "dev", "gauss"])
def test_half_the_light_of_a_round_profile_is_inside_its_radius(model):
    radius = max(profiles.component_radii(model, 1.0, 0.0, 1.0, 0.0, 0.0))
    assert inside(profiles.profile(model, 1.0, 0.0, 1.0, 0.0, 0.0), radius) == pytest.approx(0.5, abs=1e-3)
    assert radius == pytest.approx({"exp": 0.69151145, "dev": 0.39762417, "gauss": 0.83255461}[model], rel=1e-7)


@pytest.mark.parametrize(("fracdev", "tdbyte"), [(0.0, 1.0), (0.3, 1.0), (1.0, 1.0), (0.5, 0.2), (0.2, 9.0)])
def test_half_light_radius_of_composites(fracdev, tdbyte):
    soft, dev = profiles.component_radii("cm", 1.3, fracdev, tdbyte, 0.0, 0.0)
    radius = profiles.half_light_radius(soft, dev, fracdev)[0]
    assert inside(profiles.profile("cm", 1.3, fracdev, tdbyte, 0.0, 0.0), radius) == pytest.approx(0.5, abs=1e-3)


def test_half_light_radius_of_a_star_is_zero():
    assert profiles.half_light_radius(0.0, 0.0, 0.0)[0] == 0.0


def test_an_unknown_profile_is_refused():
    with pytest.raises(InjectionError, match="unknown model"):
        profiles.component_radii("sersic", 1.0, 0.0, 1.0, 0.0, 0.0)


def test_a_psf_that_does_not_hold_its_light_is_refused(wcs):
    ring = np.zeros((1, 5, 5))
    ring[0, 2, 2], ring[0, 0, 0] = 1.0, 0.9
    psf = PSFEx(ring, 0, (0.0, 0.0), (1.0, 1.0), 0.3, 1.0)
    with pytest.raises(InjectionError, match="of its flux"):
        drawn(planned("star"), wcs, (130.2, 130.4), psf=psf)


def test_poisson_noise_has_mean_zero_and_variance_light_over_gain():
    gain, light = 2.0, np.full((40, 40), 100.0)
    noise = np.array([drawing.poisson_noise(light, gain, stream(1, "test", key)) for key in range(50)])
    count = noise.size
    # Five standard errors of mean and variance.
    assert abs(noise.mean()) < 5 * np.sqrt(light[0, 0] / gain / count)
    assert noise.var() == pytest.approx(light[0, 0] / gain, rel=5 * np.sqrt(2 / count))
    assert np.all(drawing.poisson_noise(-light, gain, stream(1, "test")) == 0)


def test_overlap_of_a_stamp_with_a_chip():
    stamp = drawing.Stamp(-2, 8, np.zeros((5, 5)))
    on_chip, own = stamp.overlap((10, 10))
    assert on_chip == (slice(0, 3), slice(8, 10))
    assert own == (slice(2, 5), slice(0, 2))
    assert drawing.Stamp(-5, 0, np.zeros((5, 5))).overlap((10, 10)) is None
    assert drawing.Stamp(0, 10, np.zeros((5, 5))).overlap((10, 10)) is None


def test_an_exponential_reaches_as_far_as_its_light():
    """(1 + x) exp(-x), the light outside x scale lengths, is the upper incomplete gamma function of order 2."""
    reach, half = (float(gammainccinv(2.0, share)) for share in (profiles.LOST_LIGHT, 0.5))
    row = planned("exp", t=1.3)
    radius, _ = profiles.component_radii(*(row[name] for name in profiles.PARAMETERS))
    found = profiles.light_radius(*(row[name] for name in profiles.PARAMETERS))
    assert found / radius == pytest.approx(reach / half, rel=1e-13)
