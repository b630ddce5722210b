"""Block 1 on a PostgreSQL server: the products of the embedded database, and what happens when the server fails."""

import logging
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from daemons import PASSWORD
from identical import differences
from postgres import Postgres
from small_archive import TILE, SmallArchive, context

from balrogutils.archive import noirlab
from balrogutils.archive.queries import Database
from balrogutils.blocks.prep import prep
from balrogutils.context import Context
from balrogutils.errors import ArchiveError
from balrogutils.products import read_manifest

pytestmark = pytest.mark.long
URL = "postgresql+psycopg:///dessci"


@pytest.fixture(scope="module")
def server():
    with Postgres() as running:
        yield running


@pytest.fixture
def archive(tmp_path, server):
    built = SmallArchive(tmp_path, "gz").write()
    server.load(tmp_path / "archive.db")
    return built


@pytest.fixture
def services(tmp_path, server):
    return server.services(tmp_path / "desservices.ini")


def on_server(run, services, url=URL):
    return Context(
        replace(run.site, services=services), run.pipeline, run.campaign.model_copy(update={"database": url}), run.tile
    )


def require_same(run, services, first, url=URL):
    for band in run.bands:
        prep(run, band)
    run.tree.dir.rename(first)
    other = on_server(run, services, url)
    for band in run.bands:
        prep(other, band)
    assert len(list(first.rglob("*_nullwt.fits"))) > 1
    assert differences(first, run.tree.dir) == []
    return other


def test_a_des_tile_is_the_same_from_the_server(archive, tmp_path, services, server):
    other = require_same(context(tmp_path, "gz"), services, tmp_path / "embedded")
    config = read_manifest(other.tree.manifest("prep", "g"))["config"]
    assert config["database"] == f"postgresql+psycopg://balrog:***@127.0.0.1:{server.port}/dessci"


def test_the_real_field_is_the_same_from_the_server(tmp_path, server, services):
    source = services.parents[0]
    here = tmp_path / "decam"
    geometry = noirlab.build_archive(Path(__file__).parents[2] / "inputs" / "decam_grz_9exp", here)
    server.load(here / "archive.db")
    plain = context(tmp_path, "grz", kind="noirlab", database=f"sqlite:///{here}/archive.db", archive=f"file://{here}/")
    run = Context(plain.site, plain.pipeline, plain.campaign, geometry.tilename)
    require_same(run, services, source / "embedded")


def test_names_come_in_the_order_of_their_bytes(tmp_path, server, services):
    archive = SmallArchive(tmp_path)
    # In English order a follows B; in bytes b follows B and _.
    names = {"D00229300_g_c01": "D00229300_g_C01", "D00229301_g_c62": "D00229301_g_b62"}
    for rows in archive.rows.values():
        for row in rows:
            for key in ("filename", "imagename"):
                for old, new in names.items():
                    if key in row:
                        row[key] = row[key].replace(old, new)
    archive.write()
    server.load(tmp_path / "archive.db")
    found = []
    for url in (f"sqlite:///{tmp_path}/archive.db", URL):
        with Database(url, services) as database:
            found.append([row.filename for row in database.exposures("Y3A2_COADD", "Y3A1_FINALCUT", TILE, "g")])
    assert found[0] == found[1] == sorted(found[1])
    assert len(found[0]) == 4


def ask(services, url=URL, **settings):
    with Database(url, services, **({"pause": 0.05} | settings)) as database:
        return database.geometry(TILE).tilename


def test_a_wrong_password_is_tried_once_and_never_shown(archive, tmp_path, server, caplog):
    services = server.services(tmp_path / "wrong.ini", "not the pa%ss")
    before = server.log.count("authentication failed")
    with caplog.at_level(logging.DEBUG), pytest.raises(ArchiveError, match="refuses the login") as caught:
        ask(services)
    assert server.log.count("FATAL:  password authentication failed") == before + 1
    assert f"user and passwd in section db-dessci of {services}" in caught.value.remedy
    for text in (str(caught.value), caplog.text):
        assert "not the pa" not in text
        assert PASSWORD not in text


def test_a_server_that_is_down_is_named_and_waited_for(archive, services, server, caplog):
    server.stop()
    try:
        with caplog.at_level(logging.INFO), pytest.raises(ArchiveError, match=r"cannot be queried.*refused") as caught:
            ask(services)
        assert f"127.0.0.1:{server.port}/dessci" in str(caught.value)
        assert "the server is up" in caught.value.remedy
        assert caplog.text.count("again in") == 4
        starting = threading.Timer(1.0, server.run)
        starting.start()
        assert ask(services, pause=1.0) == TILE
        starting.join()
    finally:
        if server.process is None:
            server.run()


def test_a_server_that_hangs_is_given_up(archive, services, server):
    started = time.monotonic()
    with Database(URL, services, pause=0.05, timeout=1.0) as database:
        database.geometry(TILE)
        held = threading.Event()

        def freeze(*_):
            # Connected, and nothing comes back any more.
            frozen = server.frozen()
            frozen.__enter__()
            held.set()
            threading.Timer(3.0, frozen.__exit__, (None, None, None)).start()

        sa.event.listen(database._engine, "before_cursor_execute", lambda *_: None if held.is_set() else freeze())
        assert database.geometry(TILE).tilename == TILE
    assert held.is_set()
    assert 1.5 < time.monotonic() - started < 30.0


def test_a_server_that_does_not_take_the_login_is_given_up(archive, services, server, monkeypatch):
    monkeypatch.setattr("balrogutils.archive.servers.CONNECT_SECONDS", 2)
    monkeypatch.setattr("balrogutils.archive.queries._ATTEMPTS", 2)
    started = time.monotonic()
    with server.frozen(), pytest.raises(ArchiveError, match=r"cannot be queried.*timeout"):
        ask(services)
    assert time.monotonic() - started < 30.0


def lock_table(server):
    connection = server.engine.connect()
    connection.execute(sa.text("lock table y3a2_coaddtile_geom in access exclusive mode"))
    return connection


def test_a_statement_that_takes_too_long_ends(archive, services, server, monkeypatch):
    monkeypatch.setattr("balrogutils.archive.queries._ATTEMPTS", 2)
    with lock_table(server), pytest.raises(ArchiveError, match="statement timeout"):
        ask(services, timeout=0.5)


def test_a_connection_that_is_dropped_is_made_again(archive, services, server):
    found = []
    with lock_table(server) as lock:
        asking = threading.Thread(target=lambda: found.append(ask(services)))
        asking.start()
        waiting = sa.text(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'balrogutils'"
            " and wait_event_type = 'Lock'"
        )
        limit = time.monotonic() + 20
        # A transaction sees the list of sessions as it was when it first looked.
        with server.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as killer:
            while not killer.execute(waiting).all() and time.monotonic() < limit:
                time.sleep(0.05)
        lock.rollback()
    asking.join(30)
    assert found == [TILE]
    assert "terminating connection due to administrator command" in server.log


def test_a_server_that_crashes_midway_loses_nothing(archive, services, server):
    server.stop(signal.SIGQUIT)
    server.run()
    assert ask(services) == TILE


def test_a_database_that_is_not_there_is_not_asked_for_again(archive, tmp_path, server, services, caplog):
    text = services.read_text().replace("db-dessci", "db-nowhere")
    services.write_text(text)
    caplog.set_level(logging.INFO)
    missing = 'database "nowhere" does not exist'
    with Database("postgresql+psycopg:///nowhere", services) as database, pytest.raises(ArchiveError, match=missing):
        database.geometry(TILE)
    assert "again in" not in caplog.text


def test_the_products_are_the_same_over_tls(tmp_path):
    """The server takes no other connection."""
    SmallArchive(tmp_path, "gz").write()
    with Postgres() as server:
        authority = server.encrypt("localhost")
        server.load(tmp_path / "archive.db")
        services = server.services(tmp_path / "desservices.ini", server="localhost")
        url = f"{URL}?sslmode=verify-full&sslrootcert={authority}"
        require_same(context(tmp_path, "gz"), services, tmp_path / "embedded", url)
        with pytest.raises(ArchiveError, match=r"refuses the login.*no encryption"):
            ask(services, f"{URL}?sslmode=disable")


@pytest.fixture(scope="module")
def certified(tmp_path_factory):
    """Servers with certificates of another host, out of date, and good, each with its authority."""
    directory = tmp_path_factory.mktemp("tls")
    with Postgres() as running:
        yield running, directory


@pytest.mark.parametrize(
    ("host", "days", "authority", "says"),
    [
        ("elsewhere.example", "2", None, 'certificate for "elsewhere.example" does not match host name "localhost"'),
        ("localhost", "0", None, "certificate verify failed"),
        ("localhost", "2", "system", "certificate verify failed"),
        ("localhost", "2", "/nowhere/authority.crt", 'root certificate file "/nowhere/authority.crt" does not exist'),
        (None, "2", None, "server does not support SSL"),
    ],
    ids=["another host", "out of date", "another authority", "no file of the authority", "no TLS"],
)
def test_a_certificate_that_proves_nothing_ends_it(certified, caplog, host, days, authority, says):
    server, directory = certified
    signer = server.encrypt(host, days)
    authority = authority or signer
    services = server.services(directory / "desservices.ini", server="localhost")
    before = server.log.count("authentication")
    with caplog.at_level(logging.INFO), pytest.raises(ArchiveError, match="is not accepted: ") as caught:
        ask(services, f"{URL}?sslmode=verify-full&sslrootcert={authority}")
    assert says in str(caught.value)
    assert "sslrootcert in `database` of etc/campaigns.yaml" in caught.value.remedy
    assert "again in" not in caplog.text
    assert PASSWORD not in str(caught.value) + caplog.text
    assert server.log.count("authentication") == before
