"""An authority for the tests."""

import datetime as dt

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec


class Ca:
    """An authority that answers requests as they are."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP384R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a CA")])
        self.certificate = self._make(self.name, self.key.public_key(), [])

    def answer(self, pem: str) -> x509.Certificate:
        request = x509.load_pem_x509_csr(pem.encode())
        assert request.is_signature_valid
        return self._make(request.subject, request.public_key(), list(request.extensions))

    def _make(self, subject, public, extensions) -> x509.Certificate:  # type: ignore[no-untyped-def]  # noqa: ANN001
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateBuilder(
            self.name, subject, public, x509.random_serial_number(),
            now - dt.timedelta(days=1), now + dt.timedelta(days=30),
        )  # fmt: skip
        builder = builder.add_extension(
            x509.BasicConstraints(ca=subject == self.name, path_length=None), critical=True
        )
        for extension in extensions:
            builder = builder.add_extension(extension.value, extension.critical)
        return builder.sign(self.key, hashes.SHA384())
