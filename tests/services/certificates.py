"""An authority of the tests' own, and the certificates it signs."""

import subprocess

__all__ = ["Authority"]


class Authority:
    """Signs certificates into a directory; its own is ``authority.crt`` there."""

    def __init__(self, directory):
        self.directory = directory
        self.file = directory / "authority.crt"
        subject = ("-subj", "/CN=authority of the tests", "-days", "2")
        key = ("-newkey", "rsa:2048", "-nodes", "-keyout", "authority.key")
        self.openssl(
            "req", "-x509", *key, "-out", "authority.crt", *subject, "-addext", "keyUsage=critical,keyCertSign"
        )

    def openssl(self, *words, text=""):
        """Run openssl in the directory and return what it writes."""
        done = subprocess.run(
            ("openssl", *words), cwd=self.directory, input=text, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def certificate(self, name, host, days):
        """Make ``NAME.key`` and ``NAME.crt`` of a host, good for some days."""
        self.openssl(
            "req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", "/"
        )
        (self.directory / "names").write_text(
            f"subjectAltName=DNS:{host}\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"
        )
        signed = ("-CA", "authority.crt", "-CAkey", "authority.key", "-CAcreateserial", "-extfile", "names")
        self.openssl("x509", "-req", "-in", f"{name}.csr", *signed, "-days", days, "-out", f"{name}.crt")
