"""A small certification authority, and software keys in the place of the daemon's."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hsmagent.mail.keys import Context
from hsmagent.model import Key, KeyType, Scheme
from hsmagent.token.signer import TokenSigner
from hsmagent.token.unwrap import unwrap
from hsmagent.unwraps import Unwrap

NOW = datetime.now(UTC).replace(microsecond=0)
_HASHES: dict[str, Callable[[], hashes.HashAlgorithm]] = {
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
}
_CURVES: dict[str, type[ec.EllipticCurve]] = {
    "p256": ec.SECP256R1,
    "p384": ec.SECP384R1,
    "p521": ec.SECP521R1,
    "brainpool": ec.BrainpoolP256R1,
}


def make_private(kind: str) -> Any:
    """kind: "rsa", "ed25519" or a name of _CURVES."""
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(_CURVES[kind]())


@dataclass
class Person:
    """A private key and its certificate."""

    private: Any
    certificate: x509.Certificate
    label: str = ""

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        data: bytes = self.private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return data

    @property
    def key(self) -> Key:
        public = self.private.public_key()
        spki = public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        common = {"spki": spki, "label": self.label, "certificates": (self.der,)}
        if isinstance(public, rsa.RSAPublicKey):
            return Key(key_type=KeyType.RSA, bits=public.key_size, can_decrypt=True, **common)
        if isinstance(public, ec.EllipticCurvePublicKey):
            curve = public.curve
            bits, name = curve.key_size, curve.name
            return Key(key_type=KeyType.EC, bits=bits, curve=name, can_derive=True, **common)
        return Key(key_type=KeyType.ED25519, bits=256, **common)

    def write(self, folder: Path, name: str) -> tuple[str, str]:
        """Write certificate and key as PEM; return the two paths."""
        certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
        certificate.write_bytes(self.pem)
        key.write_bytes(self.key_pem)
        return str(certificate), str(key)


@dataclass
class Authority(Person):
    """Issues certificates for persons."""

    serial: int = 1000

    def issue(
        self,
        kind: str = "p256",
        name: str = "Alice Example",
        *,
        mail: Sequence[str] = ("alice@example.org",),
        start: datetime = NOW - timedelta(days=1),
        end: datetime = NOW + timedelta(days=365),
        subject_mail: str = "",
        usage: bool = True,
        private: Any = None,
        label: str = "",
        purposes: Sequence[x509.ObjectIdentifier] = (ExtendedKeyUsageOID.EMAIL_PROTECTION,),
        uses: x509.KeyUsage | None = None,
        more: Sequence[x509.ExtensionType] = (),
    ) -> Person:
        """more: further extensions, a SAN in the place of the one made of `mail` among them."""
        private = private or make_private(kind)
        names = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
        if subject_mail:
            names.append(x509.NameAttribute(NameOID.EMAIL_ADDRESS, subject_mail))
        self.serial += 1
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(names))
            .issuer_name(self.certificate.subject)
            .public_key(private.public_key())
            .serial_number(self.serial)
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.private.public_key()),
                critical=False,
            )
        )
        if purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        for extension in more:
            builder = builder.add_extension(extension, critical=False)
        if mail and not any(isinstance(e, x509.SubjectAlternativeName) for e in more):
            alternative = x509.SubjectAlternativeName([x509.RFC822Name(m) for m in mail])
            builder = builder.add_extension(alternative, critical=False)
        if usage:
            builder = builder.add_extension(uses or _usage(kind, sign=True), critical=True)
        return Person(private, builder.sign(self.private, hashes.SHA256()), label or name)

    def authority(self, name: str, **options: Any) -> "Authority":
        """Make a CA below this one; options: see `authority`."""
        self.serial += 1
        return authority(name, above=self, number=self.serial, **options)

    def crl(self, *revoked: Person, until: datetime = NOW + timedelta(days=30)) -> bytes:
        """Make a list of revoked certificates, as PEM."""
        builder = x509.CertificateRevocationListBuilder(
            issuer_name=self.certificate.subject,
            last_update=min(NOW, until) - timedelta(days=1),
            next_update=until,
            revoked_certificates=[
                x509.RevokedCertificateBuilder(
                    one.certificate.serial_number, NOW - timedelta(hours=2)
                ).build()
                for one in revoked
            ],
        )
        made = builder.add_extension(x509.CRLNumber(1), critical=False)
        return made.sign(self.private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def authority(
    name: str = "Test Root",
    *,
    above: Authority | None = None,
    number: int = 1,
    length: int | None = None,
    end: datetime = NOW + timedelta(days=3650),
    more: Sequence[x509.ExtensionType] = (),
    private: Any = None,
) -> Authority:
    """Make a root, or a CA below another. length: of the path; more: further extensions."""
    private = private or make_private("p256")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(above.certificate.subject if above else subject)
        .public_key(private.public_key())
        .serial_number(number)
        .not_valid_before(NOW - timedelta(days=3650))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=length), critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False
        )
        .add_extension(_usage("p256", sign=False), critical=True)
    )
    for extension in more:
        builder = builder.add_extension(extension, critical=False)
    signer = above.private if above else private
    return Authority(private, builder.sign(signer, hashes.SHA256()), name)


def _usage(kind: str, *, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=sign,
        content_commitment=False,
        key_encipherment=sign and kind == "rsa",
        data_encipherment=False,
        key_agreement=sign and kind not in {"rsa", "ed25519"},
        key_cert_sign=not sign,
        crl_sign=not sign,
        encipher_only=False,
        decipher_only=False,
    )


@dataclass
class SoftwareKeys:
    """MailKeys over private keys in memory; `asked` records each operation.

    gnupg: whether GnuPG decrypts with them, too.
    """

    people: Sequence[Person]
    asked: list[tuple[str, Context]] = field(default_factory=list)
    gnupg: bool = False

    def keys(self) -> list[Key]:
        return [person.key for person in self.people]

    def read_gcm(self) -> bool:
        return not self.gnupg

    def sign_attributes(
        self, key: Key, scheme: Scheme, attributes: bytes, context: Context
    ) -> bytes:
        self.asked.append(("sign", context))
        assert attributes[0] == 0x31
        private = self._private(key)
        if scheme is Scheme.ED25519:
            return bytes(private.sign(attributes))
        digest = _HASHES[scheme.hash_name]()
        if scheme.value.startswith("rsa-pss"):
            pss = padding.PSS(padding.MGF1(digest), digest.digest_size)
            return bytes(private.sign(attributes, pss, digest))
        if key.key_type is KeyType.RSA:
            return bytes(private.sign(attributes, padding.PKCS1v15(), digest))
        r, s = decode_dss_signature(private.sign(attributes, ec.ECDSA(digest)))
        size = (key.bits + 7) // 8
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    def unwrap(self, key: Key, what: Unwrap, length: int, context: Context) -> bytes:
        self.asked.append(("unwrap", context))
        return asyncio.run(unwrap(SoftwareDecrypter(key, self._private(key)), what, length))

    def _private(self, key: Key) -> Any:
        return next(person.private for person in self.people if person.key.spki == key.spki)


class SoftwareDecrypter(TokenSigner):
    """A token's key that decrypts, whose private half lies in memory."""

    def __init__(self, key: Key, private: Any) -> None:
        self._key = key
        self.private = private

    @property
    def key(self) -> Key:
        return self._key

    async def decrypt_raw(self, ciphertext: bytes, pin: bytearray | None = None) -> bytes:
        assert pin is None
        numbers = self.private.private_numbers()
        modulus = numbers.public_numbers.n
        plain = pow(int.from_bytes(ciphertext, "big"), numbers.d, modulus)
        return int(plain).to_bytes(len(ciphertext), "big")

    async def derive(self, point: bytes, *, cofactor: bool, pin: bytearray | None = None) -> bytes:
        assert pin is None
        assert isinstance(cofactor, bool)  # 1 on every curve we know
        public = ec.EllipticCurvePublicKey.from_encoded_point(self.private.curve, point)
        return bytes(self.private.exchange(ec.ECDH(), public))


def without_certificates(person: Person) -> Key:
    """Return the key as a token without certificates shows it."""
    return replace(person.key, certificates=())
