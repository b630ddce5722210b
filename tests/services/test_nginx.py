"""Fetching over TLS with a login from an nginx that drops connections, truncates, refuses, answers errors, is slow."""

import os
import shutil
import threading
import time

import psutil
import pytest
from daemons import PASSWORD, USER, free_port
from nginx import Nginx
from tenacity import wait_fixed, wait_none

from balrogutils.archive.begun import BEGUN_PREFIX
from balrogutils.archive.services import Login
from balrogutils.archive.transfer import ArchiveFile, Transfer, md5
from balrogutils.errors import ArchiveError
from balrogutils.randomness import stream

pytestmark = pytest.mark.long
NAMES = ("OPS/red/D00229300_g_c01.fits.fz", "OPS/red/D00229300_g_c02.fits.fz", "OPS/psf/a b+c.psf", "OPS/empty.ohead")
SIZES = (700_000, 300_000, 1000, 0)
LOGIN = Login(USER, PASSWORD, place="section db-dessci of services.ini")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    directory = tmp_path_factory.mktemp("the archive")
    for name, size in zip(NAMES, SIZES, strict=True):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(stream(1, "test", name).bytes(size))
    return directory


@pytest.fixture(scope="module")
def running(root):
    with Nginx(root) as server:
        yield server


@pytest.fixture
def server(running, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(running.authority))
    running.serve()
    return running


@pytest.fixture
def files(root):
    return [ArchiveFile(name, (root / name).stat().st_size, md5(root / name)) for name in NAMES]


def fetch(server, files, target, login=LOGIN, **settings):
    transfer = Transfer(server.prefix, login, **({"wait": wait_none()} | settings))
    return transfer.fetch(files, target, tile="DES0239+0216", band="g")


def require_arrived(root, paths, target):
    for path, name in zip(paths, NAMES, strict=False):
        assert path.read_bytes() == (root / name).read_bytes()
    assert sorted(path for path in target.rglob("*") if path.is_file()) == sorted(paths)


def begun(target):
    return [path for path in target.rglob("*") if path.is_file()]


def test_files_arrive_over_few_connections(root, server, files, tmp_path):
    require_arrived(root, fetch(server, files, tmp_path / "a", connections=2), tmp_path / "a")
    lines = server.requests()
    assert len(lines) == len(NAMES)
    assert all(line.startswith("200 GET") and f" {USER} " in line for line in lines)
    # As many connections as were allowed, each for several files.
    assert len({line.split()[-1] for line in lines}) <= 2


def test_no_more_connections_than_were_asked_for(root, server, tmp_path, files):
    server.serve("limit_conn all 2; limit_conn_status 503; limit_rate 600k;")
    require_arrived(root, fetch(server, files, tmp_path / "a", connections=2), tmp_path / "a")
    assert not [line for line in server.requests() if line.startswith("503")]


def test_a_server_that_allows_fewer_is_asked_again(root, server, tmp_path, files):
    server.serve("limit_conn all 1; limit_conn_status 503; limit_rate 150k;")
    # The two large ones last, and so at the same time.
    paths = fetch(server, files[::-1], tmp_path / "a", connections=4, wait=wait_fixed(1.5))
    require_arrived(root, paths[::-1], tmp_path / "a")
    assert [line for line in server.requests() if line.startswith("503")]


# The outer server gives up on the inner one, which pauses after each burst, and drops the connection.
DROPPING = "proxy_pass https://127.0.0.1:{inner}; proxy_buffering off; proxy_read_timeout 300ms; proxy_ssl_verify off;"
INNER = """}} server {{
    listen 127.0.0.1:{inner} ssl;
    ssl_certificate {directory}/good.crt;
    ssl_certificate_key {directory}/good.key;
    access_log off;
    location / {{ root "{root}"; limit_rate 150k; {settings} }}
"""


def dropping(server, settings=""):
    inner = free_port()
    more = INNER.format(inner=inner, directory=server.directory, root=server.root, settings=settings)
    server.serve(DROPPING.format(inner=inner), more)


def test_a_transfer_goes_on_where_the_connection_was_dropped(root, server, tmp_path, files):
    dropping(server)
    require_arrived(root, fetch(server, files[:1], tmp_path / "a"), tmp_path / "a")
    parts = [line.split() for line in server.requests()]
    starts = [0 if part[3] == "-" else int(part[3].removeprefix("bytes=").rstrip("-")) for part in parts]
    assert len(starts) > 2
    assert starts == sorted(set(starts))
    assert {part[0] for part in parts} == {"200", "206"}


def test_a_server_that_knows_no_ranges_and_drops_is_given_up(server, tmp_path, files):
    dropping(server, "max_ranges 0;")
    with pytest.raises(ArchiveError, match="cannot be fetched") as caught:
        fetch(server, files[:1], tmp_path / "a")
    assert "goes on where it broke off" in caught.value.remedy
    assert [path.name.startswith(BEGUN_PREFIX) for path in begun(tmp_path)] == [True]


def test_a_server_that_knows_no_ranges_sends_the_whole(root, server, tmp_path, files):
    server.serve("max_ranges 0;")
    break_off(server, root, files[0], tmp_path / "a", 5000)
    require_arrived(root, fetch(server, files[:1], tmp_path / "a"), tmp_path / "a")


def break_off(server, root, file, target, length, content=None):
    """Leave what a run that was killed in the middle leaves."""
    path = target / file.path
    path.parent.mkdir(parents=True)
    whole = (root / file.path).read_bytes()
    path.with_name(f"{BEGUN_PREFIX}{file.md5}-{file.name}").write_bytes((content or whole)[:length])


def test_another_run_goes_on_where_a_killed_one_ended(root, server, tmp_path, files):
    break_off(server, root, files[0], tmp_path / "a", 650_000)
    require_arrived(root, fetch(server, files[:1], tmp_path / "a"), tmp_path / "a")
    (line,) = server.requests()
    assert line.split()[0] == "206"
    assert line.split()[3] == "bytes=650000-"


@pytest.mark.parametrize("length", [650_000, 700_000, 800_000])
def test_what_is_of_no_use_is_fetched_again(root, server, tmp_path, files, length, caplog):
    break_off(server, root, files[0], tmp_path / "a", length, b"\0" * length)
    require_arrived(root, fetch(server, files[:1], tmp_path / "a"), tmp_path / "a")


def test_what_was_begun_of_another_version_is_not_touched_and_then_removed(root, server, tmp_path, files):
    old = ArchiveFile(files[0].path, files[0].size, "0" * 32)
    break_off(server, root, old, tmp_path / "a", 1000)
    require_arrived(root, fetch(server, files[:1], tmp_path / "a"), tmp_path / "a")
    assert server.requests()[0].startswith("200")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("truncated", "699900 bytes instead of 700000"),
        ("longer", "700001 bytes instead of 700000"),
        ("changed", "MD5"),
        ("missing", "missing in the archive"),
    ],
)
def test_a_bad_file_is_never_seen_under_its_name(root, server, tmp_path, files, damage, says):
    bad = tmp_path / "bad archive"
    shutil.copytree(root, bad)
    file = bad / NAMES[0]
    data = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes({"truncated": data[:-100], "longer": data + b"x", "changed": b"x" + data[1:]}[damage])
    server.serve(root=f'"{bad}"')
    target = tmp_path / "a"
    with pytest.raises(ArchiveError, match=says) as caught:
        fetch(server, files, target)
    assert NAMES[0] in str(caught.value)
    assert "tile DES0239+0216, band g" in str(caught.value)
    assert not (target / NAMES[0]).exists()
    assert len(server.requests()) == 1
    server.serve()
    require_arrived(root, fetch(server, files, target), target)


@pytest.mark.parametrize(
    ("settings", "says", "remedy", "requests"),
    [
        ("deny all;", "forbids this file", "ask for the right", 1),
        ("return 404;", "missing in the archive", "campaigns.yaml", 1),
        ("return 500;", "answered 500 Internal Server Error", "wait until", 5),
        ("return 503;", "answered 503 Service Temporarily Unavailable", "wait until", 5),
        ("return 302 https://elsewhere.example/login;", "sends us elsewhere", "`archive`", 1),
        ("return 444;", "cannot be fetched: the connection broke off", "can be reached", 0),
    ],
)
def test_an_answer_that_is_no_file_is_told(server, tmp_path, files, settings, says, remedy, requests):
    server.serve(settings)
    with pytest.raises(ArchiveError, match=says) as caught:
        fetch(server, files, tmp_path / "a")
    assert remedy in caught.value.remedy
    assert NAMES[0] in str(caught.value)
    assert PASSWORD not in str(caught.value)
    assert begun(tmp_path) == []
    # 444 closes without an answer.
    assert len(server.requests()) == (requests or 5)


def once(condition, action):
    """Do something in a thread of its own as soon as a condition holds; return the thread."""

    def watch():
        limit = time.monotonic() + 30
        while not condition() and time.monotonic() < limit:
            time.sleep(0.02)
        action()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def half_way(target):
    return lambda: any(path.stat().st_size > 50_000 for path in target.rglob(f"{BEGUN_PREFIX}*"))


def test_the_server_says_how_long_to_wait(root, server, tmp_path, files):
    server.serve("add_header Retry-After 2 always; return 503;")
    back = once(lambda: (server.directory / "access").read_text().startswith("503"), server.serve)
    started = time.monotonic()
    require_arrived(root, fetch(server, files[:1], tmp_path / "a"), tmp_path / "a")
    back.join()
    assert time.monotonic() - started > 2.0


def test_a_wrong_password_is_tried_once(server, tmp_path, files):
    wrong = Login(USER, "not the pässword", place="section db-dessci of services.ini")
    with pytest.raises(ArchiveError, match="refuses the login") as caught:
        fetch(server, files, tmp_path / "a", wrong, connections=4)
    assert "user and passwd in section db-dessci of services.ini" in caught.value.remedy
    assert "not the p" not in str(caught.value)
    assert len(server.requests()) == 1
    server.serve()
    with pytest.raises(ArchiveError, match="asks for a login"):
        fetch(server, files, tmp_path / "a", None)


@pytest.mark.parametrize(
    ("certificate", "authority", "says"),
    [
        ("good", False, "unable to get local issuer certificate"),
        ("other", True, "not valid for 'localhost'"),
        ("expired", True, "certificate has expired"),
    ],
)
def test_a_certificate_that_proves_nothing_ends_it(server, tmp_path, files, monkeypatch, certificate, authority, says):
    server.serve(certificate=certificate)
    if not authority:
        monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(ArchiveError, match="certificate of the archive's server is not accepted") as caught:
        fetch(server, files, tmp_path / "a")
    assert says in str(caught.value)
    assert "SSL_CERT_FILE" in caught.value.remedy
    # The login was not sent, not even once.
    assert server.requests() == []


def test_a_slow_server_is_waited_for_and_one_that_trickles_is_not(root, server, tmp_path, files, monkeypatch):
    server.serve("limit_rate 300k;")
    require_arrived(root, fetch(server, files[:1], tmp_path / "a", silent=1.5), tmp_path / "a")
    assert len(server.requests()) == 1
    monkeypatch.setattr("balrogutils.archive.web._SLOWEST", 1e6)
    with pytest.raises(ArchiveError, match="slower than 1000000 bytes a second"):
        server.serve("limit_rate 4k;")
        fetch(server, files[:1], tmp_path / "b", silent=1.5)


def test_a_server_that_falls_silent_is_left_and_taken_up_again(root, server, tmp_path, files):
    server.serve("limit_rate 200k;")
    frozen = server.frozen()

    def freeze():
        with frozen:
            time.sleep(2.0)

    freezing = once(half_way(tmp_path), freeze)
    paths = fetch(server, files[:1], tmp_path / "a", silent=1.5, wait=wait_fixed(0.5))
    freezing.join()
    require_arrived(root, paths, tmp_path / "a")
    assert [line.split()[0] for line in server.requests()][-1] == "206"


def test_a_server_that_dies_and_comes_back_midway(root, server, tmp_path, files):
    server.serve("limit_rate 200k;")

    def die():
        for one in server.family():
            one.kill()
        server.process.wait()
        server.process = None
        time.sleep(0.5)
        server.serve()

    dying = once(half_way(tmp_path), die)
    paths = fetch(server, files[:1], tmp_path / "a", wait=wait_fixed(0.5))
    dying.join()
    require_arrived(root, paths, tmp_path / "a")
    assert server.requests()[-1].startswith("206")


def test_two_processes_that_fetch_the_same_file_do_not_mix(root, server, tmp_path, files):
    server.serve("limit_rate 300k;")
    target = tmp_path / "a"
    found = []
    both = [threading.Thread(target=lambda: found.append(fetch(server, files[:1], target))) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(60)
    assert len(found) == 2
    require_arrived(root, found[0], target)


def test_no_thread_or_connection_is_left(server, tmp_path, files):
    fetch(server, files, tmp_path / "a")
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("ThreadPool")]
    time.sleep(0.1)
    ours = psutil.Process(os.getpid()).net_connections()
    assert not [line for line in ours if line.raddr and line.raddr.port == server.port and line.status == "ESTABLISHED"]
