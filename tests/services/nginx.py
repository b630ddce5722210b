"""An nginx of the test's own: https with a certificate of the test's authority, and basic authentication."""

import os
import signal

from certificates import Authority
from daemons import PASSWORD, USER, Daemon

__all__ = ["Nginx"]

_CONFIGURATION = """\
daemon off;
master_process on;
worker_processes 1;
pid {directory}/pid;
error_log {directory}/log;
events {{ worker_connections 64; }}
http {{
    log_format told '$status $request_method $uri $http_range $remote_user $connection';
    access_log {directory}/access told;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    limit_conn_zone $server_name zone=all:64k;
    server {{
        listen 127.0.0.1:{port} ssl;
        server_name localhost;
        ssl_certificate {directory}/{certificate}.crt;
        ssl_certificate_key {directory}/{certificate}.key;
        keepalive_timeout 5;
        location / {{
            root {root};
            auth_basic "the archive";
            auth_basic_user_file {directory}/users;
            {settings}
        }}
        {more}
    }}
}}
"""


class Nginx(Daemon):
    """Serves a directory under ``https://localhost:PORT/``; `serve` says how well."""

    def __init__(self, root):
        super().__init__()
        self.root = root
        signer = Authority(self.directory)
        signer.certificate("good", "localhost", "2")
        signer.certificate("other", "elsewhere.example", "2")
        signer.certificate("expired", "localhost", "0")
        self.authority = signer.file
        hashed = signer.openssl("passwd", "-apr1", "-stdin", text=PASSWORD + "\n").strip()
        (self.directory / "users").write_text(f"{USER}:{hashed}\n")
        self.serve()

    @property
    def prefix(self):
        """URL of the archive."""
        return f"https://localhost:{self.port}/"

    def serve(self, settings="", more="", certificate="good", root=None):
        """Start anew with other settings of the archive's location."""
        self.stop()
        (self.directory / "access").write_text("")
        text = _CONFIGURATION.format(
            directory=self.directory,
            port=self.port,
            certificate=certificate,
            root=root or f'"{self.root}"',
            settings=settings,
            more=more,
        )
        if os.getuid() == 0:
            # Its workers would be another user's, and the archive of a test belongs to root alone.
            text = "user root;\n" + text
        (self.directory / "nginx.conf").write_text(text)
        self.start("/usr/sbin/nginx", "-c", str(self.directory / "nginx.conf"), "-e", str(self.directory / "log"))

    def requests(self):
        """Stop, so that all is written, and return the access log: status, method, path, range, user, connection."""
        self.stop(signal.SIGQUIT)
        return (self.directory / "access").read_text().splitlines()
