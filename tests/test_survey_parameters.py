from pathlib import Path

import pydantic
import pytest

from balrogutils.errors import ConfigError
from balrogutils.survey.parameters import PsfModel, SurveyParameters
from balrogutils.survey.tiny import tiny_survey

DEFAULT = Path(__file__).resolve().parents[1] / "etc" / "survey.yaml"


def test_the_default_survey_is_what_the_tiles_need():
    survey = SurveyParameters.load(DEFAULT)
    assert [tile.name for tile in survey.tiles] == ["DES0239+0216", "DES0240+0216"]
    assert tuple(survey.bands) == ("g", "r", "i", "z")
    assert len(survey.dithers) >= 5
    assert min(survey.camera.ccd_columns, survey.camera.ccd_rows) >= 1024
    assert survey.psf_model.min_stars >= 50
    assert survey.psf_model.size * survey.psf_model.sampling * survey.camera.pixel_scale > 6.0
    # The names say RA 02h39m and 02h40m, Dec +02d16'.
    for tile, minute in zip(survey.tiles, (39, 40), strict=True):
        assert int(tile.ra / 15 * 60) == 2 * 60 + minute
        assert int(tile.dec * 60) == 2 * 60 + 16


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "missing"),
        ("seed: 1\nseed: 2\n", "given twice"),
        ("seed: [", "line"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, text, said):
    file = tmp_path / "survey.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        SurveyParameters.load(file)


def test_unknown_keys_are_refused_with_what_was_meant(tmp_path):
    file = tmp_path / "survey.yaml"
    file.write_text(DEFAULT.read_text().replace("dither_jitter:", "dither_jiter:"))
    with pytest.raises(ConfigError, match="dither_jitter"):
        SurveyParameters.load(file)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tiles": []}, "tiles"),
        ({"bands": {}}, "bands"),
        ({"dithers": []}, "dithers"),
        ({"coadds": {"det": ["y"]}}, "coadds.det"),
        ({"coadds": {"det": []}}, "coadds.det"),
        ({"tiles": [{"name": "DES0239+0216", "ra": 39.9, "dec": 2.2}] * 2}, "twice"),
        ({"tile_pixels": 0}, "tile_pixels"),
        ({"tile_scale": float("nan")}, "tile_scale"),
        ({"exposure_time": -1}, "exposure_time"),
    ],
)
def test_impossible_surveys_are_refused(change, said):
    with pytest.raises(pydantic.ValidationError, match=said):
        tiny_survey(**change)


@pytest.mark.parametrize("change", [{"size": 44}, {"vignette": 44}, {"vignette": 31}])
def test_impossible_psf_models_are_refused(change):
    with pytest.raises(pydantic.ValidationError, match=r"odd|hold"):
        PsfModel(**({"size": 43, "sampling": 0.9, "degree": 2, "min_stars": 50, "vignette": 45} | change))
