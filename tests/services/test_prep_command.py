"""``balrog prep`` as users type it, with an SQL server, an https archive and a services file."""

import base64
import contextlib
import json
import re
import shutil
import subprocess
import threading
import time
from urllib.parse import quote, quote_plus

import psutil
import pytest
import sqlalchemy as sa
from daemons import PASSWORD, USER
from identical import differences
from nginx import Nginx
from postgres import Postgres
from small_archive import TILE, SmallArchive

pytestmark = pytest.mark.long
CAMPAIGN = """
  small:
    kind: desdm
    database: {database}
    archive: {archive}
    bands: [g]
    det: [g]
    tiles: [{tile}]
    desmeds_config: meds-y3v02.yaml
    galsim_config: bal_config_hex.yaml
    sof_config: run-y3v02-sof.yaml
"""
FORMS = {
    PASSWORD,
    quote(PASSWORD),
    quote(PASSWORD, safe=""),
    quote_plus(PASSWORD),
    base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode(),
    json.dumps(PASSWORD)[1:-1],
}
"""The password as it is, and as URLs, http and JSON have it."""


@pytest.fixture(scope="module")
def database():
    with Postgres() as running:
        yield running


@pytest.fixture
def archive(tmp_path):
    return SmallArchive(tmp_path).write()


@pytest.fixture
def server(archive):
    with Nginx(archive.files) as running:
        yield running


@pytest.fixture
def production(base, archive, database, server, tmp_path, terminal):
    """Change the campaign from the embedded archive, with which it begins, to the servers."""
    file = base / "etc" / "campaigns.yaml"
    text = file.read_text()
    database.load(tmp_path / "archive.db")
    services = database.services(tmp_path / "desservices.ini")

    def campaign(where, files):
        file.write_text(text + CAMPAIGN.format(database=where, archive=files, tile=TILE))

    def on_servers():
        campaign("postgresql+psycopg:///dessci", server.prefix)
        terminal["env"] |= {"DES_SERVICES": str(services), "SSL_CERT_FILE": str(server.authority)}

    campaign(f"sqlite:///{tmp_path}/archive.db", f"file://{archive.files}")
    return on_servers


def require_no_secret(*texts):
    assert not [form for text in texts for form in FORMS if form in text]


def put_away(tree, place):
    """Give a tile another place, and keep nothing of what tiles share: the next run has to fetch."""
    tree.rename(place)
    shutil.rmtree(tree.parent / "shared")


def seen_by_others(process):
    """Return the command lines and environments of a process and of all it has started."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        first = psutil.Process(process.pid)
        for one in (first, *first.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                found += [*one.cmdline(), *one.environ().values()]
    return found


def test_the_products_are_those_of_the_embedded_archive_and_no_password_shows(
    production, base, command, terminal, server, tmp_path
):
    words = ("balrog", "prep", TILE)
    tree = base / "run" / "meds" / "y3v02" / TILE
    done = command(*words)
    assert done.returncode == 0, done.stderr
    put_away(tree, tmp_path / "embedded")
    production()
    server.serve("limit_rate 40k;")
    log = tmp_path / "prep.log"
    with subprocess.Popen((*words, "--log", str(log)), **terminal, stdout=-1, stderr=-1, text=True) as process:
        watched = 0
        while process.poll() is None:
            require_no_secret(*seen_by_others(process))
            watched += 1
            time.sleep(0.02)
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert watched > 20
    assert differences(tmp_path / "embedded", tree) == []
    texts = [path.read_text(errors="replace") for path in base.rglob("*") if path.suffix in (".json", ".log", ".yaml")]
    texts += [log.read_text(), out, err]
    require_no_secret(*texts)
    assert f"{USER}:***@127.0.0.1" in next(tree.glob("manifests/*prep_g.json")).read_text()
    requests = server.requests()
    # Files of the same content are fetched once.
    assert len(requests) == len({path.stat().st_ino for path in tree.glob("sources-g/**/*") if path.is_file()}) > 10
    assert all(line.startswith("200 GET") for line in requests)


def test_a_run_that_was_killed_midway_goes_on(production, base, command, terminal, server, tmp_path):
    words = ("balrog", "prep", TILE)
    tree = base / "run" / "meds" / "y3v02" / TILE
    assert command(*words).returncode == 0
    put_away(tree, tmp_path / "undisturbed")
    production()
    server.serve("limit_rate 3k;")
    shared = tree.parent / "shared"
    with subprocess.Popen(words, **terminal, stdout=-1, stderr=-1) as process:
        limit = time.monotonic() + 60
        while not any(path.stat().st_size > 2000 for path in shared.rglob(".fetch-*")) and time.monotonic() < limit:
            time.sleep(0.02)
        process.kill()
    begun = list(shared.rglob(".fetch-*"))
    assert begun
    assert not list(tree.rglob("*_nullwt.fits"))
    server.serve()
    done = command(*words)
    assert done.returncode == 0, done.stderr
    assert differences(tmp_path / "undisturbed", tree) == []
    assert [line for line in server.requests() if line.startswith("206")]


@pytest.fixture
def undisturbed(production, base, command, tmp_path):
    """Keep the products of an undisturbed run and change to the servers; require that the same command makes them."""
    words = ("balrog", "prep", TILE)
    tree = base / "run" / "meds" / "y3v02" / TILE
    assert command(*words).returncode == 0
    put_away(tree, tmp_path / "undisturbed")
    production()

    def again():
        done = command(*words)
        assert done.returncode == 0, done.stderr
        assert differences(tmp_path / "undisturbed", tree) == []
        return done.stderr

    return again


def test_a_database_that_is_down_is_named_and_the_same_command_goes_on(undisturbed, base, command, database):
    database.stop()
    try:
        done = command("balrog", "prep", TILE)
    finally:
        database.run()
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"127.0.0.1:{database.port}/dessci cannot be queried" in done.stderr
    assert "remedy: check `database`" in done.stderr
    assert f"tile {TILE}, band g" in done.stderr
    require_no_secret(done.stderr, done.stdout)
    assert not list(base.rglob("*_nullwt.fits"))
    undisturbed()


def test_a_slow_database_is_waited_for(undisturbed, database):
    with database.engine.connect() as lock:
        lock.execute(sa.text("lock table y3a2_image in access exclusive mode"))
        opening = threading.Timer(5.0, lock.rollback)
        opening.start()
        started = time.monotonic()
        undisturbed()
        assert time.monotonic() - started > 5.0
        opening.join()


def test_a_wrong_password_is_told_once_and_where_it_stands(undisturbed, base, command, database, tmp_path):
    services = database.services(tmp_path / "desservices.ini", "wrong-password")
    before = database.log.count("FATAL:  password authentication failed")
    done = command("balrog", "prep", TILE)
    assert done.returncode == 1
    assert "refuses the login" in done.stderr
    assert f"remedy: correct user and passwd in section db-dessci of {services}" in done.stderr
    assert "wrong-password" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert database.log.count("FATAL:  password authentication failed") == before + 1
    assert not list(base.rglob("*_nullwt.fits"))
    database.services(tmp_path / "desservices.ini")
    undisturbed()


def test_an_archive_that_goes_down_midway_in_a_file_is_named_and_the_same_command_goes_on(
    undisturbed, base, terminal, server
):
    server.serve("limit_rate 3k;")
    with subprocess.Popen(("balrog", "prep", TILE), **terminal, stdout=-1, stderr=-1, text=True) as process:
        limit = time.monotonic() + 60
        while not any(path.stat().st_size > 2000 for path in base.rglob(".fetch-*")) and time.monotonic() < limit:
            time.sleep(0.02)
        server.stop()
        _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in err
    assert re.search(
        r"a file cannot be fetched: .*\(tile DES\S+, band g, file https://localhost:\S+\)\n +remedy: ", err
    )
    assert not list(base.rglob("*_nullwt.fits"))
    assert list(base.rglob(".fetch-*"))
    server.serve()
    undisturbed()
    assert [line for line in server.requests() if line.startswith("206")]
