"""Files from the archive: verified, whole, and not fetched twice."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from urllib3.exceptions import HTTPError

from balrogutils.archive.begun import begun, remove_begun, settle
from balrogutils.archive.names import path_parts
from balrogutils.archive.services import Login, redact
from balrogutils.archive.shared import SharedFiles
from balrogutils.archive.web import Refused, Untrusted, WebArchive, WrongLength
from balrogutils.errors import ArchiveError, ConfigError
from balrogutils.products import no_room, writing
from balrogutils.progress import track

__all__ = ["ArchiveFile", "Transfer", "md5"]

_log = logging.getLogger(__name__)
_DAMAGED = "rebuild or repair the archive, then run prep again"
_MD5 = re.compile(r"[0-9A-Fa-f]{32}")


@dataclass(frozen=True)
class ArchiveFile:
    """One file of the archive.

    Attributes
    ----------
    path : str
        Path below the archive's prefix, with ``/``.
    size : int
        Bytes.
    md5 : str
        Checksum, hexadecimal.
    """

    path: str
    size: int
    md5: str

    @classmethod
    def recorded(cls, path: str, size: object, md5: object) -> Self:
        """Return what the database says of a file; SQLite keeps anything in any column.

        Raises
        ------
        ArchiveError
            When the size or the checksum cannot be one.
        """
        if not isinstance(size, int) or size < 0 or not isinstance(md5, str) or not _MD5.fullmatch(md5):
            raise ArchiveError(
                f"the archive's record of a file has a size or checksum that cannot be one: {size!r}, {md5!r}",
                file=path,
                remedy="repair the archive's database",
            )
        return cls(path, size, md5)

    @property
    def name(self) -> str:
        """File name."""
        return PurePosixPath(self.path).name


def md5(path: str | os.PathLike[str]) -> str:
    """Return the MD5 of a file, which is the checksum DESDM keeps."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


class Transfer:
    """Fetches files below one prefix.

    Parameters
    ----------
    prefix : str
        ``file:///...`` or ``https://...`` (``http://`` for servers that need no login).
    login : Login, optional
        Sent as HTTP basic authentication, over https only.
    connections : int
        Connections to a server at a time.
    wait : callable, optional
        tenacity wait policy between attempts of a network transfer.
    silent : float, optional
        Seconds after which a server that says nothing is given up.

    Raises
    ------
    ConfigError
        For a prefix of another kind, or a login that would travel in clear text.
    """

    def __init__(
        self,
        prefix: str,
        login: Login | None = None,
        *,
        connections: int = 4,
        wait: Callable[..., float] | None = None,
        silent: float | None = None,
    ) -> None:
        self.prefix = prefix if prefix.endswith("/") else prefix + "/"
        parts = urlsplit(self.prefix)
        self._root: Path | None = None
        self._login = login
        self._connections = connections
        self._settings: dict[str, Any] = {"wait": wait} | ({"silent": silent} if silent is not None else {})
        if parts.username or parts.password:
            raise ConfigError(
                "an archive prefix must not hold a login", key="archive", remedy="put the login into the services file"
            )
        if parts.scheme == "file":
            if parts.netloc not in ("", "localhost"):
                raise ConfigError(
                    f"a file prefix names another machine: {prefix}", key="archive", remedy="write file:///path/"
                )
            self._root = Path(unquote(parts.path))
        elif parts.scheme in ("http", "https") and parts.hostname:
            if login is not None and parts.scheme != "https":
                raise ConfigError(f"a login would travel in clear text to {prefix}", key="archive", remedy="use https")
        else:
            raise ConfigError(
                f"an archive prefix of an unknown kind: {prefix}",
                key="archive",
                remedy="use file:///path/ or https://host/path/",
            )

    def fetch(
        self,
        files: Iterable[ArchiveFile],
        directory: str | os.PathLike[str],
        *,
        tile: str,
        band: str,
        shared: SharedFiles | None = None,
    ) -> list[Path]:
        """Fetch files into `directory`, under their archive paths.

        Parameters
        ----------
        files : iterable of ArchiveFile
            What to fetch. A file that is there already with the right size and checksum is not fetched again; one that
            broke off over the network, in this run or an earlier one, goes on where it ended.
        directory : path-like
            Where to.
        tile, band : str
            Named in errors.
        shared : SharedFiles, optional
            Where files are fetched to, and found when another tile has fetched them.

        Returns
        -------
        list of pathlib.Path
            The local names, in the order of `files`.

        Raises
        ------
        ArchiveError
            When a file is missing in the archive, its name, size or checksum is wrong, or the archive does not answer.
        """
        wanted = list(files)
        where = {"tile": tile, "band": band}
        paths = [Path(directory, *path_parts(file.path, **where)) for file in wanted]
        lacking = [(file, path) for file, path in zip(wanted, paths, strict=True) if not _is_whole(path, file)]
        fetched = [one for one in lacking if shared is None or not _take(shared, *one)]
        for _ in track(self._all(fetched, shared, where), f"{tile} {band}: fetching", len(fetched), "files"):
            pass
        remove_begun(Path(directory))
        _log.info(
            "%s %s: fetched %d files (%.1f MB), %d came from other tiles, %d were there and verified",
            *(tile, band, len(fetched), sum(file.size for file, _ in fetched) / 1e6),
            *(len(lacking) - len(fetched), len(wanted) - len(lacking)),
        )
        return paths

    def _all(
        self, lacking: list[tuple[ArchiveFile, Path]], shared: SharedFiles | None, where: dict[str, str]
    ) -> Iterator[None]:
        """Yield as often as files have arrived."""
        if self._root is not None or not lacking:
            for file, path in lacking:
                self._bring(self._copy, file, path, shared, where)
                yield
            return
        web = WebArchive(self.prefix, self._login, connections=self._connections, **self._settings)

        def bring(file: ArchiveFile, path: Path) -> None:
            self._bring(partial(self._download, web), file, path, shared, where)

        pool = ThreadPoolExecutor(self._connections)
        try:
            # One file alone: a wrong password is not to be tried by every connection, which locks accounts.
            bring(*lacking[0])
            yield
            for done in as_completed([pool.submit(bring, *one) for one in lacking[1:]]):
                done.result()
                yield
        finally:
            web.close()
            pool.shutdown(cancel_futures=True)

    @staticmethod
    def _bring(
        get: Callable[[ArchiveFile, Path, dict[str, str]], None],
        file: ArchiveFile,
        path: Path,
        shared: SharedFiles | None,
        where: dict[str, str],
    ) -> None:
        """Have a file arrive under its final name, by way of the name that tiles share, where they do."""
        with writing(path) as mine:
            if shared is None:
                with begun(path, file.md5) as unfinished:
                    get(file, unfinished, where)
                    unfinished.replace(mine)
                return
            name = shared.name(file.md5)
            with begun(name, file.md5) as unfinished:
                # Another tile may have fetched it while this one waited.
                if _is_whole(name, file):
                    _link(name, mine)
                    os.truncate(unfinished, 0)
                    return
                get(file, unfinished, where)
                if _link(unfinished, mine):
                    # Last of all: with its name the lock is gone, and a file that no tile has may be removed.
                    settle(unfinished, name)
                else:
                    os.truncate(unfinished, 0)

    def _copy(self, file: ArchiveFile, unfinished: Path, where: dict[str, str]) -> None:
        assert self._root is not None
        source = self._root.joinpath(*PurePosixPath(file.path).parts)
        try:
            with ExitStack() as undone:
                # A copy begins anew.
                undone.callback(os.truncate, unfinished, 0)
                shutil.copyfile(source, unfinished)
                _require_whole(unfinished, file, {**where, "file": str(source)})
                undone.pop_all()
        except FileNotFoundError as error:
            raise ArchiveError(
                "a file is missing in the archive", **where, file=source, remedy="rebuild or repair the archive"
            ) from error
        except OSError as error:
            if no_room(error):
                raise
            raise ArchiveError(
                f"a file cannot be fetched: {error.strerror or error}",
                **where,
                file=source,
                remedy="check that the archive can be read, then run the same command again",
            ) from error

    def _download(self, web: WebArchive, file: ArchiveFile, unfinished: Path, where: dict[str, str]) -> None:
        where = {**where, "file": self.prefix + file.path}
        # What an earlier run left may be spoiled; then the whole file comes once more.
        old = unfinished.stat().st_size > 0
        for again in (True, False):
            try:
                web.fetch(file.path, file.size, unfinished)
            except WrongLength as error:
                raise ArchiveError(f"a file of the archive is damaged: {error}", **where, remedy=_DAMAGED) from error
            except (Refused, Untrusted, HTTPError) as error:
                raise self._told(error, where) from error
            if not (old and again) or not _difference(unfinished, file):
                break
            _log.warning("%s: what an earlier run began is of no use, and is fetched again", file.name)
            os.truncate(unfinished, 0)
        _require_whole(unfinished, file, where)

    def _told(self, error: Exception, where: dict[str, str]) -> ArchiveError:
        """Return what a server's refusal means to the user."""
        login = self._login
        secrets = () if login is None else (login.password,)
        status = error.status if isinstance(error, Refused) else 0
        again = "then run the same command again"
        if isinstance(error, Untrusted):
            text = f"the certificate of the archive's server is not accepted: {error}"
            remedy = f"name its authority's certificates with SSL_CERT_FILE, or correct `archive`, {again}"
        elif status == 401:
            text = (
                "the archive's server asks for a login" if login is None else "the archive's server refuses the login"
            )
            place = "the services file" if login is None or not login.place else login.place
            remedy = f"correct user and passwd in {place}, {again}"
        elif status == 403:
            text, remedy = "the archive's server forbids this file", f"ask for the right to read it, {again}"
        elif status in (404, 410):
            text, remedy = "a file is missing in the archive", "check `archive` in etc/campaigns.yaml, or repair it"
        elif 300 <= status < 400:
            text = f"the archive's server sends us elsewhere ({error}), and a login must not follow"
            remedy = "write the new place as `archive` in etc/campaigns.yaml"
        elif status:
            text, remedy = f"the archive's server answered {error}", f"wait until the server is well, {again}"
        else:
            text = f"a file cannot be fetched: {error}"
            remedy = f"check that the archive's server can be reached, {again}: it goes on where it broke off"
        return ArchiveError(redact(text, *secrets), **where, remedy=remedy)


def _take(shared: SharedFiles, file: ArchiveFile, path: Path) -> bool:
    """Say whether another tile has fetched a file, which is this one's too then."""
    name = shared.name(file.md5)
    try:
        if not _is_whole(name, file):
            return False
        with writing(path) as part:
            os.link(name, part)
    except FileNotFoundError:
        # The other tile has just gone.
        return False
    except OSError as error:
        if no_room(error):
            raise
        # No hard links here.
        return False
    return True


def _link(source: Path, target: Path) -> bool:
    """Give a file another name, or make a copy where the file system has no hard links; say which."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
        return False
    return True


def _require_whole(path: Path, file: ArchiveFile, where: dict[str, str]) -> None:
    problem = _difference(path, file)
    if problem:
        raise ArchiveError(f"a file of the archive is damaged: {problem}", **where, remedy=_DAMAGED)


def _difference(path: Path, file: ArchiveFile) -> str:
    """Return how a local file differs from the archive's record; empty when it does not."""
    size = path.stat().st_size
    if size != file.size:
        return f"{size} bytes instead of {file.size}"
    checksum = md5(path)
    return "" if checksum == file.md5.lower() else f"MD5 {checksum} instead of {file.md5}"


def _is_whole(path: Path, file: ArchiveFile) -> bool:
    return path.is_file() and not _difference(path, file)
