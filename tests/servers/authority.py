"""A certificate authority for tests, made by openssl."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

from google.protobuf import text_encoding

from servingrepo.servers.security import Security

if TYPE_CHECKING:
    from pathlib import Path


class Authority:
    """A certificate authority of the test and what it signed, made by openssl."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        # Since 3.13 Python asks of a CA that it says what its key is for (ssl.VERIFY_X509_STRICT).
        ca = "req -x509 -nodes -subj /CN=ca -days 1 -keyout ca.key -out ca.crt"
        usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
        self._openssl(*ca.split(), "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", *usage)
        self.sign("server", "subjectAltName=IP:127.0.0.1")
        self.sign("client", "subjectAltName=DNS:client")

    def sign(self, name: str, extension: str) -> None:
        request = f"req -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr".split()
        self._openssl(*request, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
        (self.folder / "extension").write_text(extension)
        signing = (
            f"x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 1 "
            f"-out {name}.crt -extfile extension"
        )
        self._openssl(*signing.split())

    def ssl_config(self, *, verify: bool) -> Path:
        fields = {"server_key": "server.key", "server_cert": "server.crt"}
        if verify:
            fields["custom_ca"] = "ca.crt"
        lines = [
            f'{field}: "{text_encoding.CEscape((self.folder / file).read_bytes(), False)}"'
            for field, file in fields.items()
        ]
        path = self.folder / "ssl.config"
        path.write_text("\n".join([*lines, f"client_verify: {str(verify).lower()}"]))
        return path

    def encrypted_key(self) -> Path:
        self._openssl(
            *["pkey", "-in", "client.key", "-aes128", "-passout", "pass:x", "-out", "locked.key"]
        )
        return self.folder / "locked.key"

    def security(self, *, certificate: bool = False, **more: Any) -> Security:
        return Security.read(
            ca=self.folder / "ca.crt",
            certificate=self.folder / "client.crt" if certificate else None,
            key=self.folder / "client.key" if certificate else None,
            **more,
        )

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)
