"""Files over http and https: a bounded number of connections, transfers that go on where they broke off."""

from __future__ import annotations

import base64
import logging
import re
import ssl
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit

import urllib3
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential, wait_random
from tenacity.nap import sleep_using_event
from urllib3.exceptions import HTTPError, SSLError

from balrogutils.archive.services import Login

__all__ = ["Refused", "Untrusted", "WebArchive", "WrongLength"]

_log = logging.getLogger(__name__)
_BLOCK = 1 << 18
_CONNECT_SECONDS = 30.0
_SILENT_SECONDS = 60.0
# A transfer that is slower than this over the time a silent server gets is begun anew: it would take for ever.
_SLOWEST = 1000.0  # bytes a second
_ATTEMPTS = 5
_LONGEST_PAUSE = 120.0
_PROGRESS = 1 << 16  # bytes after which a broken transfer may be taken up with fresh patience


class Refused(Exception):
    """The server answered with a status that is no file."""

    def __init__(self, status: int, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(f"{status} {reason}".strip())
        self.status = status
        self.retry_after = retry_after


class Untrusted(Exception):
    """The server's certificate is not accepted."""


class WrongLength(Exception):
    """The server has a file of another length than the archive's record says."""


class _Again(Exception):
    """What was received so far is of no use, or not whole; another attempt may do better."""


def _worth_a_retry(error: BaseException) -> bool:
    if isinstance(error, Refused):
        return error.status in (408, 425, 429) or (error.status >= 500 and error.status not in (501, 505))
    return isinstance(error, (HTTPError, _Again, TimeoutError))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


class WebArchive:
    """An archive over http(s).

    Certificates are checked against the machine's authorities, or those that SSL_CERT_FILE names; redirections are not
    followed, so that a login goes nowhere but to the host of the prefix. https_proxy and no_proxy are obeyed.

    Parameters
    ----------
    prefix : str
        URL that ends with a slash.
    login : Login, optional
        Sent as basic authentication.
    connections : int
        Connections at a time.
    wait : callable, optional
        tenacity wait policy between attempts.
    silent : float
        Seconds without an answer after which a connection is given up.
    """

    def __init__(
        self,
        prefix: str,
        login: Login | None = None,
        *,
        connections: int = 1,
        wait: Callable[..., float] | None = None,
        silent: float = _SILENT_SECONDS,
    ) -> None:
        self._prefix = prefix
        self._silent = silent
        self._wait = wait or wait_exponential(multiplier=1, max=60) + wait_random(0, 1)
        self._stopped = Event()
        self._headers = {"Accept-Encoding": "identity", "User-Agent": "balrogutils"}
        if login is not None:
            pair = base64.b64encode(f"{login.user}:{login.password}".encode()).decode("ascii")
            self._headers["Authorization"] = f"Basic {pair}"
        parts = urlsplit(prefix)
        settings: dict[str, Any] = {
            "maxsize": connections,
            "block": True,
            "timeout": urllib3.Timeout(connect=min(silent, _CONNECT_SECONDS), read=silent),
            "ssl_context": ssl.create_default_context(),
        }
        proxy = urllib.request.getproxies().get(parts.scheme)
        self._pool: urllib3.PoolManager
        if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
            self._pool = urllib3.ProxyManager(proxy, **settings)
        else:
            self._pool = urllib3.PoolManager(**settings)

    def close(self) -> None:
        """Close all connections; transfers of other threads end at their next block."""
        self._stopped.set()
        self._pool.clear()

    def fetch(self, path: str, size: int, part: Path) -> None:
        """Bring a local file to its full length, from where it ends.

        Parameters
        ----------
        path : str
            Path below the prefix.
        size : int
            Bytes of the whole file.
        part : pathlib.Path
            The local file; need not be there.

        Raises
        ------
        Refused, WrongLength, Untrusted
            What the server does not give.
        urllib3.exceptions.HTTPError
            When it cannot be reached, or breaks off again and again.
        """
        while True:
            before = _size(part)
            attempts = Retrying(
                stop=stop_after_attempt(_ATTEMPTS),
                wait=self._pause,
                retry=retry_if_exception(lambda error: not self._stopped.is_set() and _worth_a_retry(error)),
                sleep=sleep_using_event(self._stopped),
                before_sleep=lambda state: _tell(path, state),
                reraise=True,
            )
            try:
                attempts(self._go_on, path, size, part)
            except (HTTPError, _Again, TimeoutError) as error:
                if self._stopped.is_set() or _size(part) < before + _PROGRESS:
                    raise HTTPError(_reason(error)) from error
            else:
                return

    def _pause(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        asked = error.retry_after if isinstance(error, Refused) else 0.0
        return max(self._wait(state), min(asked, _LONGEST_PAUSE))

    def _go_on(self, path: str, size: int, part: Path) -> None:
        have = _size(part)
        if have > size:
            have = 0
        if have and have == size:
            return
        headers = self._headers | ({"Range": f"bytes={have}-"} if have else {})
        try:
            answer = self._pool.request(
                "GET", self._prefix + quote(path), headers=headers, preload_content=False, redirect=False, retries=False
            )
        except SSLError as error:
            cause = error.args[0] if error.args else None
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise Untrusted(cause.verify_message.rstrip(".")) from error
            raise
        try:
            if answer.status == 416:
                part.write_bytes(b"")
                raise _Again("the server does not have the rest of the file")
            if answer.status not in (200, 206):
                raise Refused(answer.status, answer.reason or "", _seconds(answer.headers.get("Retry-After")))
            start, total = _extent(answer)
            if total is not None and total != size:
                raise WrongLength(f"{total} bytes instead of {size}")
            if start not in (0, have):
                part.write_bytes(b"")
                raise _Again("the server sent another part of the file than was asked for")
            with part.open("ab" if start else "wb") as target:
                self._receive(answer, target, size - start)
        except BaseException:
            answer.close()
            raise
        finally:
            # Closed or not: the pool counts its connections.
            answer.release_conn()

    def _receive(self, answer: urllib3.BaseHTTPResponse, target: BinaryIO, size: int) -> None:
        received, began, counted = 0, time.monotonic(), 0
        while received <= size:
            block = answer.read1(_BLOCK, decode_content=False)
            if not block:
                break
            if self._stopped.is_set():
                raise _Again("another file cannot be fetched")
            received += target.write(block[: size + 1 - received])
            now = time.monotonic()
            if now - began > self._silent:
                if received - counted < _SLOWEST * (now - began):
                    raise _Again(f"slower than {_SLOWEST:.0f} bytes a second")
                began, counted = now, received
        if received > size:
            raise WrongLength(f"more than {size} bytes")
        if received < size:
            raise _Again(f"the connection ended {size - received} bytes early")


def _extent(answer: urllib3.BaseHTTPResponse) -> tuple[int, int | None]:
    """Return the first byte an answer holds, and the length of the whole file where it says that."""
    if answer.status == 206:
        found = re.match(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if found is None:
            return -1, None
        return int(found[1]), None if found[2] == "*" else int(found[2])
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _seconds(text: str | None) -> float:
    """Return a Retry-After in seconds; a date is left to our own pauses."""
    return float(text) if text is not None and text.isdigit() else 0.0


def _reason(error: BaseException) -> str:
    """Return why a transfer broke off, without the library's names of its objects."""
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return "the server does not answer"
    if isinstance(error, urllib3.exceptions.ProtocolError):
        return "the connection broke off"
    return str(error)


def _tell(path: str, state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    if error is not None and state.next_action is not None:
        _log.info("%s: %s; again in %.0f s", path, _reason(error), state.next_action.sleep)
