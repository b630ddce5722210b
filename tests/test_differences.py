"""Injected images kept as what they differ in from the base run's: exact to the bit, and made again without drawing."""

import errno
import json
import os
import re
import shutil
from dataclasses import replace

import fitsio
import numpy as np
import pytest
from conftest import CHECKOUT
from injection_tile import MAGZP, chip_name, configuration, make_tile
from small_campaign import make_alone
from test_injection_blocks import INPUTS
from test_injection_blocks import run as inject_all
from test_temporary import images, read_all

from balrogutils.blocks import differences
from balrogutils.blocks.differences import apply_difference, keep_differences, missing, write_difference
from balrogutils.blocks.inject import inject
from balrogutils.blocks.temporary import release, require_images, restore
from balrogutils.cli.releasing import Releasing
from balrogutils.errors import ConfigError, ProductError
from balrogutils.fitsfile import read_header, read_image
from balrogutils.graph import Job, settle
from balrogutils.injection.audit import HEADER_KEY
from balrogutils.overview.status import State, status_of
from balrogutils.products import read_manifest, sha256
from balrogutils.report.summary import summarize, table
from balrogutils.settings.pipeline import Pipeline
from balrogutils.upkeep.clean import clean, survey
from balrogutils.upkeep.explain import _explanation
from balrogutils.upkeep.lineage import Lineage
from balrogutils.upkeep.repair import repair
from balrogutils.upkeep.sums import wrong_sums
from balrogutils.upkeep.verify import verify

# what a setting says


@pytest.mark.parametrize(
    ("given", "kept"), [("differences", ("differences",)), ("nullwt,differences", ("nullwt", "differences"))]
)
def test_the_setting(given, kept):
    assert Pipeline.model_validate({"keep": given}).keep == kept


def test_images_and_their_differences_are_not_kept_both(base):
    with pytest.raises(ConfigError, match="name one of the two"):
        Pipeline.load(base / "etc" / "pipeline.yaml", {"keep": "injected differences"})


# the file


def pair(directory, before, after, cards=0):
    """Write an image and the one that was made of it, planes by name; the latter with more cards."""
    base, image = directory / "base.fits", directory / "image.fits"
    for path, planes in ((base, before), (image, after)):
        with fitsio.FITS(str(path), "rw", clobber=True) as fits:
            for name, pixels in planes.items():
                fits.write(pixels, extname=name)
    with fitsio.FITS(str(image), "rw") as fits:
        for number in range(cards):
            fits[0].write_key(f"CARD{number}", number)
    return base, image, directory / "difference.fits.fz"


def made_again(base, image, difference):
    """Whether an image comes out of its difference bit by bit."""
    write_difference(base, image, difference)
    again = image.with_name("again.fits")
    apply_difference(base, difference, again)
    return again.read_bytes() == image.read_bytes()


def names(path):
    with fitsio.FITS(str(path)) as fits:
        return [hdu.get_extname() for hdu in fits[1:]]


# Quiet and signalling, with and without a sign, and what they say.
NANS = np.array([0x7FC00000, 0xFFC00000, 0x7FC12345, 0x7F812345], dtype=np.uint32).view(np.float32)
ODD = np.concatenate([NANS, np.array([0, -0.0, np.inf, -np.inf, 1e-45, -1e-45, 3e38, -3e38, 1], np.float32)])


@pytest.mark.parametrize("kind", ["u1", "i2", "i4", "i8", "f4", "f8"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (70, 3), (3, 4, 5)])
def test_any_plane(tmp_path, kind, shape):
    count = int(np.prod(shape))
    before = np.arange(count).astype(kind).reshape(shape) if shape else None
    after = None if before is None else before[::-1] + before.dtype.type(1)
    base, image, difference = pair(tmp_path, {"A": before}, {"A": after})
    assert made_again(base, image, difference)
    assert wrong_sums(difference) == ""


def test_nothing_differs(tmp_path):
    pixels = np.ones((70, 80), np.float32)
    base, image, difference = pair(tmp_path, {"SCI": pixels}, {"SCI": pixels})
    shutil.copyfile(base, image)
    assert made_again(base, image, difference)
    assert names(difference) == []
    assert difference.stat().st_size == 2880


def test_every_odd_number_beside_every_other(tmp_path):
    """NaN with what it says, -0, infinities, the smallest and those whose sum is none."""
    before, after = np.zeros((2, len(ODD), len(ODD)), np.float32)
    before.view(np.uint32)[:] = ODD.view(np.uint32)[:, None]
    after.view(np.uint32)[:] = ODD.view(np.uint32)[None, :]
    base, image, difference = pair(tmp_path, {"SCI": before}, {"SCI": after})
    assert made_again(base, image, difference)
    assert np.isfinite(read_image(difference, "SCI")).all()


def test_pixels_that_base_and_light_do_not_add_up_to(tmp_path):
    """Float32 differences of unlike numbers are rounded, and so is the sum: the bits put it right."""
    random = np.random.default_rng(3)
    before = random.normal(0, 17, (200, 210)).astype(np.float32)
    after = (before + random.exponential(100, before.shape)).astype(np.float32)
    assert np.sum(before + (after - before) != after) > 100
    base, image, difference = pair(tmp_path, {"SCI": before}, {"SCI": after})
    assert made_again(base, image, difference)
    np.testing.assert_array_equal(read_image(difference, "SCI"), after - before)
    wrong = before + (after - before) != after
    np.testing.assert_array_equal(read_image(difference, "SCI_BITS") != 0, wrong)


def test_headers_that_grow(tmp_path):
    pixels = np.ones((4, 5), np.float32)
    base, image, difference = pair(tmp_path, {"SCI": pixels, "MSK": pixels}, {"SCI": pixels, "MSK": 2 * pixels}, 40)
    assert image.stat().st_size > base.stat().st_size
    assert made_again(base, image, difference)
    # And shrink: the image the base, the base the image.
    assert made_again(image, base, difference)


def test_another_image_is_refused(tmp_path):
    small, large = np.ones((4, 5), np.float32), np.ones((5, 5), np.float32)
    base, image, difference = pair(tmp_path, {"SCI": small}, {"SCI": 2 * small})
    write_difference(base, image, difference)
    other, wide, _ = pair(tmp_path, {"SCI": large}, {"SCI": 2 * large})
    with pytest.raises(ProductError, match="of another image"):
        apply_difference(other, difference, tmp_path / "again.fits")
    (tmp_path / "more").mkdir()
    more, _, _ = pair(tmp_path / "more", {"SCI": large, "WGT": large}, {"SCI": large})
    with pytest.raises(ProductError, match="has other planes"):
        write_difference(more, wide, tmp_path / "none.fits.fz")
    assert not (tmp_path / "none.fits.fz").exists()


# a realization


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A realization whose light is in every plane, and what its images hold: one CCD is out of reach, one masked."""
    config = configuration(noise={"type": "Poisson", "update_weights": True}, mask_bit=12)
    context = make_tile(tmp_path_factory.mktemp("tile"), INPUTS, config, bands=("g",))
    inject_all(context)
    read_all(Job("inject", context, "g"))
    # As a run that keeps both left it.
    saved = context.tree.dir.with_name("saved")
    shutil.copytree(context.tree.dir, saved)
    return context, saved


@pytest.fixture
def context(made):
    """The realization as it was, with the settings that keep differences."""
    context, saved = made
    tree = context.tree
    shutil.rmtree(tree.dir)
    shutil.copytree(saved, tree.dir)
    for chip in MAGZP:
        nullwt, injected = (place("g", chip_name("g", chip)) for place in (tree.nullwt, tree.injected))
        injected.unlink()
        os.link(nullwt, injected)
    # The survey of what a run makes again looks for the configuration of MEDS files.
    settings = {
        "keep": ("nullwt", "differences"),
        "desmeds_config": str(CHECKOUT / "desmeds-config" / "meds-y3v02.yaml"),
    }
    return replace(context, pipeline=context.pipeline.model_copy(update=settings))


@pytest.fixture
def job(context):
    return Job("inject", context, "g")


def no_drawing(monkeypatch):
    def draw(*_):
        raise AssertionError("an image was drawn")

    monkeypatch.setattr("balrogutils.blocks.inject.inject", draw)


def kept(context):
    return sorted((context.tree.dir / "g").glob("*_balrog_diff.fits.fz"))


class TestLetGo:
    def test_one_for_each_chip_with_where_it_came_from(self, context, job):
        before = {path: sha256(path) for path in images(context.tree.nullwt_dir("g"))}
        assert release(context) == 8
        files = kept(context)
        assert files == sorted(context.tree.difference("g", chip_name("g", chip)) for chip in MAGZP)
        manifest = read_manifest(context.tree.differences("g"))
        assert {one["path"]: one["sha256"] for one in manifest["outputs"]} == {str(one): sha256(one) for one in files}
        read = {one["path"]: one["sha256"] for one in manifest["inputs"]}
        for chip in MAGZP:
            name = chip_name("g", chip)
            assert read[str(context.tree.injected("g", name))] == before[context.tree.nullwt("g", name)]
            assert str(context.base_tree.nullwt("g", name)) in read
        assert (manifest["step"], manifest["counts"]["differences"]) == ("inject differences", 4)

    def test_what_they_show(self, context):
        """The light on the sky; weights and mask where it is."""
        chip = chip_name("g", 1)
        new = read_image(context.tree.nullwt("g", chip), "SCI")
        mask = read_image(context.tree.nullwt("g", chip), "MSK")
        old = read_image(context.base_tree.nullwt("g", chip), "SCI")
        release(context)
        file = context.tree.difference("g", chip)
        np.testing.assert_array_equal(read_image(file, "SCI"), new - old)
        np.testing.assert_array_equal(read_image(file, "MSK_BITS"), mask)
        header = read_header(file, "SCI")
        assert (header["CTYPE1"], str(header[HEADER_KEY])) == ("RA---TPV", "0")
        assert "WGT" in names(file)
        # No light reaches this one.
        assert names(context.tree.difference("g", chip_name("g", 3))) == []

    def test_they_are_written_once(self, context, job):
        release(context)
        times = [path.stat().st_mtime_ns for path in kept(context)]
        restore(job)
        assert not missing(job)
        release(context)
        assert [path.stat().st_mtime_ns for path in kept(context)] == times

    def test_those_of_an_injection_that_was_done_again_are_written_again(self, context, job):
        release(context)
        inject(context, "g")
        before = images(context.tree.nullwt_dir("g"))
        assert missing(job)
        keep_differences(job)
        assert verify(context, deep=True).sound
        read_all(job)
        release(context)
        restore(job)
        assert images(context.tree.nullwt_dir("g")) == before

    def test_images_that_went_without_them_are_let_alone(self, context, job):
        release(replace(context, pipeline=context.pipeline.model_copy(update={"keep": ("nullwt",)})))
        assert release(context) == 0
        assert kept(context) == []
        assert not context.tree.differences("g").exists()

    def test_adopted_images_have_none(self, context, job):
        manifest = json.loads(job.manifest.read_text())
        job.manifest.write_text(json.dumps(manifest | {"adopted": True}))
        assert not missing(job)

    def test_nothing_is_let_go_without_room_for_them(self, context, job, monkeypatch, caplog):
        write = differences.write_difference

        def full(base, image, path):
            if chip_name("g", 2) in path.name:
                raise OSError(errno.ENOSPC, "No space left on device")
            write(base, image, path)

        monkeypatch.setattr("balrogutils.blocks.differences.write_difference", full)
        Releasing([context]).end()
        assert "images cannot be let go" in caplog.text
        assert len(images(context.tree.nullwt_dir("g"))) == 4
        assert not context.tree.differences("g").exists()
        monkeypatch.undo()
        assert release(context) == 8

    def test_an_image_that_was_edited_is_not_let_go(self, context, job):
        path = context.tree.nullwt("g", chip_name("g", 1))
        with path.open("r+b") as stream:
            stream.seek(-3000, os.SEEK_END)
            stream.write(b"\xff")
        with pytest.raises(ProductError, match="its content has changed"):
            release(context)
        assert path.is_file()


class TestMadeAgain:
    def test_without_drawing_catalogue_or_configuration(self, made, context, job, monkeypatch):
        no_drawing(monkeypatch)
        before = images(context.tree.nullwt_dir("g"))
        release(context)
        inputs, config = context.site.base / "inputs", context.galsim_file
        moved = config.with_name("moved.yaml")
        target = inputs.readlink()
        inputs.unlink()
        config.rename(moved)
        try:
            assert restore(job) == 8
        finally:
            moved.rename(config)
            inputs.symlink_to(target)
        assert images(context.tree.nullwt_dir("g")) == before
        for path in before:
            assert path.samefile(context.tree.injected("g", path.name.removesuffix("_immasked_nullwt.fits")))
        assert verify(context, deep=True).sound

    @pytest.mark.parametrize("what", ["gone", "damaged", "cut", "another"])
    def test_drawn_where_it_cannot_be_used(self, context, job, caplog, what):
        before = images(context.tree.nullwt_dir("g"))
        release(context)
        path = context.tree.difference("g", chip_name("g", 1))
        content = path.read_bytes()
        if what == "gone":
            path.unlink()
        elif what == "damaged":
            half = len(content) // 2
            path.write_bytes(content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :])
        elif what == "cut":
            path.write_bytes(content[: len(content) // 2])
        else:
            # Recorded as it is, and yet of another image.
            shutil.copyfile(context.tree.difference("g", chip_name("g", 2)), path)
            manifest = json.loads(context.tree.differences("g").read_text())
            for one in manifest["outputs"]:
                one["sha256"] = sha256(one["path"])
            context.tree.differences("g").write_text(json.dumps(manifest))
        with caplog.at_level("INFO"):
            assert restore(job) == 8
        assert images(context.tree.nullwt_dir("g")) == before
        says = {"gone": "is gone", "another": "is of another one"}.get(what, "is damaged")
        assert re.search(f"what was kept of an injected image {says}.*the image is drawn again", caplog.text)
        assert "3 of 4 from what was kept of them" in caplog.text

    @pytest.mark.parametrize("text", ["{", '{"step": "inject differences", "inputs": [], "outputs": []}'])
    def test_drawn_where_the_manifest_is_damaged(self, context, job, text, caplog):
        before = images(context.tree.nullwt_dir("g"))
        release(context)
        context.tree.differences("g").write_text(text)
        assert restore(job) == 8
        assert images(context.tree.nullwt_dir("g")) == before
        assert caplog.text.count("the image is drawn again") == 4
        # And written anew.
        assert missing(job)

    def test_another_base_image_is_refused(self, made, context, job):
        release(context)
        base = context.base_tree.nullwt("g", chip_name("g", 1))
        content = base.read_bytes()
        with fitsio.FITS(str(base), "rw") as fits:
            fits["SCI"].write(np.full((1, 5), 7, np.float32), start=[100, 100])
        try:
            with pytest.raises(ProductError, match="would not be made again as it was"):
                restore(job)
        finally:
            base.write_bytes(content)
        assert not context.tree.nullwt("g", chip_name("g", 1)).exists()


class TestWhatOthersSay:
    def test_verify_and_repair(self, context, job):
        release(context)
        found = verify(context, deep=True)
        assert found.sound
        assert sum(block["let_go"] for block in found.document()["blocks"]) == 8
        file = kept(context)[0]
        file.write_bytes(b"x" + file.read_bytes()[1:])
        (finding,) = verify(context, deep=True).findings
        assert finding.path == file
        assert finding.maker.step == "inject"
        assert file.name in str(repair(context))
        assert verify(context, deep=True).sound
        assert not context.tree.differences("g").exists()
        # The injection is not made again for it.
        assert job.manifest.is_file()
        assert settle(context, 8) == []

    def test_status(self, context, job):
        release(context)
        (found,) = [step for step in status_of([context]).tiles[0].steps if step.job.step == "inject"]
        assert found.state is State.DONE

    def test_explain(self, context, job):
        release(context)
        chip, lineage = chip_name("g", 1), Lineage(context)
        image, file = context.tree.injected("g", chip), context.tree.difference("g", chip)
        told = _explanation(lineage, context, image, lineage.maker(image), None)
        assert told.state.endswith(f"makes it again from {file.name}")
        told = _explanation(lineage, context, file, lineage.maker(file), None)
        assert told.state == "as it was left"
        assert [step["step"] for step in told.steps] == ["plan", "inject", "inject differences"]

    def test_summary(self, context, job, tmp_path):
        before = summarize(context, tmp_path / "summary.json")
        release(context)
        after = summarize(context, tmp_path / "summary.json")

        def block(summary):
            (found,) = [one for one in summary["blocks"] if one["bit"] == 8]
            return found

        assert block(after)["products"] == block(before)["products"] + 4
        assert block(after)["jobs_done"] == block(before)["jobs_done"]
        assert block(after)["cpu_seconds"] > block(before)["cpu_seconds"]
        size = sum(path.stat().st_size for path in kept(context))
        assert block(after)["counts"]["differences_MB"] == {"g": round(size / 1e6, 3)}
        assert "differences 4" in table(after)

    def test_audit_says_how_to_have_the_images(self, context):
        release(context)
        with pytest.raises(ProductError, match="let go") as caught:
            require_images(context, "inject", ["g"])
        assert "balrog restore" in caught.value.remedy

    def test_clean(self, context):
        release(context)
        (injected,) = survey(context, ["injected"]).classes
        assert set(kept(context)) <= set(injected.files)
        clean(context, ["injected"])
        assert kept(context) == []
        assert not context.tree.differences("g").exists()


@pytest.mark.long
def test_a_run(base, command):
    """Base images are let go too; the realization comes back without its configuration."""
    tile = make_alone(base)
    words = ("--config", "mode=63", "realizations=0", "keep=differences")
    done = command("snakemake", "--cores", "2", f"tile={tile}", *words)
    assert done.returncode == 0, done.stderr[-3000:]
    root = base / "run" / "meds"
    assert not [path for path in root.rglob("*.fits") if path.name.endswith(("_nullwt.fits", "_inj.fits"))]
    files = list(root.rglob("*_balrog_diff.fits.fz"))
    assert len(files) == 2
    assert command("balrog", "verify", "--deep", tile).returncode == 0
    shutil.rmtree(base / "inputs")
    again = command("balrog", "restore", tile, "--set", "realizations=0")
    assert again.returncode == 0, again.stderr
    # Two CCDs, in the base run and under two names in the realization.
    assert again.stdout == f"{tile}: 6 images made again\n"
    assert "from what was kept of them" in again.stderr
    found = command("balrog", "verify", "--deep", tile, "--set", "realizations=0")
    assert found.returncode == 0, found.stdout + found.stderr
