"""Servers of the archive, the file of logins, and names of the database that are none."""

import sqlite3
from functools import partial

from archived import DATABASE, ONE, PREP
from row import Row, all_of
from world import SMALL_TILE

SERVERS = partial(Row, "Servers of the archive", stage="small", status=2)
NAMES = partial(Row, "Names in the archive's database", stage="small", status=1)

LOGIN = "[db-dessci]\nuser = someone\npasswd = a password\nserver = 127.0.0.1\nport = 9\n"
SQLITE = "sqlite:///{run}/archive/small/archive.db"
FILE = "file://{run}/archive/small/desarchive/"
POSTGRESQL = "postgresql+psycopg:///dessci"


def server(url):
    return lambda world: world.edit("etc/campaigns.yaml", SQLITE, url)


def files(url):
    return lambda world: world.edit("etc/campaigns.yaml", FILE, url)


def logins(text, mode=0o600):
    def breaks(world):
        (world.base / "services.ini").write_text(text, encoding="utf-8")
        (world.base / "services.ini").chmod(mode)
        world.environment.update(DES_SERVICES="services.ini")

    return breaks


def changed(table, column, value, names=f"{ONE}_immasked.fits"):
    """Put something into the rows of one CCD's image, or of all files whose names match."""

    def breaks(world):
        database = sqlite3.connect(world.base / DATABASE)
        with database:
            database.execute(f"update {table} set {column} = ? where filename like ?", (value, names))
        database.close()

    return breaks


ROWS = [
    SERVERS(
        "file of logins open to everybody",
        PREP,
        "open to everybody \\(mode 644\\) \\(file services.ini, key db-dessci\\)\n  remedy: chmod 600 services.ini",
        breaks=all_of(server(POSTGRESQL), logins(LOGIN, 0o644)),
    ),
    SERVERS(
        "file of logins without the database's section",
        PREP,
        "has no section db-dessci: did you mean 'db-desoper'",
        breaks=all_of(server(POSTGRESQL), logins(LOGIN.replace("dessci", "desoper"))),
    ),
    SERVERS(
        "file of logins without a password",
        PREP,
        "section db-dessci of the services file has no passwd",
        breaks=all_of(server(POSTGRESQL), logins(LOGIN.replace("passwd", "password"))),
    ),
    SERVERS(
        "driver of the database not installed",
        PREP,
        "no driver for this database.*key database.*\n  remedy: pip install",
        breaks=all_of(server("postgresql+pg8000:///dessci"), logins(LOGIN)),
    ),
    SERVERS(
        "database server that is not there",
        PREP,
        "postgresql[+]psycopg://someone:\\*\\*\\*@127.0.0.1:9/dessci cannot be queried.*Connection refused"
        f".*tile {SMALL_TILE}, band g",
        status=1,
        breaks=all_of(server(POSTGRESQL), logins(LOGIN)),
        long=True,
    ),
    SERVERS(
        "file server that is not there",
        PREP,
        "a file cannot be fetched: Connection refused .*file https://127.0.0.1:9/OPS/.*\n.*goes on where it broke off",
        status=1,
        breaks=files("https://127.0.0.1:9/"),
        long=True,
    ),
    SERVERS(
        "login in the archive's URL",
        PREP,
        "an archive prefix must not hold a login \\(.*key archive\\)",
        breaks=files("https://someone:a-password@127.0.0.1:9/"),
    ),
    SERVERS(
        "archive's URL without a server",
        PREP,
        "an archive prefix of an unknown kind: https:///",
        breaks=files("https:///desarchive/"),
    ),
    NAMES(
        "path that leads out of the archive",
        PREP,
        "the archive names a file outside itself \\(tile DES2044-5300, band g, file '\\.\\./\\.\\./\\.\\./",
        breaks=changed("y3a2_file_archive_info", "path", "../../../red/immask"),
    ),
    NAMES(
        "path with a command in it",
        PREP,
        "a file name that cannot be one: '\\$\\(touch here\\)'",
        breaks=changed("y3a2_file_archive_info", "path", "OPS/$(touch here)/red/immask"),
    ),
    NAMES(
        "path with a line break",
        PREP,
        "a file name that cannot be one: 'a\\\\nb'",
        breaks=changed("y3a2_file_archive_info", "path", "OPS/a\nb/red/immask"),
    ),
    NAMES(
        "checksum that is none",
        PREP,
        f"a size or checksum that cannot be one: \\d+, '\\.\\./x' .*band g, file \\S*{ONE}_immasked.fits.fz",
        breaks=changed("y3a2_desfile", "md5sum", "../x"),
    ),
    NAMES(
        "size that is none",
        PREP,
        f"a size or checksum that cannot be one: 'big', .*band g, file \\S*{ONE}_immasked.fits.fz",
        breaks=changed("y3a2_desfile", "filesize", "big"),
    ),
    NAMES(
        "CCD number that is none",
        PREP,
        f"the archive has a ccdnum that is no number: 'one' \\(tile {SMALL_TILE}, band g\\)",
        breaks=changed("y3a2_image", "ccdnum", "one", f"%{ONE}%"),
    ),
]
