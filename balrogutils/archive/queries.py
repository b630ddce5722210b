"""What block 1 asks the archive's database: the same statements for SQLite, Oracle and PostgreSQL."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, quote_plus

import sqlalchemy as sa
from sqlalchemy.engine import Engine, RowMapping, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.sql import Select
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential, wait_random

from balrogutils.archive import servers, tables
from balrogutils.archive.geometry import Geometry
from balrogutils.archive.names import whole_number
from balrogutils.archive.services import Login, redact
from balrogutils.errors import ArchiveError, ConfigError, InputError, did_you_mean

__all__ = [
    "FGCM_SOURCE",
    "FGCM_VERSION",
    "CoaddRow",
    "Database",
    "ExposureRow",
    "FileRow",
    "coadd_statement",
    "exposures_statement",
    "files_statement",
    "geometry_statement",
    "zero_point",
]

_log = logging.getLogger(__name__)

FGCM_SOURCE = "FGCM"
FGCM_VERSION = "v2.0"

_ATTEMPTS = 5
_PAUSE_SECONDS = 2.0
_LONGEST_PAUSE = 60.0
_STATEMENT_SECONDS = 600.0
_MAX_MAGNITUDE = 100.0
_IN_LIMIT = 500  # Oracle takes at most 1000 values in one IN


@dataclass(frozen=True)
class CoaddRow:
    """The survey's own coadd of a tile and band."""

    filename: str
    path: str
    compression: str
    pfw_attempt_id: int


@dataclass(frozen=True)
class ExposureRow:
    """One single-epoch CCD of a tile; `magzp` is None where the archive has no zero point of it."""

    filename: str
    path: str
    compression: str
    expnum: int
    ccdnum: int
    magzp: float | None


@dataclass(frozen=True)
class FileRow:
    """Size and checksum of one file, as the database has them; `compression` is ``.fz`` or empty."""

    filename: str
    compression: str
    filesize: object
    md5sum: object


def zero_point(value: Any) -> float | None:
    """Return a zero point, or None for what cannot be one: SQLite keeps anything in any column."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and abs(number) < _MAX_MAGNITUDE else None


def geometry_statement(tile: str, table: sa.Table = tables.y3a2_coaddtile_geom) -> Select[Any]:
    """Return the geometry query of one tile (P 3.0)."""
    return sa.select(table).where(table.c.tilename == tile)


def coadd_statement(tag: str, tile: str, band: str) -> Select[Any]:
    """Return the query for the coadd of one tile and band, the newest attempt first (P 3.1)."""
    t, m, fai = tables.proctag, tables.coadd, tables.file_archive_info
    return (
        sa.select(m.c.tilename, fai.c.path, fai.c.filename, fai.c.compression, m.c.band, m.c.pfw_attempt_id)
        .where(
            t.c.tag == tag,
            t.c.pfw_attempt_id == m.c.pfw_attempt_id,
            m.c.tilename == tile,
            m.c.band == band,
            m.c.filetype == "coadd",
            fai.c.filename == m.c.filename,
            fai.c.archive_name == tables.ARCHIVE_NAME,
        )
        .order_by(m.c.pfw_attempt_id.desc(), fai.c.filename)
    )


def exposures_statement(tag: str, se_tag: str, tile: str, band: str) -> Select[Any]:
    """Return the query for the single-epoch images that the survey put into its own coadd of one tile and band (P 3.1).

    An outer join keeps the images without a zero point, so that they can be counted; the archive name keeps a file that
    lies in two archives from coming twice.
    """
    i, j = tables.image.alias("i"), tables.image.alias("j")
    tme, tse = tables.proctag.alias("tme"), tables.proctag.alias("tse")
    fai, z = tables.file_archive_info.alias("fai"), tables.zeropoint.alias("z")
    zero_point = sa.and_(z.c.imagename == j.c.filename, z.c.source == FGCM_SOURCE, z.c.version == FGCM_VERSION)
    joined = (
        i.join(tme, sa.and_(tme.c.tag == tag, tme.c.pfw_attempt_id == i.c.pfw_attempt_id))
        .join(j, sa.and_(j.c.expnum == i.c.expnum, j.c.ccdnum == i.c.ccdnum))
        .join(tse, sa.and_(tse.c.tag == se_tag, tse.c.pfw_attempt_id == j.c.pfw_attempt_id))
        .join(fai, sa.and_(fai.c.filename == j.c.filename, fai.c.archive_name == tables.ARCHIVE_NAME))
        .outerjoin(z, zero_point)
    )
    columns = (
        fai.c.path,
        fai.c.filename,
        fai.c.compression,
        j.c.band,
        j.c.expnum,
        j.c.ccdnum,
        j.c.pfw_attempt_id,
        z.c.mag_zero,
    )
    return (
        sa.select(*columns)
        .distinct()
        .select_from(joined)
        .where(i.c.filetype == "coadd_nwgint", i.c.tilename == tile, j.c.filetype == "red_immask", j.c.band == band)
        .order_by(fai.c.filename)
    )


def files_statement(filenames: Sequence[str]) -> Select[Any]:
    """Return the query for size and checksum of up to 500 files, names without ``.fz``."""
    f = tables.desfile
    return sa.select(f.c.filename, f.c.compression, f.c.filesize, f.c.md5sum).where(f.c.filename.in_(list(filenames)))


class Database:
    """A connection to the archive's database; a context manager.

    Parameters
    ----------
    url : str
        SQLAlchemy URL. A login may stand in it; if not, and the database is no file, it is taken from `services`.
    services : path-like
        The DES_SERVICES file, section ``db-<database>``.
    pause : float
        Seconds after the first attempt that a server did not answer; then twice as many each time.
    timeout : float
        Seconds a server may take for one statement.

    Raises
    ------
    ConfigError
        For a URL that cannot be used, or a missing login.
    ArchiveError
        When the database cannot be reached. Passwords are never part of a message.
    """

    def __init__(
        self,
        url: str,
        services: str | os.PathLike[str],
        *,
        pause: float = _PAUSE_SECONDS,
        timeout: float = _STATEMENT_SECONDS,
    ) -> None:
        try:
            parsed = make_url(url)
        except ArgumentError as error:
            raise ConfigError(
                "a database URL cannot be read",
                key="database",
                remedy="write for example sqlite:////path/to/archive.db",
            ) from error
        self.name = servers.database_name(parsed)
        self.login: Login | None = None
        is_file = parsed.get_backend_name() == "sqlite"
        if is_file:
            if not parsed.database or not Path(parsed.database).is_file():
                raise ArchiveError(
                    "the archive's database is not there",
                    file=parsed.database,
                    remedy="correct `database` in etc/campaigns.yaml, or build the archive: balrog archive CAMPAIGN",
                )
        elif not parsed.username:
            self.login = Login.read(services, self.name)
            parsed = parsed.set(
                username=self.login.user,
                password=self.login.password,
                host=parsed.host or self.login.server,
                port=parsed.port or self.login.port,
            )
        self.url = parsed
        # Drivers quote what they were given, as it is or as a URL has it.
        password = str(parsed.password) if parsed.password else ""
        self._secrets = (password, quote(password, safe=""), quote_plus(password))
        self._pause = 0.2 if is_file else pause
        self._timeout = timeout
        try:
            # hide_parameters keeps bound values out of messages and logs.
            self._engine: Engine = sa.create_engine(
                parsed,
                hide_parameters=True,
                poolclass=sa.pool.NullPool,
                connect_args=servers.connect_args(parsed, timeout),
            )
        except (NoSuchModuleError, ModuleNotFoundError, ArgumentError) as error:
            raise ConfigError(
                f"no driver for this database: {redact(error, *self._secrets)}",
                key="database",
                remedy="pip install oracledb or psycopg",
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.dispose()

    @property
    def shown(self) -> str:
        """The URL without its password."""
        return self.url.render_as_string(hide_password=True)

    def rows(self, statement: Select[Any]) -> list[RowMapping]:
        """Return all rows of a statement, trying again when the server does not answer."""
        attempts = Retrying(
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_exponential(multiplier=self._pause, max=_LONGEST_PAUSE) + wait_random(0, self._pause),
            retry=retry_if_exception(servers.worth_a_retry),
            before_sleep=self._tell,
            reraise=True,
        )
        try:
            return attempts(self._rows, statement)
        except SQLAlchemyError as error:
            # `from None`: the driver's own error can quote the login.
            raise self._told(error) from None

    def _rows(self, statement: Select[Any]) -> list[RowMapping]:
        with self._engine.connect() as connection, servers.bounded(connection, self._timeout):
            return list(connection.execute(statement).mappings())

    def _tell(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        if error is not None and state.next_action is not None:
            _log.info(
                "the archive's database %s: %s; again in %.0f s",
                self.shown,
                servers.reason(error, *self._secrets),
                state.next_action.sleep,
            )

    def _told(self, error: SQLAlchemyError) -> ArchiveError:
        reason = servers.reason(error, *self._secrets)
        text = f"the archive's database {self.shown} cannot be queried: {reason}"
        if self.url.get_backend_name() == "sqlite":
            return ArchiveError(
                text,
                remedy="restore the file, make it readable, or build the archive again: balrog archive CAMPAIGN",
            )
        if servers.login_refused(error):
            place = self.login.place if self.login is not None else "`database` in etc/campaigns.yaml"
            return ArchiveError(
                f"the archive's database {self.shown} refuses the login: {reason}",
                remedy=f"correct user and passwd in {place}, then run the same command again",
            )
        if servers.certificate_refused(error):
            text = f"the certificate of the archive's database {self.shown} is not accepted: {reason}"
            remedy = (
                "name its authority's certificates with sslrootcert in `database` of etc/campaigns.yaml, or correct"
            )
            return ArchiveError(text, remedy=f"{remedy} its host, then run the same command again")
        return ArchiveError(
            text,
            remedy="check `database` in etc/campaigns.yaml and that the server is up, then run the same command again",
        )

    def geometry(self, tile: str) -> Geometry:
        """Return the geometry of a tile.

        Raises
        ------
        InputError
            When the archive has no such tile; offers the nearest names.
        """
        table = tables.coaddtile_geom if self.name.lower() == "desoper" else tables.y3a2_coaddtile_geom
        rows = self.rows(geometry_statement(tile, table))
        if not rows:
            known = [row["tilename"] for row in self.rows(sa.select(table.c.tilename).order_by(table.c.tilename))]
            raise InputError(
                f"the archive has no such tile: {did_you_mean(tile, known)}",
                tile=tile,
                remedy="check the tile name and the campaign" if known else "check its database, which has no tiles",
            )
        row = rows[0]
        extinction: dict[str, dict[str, float]] = {"extfact": {}, "extmag": {}}
        for kind, values in extinction.items():
            for band in tables.GEOMETRY_BANDS:
                if row[f"{kind}_{band}"] is not None:
                    values[band] = float(row[f"{kind}_{band}"])
        return Geometry.from_row(dict(row), **extinction)

    def coadd(self, tag: str, tile: str, band: str) -> CoaddRow:
        """Return the survey's coadd of a tile and band; of several attempts the newest, with a line in the log."""
        rows = self.rows(coadd_statement(tag, tile, band))
        # Servers sort text by the rules of their language; the order is to be the same everywhere.
        rows.sort(key=lambda row: (-int(row["pfw_attempt_id"]), row["filename"]))
        if not rows:
            raise ArchiveError(
                f"the archive has no coadd of this tile and band in {tag}",
                tile=tile,
                band=band,
                remedy="check the campaign's proctag and bands",
            )
        attempts = {row["pfw_attempt_id"] for row in rows}
        if len(attempts) > 1:
            _log.warning(
                "%s %s: %d attempts in %s, the newest is taken (%s)",
                tile,
                band,
                len(attempts),
                tag,
                rows[0]["pfw_attempt_id"],
            )
        row = rows[0]
        return CoaddRow(row["filename"], row["path"], row["compression"] or "", int(row["pfw_attempt_id"]))

    def exposures(self, tag: str, se_tag: str, tile: str, band: str) -> list[ExposureRow]:
        """Return the single-epoch CCDs of a tile and band in the order of their names.

        Raises
        ------
        ArchiveError
            When there is none, or one comes with two zero points.
        """
        found: list[ExposureRow] = []
        for row in sorted(self.rows(exposures_statement(tag, se_tag, tile, band)), key=lambda row: row["filename"]):
            found.append(
                ExposureRow(
                    row["filename"],
                    row["path"],
                    row["compression"] or "",
                    whole_number(row["expnum"], "expnum", tile=tile, band=band),
                    whole_number(row["ccdnum"], "ccdnum", tile=tile, band=band),
                    zero_point(row["mag_zero"]),
                )
            )
        if not found:
            raise ArchiveError(
                f"the archive has no single-epoch image of this tile and band in {se_tag}",
                tile=tile,
                band=band,
                remedy="check se_proctag and bands",
            )
        names = [row.filename for row in found]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ArchiveError(
                "an image comes twice, with different paths or zero points",
                tile=tile,
                band=band,
                file=twice[0],
                remedy="repair the archive's database",
            )
        return found

    def files(self, filenames: Iterable[str]) -> dict[str, FileRow]:
        """Return size and checksum of files by name (without ``.fz``); names the archive does not know are left out."""
        names = sorted(set(filenames))
        found: dict[str, FileRow] = {}
        for start in range(0, len(names), _IN_LIMIT):
            for row in self.rows(files_statement(names[start : start + _IN_LIMIT])):
                found[row["filename"]] = FileRow(
                    row["filename"], row["compression"] or "", row["filesize"], row["md5sum"]
                )
        return found
