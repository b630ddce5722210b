"""Files from the archive: verified, whole, and not fetched twice."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import quote, unquote, urlsplit

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from balrogutils.archive.services import Login
from balrogutils.errors import ArchiveError, ConfigError
from balrogutils.products import writing
from balrogutils.progress import track

__all__ = ["ArchiveFile", "Transfer", "md5"]

_log = logging.getLogger(__name__)
_BLOCK = 1 << 20
_TIMEOUT = 60.0
_ATTEMPTS = 4


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

    @property
    def name(self) -> str:
        """File name."""
        return PurePosixPath(self.path).name


def md5(path: str | os.PathLike[str]) -> str:
    """Return the MD5 of a file, which is the checksum DESDM keeps."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _worth_a_retry(error: BaseException) -> bool:
    if isinstance(error, urllib.error.HTTPError):
        return error.code >= 500 or error.code in (408, 429)
    return isinstance(error, (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError))


class Transfer:
    """Fetches files below one prefix.

    Parameters
    ----------
    prefix : str
        ``file:///...`` or ``https://...`` (``http://`` for servers that need no login).
    login : Login, optional
        Sent as HTTP basic authentication, over https only.
    wait : callable, optional
        tenacity wait policy between attempts of a network transfer.

    Raises
    ------
    ConfigError
        For a prefix of another kind, or a login that would travel in clear text.
    """

    def __init__(self, prefix: str, login: Login | None = None, wait: Callable[..., float] | None = None) -> None:
        self.prefix = prefix if prefix.endswith("/") else prefix + "/"
        parts = urlsplit(self.prefix)
        self._wait = wait or wait_exponential(multiplier=1, max=30)
        self._root: Path | None = None
        self._opener: urllib.request.OpenerDirector | None = None
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
        elif parts.scheme in ("http", "https"):
            handlers: list[urllib.request.BaseHandler] = []
            if login is not None:
                if parts.scheme != "https":
                    raise ConfigError(
                        f"a login would travel in clear text to {prefix}", key="archive", remedy="use https"
                    )
                keys = urllib.request.HTTPPasswordMgrWithPriorAuth()
                keys.add_password(None, self.prefix, login.user, login.password, is_authenticated=True)
                handlers.append(urllib.request.HTTPBasicAuthHandler(keys))
            self._opener = urllib.request.build_opener(*handlers)
        else:
            raise ConfigError(
                f"an archive prefix of an unknown kind: {prefix}",
                key="archive",
                remedy="use file:///path/ or https://host/path/",
            )

    def fetch(
        self, files: Iterable[ArchiveFile], directory: str | os.PathLike[str], *, tile: str, band: str
    ) -> list[Path]:
        """Fetch files into `directory`, under their archive paths.

        Parameters
        ----------
        files : iterable of ArchiveFile
            What to fetch. A file that is there already with the right size and checksum is not fetched again.
        directory : path-like
            Where to.
        tile, band : str
            Named in errors.

        Returns
        -------
        list of pathlib.Path
            The local names, in the order of `files`.

        Raises
        ------
        ArchiveError
            When a file is missing in the archive, or its size or checksum is wrong.
        """
        wanted = list(files)
        paths: list[Path] = []
        fetched = size = 0
        for file in track(wanted, f"{tile} {band}: fetching", unit="files"):
            path = Path(directory, *_parts(file, tile, band))
            if not _is_whole(path, file):
                self._one(file, path, tile, band)
                fetched += 1
                size += file.size
            paths.append(path)
        _log.info(
            "%s %s: fetched %d files (%.1f MB), %d were there and verified",
            tile,
            band,
            fetched,
            size / 1e6,
            len(wanted) - fetched,
        )
        return paths

    def _one(self, file: ArchiveFile, path: Path, tile: str, band: str) -> None:
        shown = self.prefix + file.path if self._root is None else str(self._root / file.path)
        where = {"tile": tile, "band": band, "file": shown}
        attempts = Retrying(
            stop=stop_after_attempt(_ATTEMPTS), wait=self._wait, retry=retry_if_exception(_worth_a_retry), reraise=True
        )
        try:
            with writing(path) as part:
                attempts(self._copy, file, part)
                problem = _difference(part, file)
                if problem:
                    raise ArchiveError(
                        f"a file of the archive is damaged: {problem}",
                        **where,
                        remedy="rebuild or repair the archive, then run prep again",
                    )
        except FileNotFoundError as error:
            raise ArchiveError(
                "a file is missing in the archive", **where, remedy="rebuild or repair the archive"
            ) from error
        except urllib.error.HTTPError as error:
            text = (
                "a file is missing in the archive"
                if error.code in (404, 410)
                else f"the archive answered {error.code} {error.reason}"
            )
            remedy = "check the archive, and the login for it, then run prep again"
            raise ArchiveError(text, **where, remedy=remedy) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or error
            remedy = "check that the archive can be reached and read, then run prep again"
            raise ArchiveError(f"a file cannot be fetched: {reason}", **where, remedy=remedy) from error

    def _copy(self, file: ArchiveFile, part: Path) -> None:
        with self._open(file) as source, part.open("wb") as target:
            for block in _blocks(source):
                target.write(block)

    def _open(self, file: ArchiveFile) -> AbstractContextManager[BinaryIO]:
        if self._root is not None:
            return self._root.joinpath(*PurePosixPath(file.path).parts).open("rb")
        assert self._opener is not None
        try:
            return self._opener.open(self.prefix + quote(file.path), timeout=_TIMEOUT)
        except urllib.error.HTTPError as error:
            # The error carries the open connection of the answer.
            error.close()
            raise


def _blocks(source: BinaryIO) -> Iterator[bytes]:
    while block := source.read(_BLOCK):
        yield block


def _parts(file: ArchiveFile, tile: str, band: str) -> tuple[str, ...]:
    parts = PurePosixPath(file.path).parts
    if not parts or file.path.startswith("/") or ".." in parts:
        raise ArchiveError("the archive names a file outside itself", tile=tile, band=band, file=file.path)
    return parts


def _difference(path: Path, file: ArchiveFile) -> str:
    """Return how a local file differs from the archive's record; empty when it does not."""
    size = path.stat().st_size
    if size != file.size:
        return f"{size} bytes instead of {file.size}"
    checksum = md5(path)
    return "" if checksum == file.md5.lower() else f"MD5 {checksum} instead of {file.md5}"


def _is_whole(path: Path, file: ArchiveFile) -> bool:
    return path.is_file() and not _difference(path, file)
