"""Database servers: how long to wait for them, which of their errors may pass, and what these mean."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Timer
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from balrogutils.archive.services import redact

__all__ = [
    "CONNECT_SECONDS",
    "bounded",
    "certificate_refused",
    "connect_args",
    "database_name",
    "login_refused",
    "reason",
    "worth_a_retry",
]

CONNECT_SECONDS = 30
"""Seconds a server gets to accept a connection and its login."""

_PROGRAM = "balrogutils"
# In words where the driver gives no code: libpq has none for an error of the connection.
_REFUSED = re.compile(
    r"ORA-01017|ORA-28000|ORA-28001|ORA-01045"
    r"|(?:password|Peer|Ident) authentication failed|no password supplied|role \"[^\"]*\" does not exist"
    r"|no pg_hba\.conf entry|is not permitted to log in"
)
_LASTING = re.compile(r"no such|database \"[^\"]*\" does not exist")
_UNTRUSTED = re.compile(r"certificate|server does not support SSL")


def database_name(url: URL) -> str:
    """Return the name by which the services file knows a database."""
    service = url.query.get("service_name", "")
    return url.database or (service if isinstance(service, str) else service[0]) or url.host or ""


def reason(error: BaseException, *secrets: str) -> str:
    """Return what the driver says, in one line and without the secrets."""
    return " ".join(redact(getattr(error, "orig", None) or error, *secrets).split())


def connect_args(url: URL, seconds: float) -> dict[str, Any]:
    """Return what a driver is told beside the URL: bounds on waiting, and a name for the server's list of sessions.

    Parameters
    ----------
    url : sqlalchemy.engine.URL
        What it says itself is left alone.
    seconds : float
        How long a statement may take.
    """
    settings: dict[str, Any] = {}
    if url.drivername in ("postgresql", "postgresql+psycopg", "postgresql+psycopg2"):
        settings = {
            "connect_timeout": CONNECT_SECONDS,
            "tcp_user_timeout": int(1000 * seconds),
            "application_name": _PROGRAM,
            "options": f"-c statement_timeout={int(1000 * seconds)}",
        }
    elif url.drivername == "oracle+oracledb":
        settings = {"tcp_connect_timeout": float(CONNECT_SECONDS), "program": _PROGRAM}
    return {key: value for key, value in settings.items() if key not in url.query}


@contextmanager
def bounded(connection: sa.Connection, seconds: float) -> Iterator[None]:
    """Hang up on a server that does not answer within some seconds and does not end the statement itself either."""
    driver = connection.connection.driver_connection
    if hasattr(driver, "call_timeout"):
        driver.call_timeout = int(1000 * seconds)  # type: ignore[union-attr]
    if not hasattr(driver, "fileno"):
        yield
        return
    # The server's own limit comes first, and says what happened.
    timer = Timer(1.5 * seconds, _hang_up, [driver.fileno()])  # type: ignore[union-attr]
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _hang_up(descriptor: int) -> None:
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as line:
        line.shutdown(socket.SHUT_RDWR)


def login_refused(error: BaseException) -> bool:
    """Return whether a server refuses the user or the password; to try again would lock the account."""
    return _REFUSED.search(str(error)) is not None


def certificate_refused(error: BaseException) -> bool:
    """Return whether a server is not the one it should be, as far as TLS tells: the login is not sent then."""
    return _UNTRUSTED.search(str(error)) is not None


def worth_a_retry(error: BaseException) -> bool:
    """Return whether an error may pass: a server that is away or a locked file, not a wrong statement."""
    if not isinstance(error, DBAPIError) or login_refused(error) or certificate_refused(error):
        return False
    passing = error.connection_invalidated or isinstance(error, (OperationalError, InterfaceError))
    return passing and _LASTING.search(str(error)) is None
