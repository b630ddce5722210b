"""Strict configuration files."""

import pytest

from balrogutils.errors import ConfigError, InputError
from balrogutils.settings.campaign import Campaigns
from balrogutils.settings.pipeline import Pipeline
from balrogutils.settings.yamlfile import load_yaml, read_value


def write(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "'a' is given twice, in lines 1 and 3"),
        ("a: 1\n  b: 2\n", "line 2"),
        ("a: [1, 2\n", "line 2"),
        ("- 1\n- 2\n", "key: value"),
        ("a: {b: 1, b: 2}\n", "'b' is given twice"),
        ("\tx: 1\n", "line 1"),
        ("? [1, 2]\n: 3\n", "plain word"),
        ("a: 2020-99-99\n", "a value cannot be read"),
        ("a: " + "[" * 2000 + "]" * 2000, "a value cannot be read"),
        ("a: &a [1, *a]\n", "line 1: found unconstructable recursive node"),
        ("a: &a {b: [*a]}\n", "line 1: found unconstructable recursive node"),
        ("a: !!bool 3\n", r"not what its tag \(!!...\) says"),
        ("a: !!timestamp soon\n", r"not what its tag \(!!...\) says"),
        ("!!map\n- 1\n", r"not what its tag \(!!...\) says"),
        ("a: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
        ("b: &b {x: 1}\na:\n  <<: *b\n  y: 2\n  y: 3\n", "'y' is given twice, in lines 4 and 5"),
    ],
)
def test_bad_yaml_is_told_with_its_line(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_yaml(write(tmp_path / "c.yaml", text))
    assert "c.yaml" in str(caught.value)


def test_a_missing_or_unreadable_file(tmp_path):
    with pytest.raises(ConfigError, match="not there"):
        load_yaml(tmp_path / "absent.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_yaml(tmp_path / "bytes.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_yaml(tmp_path)


def test_an_empty_file_is_no_keys(tmp_path):
    assert load_yaml(write(tmp_path / "c.yaml", "# nothing\n")) == {}


def test_band_y_and_the_word_no_stay_words(tmp_path):
    assert load_yaml(write(tmp_path / "c.yaml", "bands: [g, y, Y]\nno: on\nflag: true\n")) == {
        "bands": ["g", "y", "Y"],
        "no": "on",
        "flag": True,
    }


def test_what_comes_from_elsewhere_may_be_given_again(tmp_path):
    text = "first: &first {x: 1, y: 2}\nsecond:\n  <<: *first\n  x: 3\n"
    assert load_yaml(write(tmp_path / "c.yaml", text))["second"] == {"x": 3, "y": 2}


def test_numbers_are_what_they_look_like(tmp_path):
    """YAML 1.1 makes 8 of 010 and 90 of 1:30, and runs would be of realizations nobody named."""
    text = "a: 010\nb: 1:30\nc: 0x10\nd: -3\ne: 1_000\nf: 0\n"
    assert load_yaml(write(tmp_path / "c.yaml", text)) == {"a": "010", "b": "1:30", "c": 16, "d": -3, "e": 1000, "f": 0}
    with pytest.raises(ConfigError, match="whole number such as 0 or 12, not '010'"):
        Pipeline.load(write(tmp_path / "p.yaml", "realizations: [010]\n"))


@pytest.mark.parametrize(
    "text",
    ["3", "010", "1:30", "1e3", "0,1", "[r, i]", "2020-99-99", "True", "null", "nan", "bal_config_hex.yaml", "-1", "~"],
)
def test_a_value_means_the_same_to_balrog_and_to_snakemake(text):
    from snakemake.cli import parse_config

    assert str(read_value(text)) == str(parse_config([f"key={text}"])["key"])


@pytest.mark.parametrize(
    "text", ["[1", ": :", "[" * 3000, "{a: 1, a: 2}", "!!bool 3", "!!python/object/apply:os.getcwd []", "&a [*a]"]
)
def test_a_value_that_is_no_yaml(text):
    with pytest.raises(ValueError, match="no YAML"):
        read_value(text)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"mod": 8}, "did you mean 'mode'"),
        ({"mode": "eight"}, "mode"),
        ({"mode": 0}, "mode"),
        ({"seed": -1}, "seed"),
        ({"realizations": "0,x"}, "whole number"),
        ({"realizations": [0, 0]}, "twice"),
        ({"realizations": "01"}, "whole number"),
        ({"medsconf": "a/b"}, "medsconf"),
    ],
)
def test_bad_pipeline_keys(tmp_path, overrides, message):
    with pytest.raises(ConfigError, match=message):
        Pipeline.load(write(tmp_path / "p.yaml", "mode: 63\n"), overrides)


def test_lists_on_the_command_line(tmp_path):
    path = write(tmp_path / "p.yaml", "mode: 63\n")
    assert Pipeline.load(path, {"realizations": "0,2"}).realizations == ("0", "2")
    assert Pipeline.load(path, {"realizations": 3}).realizations == ("3",)
    assert Pipeline.load(path, {"tile": "DES0239+0216 DES0240+0216"}).tile == ("DES0239+0216", "DES0240+0216")


@pytest.mark.parametrize(
    "text",
    [
        "bands: []\n",
        "bands: [g, r, r]\n",
        "bands: [[g]]\n",
        "realizations: []\n",
        "realizations: [0, 0]\n",
        "realizations: [5000]\n",
        "seed: 9223372036854775808\n",
    ],
)
def test_lists_and_numbers_that_no_run_can_mean(tmp_path, text):
    with pytest.raises(ConfigError, match=text.split(":")[0]):
        Pipeline.load(write(tmp_path / "p.yaml", text))


CAMPAIGNS = """\
campaigns:
  one:
    kind: desdm
    database: sqlite:///{run}/a.db
    archive: file://{run}/a/
    bands: [g, r]
    det: [r]
    tiles: [DES0239+0216]
    desmeds_config: m.yaml
    galsim_config: i.yaml
    sof_config: s.yaml
"""


def test_a_tile_finds_its_campaign(tmp_path):
    campaigns = Campaigns.load(write(tmp_path / "c.yaml", CAMPAIGNS), {"run": tmp_path, "base": tmp_path})
    campaign = campaigns.of_tile("DES0239+0216")
    assert (campaign.name, campaign.database) == ("one", f"sqlite:///{tmp_path}/a.db")
    assert campaigns.of_tile("ANY", "one").name == "one"
    with pytest.raises(InputError, match=r"did you mean 'DES0239\+0216'"):
        campaigns.of_tile("DES0239+0261")
    with pytest.raises(InputError, match=r"did you mean 'DES0239\+0216'"):
        campaigns.of_tile("des0239+0216")
    with pytest.raises(InputError, match="did you mean 'one'"):
        campaigns.of_tile("DES0239+0216", "onee")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("det: [r]", "det: [i]", "detection band i"),
        ("bands: [g, r]", "bands: [g, r, g]", "twice"),
        ("bands: [g, r]", "bands: []", "bands"),
        ("bands: [g, r]", "bands: [g, r, a b]", "pattern"),
        ("bands: [g, r]", "bands: [g, r, ../x]", "pattern"),
        ("bands: [g, r]", "bands: [g, r, det]", "detection image"),
        ("det: [r]", "det: [r, r]", "twice"),
        ("[DES0239+0216]", "[../x]", "pattern"),
        ("{run}/a.db", "{run.parts}/a.db", "placeholder"),
        ("{run}/a.db", "{run:>99}/a.db", "placeholder"),
        ("    tiles:", "    magzp_ref: .nan\n    tiles:", "finite"),
        ("kind: desdm", "kind: desmd", "kind"),
        ("{run}/a.db", "{rnu}/a.db", "placeholder"),
        ("    tiles:", "    tile:", "did you mean 'tiles'"),
    ],
)
def test_bad_campaigns(tmp_path, old, new, message):
    with pytest.raises(ConfigError, match=message):
        Campaigns.load(write(tmp_path / "c.yaml", CAMPAIGNS.replace(old, new)), {"run": tmp_path, "base": tmp_path})


def test_a_band_the_campaign_lacks(tmp_path):
    campaign = Campaigns.load(write(tmp_path / "c.yaml", CAMPAIGNS), {"run": tmp_path, "base": tmp_path}).of_tile(
        "DES0239+0216"
    )
    pipeline = Pipeline.load(write(tmp_path / "p.yaml", "bands: [g, z]\n"))
    with pytest.raises(ConfigError, match="band z"):
        pipeline.for_campaign(campaign)


def test_a_configuration_file_that_is_nowhere(tmp_path):
    campaign = Campaigns.load(write(tmp_path / "c.yaml", CAMPAIGNS), {"run": tmp_path, "base": tmp_path}).of_tile(
        "DES0239+0216"
    )
    pipeline = Pipeline.load(write(tmp_path / "p.yaml", "{}\n")).for_campaign(campaign)
    with pytest.raises(ConfigError, match=r"i\.yaml"):
        pipeline.config_file("galsim_config", tmp_path)
    with pytest.raises(ConfigError, match="no home directory"):
        pipeline.model_copy(update={"galsim_config": "~nobody-of-that-name/i.yaml"}).config_file("galsim_config")
    write(tmp_path / "i.yaml", "")
    assert pipeline.config_file("galsim_config", tmp_path) == tmp_path / "i.yaml"
