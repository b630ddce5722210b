"""Fetching from an archive: missing, truncated and damaged files, file and http, nothing twice."""

import http.server
import resource
import threading
from functools import partial
from pathlib import Path

import pytest
from tenacity import wait_none

from balrogutils.archive.services import Login
from balrogutils.archive.transfer import ArchiveFile, Transfer, md5
from balrogutils.errors import ArchiveError, ConfigError, ProductError

NAMES = ("OPS/a b/D00229300_g_c01+x.fits.fz", "OPS/two.psf", "OPS/empty.ohead")


@pytest.fixture
def archive(tmp_path):
    root = tmp_path / "the archive"
    for i, name in enumerate(NAMES):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(bytes(range(256)) * 9000 if i == 0 else b"psf" * i if i == 1 else b"")
    return root


def records(root):
    return [ArchiveFile(name, (root / name).stat().st_size, md5(root / name)) for name in NAMES]


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files; answers 503 to the first requests, as a busy server does."""

    failures = 0

    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get("Authorization")))
        if self.server.failures > 0:
            self.server.failures -= 1
            self.send_error(503)
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(archive):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(archive))) as running:
        running.failures, running.requests = 0, []
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def fetch(prefix, files, target):
    return Transfer(prefix, wait=wait_none()).fetch(files, target, tile="DES0239+0216", band="g")


def leftovers(target):
    return [path for path in target.rglob("*") if path.is_file()] if target.exists() else []


def test_files_arrive_whole_under_their_paths(archive, tmp_path):
    paths = fetch(f"file://{archive}", records(archive), tmp_path / "sources")
    assert paths == [tmp_path / "sources" / name for name in NAMES]
    for name in NAMES:
        assert (tmp_path / "sources" / name).read_bytes() == (archive / name).read_bytes()
        # A copy, no link: what happens to a product must not happen to the archive.
        assert (archive / name).stat().st_nlink == 1
    assert len(leftovers(tmp_path / "sources")) == len(NAMES)


def test_verified_files_are_not_fetched_again_and_damaged_ones_are(archive, tmp_path):
    target = tmp_path / "sources"
    paths = fetch(f"file://{archive}/", records(archive), target)
    inodes = [path.stat().st_ino for path in paths]
    data = bytearray(paths[0].read_bytes())
    data[1000] ^= 1
    paths[0].write_bytes(data)
    fetch(f"file://{archive}/", records(archive), target)
    assert paths[0].read_bytes() == (archive / NAMES[0]).read_bytes()
    assert [path.stat().st_ino for path in paths[1:]] == inodes[1:]


@pytest.mark.parametrize("damage", ["missing", "truncated", "changed", "longer", "directory"])
def test_a_bad_file_of_the_archive_is_named(archive, tmp_path, damage):
    files = records(archive)
    bad = archive / NAMES[0]
    data = bytearray(bad.read_bytes())
    bad.unlink()
    if damage == "truncated":
        bad.write_bytes(data[: len(data) // 2])
    elif damage == "changed":
        data[5] ^= 255
        bad.write_bytes(data)
    elif damage == "longer":
        bad.write_bytes(data + b"x")
    elif damage == "directory":
        bad.mkdir()
    with pytest.raises(ArchiveError) as caught:
        fetch(f"file://{archive}", files, tmp_path / "sources")
    text = str(caught.value)
    assert NAMES[0] in text
    assert "tile DES0239+0216, band g" in text
    assert {
        "missing": "missing",
        "truncated": "bytes instead of",
        "changed": "MD5",
        "longer": "bytes",
        "directory": "cannot",
    }[damage] in text
    assert leftovers(tmp_path / "sources") == []


OUTSIDE = ["../secret", "/etc/passwd", "OPS/../../x", "", "..", "OPS/..", "//x"]
NO_NAME = [
    *("OPS//x", "OPS/", "./x", "OPS/.part-1", ".bashrc", "OPS/-rf", "OPS/a\0b", "OPS/a\n", "OPS/a\nb 31.2", "OPS/a\rb"),
    *("OPS/$(id)", "OPS/`id`", "OPS/a;b", "OPS/a|b", "OPS/a>b", "OPS/a'b", 'OPS/a"b', "OPS/a\\b", "OPS/a*", "OPS/a?"),
    # What cfitsio takes for a filter, an output file and a template.
    *("OPS/a.fits[1]", "OPS/a.fits(b.fits)", "OPS/!a", "OPS/@a", "OPS/a\u2028b", "OPS/\u202eb", "OPS/" + 256 * "a"),
]


@pytest.mark.parametrize("path", OUTSIDE + NO_NAME)
@pytest.mark.parametrize("prefix", ["file://{}", "https://localhost:9/"])
def test_a_name_that_could_do_harm_is_refused_before_anything_is_fetched(archive, tmp_path, path, prefix):
    files = [*records(archive), ArchiveFile(path, 1, "0" * 32)]
    with pytest.raises(ArchiveError, match="outside" if path in OUTSIDE else "file name that cannot be one") as caught:
        fetch(prefix.format(archive), files, tmp_path / "sources")
    # As Python writes it: nothing of it reaches the terminal as it is.
    assert caught.value.where["file"] == repr(path)
    assert str(caught.value).isprintable() or "\n  remedy: " in str(caught.value)
    assert leftovers(tmp_path / "sources") == []


@pytest.mark.parametrize(
    ("size", "checksum"),
    [
        (None, "0" * 32),
        (-1, "0" * 32),
        ("7", "0" * 32),
        (7, None),
        (7, "../" * 10 + "xx"),
        (7, "0" * 31),
        (7, "0" * 33),
    ],
)
def test_a_record_that_is_none_is_refused(size, checksum):
    with pytest.raises(ArchiveError, match="size or checksum that cannot be one") as caught:
        ArchiveFile.recorded("OPS/x.fits", size, checksum)
    assert caught.value.where["file"] == "OPS/x.fits"


@pytest.mark.parametrize(
    "prefix", ["/data/archive", "ftp://host/x", "file://otherhost/x", "https://me:secret@host/x", "https:///x"]
)
def test_prefixes_of_other_kinds_are_refused(prefix):
    with pytest.raises(ConfigError) as caught:
        Transfer(prefix)
    assert "secret" not in str(caught.value)


def test_a_login_never_travels_in_clear_text():
    with pytest.raises(ConfigError, match="https") as caught:
        Transfer("http://host/x", Login("me", "the-password"))
    assert "the-password" not in str(caught.value)
    assert "the-password" not in repr(Login("me", "the-password"))


def test_http_delivers_the_same(archive, tmp_path, server):
    paths = fetch(f"http://127.0.0.1:{server.server_port}", records(archive), tmp_path / "sources")
    for path, name in zip(paths, NAMES, strict=True):
        assert path.read_bytes() == (archive / name).read_bytes()


def test_a_busy_server_is_asked_again(archive, tmp_path, server):
    server.failures = 2
    fetch(f"http://127.0.0.1:{server.server_port}/", records(archive)[:1], tmp_path / "sources")
    assert len(server.requests) == 3


def test_a_server_that_stays_busy_or_lacks_the_file_is_an_error(archive, tmp_path, server):
    prefix = f"http://127.0.0.1:{server.server_port}/"
    server.failures = 99
    with pytest.raises(ArchiveError, match="503"):
        fetch(prefix, records(archive)[:1], tmp_path / "sources")
    assert len(server.requests) == 5
    server.failures = 0
    with pytest.raises(ArchiveError, match="missing in the archive"):
        fetch(prefix, [ArchiveFile("OPS/none", 3, "0" * 32)], tmp_path / "sources")
    # A file that is not there is not asked for again.
    assert len(server.requests) == 6
    assert leftovers(tmp_path / "sources") == []


def test_a_server_that_is_not_there_is_an_error(archive, tmp_path, server):
    port = server.server_port
    server.shutdown()
    server.server_close()
    with pytest.raises(ArchiveError, match="cannot be fetched"):
        fetch(f"http://127.0.0.1:{port}", records(archive)[:1], Path(tmp_path / "sources"))


def test_a_transfer_that_broke_off_is_taken_up_again(archive, tmp_path, server):
    """The server knows no ranges: the whole file comes again, and the beginning is not kept twice."""
    (file,) = records(archive)[:1]
    target = tmp_path / "sources"
    begun = target / "OPS" / "a b" / f".fetch-{file.md5}-{file.name}"
    begun.parent.mkdir(parents=True)
    begun.write_bytes((archive / file.path).read_bytes()[:1000])
    (path,) = fetch(f"http://127.0.0.1:{server.server_port}", [file], target)
    assert path.read_bytes() == (archive / file.path).read_bytes()
    assert leftovers(target) == [path]


def test_a_proxy_is_used_where_the_environment_names_one(archive, tmp_path, server, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    (file,) = records(archive)[1:2]
    with pytest.raises(ArchiveError, match="missing"):
        fetch("http://archive.example/DESFiles", [file], tmp_path / "sources")
    assert server.requests == [(f"http://archive.example/DESFiles/{file.path}", None)]
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    fetch(f"http://127.0.0.1:{server.server_port}", [file], tmp_path / "sources")
    assert server.requests[-1] == (f"/{file.path}", None)


def test_a_disk_that_is_full_is_told_and_nothing_is_kept_on_it(archive, tmp_path, server):
    (file,) = records(archive)[:1]
    prefix, target = f"http://127.0.0.1:{server.server_port}", tmp_path / "sources"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(ProductError, match="cannot be written: the file is too big") as caught:
            fetch(prefix, [file], target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.where["file"] == str(target / file.path)
    assert leftovers(target) == []
    # Not asked for again: that makes no room.
    assert len(server.requests) == 1
    fetch(prefix, [file], target)
