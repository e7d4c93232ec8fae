"""Card-verifiable certificates (BSI TR-03110, part 3), read without checking their signatures.

The device's certificate names the card. The request that the card makes with each new key holds the
key's public half, until a certificate takes the request's place.
"""

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from hsmagent.schsm.tlv import OBJECT_IDENTIFIER, fields, walk

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

ID_TA_RSA_V1_5_SHA_256 = bytes.fromhex("04007F00070202020102")
ID_TA_ECDSA_SHA_256 = bytes.fromhex("04007F00070202020203")

# Tags.
CERTIFICATE = 0x7F21
BODY = 0x7F4E
SIGNATURE = 0x5F37
PROFILE = 0x5F29
AUTHORITY = 0x42  # CAR
PUBLIC_KEY = 0x7F49
HOLDER = 0x5F20  # CHR
AUTHENTICATION = 0x67  # a request, signed once more by the device
# Inside 7F49.
MODULUS, EXPONENT = 0x81, 0x82
PRIME, A, B, GENERATOR, ORDER, POINT, COFACTOR = range(0x81, 0x88)

_SEQUENCE_NUMBER = 5  # characters at the end of a holder's name

# A certificate holds all numbers of its curve; the prime tells which it is (SEC 2, RFC 5639).
_CURVES: dict[int, ec.EllipticCurve] = {
    2**192 - 2**64 - 1: ec.SECP192R1(),
    2**256 - 2**224 + 2**192 + 2**96 - 1: ec.SECP256R1(),
    2**384 - 2**128 - 2**96 + 2**32 - 1: ec.SECP384R1(),
    2**521 - 1: ec.SECP521R1(),
    2**256 - 2**32 - 977: ec.SECP256K1(),
    0xA9FB57DBA1EEA9BC3E660A909D838D726E3BF623D52620282013481D1F6E5377: ec.BrainpoolP256R1(),
    0x8CB91E82A3386D280F5D6F7E50E641DF152F7109ED5456B412B1DA197FB71123ACD3A729901D1A71874700133107EC53: ec.BrainpoolP384R1(),  # noqa: E501 - a number
    0xAADD9DB8DBE9C48B3FD4E6AE33C9FC07CB308DB3B3C9D20ED6639CCA703308717D4D9B009BC66842AECDA12AE6A380E62881FF2F2D82C68528AA6056583A48F3: ec.BrainpoolP512R1(),  # noqa: E501 - a number
}


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate's body: who signed it, whose it is, and the public key: what is inside 7F49."""

    authority: str
    holder: str
    public_key: bytes

    @property
    def serial(self) -> str:
        """The device's serial number: the holder's name without its sequence number."""
        return self.holder[:-_SEQUENCE_NUMBER]


def read(data: bytes) -> Certificate:
    """Read the first certificate in `data`, or the one inside a request. Raises ValueError."""
    tag, value = next(walk(data), (0, b""))
    if tag == AUTHENTICATION:
        tag, value = next(walk(value), (0, b""))
    body = fields(fields(value).get(BODY, b"")) if tag == CERTIFICATE else {}
    if not {AUTHORITY, HOLDER, PUBLIC_KEY} <= body.keys():
        raise ValueError("not a card-verifiable certificate")
    return Certificate(
        body[AUTHORITY].decode("latin-1"), body[HOLDER].decode("latin-1"), body[PUBLIC_KEY]
    )


def public_key(value: bytes) -> PublicKey:
    """Read a public key: what is inside 7F49. Raises ValueError."""
    key = fields(value)
    if key.get(OBJECT_IDENTIFIER) == ID_TA_RSA_V1_5_SHA_256:
        n, e = (int.from_bytes(key.get(tag, b""), "big") for tag in (MODULUS, EXPONENT))
        return rsa.RSAPublicNumbers(e, n).public_key()
    curve = curve_of(key.get(PRIME, b""))
    return ec.EllipticCurvePublicKey.from_encoded_point(curve, key.get(POINT, b""))


def curve_of(prime: bytes) -> ec.EllipticCurve:
    """Return the curve over the field of `prime`, big-endian. Raises ValueError."""
    try:
        return _CURVES[int.from_bytes(prime, "big")]
    except KeyError:
        raise ValueError("a curve that we do not know") from None
