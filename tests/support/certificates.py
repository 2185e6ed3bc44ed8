"""Certificates made in the test that uses them."""

from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization

from clockwork.settings.model import HTTP_CERT, HTTP_KEY
from clockwork.tls import CertFiles


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A certificate with its chain, and its key, as files."""

    cert: Path
    key: Path
    serial: int

    @property
    def files(self) -> CertFiles:
        return CertFiles(cert=self.cert, key=self.key, cert_setting=HTTP_CERT, key_setting=HTTP_KEY)


def issue(ca: trustme.CA, folder: Path, name: str, *, to: str = "127.0.0.1") -> Pair:
    """Writes `<name>.crt` and `<name>.key`, over what was there. The key is PKCS 8, which Java wants."""
    made = ca.issue_cert(to)
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    private = serialization.load_pem_private_key(made.private_key_pem.bytes(), password=None)
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return Pair(cert=cert, key=key, serial=_serial(cert))


def ca_file(ca: trustme.CA, folder: Path, name: str = "ca") -> Path:
    path = folder / f"{name}.crt"
    ca.cert_pem.write_to_path(path)
    return path


def _serial(cert: Path) -> int:
    from cryptography import x509

    return x509.load_pem_x509_certificate(cert.read_bytes()).serial_number
