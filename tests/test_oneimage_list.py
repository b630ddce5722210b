"""Many images side by side: the list, Snakemake's rules for it, and a run that is killed."""

import os
import signal
import subprocess
import time
from pathlib import Path

import identical
import pytest
from one_image import CHECKOUT, HEAD, ROUND, write_input

from balrogutils.errors import ConfigError, InputError
from balrogutils.oneimage.imagelist import ImageList, report
from balrogutils.products import read_manifest

CSV = """name, image, imageext, weight, psf, pyconfig, ngal, imageonly, own, seed
north, a.fits, 1, a.wht.fits, a.psf, my.py, 12, yes, --depth 'very deep', 5
, sub/b.fits.fz, , , b.psf, , , , ,
"""
YAML = """
defaults: {psf: b.psf, ngal: 7, nonosim: true}
images:
- {image: sub/b.fits}
- {name: far, image: /data/c.fits, nonosim: false, seed: 3}
"""


def listed(directory, text, name="list.csv"):
    (directory / name).write_text(text)
    return ImageList.read(directory / name, directory / "out")


def test_a_table_of_images(tmp_path):
    images = listed(tmp_path, CSV)
    assert list(images.words) == ["north", "b"]
    words = list(images.words["north"])
    assert words[words.index("--seed") + 1] == "5"
    assert int(words[words.index("--noiseseed") + 1]) > 0
    assert words[-2:] == ["--depth", "very deep"]
    assert "--imageonly" in words
    assert words[words.index("--image") + 1] == str(tmp_path / "a.fits")
    assert words[words.index("--imageext") + 1] == "1"
    assert images.inputs["north"] == [tmp_path / name for name in ("a.fits", "a.wht.fits", "a.psf", "my.py")]
    assert images.inputs["b"] == [tmp_path / "sub/b.fits.fz", tmp_path / "b.psf"]
    assert "--imageonly" not in images.words["b"]
    # Seeds belong to the name, not to the place in the list.
    alone = listed(tmp_path, "image,psf\nsub/b.fits.fz,b.psf\n")
    assert images.words["b"] == alone.words["b"]


def test_a_list_in_yaml(tmp_path):
    images = listed(tmp_path, YAML, "list.yaml")
    assert "--nonosim" in images.words["b"]
    assert "--nonosim" not in images.words["far"]
    assert [file.as_posix() for file in images.inputs["far"]] == [f"{tmp_path}/b.psf", "/data/c.fits"]
    assert images.words["far"][images.words["far"].index("--ngal") + 1] == "7"


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        ("", "list.csv", "holds no image"),
        ("name,image\n", "list.csv", "holds no image"),
        ("name,imagee\na,b\n", "list.csv", "no argument imagee: did you mean 'image'"),
        ("name,outdir\na,b\n", "list.csv", "no argument outdir"),
        ("name,image\na,b,c\n", "list.csv", "line 2 has not as many cells"),
        ("name,image\na,b\na,c\n", "list.csv", "two images are called a"),
        ("name,image\n../a,b\n", "list.csv", "no name of letters"),
        ("name,clean\na,perhaps\n", "list.csv", "clean is perhaps"),
        ("\xff\x00", "list.csv", "cannot be read|no image"),
        ("name,own\na,--depth 'deep\n", "list.csv", "own cannot be taken apart"),
        ("name,image\na,~nobody.of.this.name/a.fits\n", "list.csv", "no home directory"),
        ("name,image,image\na,b,c\n", "list.csv", "two columns are called image"),
        ("name,image\nmanifests,b\n", "list.csv", "cannot be called manifests"),
        ("pictures: []", "list.yaml", "unknown key pictures"),
        ("images: 3", "list.yaml", "not a list of images"),
        ("images: [3]", "list.yaml", "not a list of images"),
    ],
)
def test_wrong_lists_are_told(text, name, says, tmp_path):
    with pytest.raises(ConfigError, match=says) as caught:
        listed(tmp_path, text, name)
    assert caught.value.remedy
    with pytest.raises(ConfigError, match="not there"):
        ImageList.read(tmp_path / f"nowhere.{name}", tmp_path)


def test_one_job_an_image(tmp_path):
    images = listed(tmp_path, CSV)
    with images.alone("b"), pytest.raises(InputError, match="another job is making the image b"), images.alone("b"):
        pass
    with pytest.raises(InputError, match="did you mean 'north'"):
        images.require("nort")
    assert report(images).split()[-6:] == ["north", "not", "made", "b", "not", "made"]
    assert images.report.read_text().splitlines()[1] == "north,not made,,,,,,,"


def _fields(directory, number=3):
    """Write small images, a rules file and their list."""
    directory.mkdir(exist_ok=True)
    (directory / "rules.py").write_text(HEAD + ROUND)
    lines = ["name,image,weight,psf,pyconfig,ngal,sexparam"]
    for one in range(number):
        write_input(directory / f"in{one}", (150, 160), seed=one)
        files = [f"in{one}/{name}" for name in ("field.fits", "field.wht.fits", "field.psf")]
        lines.append(",".join([f"f{one}", *files, "rules.py", "8", str(_PARAM)]))
    (directory / "list.csv").write_text("\n".join(lines) + "\n")
    return directory / "list.csv"


_PARAM = CHECKOUT / "etc" / "image_sex_nosim.param"
SNAKEMAKE = ["snakemake", "--cores", "1", "-s", "rules/image.smk", "--config"]


def test_snakemake_plans_a_job_an_image(command, tmp_path):
    file = _fields(tmp_path / "fields")
    done = command(*SNAKEMAKE, f"images={file}", "outdir=out", "-n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("rule image:") == 3
    assert "balrog images" not in done.stderr
    done = command(*SNAKEMAKE, "outdir=out", "-n")
    assert done.returncode != 0
    assert "no list of images is named" in done.stderr


@pytest.mark.long
def test_a_killed_run_goes_on_to_the_same_products(command, terminal, tmp_path):
    file = _fields(tmp_path / "fields")
    clean = command(*SNAKEMAKE, f"images={file}", "outdir=clean")
    assert clean.returncode == 0, clean.stderr
    broken = terminal["cwd"] / "broken"
    words = [*SNAKEMAKE, f"images={file}", "outdir=broken"]
    with subprocess.Popen(words, start_new_session=True, stderr=subprocess.DEVNULL, **terminal) as run:
        # In the middle of the second image.
        while len(list(broken.glob("f*/balrog_image"))) < 2:
            assert run.poll() is None
            time.sleep(0.05)
        os.killpg(run.pid, signal.SIGKILL)
    first = {one.name: one.stat().st_mtime_ns for one in broken.glob("manifests/*.json")}
    assert len(first) == 1
    done = command(*words)
    assert done.returncode == 0, done.stderr
    for name, moment in first.items():
        assert (broken / "manifests" / name).stat().st_mtime_ns == moment
    for one in range(3):
        outputs = [entry["path"] for entry in read_manifest(broken / "manifests" / f"f{one}_image.json")["outputs"]]
        assert len(outputs) > 10
        whole = [path for path in outputs if path.endswith(("truthcat.sim.fits", "field.sim.fits", "results.fits"))]
        assert len(whole) == 3
        for path in whole:
            assert identical.same(Path(path), Path(path.replace("broken", "clean")))
    lines = (broken / "images.csv").read_text().splitlines()
    assert [line.split(",")[:3] for line in lines[1:]] == [[f"f{one}", "made", "8"] for one in range(3)]
    assert all(int(line.split(",")[3]) >= 6 for line in lines[1:])
    # The same again has nothing to do; a changed line makes its image again, and one that fails leaves the others.
    assert "Nothing to be done" in command(*words).stderr
    file.write_text(file.read_text().replace("f1,in1/field.fits", "f1,in1/nowhere.fits"))
    done = command(*words)
    assert done.returncode == 1
    assert "code: 101" in done.stderr
    assert "f1,not made" in command("balrog", "images", str(file), "--outdir", "broken").stdout.replace("    ", ",")
