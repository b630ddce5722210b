"""Logins of archives, from the DES_SERVICES file, kept out of logs and command lines."""

from __future__ import annotations

import configparser
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from balrogutils.errors import ConfigError, did_you_mean

__all__ = ["Login", "redact"]

_REMEDY = "write the section with user and passwd, or put no archive that needs a login in etc/campaigns.yaml"


@dataclass(frozen=True)
class Login:
    """User, password and server of one archive, and where they stand. The password never shows in `repr`.

    `warning` is what is to be said of a file that more than its owner may read; empty when there is nothing.
    """

    user: str
    password: str = field(repr=False)
    server: str | None = None
    port: int | None = None
    place: str = field(default="", compare=False)
    warning: str = field(default="", compare=False)

    @classmethod
    def read(cls, services: str | os.PathLike[str], database: str) -> Login:
        """Read section ``db-<database>`` of the services file.

        Parameters
        ----------
        services : path-like
            The file DES_SERVICES names.
        database : str
            Database name, for example ``dessci``.

        Raises
        ------
        ConfigError
            When the file, section or a key is missing. Values are never quoted.
        """
        file = Path(services)
        section = f"db-{database}"
        # No interpolation: a per cent sign in a password is a per cent sign.
        parser = configparser.ConfigParser(interpolation=None)
        try:
            with file.open(encoding="utf-8") as stream:
                warning = _require_private(stream.fileno(), file, section)
                parser.read_file(stream)
        except FileNotFoundError as error:
            raise ConfigError(
                "the archive needs a login, but the services file is not there", file=file, key=section, remedy=_REMEDY
            ) from error
        except (configparser.Error, UnicodeDecodeError) as error:
            # The parser quotes the offending line, which may hold the password.
            raise ConfigError(
                f"the services file cannot be read ({type(error).__name__})", file=file, key=section
            ) from None
        if not parser.has_section(section):
            raise ConfigError(
                f"the services file has no section {section}: {did_you_mean(section, parser.sections())}",
                file=file,
                key=section,
                remedy=_REMEDY,
            )
        values = parser[section]
        for key in ("user", "passwd"):
            if not values.get(key):
                raise ConfigError(
                    f"section {section} of the services file has no {key}", file=file, key=key, remedy=_REMEDY
                )
        port = values.get("port")
        if port and not port.isdigit():
            raise ConfigError(f"the port of section {section} is not a number", file=file, key="port")
        place = f"section {section} of {file}"
        return cls(values["user"], values["passwd"], values.get("server"), int(port) if port else None, place, warning)


def _require_private(descriptor: int, file: Path, section: str) -> str:
    """Refuse a file of passwords that everybody on the machine may read or change; return a warning of the group."""
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    if mode & stat.S_IRWXO:
        raise ConfigError(
            f"the services file holds passwords and is open to everybody (mode {mode:o})",
            file=file,
            key=section,
            remedy=f"chmod 600 {file}; and change the passwords if others use this machine",
        )
    # A group may share the account.
    return f"the services file {file} is open to its group (mode {mode:o})" if mode & stat.S_IRWXG else ""


def redact(text: object, *secrets: str | None) -> str:
    """Return the text of an error without the given secrets."""
    out = str(text)
    for secret in secrets:
        if secret:
            out = out.replace(secret, "***")
    return out
