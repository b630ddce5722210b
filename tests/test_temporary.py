"""Images that need not be kept: let go when every step has read them, made again byte for byte when one needs them."""

import json
import multiprocessing
import os
import re
import shutil
from dataclasses import replace

import pytest
from conftest import CHECKOUT
from injection_tile import configuration, make_tile
from small_archive import SmallArchive
from small_archive import context as context_of
from small_campaign import make_alone
from test_injection_blocks import INPUTS
from test_injection_blocks import run as inject_all
from upkeep_tile import done

from balrogutils.archive.transfer import md5
from balrogutils.blocks.prep import prep
from balrogutils.blocks.temporary import make_ready, release, require_images, restore, restore_all
from balrogutils.cli.releasing import Releasing
from balrogutils.errors import ConfigError, ProductError
from balrogutils.graph import Job, jobs, predecessors, settle
from balrogutils.letgo import forget, let_go, note, record_of
from balrogutils.overview.status import State, status_of
from balrogutils.products import Step
from balrogutils.settings.pipeline import Pipeline
from balrogutils.upkeep.clean import clean
from balrogutils.upkeep.explain import _explanation
from balrogutils.upkeep.lineage import Lineage
from balrogutils.upkeep.verify import verify


def with_settings(context, **settings):
    return replace(context, pipeline=context.pipeline.model_copy(update=settings))


@pytest.fixture
def archive(tmp_path):
    return SmallArchive(tmp_path).write()


@pytest.fixture
def context(archive, tmp_path):
    """A tile of one band whose images are made, and none of which is to be kept."""
    meds = str(CHECKOUT / "desmeds-config" / "meds-y3v02.yaml")
    small = with_settings(context_of(tmp_path), keep=(), realizations=(), bands=("g",), desmeds_config=meds)
    prep(small, "g")
    return small


def images(directory):
    """What the images hold, and their times."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(directory.glob("*.fits"))}


def read_all(job):
    """Leave the manifests of the steps that read the images of one."""
    context = job.context
    for one in [*jobs(context.at(None)), *jobs(context)]:
        if job in predecessors(one):
            done(one)


@pytest.fixture
def read(context):
    """The same, when every step has read them."""
    read_all(Job("prep", context, "g"))
    return context


@pytest.mark.parametrize(
    ("given", "kept"), [("none", ()), ("nullwt", ("nullwt",)), ("injected nullwt", ("injected", "nullwt"))]
)
def test_the_setting(given, kept):
    assert Pipeline.model_validate({"keep": given}).keep == kept
    assert Pipeline().keep == ("nullwt", "injected")


@pytest.mark.parametrize(
    ("given", "says"), [("meds", "what may be kept is nullwt injected differences"), ("", "nothing is named")]
)
def test_a_setting_that_is_none_is_refused(base, given, says):
    with pytest.raises(ConfigError, match=says):
        Pipeline.load(base / "etc" / "pipeline.yaml", {"keep": given})


def test_a_tile_of_which_nothing_is_made(tmp_path):
    SmallArchive(tmp_path).write()
    nothing = with_settings(context_of(tmp_path), keep=(), realizations=(), bands=("g",))
    assert release(nothing) == 0
    assert restore_all(nothing) == 0
    assert let_go(Job("prep", nothing, "g").manifest) == frozenset()


class TestWhatStays:
    def test_images_that_a_step_has_not_read(self, context):
        assert release(context) == 0
        done(Job("coadd", context, "g"))
        assert release(context) == 0
        assert len(images(context.tree.nullwt_dir("g"))) == 4

    def test_images_that_are_newer_than_what_was_made_from_them(self, read):
        """Block 1 was done again: the others are about to be."""
        coadd = Job("coadd", read, "g").manifest
        status = coadd.stat()
        os.utime(coadd, ns=(status.st_atime_ns, Job("prep", read, "g").manifest.stat().st_mtime_ns - 1))
        assert release(read) == 0

    def test_images_that_the_settings_keep(self, read):
        assert release(with_settings(read, keep=("nullwt",))) == 0
        assert release(with_settings(read, keep=("injected",))) == 4

    def test_images_that_were_made_elsewhere(self, read):
        manifest = Job("prep", read, "g").manifest
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"adopted": True}))
        read_all(Job("prep", read, "g"))
        assert release(read) == 0

    def test_everything_but_the_images(self, read):
        before = set(read.tree.dir.rglob("*"))
        gone = set(images(read.tree.nullwt_dir("g")))
        release(read)
        left = set(read.tree.dir.rglob("*"))
        assert before - left == gone
        manifest = Job("prep", read, "g").manifest
        assert {path.name for path in left - before} == {"let-go", record_of(manifest).name}
        assert let_go(manifest) == gone


class TestMadeAgain:
    def test_byte_for_byte_and_with_their_times(self, read):
        before = images(read.tree.nullwt_dir("g"))
        manifest = Job("prep", read, "g").manifest
        made = manifest.stat().st_mtime_ns
        assert release(read) == 4
        assert restore(Job("prep", read, "g")) == 4
        assert images(read.tree.nullwt_dir("g")) == before
        assert manifest.stat().st_mtime_ns == made
        assert not record_of(manifest).exists()
        assert verify(read, deep=True).sound
        assert restore(Job("prep", read, "g")) == 0
        assert not list(read.site.tmp.iterdir())

    def test_by_the_step_that_is_about_to_read_them(self, read):
        release(read)
        make_ready("catalog", read, ["g"])
        assert images(read.tree.nullwt_dir("g")) == {}
        make_ready("meds", read, ["g"])
        assert len(images(read.tree.nullwt_dir("g"))) == 4

    def test_one_that_is_there_is_left_alone(self, read):
        """A run was killed after the record and before the removal of all of them."""
        paths = sorted(images(read.tree.nullwt_dir("g")))
        note(Job("prep", read, "g").manifest, paths)
        paths[0].unlink()
        times = [path.stat().st_ino for path in paths[1:]]
        assert verify(read).sound
        assert restore(Job("prep", read, "g")) == 1
        assert [path.stat().st_ino for path in paths[1:]] == times

    def test_by_one_of_two_processes_alone(self, read):
        release(read)
        before = multiprocessing.get_context("fork")
        results = before.Queue()

        def work():
            results.put(restore(Job("prep", read, "g")))

        processes = [before.Process(target=work) for _ in range(2)]
        for one in processes:
            one.start()
        counts = sorted(results.get(timeout=60) for _ in processes)
        for one in processes:
            one.join()
        assert counts == [0, 4]

    def test_another_image_of_the_archive_is_refused(self, archive, read):
        """It is not what the coadds were made of."""
        release(read)
        chip = archive.chips["g"][0]
        file = archive.file(f"{chip}_immasked.fits.fz")
        other = archive.file(f"{archive.chips['g'][1]}_immasked.fits.fz")
        shutil.copyfile(other, file)
        for row in archive.rows["y3a2_desfile"]:
            if row["filename"] == file.name.removesuffix(".fz"):
                row |= {"filesize": file.stat().st_size, "md5sum": md5(file)}
        archive.write()
        with pytest.raises(ProductError, match="would not be made again as it was") as caught:
            restore(Job("prep", read, "g"))
        assert chip in caught.value.where["file"]
        assert "--forcerun" in caught.value.remedy
        assert not read.tree.nullwt("g", chip).exists()
        assert let_go(Job("prep", read, "g").manifest)

    def test_an_injected_image_keeps_its_two_names(self, tmp_path):
        context = make_tile(tmp_path / "tile", INPUTS, configuration(), bands=("g",))
        context = with_settings(context, keep=())
        tree = inject_all(context)
        before = images(tree.nullwt_dir("g"))
        job = Job("inject", context, "g")
        read_all(job)
        # Four images under two names each; those of the base run have no manifest here.
        assert release(context) == 8
        assert images(tree.nullwt_dir("g")) == {}
        assert restore(job) == 8
        assert images(tree.nullwt_dir("g")) == before
        for path in before:
            assert path.samefile(tree.injected("g", path.name.removesuffix("_immasked_nullwt.fits")))


class TestWhatOthersSay:
    def test_a_run_does_not_make_the_step_again(self, read):
        release(read)
        assert settle(read, 1) == []

    @pytest.mark.parametrize("text", ["{", "[]", '{"manifest_sha256": 1, "files": {}}'])
    def test_with_a_damaged_record_it_does(self, read, text):
        release(read)
        manifest = Job("prep", read, "g").manifest
        record_of(manifest).write_text(text)
        assert settle(read, 1) == [manifest]

    def test_without_one_they_are_lost(self, read):
        release(read)
        forget(Job("prep", read, "g").manifest)
        assert not verify(read).sound

    def test_a_step_that_is_done_again_has_let_nothing_go(self, read):
        release(read)
        prep(read, "g")
        manifest = Job("prep", read, "g").manifest
        assert let_go(manifest) == frozenset()
        read.tree.nullwt("g", "D00229300_g_c01_r2356p01").unlink()
        assert not verify(read).sound

    def test_verify(self, read):
        release(read)
        found = verify(read, deep=True)
        assert found.sound
        assert f"Let go on purpose: 4 images; balrog restore {read.tile} makes them again." in str(found)
        assert sum(block["let_go"] for block in found.document()["blocks"]) == 4

    def test_status(self, read):
        release(read)
        (prepared,) = [step for step in status_of([read]).tiles[0].steps if step.job.step == "prep"]
        assert prepared.state is State.DONE

    def test_explain(self, read):
        path = sorted(images(read.tree.nullwt_dir("g")))[0]
        release(read)
        lineage = Lineage(read)
        told = _explanation(lineage, read, path, lineage.maker(path), None)
        assert told.state == f"let go on purpose; balrog restore {read.tile} makes it again"
        assert not told.again["would"]

    def test_a_step_that_reads_them_all_the_same(self, read, tmp_path):
        path = sorted(images(read.tree.nullwt_dir("g")))[0]
        release(read)
        before = [Job("prep", read, "g").manifest]
        with (
            pytest.raises(ProductError, match="a product is gone") as caught,
            Step(tmp_path / "x.json", "x", before=before) as step,
        ):
            step.read(path)
        assert "balrog restore" in caught.value.remedy
        with pytest.raises(ProductError, match="let go when they had been read"):
            require_images(read, "prep", ["g"])

    def test_clean_forgets_them(self, read):
        release(read)
        clean(read, ["prepared"])
        assert not record_of(Job("prep", read, "g").manifest).exists()

    def test_a_run_lets_them_go_at_its_end_at_the_latest(self, read):
        running = Releasing([read])
        assert len(images(read.tree.nullwt_dir("g"))) == 4
        running.end()
        assert images(read.tree.nullwt_dir("g")) == {}

    def test_a_directory_that_takes_no_record_stops_no_run(self, read, monkeypatch, caplog):
        def refuse(*_):
            raise OSError("no room")

        monkeypatch.setattr("balrogutils.blocks.temporary.note", refuse)
        Releasing([read]).end()
        assert "images cannot be let go: no room" in caplog.text
        assert len(images(read.tree.nullwt_dir("g"))) == 4


@pytest.mark.long
def test_a_realization_that_is_added_makes_nothing_of_the_others_again(base, command):
    """And the images of the base run again, for it alone."""
    tile = make_alone(base)

    def run(realizations):
        words = ("--config", "mode=63", f"realizations={realizations}", "keep=none")
        done = command("snakemake", "--cores", "2", f"tile={tile}", *words)
        assert done.returncode == 0, done.stderr[-3000:]
        return dict(re.findall(r"^(\w+) +(\d+)$", done.stderr + done.stdout, re.MULTILINE))

    assert run("0")["total"] == "15"
    root = base / "run" / "meds"
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.suffix in (".json", ".fits", ".fz")}
    assert not [path for path in before if path.name.endswith(("_nullwt.fits", "_inj.fits"))]
    counts = run("0,1")
    steps = ("plan", "inject", "truth", "coadd", "detection", "psf_maps", "catalog", "meds")
    assert counts == {**dict.fromkeys(steps, "1"), "total": "9"}
    assert not list(root.rglob("*_nullwt.fits"))
    left = {path: path.stat().st_mtime_ns for path in before if path.parent.name != "let-go" and path.exists()}
    assert left == {path: time for path, time in before.items() if path.parent.name != "let-go"}
    again = command("balrog", "restore", tile, "--set", "realizations=0,1")
    assert again.returncode == 0, again.stderr
    # Two CCDs, in the base run and under two names in each realization.
    assert again.stdout == f"{tile}: 10 images made again\n"
    for words in (("balrog", "verify", "--deep", tile), ("balrog", "audit", tile, "--set", "realizations=0,1")):
        found = command(*words)
        assert found.returncode == 0, found.stdout + found.stderr
