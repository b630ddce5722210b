"""The floor: errors, randomness, products, masks."""

import errno
import json
import math
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from balrogutils.errors import BalrogError, ConfigError, InputError, ProductError, did_you_mean
from balrogutils.masks import MaskBit, mask_of
from balrogutils.memory import peak_memory
from balrogutils.products import Step, link_or_copy, read_manifest, sha256, writing, writing_text
from balrogutils.progress import track
from balrogutils.randomness import dither_seed, seed32, stream


def test_an_error_says_where_and_what_to_do():
    error = InputError(
        "no zero point", tile="DES0239+0216", band="g", chip="D1_g_c01", file="/x/y", key="zp", remedy="add it"
    )
    text = str(error)
    for part in (
        "no zero point",
        "tile DES0239+0216",
        "band g",
        "chip D1_g_c01",
        "file /x/y",
        "key zp",
        "remedy: add it",
    ):
        assert part in text
    assert error.exit_status == 2
    assert BalrogError("x").exit_status == 1


def test_near_names_are_offered():
    assert did_you_mean("DES0239+0217", ["DES0239+0216", "DES1226+2527"]).startswith("did you mean 'DES0239+0216'")
    assert did_you_mean("qqq", ["alpha"]) == "known: alpha"
    assert did_you_mean("qqq", []) == "known: none"


def test_streams_are_keyed_by_name_alone():
    first = stream(7, "noise", "DES0239+0216", "g", 3).random(4)
    assert np.array_equal(first, stream(7, "noise", "DES0239+0216", "g", 3).random(4))
    others = [
        (8, "noise", "DES0239+0216", "g", 3),
        (7, "noise", "DES0239+0216", "g", "3"),
        (7, "noise", "DES0239+0216g", 3),
        (7, "noiseDES", "0239+0216", "g", 3),
    ]
    for seed, *names in others:
        assert not np.array_equal(first, stream(seed, *names).random(4))


def test_streams_are_pinned_for_ever():
    # A change of these numbers changes every product ever made.
    assert seed32(1, "pin") == 2072111353
    assert dither_seed("pin") == 5144
    assert stream(1, "pin").integers(0, 2**32) == 1832133397


def test_seeds_stay_in_range():
    seeds = [dither_seed("x", i) for i in range(20000)]
    assert min(seeds) >= 1
    assert max(seeds) <= 10000
    assert len(set(seeds)) > 8000
    assert all(1 <= seed32(i, "x") < 2**31 for i in range(1000))


def test_a_product_is_whole_or_absent(tmp_path):
    path = tmp_path / "deep" / "product.txt"
    with pytest.raises(RuntimeError, match="half"), writing(path) as part:
        part.write_text("half")
        raise RuntimeError("half way")
    assert list(path.parent.iterdir()) == []
    writing_text(path, "old")
    with pytest.raises(RuntimeError), writing(path) as part:
        part.write_text("new")
        raise RuntimeError
    assert path.read_text() == "old"
    with pytest.raises(ProductError, match="not written"), writing(path):
        pass
    assert path.read_text() == "old"
    assert [entry.name for entry in path.parent.iterdir()] == ["product.txt"]


def test_a_temporary_name_keeps_its_suffixes(tmp_path):
    with writing(tmp_path / "DES0239+0216_g.fits.fz") as part:
        assert part.name.endswith("DES0239+0216_g.fits.fz")
        assert part.parent == tmp_path
        part.touch()


RECORD = {"step": "old", "inputs": [], "outputs": []}


def test_a_manifest_tells_inputs_and_outputs(tmp_path):
    source, product, manifest = tmp_path / "in", tmp_path / "out", tmp_path / "m" / "step.json"
    source.write_text("abc")
    with Step(manifest, "coadd", about={"tile": "T"}, config={"b": 1, "a": 2}, seeds={"run": 3}) as step:
        step.read(source)
        writing_text(product, "xyz")
        step.wrote(product)
        step.count(detections=5)
    document = read_manifest(manifest)
    assert document["inputs"][0]["sha256"] == sha256(source)
    assert document["outputs"][0]["size"] == 3
    assert document["tile"] == "T"
    assert document["seeds"] == {"run": 3}
    assert document["counts"] == {"detections": 5}
    assert document["peak_memory_bytes"] > 0


@pytest.mark.parametrize(
    "text",
    ["", "[" * 100_000, '{"n": ' + "1" * 9000 + "}", b"\xff\xfe"]
    + [json.dumps(RECORD | more) for more in ({"counts": []}, {"seeds": None}, {"outputs": ["x"]})],
)
def test_what_is_no_manifest_is_told(tmp_path, text):
    manifest = tmp_path / "step.json"
    manifest.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ProductError, match=r"cannot be read|lacks its keys") as told:
        read_manifest(manifest)
    assert "remove it" in told.value.remedy


def test_a_manifest_may_lack_what_is_not_asked_for(tmp_path):
    manifest = tmp_path / "step.json"
    manifest.write_text(json.dumps(RECORD | {"counts": {}, "cpu_seconds": math.nan, "ended": "now"}))
    assert read_manifest(manifest, "counts")["step"] == "old"
    with pytest.raises(ProductError, match="a manifest lacks cpu_seconds, ended, started"):
        read_manifest(manifest, "started", "counts", "ended", "cpu_seconds")


def test_a_failed_step_leaves_no_manifest(tmp_path):
    manifest = tmp_path / "step.json"
    writing_text(manifest, json.dumps(RECORD))
    with pytest.raises(RuntimeError), Step(manifest, "coadd"):
        raise RuntimeError
    assert not manifest.exists()
    with pytest.raises(ProductError, match="not there"), Step(manifest, "coadd") as step:
        step.wrote(tmp_path / "never")
    assert not manifest.exists()


def made_file(tmp_path, text="abc"):
    """A product with the manifest of the step that made it."""
    product, manifest = tmp_path / "product", tmp_path / "made.json"
    with Step(manifest, "coadd", about={"tile": "T"}) as step:
        writing_text(product, text)
        step.wrote(product)
    return product, manifest


@pytest.mark.parametrize(
    ("text", "message"),
    [("abcd", "has 4 bytes, not 3"), ("abd", "content has changed"), (None, "a product is gone")],
    ids=["longer", "edited", "gone"],
)
def test_a_step_stops_at_a_product_that_is_not_as_it_was_made(tmp_path, text, message):
    product, manifest = made_file(tmp_path)
    product.unlink()
    if text is not None:
        product.write_text(text)
    own = tmp_path / "own.json"
    with (
        pytest.raises(ProductError, match=message) as caught,
        Step(own, "meds", about={"tile": "T", "band": "g"}, before=[manifest, tmp_path / "absent.json"]) as step,
    ):
        step.read(product)
    assert caught.value.where == {"tile": "T", "band": "g", "file": str(product)}
    assert "again" in caught.value.remedy
    assert not own.exists()


def test_a_step_finds_a_product_under_another_spelling_of_its_name(tmp_path):
    product, manifest = made_file(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    product.write_text("abd")
    with pytest.raises(ProductError, match="changed"), Step(tmp_path / "own", "meds", before=[manifest]) as step:
        step.read(tmp_path / "link" / "product")


def test_a_step_reads_whole_products_and_files_nobody_made(tmp_path):
    product, manifest = made_file(tmp_path)
    config = tmp_path / "config.yaml"
    config.write_text("a: 1")
    with Step(tmp_path / "own.json", "meds", before=[manifest]) as step:
        step.read(product, config)
        assert step.digest(product) == sha256(product)
    assert [entry["path"] for entry in read_manifest(tmp_path / "own.json")["inputs"]] == [str(product), str(config)]
    with pytest.raises(ProductError, match="not there"), Step(tmp_path / "own.json", "meds") as step:
        step.read(tmp_path / "absent")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "disk is full"),
        (OSError(errno.EDQUOT, "Quota exceeded"), "quota"),
        (OSError("FITSIO status = 106: error writing to FITS file"), "disk is full"),
    ],
)
def test_a_full_disk_is_told_with_the_product(tmp_path, error, message):
    path = tmp_path / "product"
    with pytest.raises(ProductError, match=message) as caught, writing(path) as part:
        part.write_text("half")
        raise error
    assert caught.value.where["file"] == str(path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(PermissionError), writing(path):
        raise PermissionError(errno.EACCES, "another matter")


@pytest.mark.parametrize(("blocks", "error"), [(3, ProductError), (4, OSError)])
def test_a_full_disk_is_told_though_a_library_stumbles_later(tmp_path, monkeypatch, blocks, error):
    """What cfitsio says when it verifies what it could not write; 16 kB are not full."""
    monkeypatch.setattr("os.statvfs", lambda _: SimpleNamespace(f_bavail=blocks, f_frsize=4096))
    with pytest.raises(error, match=r"the disk is full|status = 107"), writing(tmp_path / "image.fits"):
        raise OSError("FITSIO status = 107: tried to move past end of file")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"step": 1}', "\xff"])
def test_a_damaged_manifest_is_named(tmp_path, text):
    path = tmp_path / "step.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ProductError, match=r"step\.json"):
        read_manifest(path)
    with pytest.raises(ProductError, match="no manifest"):
        read_manifest(tmp_path / "absent.json")


def test_links_share_the_content(tmp_path):
    (tmp_path / "a").write_text("x")
    link_or_copy(tmp_path / "a", tmp_path / "sub" / "b")
    link_or_copy(tmp_path / "a", tmp_path / "sub" / "b")
    assert (tmp_path / "sub" / "b").read_text() == "x"


def test_mask_bits_have_the_survey_values():
    assert [bit.value for bit in MaskBit][:15] == [2**i for i in range(15)]
    assert MaskBit.TAPEBUMP == 16384
    assert mask_of(["BPM", "EDGE"]) == 513
    assert mask_of([]) == 0
    with pytest.raises(ConfigError, match="did you mean 'EDGE'"):
        mask_of(["EDGES"])


def test_progress_keeps_the_items(caplog):
    with caplog.at_level("INFO", logger="balrogutils.progress"):
        assert list(track(iter([1, 2]), "work")) == [1, 2]
        assert list(track([], "nothing")) == []
    assert "work: 2 it" in caplog.text


def test_peak_memory_is_not_that_of_the_process_that_started_this_one():
    ours = np.ones(300_000_000, "u1")
    code = "from balrogutils.memory import peak_memory; print(peak_memory())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert peak_memory() > ours.nbytes > int(done.stdout) > 1_000_000


NO_ROOM = """
import resource
import numpy as np
from balrogutils.memory import take_workspace
square, product = np.ones((128, 128)), np.empty((128, 128))
take_workspace()
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize(),) * 2)
print(np.matmul(square, square, out=product)[0, 0])
"""


def test_linear_algebra_works_where_no_memory_is_left():
    """It would end the process."""
    done = subprocess.run([sys.executable, "-c", NO_ROOM], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "128.0\n", "")
