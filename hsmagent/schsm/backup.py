"""Wrapped keys, and the files that sc-hsm-tool keeps them in.

A file is SEQUENCE {OCTET STRING blob, description of the key, certificate or request}. The last two
are as they lie on the card, and either may be missing. The blob is the card's answer to WRAP KEY:

    check value of the DKEK 8, type 1, algorithm, allowed algorithms, access conditions, key OID
    (each with two bytes of length), AES-256-CBC of the key, AES-CMAC of all that 16

The decrypted key is 8 random bytes, its size in bits (2), its components with two bytes of length
each, and 80 00 … to a whole block.
"""

import hmac
from dataclasses import dataclass
from enum import IntEnum

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from hsmagent.schsm import cvc
from hsmagent.schsm.cvc import PublicKey
from hsmagent.schsm.dkek import KCV, Dkek
from hsmagent.schsm.tlv import OCTET_STRING, SEQUENCE, one, tlv, walk

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
MAC = 16
_RANDOM = 8
_BLOCK = 16
_FIELDS = 4  # algorithm, allowed algorithms, access conditions, key OID
_DESCRIPTIONS = (SEQUENCE, 0xA0)


class KeyKind(IntEnum):
    """What a blob says its key is."""

    RSA = 5
    RSA_CRT = 6
    EC = 12
    AES = 15


class WrongDkek(Exception):
    """The blob was not made with this DKEK, or somebody has changed it."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A wrapped key, taken apart."""

    kcv: bytes
    kind: KeyKind
    encrypted: bytes
    authenticated: bytes
    mac: bytes


@dataclass(frozen=True, slots=True)
class Backup:
    """A file of sc-hsm-tool: the blob, the key's description and its certificate, as stored."""

    blob: bytes
    description: bytes = b""
    certificate: bytes = b""

    def encode(self) -> bytes:
        """Return the file's content."""
        return tlv(SEQUENCE, tlv(OCTET_STRING, self.blob), self.description, self.certificate)

    def public_key(self) -> PublicKey | None:
        """Return the public key in the certificate or request, if there is one.

        Raises ValueError for one that cannot be read.
        """
        if not self.certificate:
            return None
        if self.certificate[0] == cvc.AUTHENTICATION:
            return cvc.public_key(cvc.read(self.certificate).public_key)
        try:
            key = x509.load_der_x509_certificate(self.certificate).public_key()
        except (UnsupportedAlgorithm, x509.InvalidVersion) as error:  # neither is a ValueError
            raise ValueError(f"a certificate that cannot be read: {error}") from None
        if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
            raise ValueError("a certificate of a key that no such card holds")  # noqa: TRY004 - data
        return key


def read(content: bytes) -> Backup:
    """Read a file. Raises ValueError."""
    parts = list(walk(one(content, SEQUENCE)))
    if not parts or parts[0][0] != OCTET_STRING:
        raise ValueError("it does not begin with a wrapped key")
    description = certificate = b""
    for tag, value in parts[1:]:
        if not description and not certificate and tag in _DESCRIPTIONS and _describes(value):
            description = tlv(tag, value)
        else:
            certificate = certificate or tlv(tag, value)
    return Backup(parts[0][1], description, certificate)


def _describes(value: bytes) -> bool:
    """Tell a key's description from a certificate; both begin with a SEQUENCE in a SEQUENCE."""
    parts = list(walk(value))
    inner = list(walk(parts[0][1])) if parts and parts[0][0] == SEQUENCE else []
    return not inner or inner[0][0] not in (0xA0, 0x02)  # a certificate's version or serial number


def blob(data: bytes) -> Blob:
    """Take a wrapped key apart. Raises ValueError."""
    at = KCV + 1
    for _ in range(_FIELDS):
        at += 2 + int.from_bytes(data[at : at + 2], "big")
    encrypted = data[at:-MAC]
    if at + MAC > len(data) or not encrypted or len(encrypted) % _BLOCK:
        raise ValueError("its wrapped key is cut short")
    try:
        kind = KeyKind(data[KCV])
    except ValueError:
        raise ValueError(f"a wrapped key of an unknown kind ({data[KCV]})") from None
    return Blob(data[:KCV], kind, encrypted, data[:-MAC], data[-MAC:])


def check(wrapped: Blob, dkek: Dkek) -> None:
    """Raise WrongDkek unless the blob is as it left the card."""
    if wrapped.kcv != dkek.kcv or not hmac.compare_digest(
        dkek.mac(wrapped.authenticated), wrapped.mac
    ):
        raise WrongDkek


def decrypt(wrapped: Blob, dkek: Dkek) -> PrivateKey:
    """Return the private key. Raises WrongDkek; ValueError for a kind that we cannot read."""
    check(wrapped, dkek)
    plain = dkek.decrypt(wrapped.encrypted)
    bits = int.from_bytes(plain[_RANDOM : _RANDOM + 2], "big")
    parts = _components(plain[_RANDOM + 2 :])
    match wrapped.kind:
        case KeyKind.RSA:
            d, n, e = (int.from_bytes(part, "big") for part in parts[:3])
            p, q = rsa.rsa_recover_prime_factors(n, e, d)
            return _rsa(p, q, d, rsa.RSAPublicNumbers(e, n), bits)
        case KeyKind.RSA_CRT:
            _, _, p, _, q, n, e = (int.from_bytes(part, "big") for part in parts[:7])
            d = pow(e, -1, (p - 1) * (q - 1))
            return _rsa(p, q, d, rsa.RSAPublicNumbers(e, n), bits)
        case KeyKind.EC:
            return ec.derive_private_key(int.from_bytes(parts[5], "big"), cvc.curve_of(parts[2]))
    raise ValueError("an AES key, which is no private key")


def _rsa(p: int, q: int, d: int, public: rsa.RSAPublicNumbers, bits: int) -> rsa.RSAPrivateKey:
    if public.n.bit_length() != bits or p * q != public.n:
        raise ValueError("an RSA key whose numbers do not fit")
    return rsa.RSAPrivateNumbers(
        p=p,
        q=q,
        d=d,
        dmp1=d % (p - 1),
        dmq1=d % (q - 1),
        iqmp=rsa.rsa_crt_iqmp(p, q),
        public_numbers=public,
    ).private_key()


def _components(data: bytes) -> list[bytes]:
    """Cut `L2 component …`, and what pads it. Raises ValueError."""
    body = data.rstrip(b"\0")
    if not body.endswith(b"\x80"):
        raise ValueError("a wrapped key without its padding")
    parts, at = [], 0
    while at < len(body) - 1:
        end = at + 2 + int.from_bytes(body[at : at + 2], "big")
        parts.append(data[at + 2 : end])
        at = end
    return parts + [b""] * 7  # a component that is missing is no number
