"""Files that tiles share: fetched once, whole or not at all, there for as long as a tile has them."""

import errno
import http.server
import json
import multiprocessing
import os
import random
import shutil
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from test_transfer import Handler, records
from test_transfer import archive as archive
from upkeep_tile import context_of, done, flip, image, make_base

from balrogutils.archive.begun import begun, begun_name
from balrogutils.archive.geometry import Geometry
from balrogutils.archive.shared import SharedFiles
from balrogutils.archive.transfer import ArchiveFile, Transfer, md5
from balrogutils.context import Installation
from balrogutils.errors import ArchiveError, InputError
from balrogutils.graph import Job
from balrogutils.overview.plan import make_plan
from balrogutils.products import link_or_copy, read_manifest
from balrogutils.upkeep.clean import clean, survey
from balrogutils.upkeep.explain import explain
from balrogutils.upkeep.repair import repair
from balrogutils.upkeep.verify import verify

NEIGHBOUR = "DES0240+0216"


@pytest.fixture
def shared(tmp_path):
    return SharedFiles(tmp_path / "meds" / "shared")


def fetch(root, tile, shared, files=None):
    """Fetch for a tile, from a directory; the tiles lie beside what they share."""
    target = shared.directory.parent / tile
    wanted = records(root) if files is None else files
    return Transfer(f"file://{root}").fetch(wanted, target, tile=tile, band="g", shared=shared)


def everything(directory):
    return [path for path in directory.rglob("*") if path.is_file()]


def test_a_directory_without_files(shared):
    assert shared.inodes() == {}
    assert shared.unclaimed() == []
    shared.tidy()
    shared.release([])
    assert fetch(Path("/nowhere"), "a", shared, []) == []


def test_an_upper_case_checksum_is_the_same_file(archive, shared):
    (file,) = records(archive)[:1]
    fetch(archive, "a", shared, [file])
    loud = ArchiveFile(file.path, file.size, file.md5.upper())
    shutil.rmtree(archive)
    (path,) = fetch(archive, "b", shared, [loud])
    assert md5(path) == file.md5


def test_the_second_tile_fetches_nothing(archive, shared, caplog):
    """The archive is gone by then, and both tiles have one file under two names."""
    caplog.set_level("INFO")
    files = records(archive)
    first = fetch(archive, "a", shared, files)
    shutil.rmtree(archive)
    second = fetch(archive, "b", shared, files)
    assert all(one.samefile(other) for one, other in zip(first, second, strict=True))
    assert {path.stat().st_nlink for path in first} == {3}
    assert "b g: fetched 0 files (0.0 MB), 3 came from other tiles, 0 were there and verified" in caplog.text
    assert len(everything(shared.directory)) == len(first)


def test_another_version_of_a_file_is_another_file(archive, shared):
    (old,) = records(archive)[1:2]
    (mine,) = fetch(archive, "a", shared, [old])
    (archive / old.path).write_bytes(b"reprocessed")
    (new,) = records(archive)[1:2]
    (other,) = fetch(archive, "b", shared, [new])
    assert (mine.read_bytes(), other.read_bytes()) == (b"psf", b"reprocessed")


def test_a_file_that_was_spoiled_is_fetched_again_and_the_other_tile_keeps_what_it_has(archive, shared):
    (file,) = records(archive)[:1]
    (mine,) = fetch(archive, "a", shared, [file])
    flip(mine)
    (other,) = fetch(archive, "b", shared, [file])
    assert md5(other) == file.md5
    assert md5(mine) != file.md5
    # Its next run finds the whole one.
    (mended,) = fetch(archive, "a", shared, [file])
    assert mended.samefile(other)


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_bad_file_of_the_archive_leaves_nothing(archive, shared, damage):
    (file,) = records(archive)[:1]
    if damage == "missing":
        (archive / file.path).unlink()
    else:
        os.truncate(archive / file.path, 100)
    with pytest.raises(ArchiveError, match="missing" if damage == "missing" else "damaged"):
        fetch(archive, "a", shared, [file])
    assert everything(shared.directory.parent) == []


def test_where_there_are_no_hard_links_each_tile_has_a_copy_and_nothing_else(archive, shared, monkeypatch):
    def refuse(*_words, **_more):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("balrogutils.archive.transfer.os.link", refuse)
    paths = [path for tile in "ab" for path in fetch(archive, tile, shared)]
    assert {path.stat().st_nlink for path in paths} == {1}
    assert everything(shared.directory) == []
    assert len(everything(shared.directory.parent)) == 6


def test_a_disk_that_is_full_is_told_and_takes_nothing_away(archive, shared, monkeypatch):
    files = records(archive)
    fetch(archive, "a", shared, files[:1])

    def full(*_words, **_more):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("balrogutils.archive.transfer.shutil.copyfile", full)
    with pytest.raises(Exception, match="the disk is full"):
        fetch(archive, "b", shared, files[1:2])
    assert len(everything(shared.directory)) == 1
    monkeypatch.undo()
    assert md5(fetch(archive, "b", shared, files[1:2])[0]) == files[1].md5


class Slow(Handler):
    """A server that takes its time, so that two tiles ask for a file at once."""

    def copyfile(self, source, outputfile):
        while block := source.read(200_000):
            outputfile.write(block)
            time.sleep(0.02)


@pytest.fixture
def server(archive):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Slow, directory=str(archive))) as running:
        running.failures, running.requests = 0, []
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def _fetch_over_the_network(port, shared, files, tile, gate):
    gate.wait()
    transfer = Transfer(f"http://127.0.0.1:{port}/")
    transfer.fetch(files, shared.directory.parent / tile, tile=tile, band="g", shared=shared)


def started(port, shared, files, *tiles):
    """Start a process a tile that fetches when all are ready."""
    fresh = multiprocessing.get_context("fork")
    gate = fresh.Barrier(len(tiles))
    processes = [
        fresh.Process(target=_fetch_over_the_network, args=(port, shared, files, tile, gate)) for tile in tiles
    ]
    for one in processes:
        one.start()
    return processes


def test_tiles_that_want_a_file_at_once_fetch_it_once(archive, shared, server):
    files = records(archive)
    processes = started(server.server_port, shared, files, *"abcd")
    for one in processes:
        one.join(60)
    assert [one.exitcode for one in processes] == [0] * 4
    assert sorted(path for path, _ in server.requests) == sorted({path for path, _ in server.requests})
    assert len(server.requests) == len(files)
    assert {path.stat().st_nlink for path in everything(shared.directory.parent)} == {5}


def test_a_killed_fetch_is_taken_up_by_another_tile(archive, shared, server):
    (file,) = records(archive)[:1]
    unfinished = begun_name(shared.name(file.md5), file.md5)
    (victim,) = started(server.server_port, shared, [file], "a")
    limit = time.monotonic() + 30
    while not (unfinished.exists() and unfinished.stat().st_size > 200_000) and time.monotonic() < limit:
        time.sleep(0.01)
    os.kill(victim.pid, signal.SIGKILL)
    victim.join(30)
    assert unfinished.is_file()
    assert not shared.name(file.md5).exists()
    assert unfinished in shared.unclaimed()
    (path,) = fetch(archive, "b", shared, [file])
    assert md5(path) == file.md5
    assert everything(shared.directory) == [shared.name(file.md5)]


def _come_and_go(root, shared, files, number):
    chosen = random.Random(number)
    target = shared.directory.parent / f"tile {number}"
    for _ in range(10):
        wanted = chosen.sample(files, 6)
        paths = Transfer(f"file://{root}").fetch(wanted, target, tile="t", band="g", shared=shared)
        assert [md5(path) for path in paths] == [file.md5 for file in wanted]
        known = shared.inodes()
        status = [path.stat() for path in everything(target)]
        shutil.rmtree(target)
        shared.release(known[one.st_dev, one.st_ino] for one in status if (one.st_dev, one.st_ino) in known)
        if chosen.random() < 0.3:
            shared.tidy()


def test_tiles_that_come_and_go_lose_nothing_and_leave_nothing(tmp_path, shared):
    """Four processes fetch, remove and tidy up the same few files."""
    root = tmp_path / "the archive"
    root.mkdir()
    for number in range(9):
        (root / f"f{number}").write_bytes(bytes([number]) * 200_000)
    files = [ArchiveFile(path.name, 200_000, md5(path)) for path in sorted(root.iterdir())]
    fresh = multiprocessing.get_context("fork")
    processes = [fresh.Process(target=_come_and_go, args=(root, shared, files, number)) for number in range(4)]
    for one in processes:
        one.start()
    for one in processes:
        one.join(120)
    assert [one.exitcode for one in processes] == [0] * 4
    assert everything(shared.directory.parent) == []


def test_a_process_that_has_finished_leaves_alone_what_another_begins(tmp_path):
    """The second one's file was removed under it: it is empty when the first one looks."""
    path, checksum = tmp_path / "x", "0" * 32
    with begun(path, checksum) as first:
        first.write_bytes(b"whole")
        first.replace(path)
        other = begun(path, checksum)
        second = other.__enter__()
    assert second.is_file()
    other.__exit__(None, None, None)
    assert everything(tmp_path) == [path]


# upkeep: two tiles made by hand, one of whose files is shared


@pytest.fixture
def tiles(base, tmp_path):
    """Two base runs, each with a fetched file of its own and one that both have."""
    first = context_of(base)
    second = Installation.load(environ={"BALROG_BASE": str(base)}).context(NEIGHBOUR)
    root = tmp_path / "the archive"
    shared = SharedFiles(first.site.shared)
    for context in (first, second):
        make_base(context)
        for name in ("both", context.tile):
            image(root / f"{name}.fits", seed=50 if name == "both" else 51 + (context is first))
        files = [
            ArchiveFile(f"{name}.fits", (root / f"{name}.fits").stat().st_size, md5(root / f"{name}.fits"))
            for name in ("both", context.tile)
        ]
        transfer = Transfer(f"file://{root}")
        paths = transfer.fetch(files, context.tree.sources("g"), tile=context.tile, band="g", shared=shared)
        psf = context.tree.psfs / "x.psf"
        link_or_copy(paths[0], psf)
        done(Job("prep", context, "g"), *paths, psf)
    return first, second, shared


def used(directory):
    """Bytes on disk of everything but manifests and locks, each file once."""
    kept = (path.stat() for path in everything(directory) if path.parent.name not in ("manifests", "logs"))
    return sum({status.st_ino: 512 * status.st_blocks for status in kept}.values())


def test_a_tile_takes_only_its_own_with_it(tiles):
    first, second, shared = tiles
    both = next(second.tree.sources("g").glob("both*"))
    for context, left in ((first, 2), (second, 0)):
        before = used(context.site.meds_data)
        (found,) = [one for one in survey(context).classes if one.name == "prepared"]
        clean(context, ["prepared"])
        assert before - used(context.site.meds_data) == found.frees
        assert len(everything(shared.directory)) == left
        if context is first:
            assert both.stat().st_nlink == 3
            assert verify(second).sound


def test_a_file_that_a_tile_uses_under_another_name_stays_shared(tiles):
    first, _, shared = tiles
    kept = first.tree.dir.parent / "mine.fits"
    kept.hardlink_to(next(first.tree.sources("g").glob("DES*")))
    clean(first, ["prepared"])
    assert shared.name(md5(kept)).samefile(kept)


def test_what_no_tile_has_is_a_leftover(tiles):
    """The user removed a whole tile by hand."""
    first, second, shared = tiles
    shutil.rmtree(first.tree.dir)
    (found,) = survey(second, ["leftovers"]).classes
    assert len(found.files) == 1
    clean(second, ["leftovers"], dry_run=True)
    assert len(everything(shared.directory)) == 3
    clean(second, ["leftovers"])
    assert len(everything(shared.directory)) == 2
    assert verify(second).sound


def test_repair_of_a_spoiled_file_takes_nothing_from_the_other_tile(tiles):
    first, second, _ = tiles
    both = next(second.tree.sources("g").glob("both*"))
    flip(next(first.tree.sources("g").glob("both*")))
    # One file: both tiles are told.
    assert not verify(first, deep=True).sound
    assert not verify(second, deep=True).sound
    repair(first)
    assert both.is_file()


def test_a_shared_file_is_explained_by_its_tiles(tiles, base):
    _, _, shared = tiles
    installation = Installation.load(environ={"BALROG_BASE": str(base)})
    name = everything(shared.directory)[0]
    with pytest.raises(InputError, match="shared by tiles") as caught:
        explain(installation, str(name))
    assert "-samefile" in caught.value.remedy


def test_shared_files_are_on_disk_once(tiles):
    contexts = tiles[:2]
    for context in contexts:
        Geometry.tangent(context.tile, 39.96, 2.27, 1000, 1000, 0.263, {}).write(context.tree.geometry)
        for band in "griz":
            manifest = Job("prep", context, band).manifest
            manifest.write_text(json.dumps(read_manifest(manifest) | {"counts": {"chips": 11, "exposures": 5}}))

    def left(context):
        documents = [read_manifest(Job("prep", context, band).manifest) for band in "griz"]
        return [{one["sha256"]: one["size"] for one in document["outputs"]} for document in documents]

    first, second = map(left, contexts)
    same = sum(size for one in second for key, size in one.items() if any(key in other for other in first))
    assert same >= next(contexts[0].tree.sources("g").glob("both*")).stat().st_size
    alone = sum(make_plan([context], injections=10).rows[0].fact.disk for context in contexts)
    assert alone - make_plan(contexts, injections=10).rows[0].fact.disk == same
