"""Keys that ssh-add brings (messages 17 and 25): read, held in memory, never on disk."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import HashAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_private_key

from hsmagent.errors import ProtocolError, Refused, TokenError
from hsmagent.frame import wipe
from hsmagent.model import Key, Scheme, printable
from hsmagent.ssh import certificates, keys, private_der
from hsmagent.ssh.keys import PublicKey
from hsmagent.ssh.signature import HASHES
from hsmagent.ssh.wire import Reader

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

ED25519_SEED = 32
# Characters; ssh-add's are paths and addresses.
COMMENT_LIMIT = 1000
RSA_MAXIMUM = 8192
# Bits. With a larger key a signature takes so long that everyone would notice: it is made aside.
AT_ONCE = 4096
# Bits by which the primes' lengths may differ. Nobody makes them more unequal; they sign slowly.
UNBALANCED = 16

# What is raised when a key is made of numbers that do not belong together, or signs with them.
UNSOUND = (ValueError, InternalError, InvalidSignature)

Work = Callable[[], bytes]
Aside = Callable[[Work], Awaitable[bytes]]
"""Does work that takes long, while others go on."""


async def at_once(work: Work) -> bytes:
    """Do work here and now."""
    return work()


class SoftwareSigner:
    """A private key in our memory. Implements `model.Signer`."""

    def __init__(self, private: PrivateKey, key: Key, aside: Aside = at_once) -> None:
        self.key = key
        self._private = private
        self._do = aside if key.bits > AT_ONCE else at_once

    async def sign(self, scheme: Scheme, data: bytes, pin: bytearray | None = None) -> bytes:  # noqa: ARG002 - Signer's signature
        """Sign; see `model.Signer`."""
        try:
            return await self._do(partial(self._sign, scheme, data))
        except UnsupportedAlgorithm:
            raise TokenError(f"this machine's OpenSSL does not allow {scheme}") from None
        except UNSOUND as error:
            raise TokenError("a key that was added is not sound, and signs nothing") from error

    def _sign(self, scheme: Scheme, data: bytes) -> bytes:
        match self._private:
            case rsa.RSAPrivateKey() as private:
                return _sign_rsa(private, data, HASHES[scheme.hash_name])
            case ed25519.Ed25519PrivateKey() as private:
                return private.sign(data)
        der = self._private.sign(data, ec.ECDSA(HASHES[scheme.hash_name]))
        size = (self.key.bits + 7) // 8
        return b"".join(part.to_bytes(size, "big") for part in decode_dss_signature(der))


@dataclass(frozen=True, slots=True)
class Added:
    """An added key: the blob it is offered under (plain, or a certificate), its comment."""

    blob: bytes
    comment: str
    signer: SoftwareSigner


def read(reader: Reader, aside: Aside = at_once) -> Added:
    """Read a private key and its comment; constraints may follow.

    aside: runs the key's signatures, if they take long. Raises ProtocolError for a key that is not
    sound, and Refused for a kind that is not supported.
    """
    name = reader.text()
    blob = b""
    public: PublicKey | None = None
    if certificates.is_certificate(name):
        blob = reader.string()
        public = certificates.parse(blob).body.key
    try:
        private = _private(reader, name.removesuffix(keys.CERTIFICATE), public)
    except (*UNSOUND, UnsupportedAlgorithm) as error:
        raise ProtocolError("a private key is not sound") from error
    # `ssh-add -l` writes it to a terminal as it is, and a forwarded host may have added the key.
    comment = printable(reader.text(), COMMENT_LIMIT)
    key = keys.describe(private.public_key(), label=comment)
    plain = keys.encode(private.public_key())
    if blob and certificates.parse(blob).plain != plain:
        raise ProtocolError("a certificate and its private key do not belong together")
    return Added(blob or plain, comment, SoftwareSigner(private, key, aside))


def _private(reader: Reader, name: str, public: PublicKey | None) -> PrivateKey:
    """Read the private fields; `public` is a certificate's, whose fields are not repeated."""
    if name == keys.SSH_RSA:
        return _rsa(reader, public)
    if name == keys.SSH_ED25519:
        return _ed25519(reader)
    if name.startswith(keys.ECDSA):
        return _ecdsa(reader, name, public)
    raise Refused("keys of this type are not supported")


def _rsa(reader: Reader, public: PublicKey | None) -> PrivateKey:
    if isinstance(public, rsa.RSAPublicKey):
        numbers = public.public_numbers()
    else:
        n, e = reader.mpint(), reader.mpint()
        numbers = rsa.RSAPublicNumbers(e, n)
    d, iqmp, p, q = (reader.mpint_view() for _ in range(4))
    n, e = numbers.n, numbers.e
    if not keys.RSA_MINIMUM <= n.bit_length() <= RSA_MAXIMUM:
        raise Refused(f"RSA keys have {keys.RSA_MINIMUM} to {RSA_MAXIMUM} bits")
    if abs(_bits(p) - _bits(q)) > UNBALANCED:
        raise Refused("an RSA key has primes of about the same length")
    if e.bit_length() > keys.RSA_EXPONENT_MAXIMUM:
        raise Refused(f"an RSA key's public exponent has {keys.RSA_EXPONENT_MAXIMUM} bits at most")
    # Longer numbers than the modulus has room for would sign slowly.
    if _bits(p) + _bits(q) > n.bit_length() + 1 or len(d) > len(p) + len(q) or len(iqmp) > len(p):
        raise ProtocolError("an RSA key's numbers do not belong together")
    # OpenSSL could test whether the primes are prime, but that takes seconds, in which everyone
    # waits. Numbers that are none harm nobody but the key's owner.
    private: rsa.RSAPrivateKey = _load(private_der.rsa(numbers, d, iqmp, p, q))
    if n.bit_length() <= AT_ONCE:
        _sign_rsa(private, b"", HASHES["sha256"])
    return private


def _bits(number: memoryview) -> int:
    """Return how many bits an mpint has. Only its first two octets become an int."""
    first = number[:2]
    return 8 * (len(number) - len(first)) + int.from_bytes(first, "big").bit_length()


def _sign_rsa(private: rsa.RSAPrivateKey, data: bytes, algorithm: HashAlgorithm) -> bytes:
    """Sign, and verify the signature: a faulty one would give the primes away."""
    raw = private.sign(data, padding.PKCS1v15(), algorithm)
    private.public_key().verify(raw, data, padding.PKCS1v15(), algorithm)
    return raw


def _ecdsa(reader: Reader, name: str, public: PublicKey | None) -> PrivateKey:
    if public is None:
        public = keys.read(reader, name)
    if not isinstance(public, ec.EllipticCurvePublicKey):  # pragma: no cover - the name says so
        raise ProtocolError("not an EC key")
    size = (public.key_size + 7) // 8
    private: ec.EllipticCurvePrivateKey = _load(private_der.ecdsa(reader.mpint_view(), size))
    if private.public_key() != public:
        raise ProtocolError("an EC key's halves do not belong together")
    return private


def _load(der: bytearray) -> Any:
    """Make a key of the DER of its kind, which is wiped. Raises ValueError for one not sound."""
    try:
        return load_der_private_key(der, None, unsafe_skip_rsa_key_validation=True)
    finally:
        wipe(der)


def _ed25519(reader: Reader) -> PrivateKey:
    public, secret = reader.string(), reader.view()  # a view: no copy would be wiped
    private = ed25519.Ed25519PrivateKey.from_private_bytes(secret[:ED25519_SEED])
    if secret[ED25519_SEED:] != public or private.public_key().public_bytes_raw() != public:
        raise ProtocolError("an Ed25519 key's halves do not belong together")
    return private
