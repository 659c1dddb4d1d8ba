"""Certificates for custom domains, with intermediates, dates and key kinds of choice, made by the openssl command."""
import datetime
import subprocess

ROOT_EXTENSIONS = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n"


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)


class Pair:
    """A certificate chain and its key as PEM text; what PUT /v1/certificates takes."""

    def __init__(self, chain, key):
        self.chain, self.key = chain, key

    @property
    def document(self):
        return {"certificate": self.chain, "private_key": self.key}

    def files(self, folder, name):
        chain, key = folder / f"{name}.chain", folder / f"{name}.key"
        chain.write_text(self.chain)
        key.write_text(self.key)
        return chain, key


class Issuer:
    """Root and intermediate CA; `ca` is what clients trust."""

    def __init__(self, folder):
        self.folder, self.count = folder, 0
        self.ca = folder / "custom-root.pem"
        self.root = self._sign("custom-root", None, ROOT_EXTENSIONS)
        self.intermediate = self._sign("custom-intermediate", "custom-root", ROOT_EXTENSIONS)

    def _sign(self, name, issuer, extensions, key="P-256", days=2, end=None):
        key_path, request, out = (self.folder / f"{name}.{kind}" for kind in ("key", "csr", "pem"))
        extension_path = self.folder / f"{name}.ext"
        extension_path.write_text(extensions)
        kind = ["-newkey", f"rsa:{key[3:]}"] if key.startswith("RSA") else \
            ["-newkey", "ec", "-pkeyopt", f"ec_paramgen_curve:{key}"]
        openssl("req", "-new", *kind, "-nodes", "-sha256", "-subj", f"/CN={name}", "-keyout", key_path, "-out", request)
        signer = ["-signkey", key_path] if issuer is None else \
            ["-CA", self.folder / f"{issuer}.pem", "-CAkey", self.folder / f"{issuer}.key", "-CAcreateserial"]
        if end is None:
            openssl("x509", "-req", "-in", request, *signer, "-sha256", "-days", days, "-extfile", extension_path,
                    "-out", out)
        else:
            self._sign_with_dates(request, issuer, extension_path, out, end)
        return out.read_text()

    def _sign_with_dates(self, request, issuer, extensions, out, end):
        """`openssl x509` takes no dates; `openssl ca` does."""
        database = self.folder / f"{out.stem}.db"
        database.mkdir()
        (database / "index.txt").write_text("")
        (database / "serial").write_text(f"{0x5000 + self.count:x}\n")
        config = database / "ca.cnf"
        config.write_text(f"[ca]\ndefault_ca=x\n[x]\ndatabase={database}/index.txt\nserial={database}/serial\n"
                          f"new_certs_dir={database}\ndefault_md=sha256\npolicy=any\nunique_subject=no\n"
                          "[any]\ncommonName=optional\n")
        start = end - datetime.timedelta(days=1)
        openssl("ca", "-batch", "-notext", "-config", config, "-cert", self.folder / f"{issuer}.pem", "-keyfile",
                self.folder / f"{issuer}.key", "-in", request, "-extfile", extensions, "-startdate",
                start.strftime("%Y%m%d%H%M%SZ"), "-enddate", end.strftime("%Y%m%d%H%M%SZ"), "-out", out)

    def issue(self, *names, key="P-256", end=None, usage="serverAuth", extra=""):
        """A new pair for these DNS names: leaf and intermediate."""
        self.count += 1
        stem = f"leaf{self.count}"
        alternatives = ",".join(f"DNS:{name}" for name in names)
        extensions = (f"basicConstraints=critical,CA:FALSE\nextendedKeyUsage={usage}\n"
                      f"subjectAltName={alternatives}\n{extra}")
        leaf = self._sign(stem, "custom-intermediate", extensions, key, end=end)
        return Pair(leaf + self.intermediate, (self.folder / f"{stem}.key").read_text())
