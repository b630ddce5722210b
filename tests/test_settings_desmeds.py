"""The MEDS configuration: every key understood, contradictions refused."""

import pytest
from meds_frames import CHECKOUT, context

from balrogutils.errors import ConfigError
from balrogutils.settings.desmeds import DesMeds

SHIPPED = CHECKOUT / "desmeds-config" / "meds-y3v02.yaml"


def load(tmp_path, text, name="meds-y3v02.yaml", campaign=None):
    path = tmp_path / name
    path.write_text("medsconf: y3v02\n" + text if "medsconf" not in text else text)
    return DesMeds.load(path, campaign)


def test_shipped_file_names_every_key_and_equals_the_defaults():
    shipped = DesMeds.load(SHIPPED)
    assert shipped == DesMeds(medsconf="y3v02", campaign="y3a2_coadd", dbname="dessci")
    text = SHIPPED.read_text()
    missing = [key for key in DesMeds.model_fields if f"{key}:" not in text]
    # keys of other people's process pools and colour-dependent PSF models
    assert missing == ["piff_campaign", "fpack_kwargs", "use_joblib", "joblib"]


def test_bands_come_from_the_tile(tmp_path):
    campaign = context(tmp_path, bands=("g", "r", "z")).campaign
    settings = DesMeds.load(SHIPPED, campaign)
    assert settings.bands == ("g", "r", "z")
    assert settings.det == ("g",)
    assert load(tmp_path, "bands: [z, g]", campaign=campaign).bands == ("z", "g")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bands: [g, Y]", "bands is g Y here, but campaign test has g r z"),
        ("det: [r, z]", "det is r z here"),
        ("bands: []", "bands is empty here"),
        ("bands: [g, g]", "bands is g g here"),
        ("refband: i", "refband is i here"),
        ("magzp_ref: 25.0", r"magzp_ref is 25\.0 here, but campaign test has 30\.0"),
        ("campaign: y6a1_coadd", "campaign is y6a1_coadd here"),
    ],
)
def test_contradictions_with_the_campaign(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text, campaign=context(tmp_path, bands=("g", "r", "z")).campaign)


def test_the_file_name_must_carry_medsconf(tmp_path):
    with pytest.raises(ConfigError, match=r"medsconf is y3v02, but the file is called meds-y6a1\.yaml"):
        load(tmp_path, "", name="meds-y6a1.yaml")
    with pytest.raises(ConfigError, match=r"file is called y3v02\.yaml"):
        load(tmp_path, "", name="y3v02.yaml")
    other = context(tmp_path).campaign.model_copy(update={"medsconf": "y3v03"})
    with pytest.raises(ConfigError, match="campaign test has y3v03"):
        load(tmp_path, "", campaign=other)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("min_boxsize: 40", "did you mean 'min_box_size'"),
        ("min_box_size: 40\nmin_box_size: 48", "given twice"),
        ("min_box_size: 300", "above max_box_size"),
        ("allowed_box_sizes: [32, 48]", "at least max_box_size 256"),
        ("se_bkg_ext: 1", "must all be numbers or all be names"),
        ("se_seg_ext: none", "only se_bkg_ext can be absent"),
        ("coadd_bkg_ext: sci", "must be none"),
        ("fpack_dims: [2048, 1]", "disagree"),
        ("fpack_pars: {FZQMETHD: NO_DITHER}", "weight of zero"),
        ("fpack_pars: {FZQVALUE: 0}", "needs FZALGOR GZIP"),
        ("fpack_pars: {FZDTHRSD: 3}", "unknown fpack key"),
        ("fpack_kwargs: {a: 1}", "give fpack_pars"),
        ("cutout_types: [image, seg]", "image and weight among them"),
        ("cutout_types: [image, weight, noise]", "cutout_types"),
        ("dtypes: {seg: f4}", "seg can be i4, not f4"),
        ("dtypes: {noise: f4}", "being no cut-out type"),
        ("unusable_bmask: [BADAMPS]", "unknown mask bits"),
        ("unusable_bmask: -1", "set of mask bits"),
        ("position_offset: 0.0", "counts pixels from 1"),
        ("psf: {se: {stamp_size: 32}}", "odd side"),
        ("psf: {se: {stamp_size: 100001}}", "at most 1023"),
        ("sigma_fac: .inf", "finite"),
        ("min_box_size: 300", r"^min_box_size 300"),
        ("psf: {se: {type: piff}}", "psf.se.type"),
        ("psf: {se: {use_color: true}}", "psf.se.use_color"),
        ("use_astro_refine: true", "use_astro_refine"),
        ("source_type: finalcut", "source_type"),
        ("fpack: false", "fpack"),
        ("first_image_is_coadd: false", "first_image_is_coadd"),
        ("sigma_fac: 0", "sigma_fac"),
    ],
)
def test_what_cannot_be_honoured_is_refused(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load(tmp_path, text)
    assert caught.value.exit_status == 2
    assert "meds-y3v02.yaml" in str(caught.value)


def test_mask_bits_by_name_and_exts_by_number(tmp_path):
    numbers = "\n".join(f"{kind}_{plane}_ext: {n}" for kind in ("se", "coadd") for plane, n in
                        (("image", 0), ("weight", 1), ("bmask", 3), ("seg", 0)))  # fmt: skip
    settings = load(tmp_path, f"unusable_bmask: [BADAMP, BPM]\nse_bkg_ext: 0\ncoadd_bkg_ext: -1\n{numbers}")
    assert settings.unusable_bmask == 9
    assert settings.se_has_bkg
    assert not load(tmp_path, "se_bkg_ext: none").se_has_bkg


def test_partial_fpack_pars_are_filled(tmp_path):
    assert load(tmp_path, "fpack_pars: {FZQVALUE: 8}").fpack_pars["FZALGOR"] == "RICE_1"
