"""The archive's database: what the queries return, what they leave out, and that no secret shows."""

import re
import sqlite3

import pytest
import sqlalchemy as sa
from small_archive import SE_TAG, TAG, TILE, SmallArchive, geometry
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.oracle import oracledb

from balrogutils.archive import desdm, queries, tables
from balrogutils.archive.noirlab import ccds_statement
from balrogutils.archive.queries import Database
from balrogutils.archive.servers import connect_args, login_refused, worth_a_retry
from balrogutils.archive.services import Login, redact
from balrogutils.errors import ArchiveError, ConfigError, InputError

SERVICES = "[db-dessci]\nuser = someone\npasswd = pa%%ss:w@rd\nserver = db.example.org\nport = 1521\n"


@pytest.fixture
def archive(tmp_path):
    return SmallArchive(tmp_path)


def ask(archive, services="absent.ini"):
    archive.write()
    return Database(f"sqlite:///{archive.directory}/archive.db", services)


def files(archive, band="g"):
    with ask(archive) as database:
        return desdm.tile_files(database, TAG, SE_TAG, TILE, band)


def test_a_database_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(ArchiveError, match="not there"):
        Database(f"sqlite:///{tmp_path}/none.db", "x")
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize("content", [b"", b"this is no database, but text that is longer than a header would be" * 20])
def test_an_empty_or_damaged_database_is_an_error(tmp_path, content):
    path = tmp_path / "archive.db"
    path.write_bytes(content)
    with Database(f"sqlite:///{path}", "x") as database, pytest.raises(ArchiveError, match="cannot be queried"):
        database.geometry(TILE)


def test_a_locked_database_is_waited_for(archive):
    with ask(archive) as database:
        other = sqlite3.connect(archive.directory / "archive.db", isolation_level=None)
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        attempts = []
        database._engine.dispose()
        database._engine = sa.create_engine(database.url, connect_args={"timeout": 0.01}, poolclass=sa.pool.NullPool)
        sa.event.listen(database._engine, "connect", lambda *_: attempts.append(1))
        sa.event.listen(database._engine, "connect", lambda *_: other.close() if len(attempts) == 2 else None)
        assert database.geometry(TILE).tilename == TILE
        assert len(attempts) == 2


STATEMENTS = [
    queries.geometry_statement(TILE),
    queries.geometry_statement(TILE, tables.coaddtile_geom),
    queries.coadd_statement(TAG, TILE, "g"),
    queries.exposures_statement(TAG, SE_TAG, TILE, "g"),
    queries.files_statement(["a", "b"]),
    ccds_statement("g", -1.0, 1.0),
]


@pytest.mark.parametrize("dialect", [sqlite.dialect(), oracledb.dialect(), postgresql.dialect()])
def test_the_statements_compile_for_every_database(dialect):
    for statement in STATEMENTS:
        text = str(statement.compile(dialect=dialect))
        assert "SELECT" in text
        # Values travel as bound parameters, never in the text.
        assert TILE not in text
        assert "Y3A2_COADD" not in text


@pytest.mark.parametrize("statement", STATEMENTS)
def test_oracle_is_asked_in_its_own_words(statement):
    """Compiled for python-oracledb; there is no Oracle to run them on."""
    compiled = statement.compile(dialect=oracledb.dialect(), compile_kwargs={"render_postcompile": True})
    text = str(compiled)
    # No quoted names: Oracle would take them as they are, in lower case, and not find them.
    assert '"' not in text
    # The driver's form of bound values; no AS before the alias of a table, no LIMIT, which Oracle does not know.
    assert set(re.findall(r":(\w+)", text)) == set(compiled.construct_params())
    assert not re.search(r"\bLIMIT\b|\bAS (i|j|tme|tse|fai|z)\b|%\(", text)
    assert all(len(name) <= 30 for name in re.findall(r"\w+", text))


def test_geometry_of_a_tile(archive):
    with ask(archive) as database:
        found = database.geometry(TILE)
    assert found.tileid == 77
    assert found.extmag == {"g": 0.1}
    assert (found.ra_cent, found.naxis1, found.naxis2) == (geometry().ra_cent, 40, 44)


def test_an_unknown_tile_offers_the_nearest(archive):
    with ask(archive) as database, pytest.raises(InputError, match="did you mean 'DES2044-5300'"):
        database.geometry("DES2044+5300")


def test_files_of_a_tile_are_where_the_survey_puts_them(archive):
    found = files(archive)
    assert [chip.chip for chip in found.chips] == sorted(archive.chips["g"])
    assert found.left_out == {}
    chip = found.chips[0]
    red = f"OPS/finalcut/Y2A1v3/20130831-r2356/{chip.chip[:9]}/p01"
    assert chip.image.path == f"{red}/red/immask/{chip.chip}_immasked.fits.fz"
    assert chip.bkg.path == f"{red}/red/bkg/{chip.chip}_bkg.fits.fz"
    assert chip.seg.path == f"{red}/seg/{chip.chip}_segmap.fits.fz"
    assert chip.psf.path == f"{red}/psf/{chip.chip}_psfexcat.psf"
    coadd = f"OPS/multiepoch/Y3A1/r2577/{TILE}/p01"
    assert chip.head.path == f"{coadd}/aux/{TILE}_r2577p01_{chip.chip[:15]}_scamp.ohead"
    assert found.coadd_psf.path == f"{coadd}/psf/{TILE}_r2577p01_g_psfcat.psf"
    assert set(found.coadd) == {"image"}
    for file in found.files:
        assert (archive.files / file.path).stat().st_size == file.size
    # The FGCM v2.0 zero point, not those of the other source and version.
    assert [one.magzp for one in found.chips] == pytest.approx([31.201, 31.262, 31.301, 31.362], abs=1e-9)


def test_ccds_without_a_zero_point_psf_or_head_are_listed(archive):
    chips = sorted(archive.chips["g"])
    assert archive.drop("y3a2_zeropoint", imagename=f"{chips[0]}_immasked.fits", source="FGCM", version="v2.0") == 1
    assert archive.drop("y3a2_desfile", filename=f"{chips[1]}_psfexcat.psf") == 1
    assert archive.drop("y3a2_desfile", filename=f"{chips[2][:15]}_scamp.ohead") == 1
    found = files(archive)
    assert [chip.chip for chip in found.chips] == chips[3:]
    assert found.left_out == {chips[0]: "no zero point", chips[1]: "no PSF model", chips[2]: "no SCAMP head"}


def test_a_record_that_every_ccd_has_must_be_there(archive):
    chip = archive.chips["g"][1]
    archive.drop("y3a2_desfile", filename=f"{chip}_bkg.fits")
    with pytest.raises(ArchiveError, match="no record of the bkg file") as caught:
        files(archive)
    assert caught.value.where["chip"] == chip


@pytest.mark.parametrize(
    ("table", "where", "message"),
    [
        ("y3a2_coadd", {"band": "g"}, "no coadd of this tile"),
        ("y3a2_proctag", {"tag": TAG}, "no coadd of this tile"),
        ("y3a2_proctag", {"tag": SE_TAG}, "no single-epoch image"),
        ("y3a2_image", {"filetype": "coadd_nwgint"}, "no single-epoch image"),
        ("y3a2_desfile", {"filename": "_g_psfcat.psf"}, "no PSF model of the coadd"),
    ],
)
def test_an_archive_without_the_tile_says_so(archive, table, where, message):
    assert archive.drop(table, **where) > 0
    with pytest.raises(ArchiveError, match=message):
        files(archive)


def test_only_images_the_survey_put_into_its_coadd_count(archive):
    chip = sorted(archive.chips["g"])[0]
    archive.drop("y3a2_image", filename=f"{chip}_nwgint.fits")
    assert chip not in [one.chip for one in files(archive).chips]


def test_a_second_archive_copy_changes_nothing(archive):
    rows = archive.rows["y3a2_file_archive_info"]
    rows += [row | {"archive_name": "elsewhere", "path": "another/path"} for row in list(rows)]
    assert len(files(archive).chips) == 4


def test_the_newest_of_two_coadds_is_taken_and_said(archive, caplog):
    old = archive.rows["y3a2_coadd"][0]
    archive.rows["y3a2_proctag"].append({"tag": TAG, "pfw_attempt_id": 0})
    archive.rows["y3a2_coadd"].append(old | {"filename": f"{TILE}_r1000p01_g.fits", "pfw_attempt_id": 0})
    archive.rows["y3a2_file_archive_info"].append(
        {
            "filename": f"{TILE}_r1000p01_g.fits",
            "archive_name": tables.ARCHIVE_NAME,
            "path": "x/coadd",
            "compression": None,
        }
    )
    assert "r2577p01" in files(archive).coadd_psf.path
    assert "2 attempts" in caplog.text


def test_many_files_are_asked_for_in_parts(archive):
    names = [row["filename"] for row in archive.rows["y3a2_desfile"]]
    with ask(archive) as database:
        found = database.files([*names, *(f"no such file {i}" for i in range(1300))])
    assert sorted(found) == sorted(names)


def test_a_login_is_read_as_it_stands(tmp_path):
    services = tmp_path / "services.ini"
    services.write_text(SERVICES.replace("%%", "%"))
    services.chmod(0o600)
    assert Login.read(services, "dessci") == Login("someone", "pa%ss:w@rd", "db.example.org", 1521)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "not there"),
        ("", "no section db-dessci"),
        ("[db-desoper]\nuser=u\npasswd=hidden\n", "did you mean 'db-desoper'"),
        ("[db-dessci]\nuser=u\n", "no passwd"),
        ("[db-dessci]\npasswd=hidden\n", "no user"),
        ("[db-dessci]\nuser=u\npasswd=hidden\nport=x\n", "not a number"),
        ("user=u\npasswd=hidden\n", "cannot be read"),
    ],
)
def test_a_services_file_without_the_login_is_an_error_without_the_password(tmp_path, text, message):
    services = tmp_path / "services.ini"
    if text is not None:
        services.write_text(text)
        services.chmod(0o600)
    with pytest.raises(ConfigError, match=message) as caught:
        Login.read(services, "dessci")
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o604, 0o606, 0o644])
def test_a_services_file_open_to_everybody_is_refused(tmp_path, mode):
    services = tmp_path / "services.ini"
    services.write_text(SERVICES)
    services.chmod(mode)
    with pytest.raises(ConfigError, match=rf"open to everybody \(mode {mode:o}\)") as caught:
        Login.read(services, "dessci")
    assert caught.value.remedy.startswith(f"chmod 600 {services}")


@pytest.mark.parametrize(("mode", "says"), [(0o640, "open to its group (mode 640)"), (0o660, "mode 660"), (0o600, "")])
def test_a_services_file_open_to_its_group_is_warned_of(tmp_path, mode, says):
    services = tmp_path / "services.ini"
    services.write_text(SERVICES)
    services.chmod(mode)
    login = Login.read(services, "dessci")
    assert login.user == "someone"
    assert says in login.warning
    assert bool(login.warning) == bool(says)


def test_a_password_never_shows(tmp_path):
    services = tmp_path / "services.ini"
    services.write_text(SERVICES.replace("%%", "%"))
    # Drivers that are not among the dependencies; the error of their absence is what a user meets first.
    services.chmod(0o600)
    for url in ("oracle+oracledb://@/dessci", "postgresql+pg8000://me:pa%25ss%3Aw%40rd@host/dessci"):
        with pytest.raises(ConfigError, match="driver") as caught:
            Database(url, services)
        assert "pa%ss:w@rd" not in str(caught.value)
    assert redact("user/pa%ss:w@rd@host", "pa%ss:w@rd", None) == "user/***@host"


def test_what_a_driver_is_told_leaves_the_url_alone():
    plain = sa.make_url("postgresql+psycopg://u:p@h/dessci")
    assert connect_args(plain, 7.0)["options"] == "-c statement_timeout=7000"
    assert connect_args(plain, 7.0)["connect_timeout"] == 30
    given = sa.make_url("postgresql+psycopg://u:p@h/dessci?connect_timeout=3&options=-c%20geqo%3Doff")
    assert {"connect_timeout", "options"}.isdisjoint(connect_args(given, 7.0))
    assert connect_args(sa.make_url("oracle+oracledb://u:p@h/dessci"), 7.0)["tcp_connect_timeout"] == 30.0
    assert connect_args(sa.make_url("sqlite:////x.db"), 7.0) == {}


def _failed(kind, text, lost=False):
    return kind("select", None, Exception(text), connection_invalidated=lost)


@pytest.mark.parametrize(
    ("error", "again", "refused"),
    [
        (_failed(sa.exc.OperationalError, "connection refused"), True, False),
        (_failed(sa.exc.OperationalError, "database is locked"), True, False),
        (_failed(sa.exc.OperationalError, "no such table: ccds"), False, False),
        (_failed(sa.exc.OperationalError, 'FATAL:  database "x" does not exist'), False, False),
        (_failed(sa.exc.OperationalError, 'FATAL:  password authentication failed for user "x"'), False, True),
        (_failed(sa.exc.OperationalError, 'FATAL:  role "x" does not exist'), False, True),
        (_failed(sa.exc.DatabaseError, "ORA-01017: invalid username/password; logon denied"), False, True),
        (_failed(sa.exc.DatabaseError, "ORA-28000: The account is locked."), False, True),
        (_failed(sa.exc.DatabaseError, "DPY-4011: the database or network closed the connection", True), True, False),
        (_failed(sa.exc.DatabaseError, "ORA-00942: table or view does not exist"), False, False),
        (_failed(sa.exc.ProgrammingError, 'relation "y3a2_image" does not exist'), False, False),
        (ValueError("x"), False, False),
    ],
)
def test_only_what_can_change_is_tried_again(error, again, refused):
    assert worth_a_retry(error) is again
    assert login_refused(error) is refused


def test_a_file_needs_no_login(archive):
    with ask(archive, services="/no/such/services.ini") as database:
        assert database.login is None


def test_an_unreadable_url_is_refused():
    with pytest.raises(ConfigError, match="URL"):
        Database("no url", "x")
