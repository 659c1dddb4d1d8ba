"""A certificate authority for one test run, by the openssl command."""
import subprocess
from pathlib import Path


class Authority:
    def __init__(self, folder):
        self.folder = Path(folder)
        self.ca, self.ca_key = self.folder / "ca.pem", self.folder / "ca.key"
        self._openssl("req", "-x509", *self._new_key("ec"), "-days", "2", "-subj", "/CN=test CA",
                      "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign",
                      "-keyout", self.ca_key, "-out", self.ca)

    @staticmethod
    def _new_key(kind):
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"] if kind == "ec" else ["-newkey", "rsa:2048"]
        return [*key, "-nodes", "-sha256"]

    @staticmethod
    def _openssl(*arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)

    def issue(self, name, alternatives, kind="ec", usage="serverAuth"):
        """Makes name.pem and name.key; returns their paths."""
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        request, extensions = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        extensions.write_text("basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
                              f"extendedKeyUsage={usage}\nsubjectAltName={alternatives}\n")
        self._openssl("req", "-new", *self._new_key(kind), "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        self._openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self.ca_key, "-CAcreateserial",
                      "-sha256", "-days", "2", "-extfile", extensions, "-out", certificate)
        return certificate, key

    def issue_domain(self, domain, kind="ec", name=None):
        return self.issue(name or domain, f"DNS:*.{domain},DNS:{domain}", kind)
