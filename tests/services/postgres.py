"""A PostgreSQL server of the test's own, into which the database of an embedded archive is loaded."""

import re
import shutil
from pathlib import Path

import sqlalchemy as sa
from certificates import Authority
from daemons import PASSWORD, USER, Daemon

__all__ = ["Postgres"]


def _program(name):
    # Debian keeps the programs of each version apart, and most of them off the search path.
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    program = str(found[-1]) if found else shutil.which(name)
    assert program, f"{name} is not installed: make services"
    return program


class Postgres(Daemon):
    """A server with one database, ``dessci``, and one user, who needs a password."""

    def __init__(self):
        super().__init__("postgres")
        self.encryption = {}
        secret = self.directory / "secret"
        secret.write_text(PASSWORD, encoding="utf-8")
        if self.user:
            shutil.chown(secret, self.user)
        # Sorted by the rules of English, as a server may be, and not by the bytes as SQLite does.
        language = ("--locale-provider=icu", "--icu-locale=en-US", "--locale=C", "--encoding=UTF8")
        login = ("--auth=scram-sha-256", f"--username={USER}", f"--pwfile={secret}")
        self.as_user(_program("initdb"), "--no-sync", *language, *login, "--pgdata", str(self.directory / "data"))
        secret.unlink()
        self.run()
        engine = sa.create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
        with engine.connect() as connection:
            connection.execute(sa.text("create database dessci"))
        self.engine = sa.create_engine(self.url("dessci"), poolclass=sa.pool.NullPool)

    def run(self):
        """Start the server, the first time or again."""
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": self.directory}
        settings |= {"fsync": "off", "max_connections": 20, "shared_buffers": "8MB", **self.encryption}
        words = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        self.start(_program("postgres"), "-D", str(self.directory / "data"), *words)

    def encrypt(self, host, days="2"):
        """Start anew with TLS alone and a certificate of a host, or without TLS; return the authority's certificate."""
        self.stop()
        signer = Authority(self.directory)
        self.encryption, kind = {}, "host"
        if host is not None:
            signer.certificate("server", host, days)
            files = {"ssl_cert_file": self.directory / "server.crt", "ssl_key_file": self.directory / "server.key"}
            for file in files.values():
                file.chmod(0o600)
                if self.user:
                    shutil.chown(file, self.user, self.user)
            self.encryption, kind = {"ssl": "on", **files}, "hostssl"
        access = self.directory / "data" / "pg_hba.conf"
        access.write_text(re.sub(r"^host(ssl)? +", f"{kind} ", access.read_text(), flags=re.MULTILINE))
        self.run()
        return signer.file

    def answers(self):
        """Return whether the server takes a login: it listens before it does."""
        try:
            with sa.create_engine(self.url("postgres"), poolclass=sa.pool.NullPool).connect():
                return True
        except sa.exc.OperationalError:
            return False

    def url(self, database):
        """Return the URL with the login."""
        return sa.URL.create("postgresql+psycopg", USER, PASSWORD, "127.0.0.1", self.port, database)

    def load(self, file):
        """Put every table of an SQLite database in place of the server's."""
        metadata = sa.MetaData()
        embedded = sa.create_engine(f"sqlite:///{file}", poolclass=sa.pool.NullPool)
        metadata.reflect(embedded)
        with self.engine.begin() as server, embedded.connect() as source:
            metadata.drop_all(server)
            metadata.create_all(server)
            for table in metadata.sorted_tables:
                rows = [dict(row) for row in source.execute(sa.select(table)).mappings()]
                if rows:
                    server.execute(sa.insert(table), rows)

    def services(self, file, password=PASSWORD, server="127.0.0.1"):
        """Write the file of logins as users have it."""
        text = f"[db-dessci]\nuser = {USER}\npasswd = {password}\nserver = {server}\nport = {self.port}\n"
        file.touch(0o600)
        file.write_text(text, encoding="utf-8")
        return file
