"""Objects with spectra: fluxes, shapes and wavelengths band by band, as GalSim itself integrates them."""

import re
from pathlib import Path

import galsim
import numpy as np
import pytest
import yaml
from injection_tile import DEC, RA, TILE

from balrogutils.archive.geometry import Geometry
from balrogutils.errors import ConfigError, InputError
from balrogutils.injection.planning import make_plan
from balrogutils.injection.shapes import Shapes
from balrogutils.injection.sources.loading import load
from balrogutils.injection.spectra import through
from balrogutils.settings.injection import Injection
from balrogutils.settings.spectra import Passband
from balrogutils.settings.yamlfile import load_yaml

CHECKOUT = Path(__file__).resolve().parents[1]
GEOMETRY = Geometry.tangent(TILE, RA, DEC, 400, 400, 0.263, {})
BANDS = ("g", "r", "i", "z")
CWW = [f"CWW_{name}_ext.sed" for name in ("E", "Sbc", "Scd", "Im")]


@pytest.fixture(scope="module")
def passes():
    files = {band: str(CHECKOUT / f"inputs/bandpasses/DECam_{band}.dat") for band in BANDS}
    return {band: galsim.Bandpass(file, wave_type="Ang").withZeropoint("AB") for band, file in files.items()}


@pytest.fixture(scope="module")
def seds():
    return [galsim.SED(name, wave_type="Ang", flux_type="flambda") for name in CWW]


def configured(name="17_bulge_disk_spectra", **changes):
    path = CHECKOUT / f"inputs/examples/{name}.yaml"
    settings = Injection.load(path)
    return settings if not changes else settings.model_copy(update=changes)


def planned(settings, base=CHECKOUT):
    types = [item.type for item in settings.gal.items if not item.native]
    catalogs = {name: load(name, settings, base, TILE, BANDS) for name in types}
    rows = make_plan(settings, catalogs, GEOMETRY, BANDS, 7, "0", base)
    return rows, Shapes(settings, base, TILE, "0", 7), catalogs


def of_table(place, text, **seds):
    """Settings for stars of a table."""
    (place / "stars.csv").write_text(text)
    source = {"dir": str(place), "file_name": "stars.csv", "seds": {"files": CWW, "mag_band": "r", **seds}}
    return Injection.model_validate(
        {
            "input": {"star_table": source},
            "gal": {"type": "tableStar"},
            "psf": {"type": "DES_PSFEx"},
            "stamp": {"draw_method": "no_pixel"},
            "image": {
                "type": "Balrog",
                "n_objects": 5,
                "bandpass": {"dir": str(CHECKOUT / "inputs/bandpasses"), "file_name": "DECam_BAND.dat"},
            },
        }
    )


def test_fluxes_of_bulges_and_disks_are_those_galsim_integrates(passes, seds):
    rows, shapes, _ = planned(configured())
    table = np.genfromtxt(CHECKOUT / "inputs/examples/galaxies_chromatic.csv", delimiter=",", names=True)
    assert len(set(rows["cat_row"])) > 2
    for row in rows:
        given = table[row["cat_row"]]
        share = given["bulge_fraction"]
        parts = [
            galsim.DeltaFunction()
            * seds[int(given[name])].atRedshift(given["redshift"]).withMagnitude(mag, passes["i"])
            for name, mag in (
                ("bulge_sed", given["mag_i"] - 2.5 * np.log10(share)),
                ("disk_sed", given["mag_i"] - 2.5 * np.log10(1 - share)),
            )
        ]
        whole = parts[0] + parts[1]
        for band in BANDS:
            # The same integrals in another order: double precision of sums over some hundred points.
            expected = 10 ** (0.4 * (30 - whole.calculateMagnitude(passes[band])))
            assert row[f"flux_{band}"] == pytest.approx(expected, rel=1e-9)
            light = [part.calculateFlux(passes[band]) for part in parts]
            assert row[f"bulge_fraction_{band}"] == pytest.approx(light[0] / sum(light), rel=1e-9)
            profile = shapes.profile(row, band)
            assert profile.flux == pytest.approx(1.0)
        assert row["flux_i"] == pytest.approx(10 ** (0.4 * (30 - given["mag_i"])), rel=1e-12)
        # Red bulges: their share grows with the wavelength, and the galaxy is smaller there.
        assert row["bulge_fraction_g"] < row["bulge_fraction_r"] < row["bulge_fraction_z"]
        seen = [galsim.Convolve(shapes.profile(row, band), galsim.Gaussian(fwhm=0.8)) for band in "gz"]
        inner = [one.drawImage(nx=5, ny=5, scale=0.2, dtype=float).array.sum() for one in seen]
        assert (inner[0] < inner[1]) == (row["bulge_r50_arcsec"] < row["disk_r50_arcsec"])


@pytest.mark.parametrize("band", BANDS)
def test_a_band_of_a_chromatic_galaxy_is_what_galsim_draws_through_it(band, passes, seds):
    rows, shapes, _ = planned(configured())
    row = rows[0]
    bulge = galsim.DeVaucouleurs(half_light_radius=float(row["bulge_r50_arcsec"]))
    disk = galsim.Exponential(half_light_radius=float(row["disk_r50_arcsec"]))
    share = float(row["bulge_fraction"])
    whole = None
    for part, name, light in ((bulge, "bulge_sed", share), (disk, "disk_sed", 1 - share)):
        sed = seds[int(row[name])].atRedshift(float(row["redshift"]))
        one = part * sed.withMagnitude(20 - 2.5 * np.log10(light), passes["i"])
        whole = one if whole is None else whole + one
    whole = whole.shear(g1=float(row["g1"]), g2=float(row["g2"]))
    psf = galsim.Gaussian(fwhm=1.0)
    theirs = galsim.Convolve(whole, psf).drawImage(passes[band], nx=41, ny=41, scale=0.263, dtype=float).array
    ours = galsim.Convolve(shapes.profile(row, band), psf).drawImage(nx=41, ny=41, scale=0.263, dtype=float).array
    # GalSim folds an untruncated de Vaucouleurs profile at the edge of its own transform: some parts in 10^3.
    difference = ours - theirs / theirs.sum() * ours.sum()
    assert np.abs(difference).max() < 1e-3 * ours.max()


def test_wavelengths_are_means_over_the_photons_seen(passes, seds, tmp_path):
    settings = of_table(tmp_path, "sed,redshift,mag_r\n0,0.1,20\n3,0.4,20\n")
    catalog = load("tableStar", settings, tmp_path, TILE, BANDS)
    for index, (number, z) in enumerate(((0, 0.1), (3, 0.4))):
        sed = seds[number].atRedshift(z)
        for band in BANDS:
            fine = np.linspace(passes[band].blue_limit, passes[band].red_limit, 20001)
            seen = sed(fine) * passes[band](fine)
            found = catalog.shape[f"wavelength_{band}"][index]
            # Trapezoids between the tables' points, where the product of two straight lines is a parabola.
            assert found == pytest.approx(np.sum(fine * seen) / np.sum(seen), rel=1e-4)
    assert (catalog.shape["wavelength_g"] < catalog.shape["wavelength_z"]).all()


def test_rows_whose_spectrum_says_nothing_are_left_out(tmp_path):
    text = "sed,redshift,mag_r\n0,0.1,20\n4,0.1,20\n1.5,0.1,20\n1,-0.1,20\n1,nan,20\nnan,0.1,20\n2,0.3,nan\n3,0.2,20\n"
    catalog = load("tableStar", of_table(tmp_path, text), tmp_path, TILE, BANDS)
    assert list(catalog.row) == [0, 7]
    # A spectrum that ends at 800 nm has no z magnitude.
    wave = np.arange(300.0, 800.0, 5.0)
    np.savetxt(tmp_path / "short.sed", np.column_stack([wave, wave]))
    settings = of_table(tmp_path, "sed,mag_r\n0,20\n", files=["short.sed"], wave_type="nm")
    assert len(load("tableStar", settings, tmp_path, TILE, ("g", "r"))) == 1
    with pytest.raises(InputError, match="no tableStar is left"):
        load("tableStar", settings, tmp_path, TILE, BANDS)


def test_a_flat_spectrum_has_the_same_ab_magnitude_in_every_band(tmp_path):
    wave = np.arange(300.0, 1200.0)
    np.savetxt(tmp_path / "flat.sed", np.column_stack([wave, np.ones(len(wave))]))
    settings = of_table(tmp_path, "sed,mag_r\n0,20\n", files=["flat.sed"], wave_type="nm", flux_type="fnu")
    catalog = load("tableStar", settings, tmp_path, TILE, BANDS)
    for band in BANDS:
        # By definition of AB; the integrals of tables with few points are good to 1e-4.
        assert catalog.flux[band][0] == pytest.approx(1e4, rel=2e-4)


def test_files_that_are_missing_or_no_tables(tmp_path):
    # Not even a formula, which GalSim would take for a spectrum.
    for name in ("nosuch.sed", "wave**2"):
        settings = of_table(tmp_path, "sed,mag_r\n0,20\n", files=[name])
        with pytest.raises(InputError, match=f"the spectrum {re.escape(name)} cannot be used: there is no such file"):
            load("tableStar", settings, tmp_path, TILE, BANDS)
    settings = of_table(tmp_path, "sed,mag_r\n0,20\n")
    for text, message in ((None, "is not there"), ("a b\n", "cannot be used"), ("400 -1\n500 nan\n", "cannot be used")):
        if text is not None:
            for band in BANDS:
                (tmp_path / f"{len(text)}{band}.dat").write_text(text)
        wrong = Passband(dir=str(tmp_path), file_name=f"{len(text or '')}BAND.dat")
        other = settings.model_copy(update={"image": settings.image.model_copy(update={"bandpass": wrong})})
        with pytest.raises(InputError, match=message):
            load("tableStar", other, tmp_path, TILE, BANDS)
    with pytest.raises(InputError, match="no column sed"):
        load("tableStar", of_table(tmp_path, "mag_r\n20\n"), tmp_path, TILE, BANDS)


def test_spectra_need_band_passes(tmp_path):
    for name in ("17_bulge_disk_spectra", "18_galsim_spectra"):
        path = tmp_path / f"{name}.yaml"
        text = (CHECKOUT / f"inputs/examples/{name}.yaml").read_text()
        path.write_text("\n".join(line for line in text.splitlines() if "bandpass:" not in line))
        with pytest.raises(ConfigError, match="nothing to see them through"):
            Injection.load(path)


@pytest.mark.parametrize(
    ("item", "message"),
    [({"flux": 5}, "remove flux"), ({"mag": 20}, "that of one band"), ({"mag": {"g": 20, "r": 20}}, "that of one")],
)
def test_a_spectrum_and_other_fluxes_contradict(item, message, tmp_path):
    path = tmp_path / "x.yaml"
    data = load_yaml(CHECKOUT / "inputs/examples/18_galsim_spectra.yaml")
    gaussian = data["gal"]["items"][2]
    del gaussian["mag"]
    gaussian.update(item)
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError, match=message):
        Injection.load(path)


def test_galsim_profiles_with_spectra_are_normalised_in_the_band_of_mag(passes, seds):
    rows, shapes, _ = planned(configured("18_galsim_spectra"))
    pair = rows[rows["inj_type"] == "two_colours"]
    np.testing.assert_allclose(pair["flux_r"], 10 ** (0.4 * (30 - 20.5)), rtol=1e-9)
    whole = galsim.DeltaFunction() * seds[0].atRedshift(0.3) + galsim.DeltaFunction() * seds[3].atRedshift(0.3)
    for band in BANDS:
        colour = whole.calculateMagnitude(passes[band]) - whole.calculateMagnitude(passes["r"])
        np.testing.assert_allclose(pair[f"flux_{band}"] / pair["flux_r"], 10 ** (-0.4 * colour), rtol=1e-9)
    hot = rows[rows["inj_type"] == "hot"]
    # Vega is blue in AB: brighter in g than in z.
    assert (hot["flux_g"] > hot["flux_i"]).all()
    assert (hot["flux_i"] > hot["flux_z"]).all()
    assert len(set(hot["flux_i"])) == len(hot)
    assert shapes.profile(hot[0], "g").flux == pytest.approx(1.0)


def test_cosmos_fits_with_spectra_keep_their_magnitude_through_f814w():
    settings = configured("18_galsim_spectra")
    rows, shapes, catalogs = planned(settings)
    catalog = catalogs["COSMOSGalaxy"]
    plain = galsim.COSMOSCatalog(str(CHECKOUT / "inputs/cosmos/real_galaxy_catalog_23.5_example.fits"), use_real=False)
    mags = np.array([plain.getParametricRecord(int(index))["mag_auto"] for index in catalog.shape["cosmos_index"]])
    between = 30 - 2.5 * np.log10(np.array([catalog.flux["i"], catalog.flux["z"]]))
    # F814W lies between DECam's i and z, and so do the AB magnitudes of smooth spectra, but for a few hundredths.
    assert (between.min(axis=0) - 0.1 < mags).all()
    assert (mags < between.max(axis=0) + 0.1).all()
    row = rows[rows["inj_type"] == "COSMOSGalaxy"][0]
    assert shapes.profile(row, "g").flux == pytest.approx(1.0)
    assert shapes.profile(row, "g") != shapes.profile(row, "z") or row["bulge_fraction"] == 0


def test_what_is_no_sum_of_profiles_with_spectra_is_refused(passes, seds):
    psf = galsim.ChromaticAtmosphere(galsim.Moffat(fwhm=0.7, beta=3), 500.0, zenith_angle=0 * galsim.degrees)
    with pytest.raises(ConfigError, match="no sum of profiles with a spectrum each"):
        through(galsim.Convolve(galsim.Gaussian(sigma=1) * seds[0], psf), passes["g"])
