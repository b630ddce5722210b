"""Logins of archives, from the DES_SERVICES file, kept out of logs and command lines."""

from __future__ import annotations

import configparser
import os
from dataclasses import dataclass, field
from pathlib import Path

from balrogutils.errors import ConfigError, did_you_mean

__all__ = ["Login", "redact"]

_REMEDY = "write the section with user and passwd, or put no archive that needs a login in etc/campaigns.yaml"


@dataclass(frozen=True)
class Login:
    """User, password and server of one archive. The password never shows in its representation."""

    user: str
    password: str = field(repr=False)
    server: str | None = None
    port: int | None = None

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
        return cls(values["user"], values["passwd"], values.get("server"), int(port) if port else None)


def redact(text: object, *secrets: str | None) -> str:
    """Return the text of an error without the given secrets."""
    out = str(text)
    for secret in secrets:
        if secret:
            out = out.replace(secret, "***")
    return out
