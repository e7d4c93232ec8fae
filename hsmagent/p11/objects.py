"""What is shown of a token: its certificates, and the public and private keys that may be used.

Pure: the daemon's answer in, attributes out. The attributes are those that NSS, OpenSSL's engine
and provider, GnuTLS, OpenSC's tools and ssh ask for. All of it is public.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha1
from types import MappingProxyType
from typing import Any

from asn1crypto import keys as asn1_keys

from hsmagent.control.values import Fields, to_key
from hsmagent.errors import UsageError
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.model import Key, KeyType, PurposeKind
from hsmagent.p11.rpc import Value
from hsmagent.worker import spec

SIGNING = frozenset({PurposeKind.PKCS11_MESSAGE, PurposeKind.PKCS11_DIGEST})

# CKA_CERTIFICATE_CATEGORY
_TOKEN_USER, _AUTHORITY = 1, 2
# A program that asks for one of these is told that it never leaves the token.
SECRET = frozenset(
    {
        *(spec.CKA_VALUE, spec.CKA_PRIVATE_EXPONENT, spec.CKA_PRIME_1, spec.CKA_PRIME_2),
        *(spec.CKA_EXPONENT_1, spec.CKA_EXPONENT_2, spec.CKA_COEFFICIENT),
    }
)

Attributes = Mapping[int, Value]


@dataclass(frozen=True, slots=True)
class Object:
    """One object of a token. key: that of a private key. allowed: what it may be used for."""

    attributes: Attributes
    key: Key | None = None
    allowed: frozenset[str] = frozenset()

    @property
    def name(self) -> tuple[Value, Value]:
        """What tells it from every other object of its token."""
        attributes = self.attributes
        which = spec.CKA_VALUE if self.is_certificate else spec.CKA_PUBLIC_KEY_INFO
        return attributes[spec.CKA_CLASS], attributes[which]

    @property
    def is_certificate(self) -> bool:
        """Whether it is a certificate."""
        return self.attributes[spec.CKA_CLASS] == spec.CKO_CERTIFICATE

    def matches(self, template: Attributes) -> bool:
        """Whether it has every attribute of the template, with that value."""
        mine = self.attributes
        return all(number in mine and mine[number] == value for number, value in template.items())

    def hides(self, attribute: int) -> bool:
        """Whether it has this attribute, but never tells it."""
        return self.key is not None and attribute in SECRET


@dataclass(frozen=True, slots=True)
class Token:
    """A token as programs see it. present: it is plugged in, and has keys that they may use.

    uri: the name by which the daemon knows it.
    """

    uri: str
    label: str
    serial: str
    model: str
    manufacturer: str
    present: bool
    objects: tuple[Object, ...]

    @property
    def name(self) -> tuple[str, ...]:
        """What tells it from every other token."""
        return self.label, self.serial, self.model, self.manufacturer


def tokens_of(answer: Mapping[str, Any]) -> tuple[Token, ...]:
    """Return the tokens in the daemon's answer to `tokens`. Raises UsageError."""
    return tuple(_token(Fields(each)) for each in Fields(answer).each("tokens"))


def _token(fields: Fields) -> Token:
    objects: dict[tuple[Value, Value], Object] = {}
    keys = [(to_key(values), _allowed(values)) for values in fields.each("keys")]
    keys = [(key, allowed) for key, allowed in keys if key.key_type in {KeyType.RSA, KeyType.EC}]
    for key, allowed in keys:
        for shown in _of_key(key, allowed):
            objects.setdefault(shown.name, shown)
    for values in fields.each("certificates"):
        told = Fields(values)
        found = certificate(told.binary("certificate"), told.text("label"), told.binary("id"))
        if found is not None:
            objects.setdefault(found.name, found)
    return Token(
        uri=fields.text("uri"),
        label=fields.text("label"),
        serial=fields.text("serial"),
        model=fields.text("model"),
        manufacturer=fields.text("manufacturer"),
        present=fields.flag("present") and bool(keys),
        objects=tuple(objects.values()),
    )


def _allowed(values: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(map(str, Fields(values).each("allowed")))


def _of_key(key: Key, allowed: frozenset[str]) -> Iterator[Object]:
    # Some programs find a private key by its CKA_ID alone, so there is always one.
    number = key.id or sha1(key.spki, usedforsecurity=False).digest()
    subject: Value = b""
    for der in key.certificates:
        shown = certificate(der, key.label, number)
        if shown is not None:
            subject = subject or shown.attributes[spec.CKA_SUBJECT]
            yield shown
    for der in key.authorities:
        shown = certificate(der, "", b"")
        if shown is not None:
            yield shown
    common = _COMMON | {
        spec.CKA_LABEL: key.label.encode(),
        spec.CKA_ID: number,
        spec.CKA_SUBJECT: subject,
        spec.CKA_START_DATE: b"",
        spec.CKA_END_DATE: b"",
    }
    common |= _public(key.spki, key.key_type, key.bits)
    uses = {spec.CKA_VERIFY: key.can_sign, spec.CKA_ENCRYPT: key.can_decrypt}
    yield Object(MappingProxyType(common | _PUBLIC | uses))
    decrypts = PurposeKind.PKCS11_DECRYPT in allowed
    uses = {
        spec.CKA_SIGN: key.can_sign and not allowed.isdisjoint(SIGNING),
        spec.CKA_DECRYPT: key.can_decrypt and decrypts,
        spec.CKA_DERIVE: key.can_derive and decrypts,
    }
    yield Object(MappingProxyType(common | _PRIVATE | uses), key, allowed)


_COMMON: dict[int, Value] = {
    spec.CKA_TOKEN: True,
    spec.CKA_PRIVATE: False,  # seen without a C_Login, which the token does not want
    spec.CKA_MODIFIABLE: False,
    spec.CKA_COPYABLE: False,
    spec.CKA_DESTROYABLE: b"\0",
    spec.CKA_LOCAL: False,
}
_PUBLIC: dict[int, Value] = {
    spec.CKA_CLASS: spec.CKO_PUBLIC_KEY,
    spec.CKA_TRUSTED: False,
    spec.CKA_WRAP: False,
    spec.CKA_VERIFY_RECOVER: False,
    spec.CKA_DERIVE: False,
}
_PRIVATE: dict[int, Value] = {
    spec.CKA_CLASS: spec.CKO_PRIVATE_KEY,
    spec.CKA_SENSITIVE: True,
    spec.CKA_ALWAYS_SENSITIVE: True,
    spec.CKA_EXTRACTABLE: False,
    spec.CKA_NEVER_EXTRACTABLE: True,
    # The daemon asks for the PIN of a key that wants it for each use.
    spec.CKA_ALWAYS_AUTHENTICATE: False,
    spec.CKA_WRAP_WITH_TRUSTED: False,
    spec.CKA_UNWRAP: False,
    spec.CKA_SIGN_RECOVER: False,
}


@lru_cache(maxsize=256)
def _public(spki: bytes, key_type: KeyType, bits: int) -> Attributes:
    """Return what a public key consists of."""
    info = asn1_keys.PublicKeyInfo.load(spki)
    common: dict[int, Value] = {spec.CKA_PUBLIC_KEY_INFO: spki}
    if key_type is KeyType.EC:
        point = asn1_keys.ECPoint(info["public_key"].contents[1:])
        return common | {
            spec.CKA_KEY_TYPE: spec.CKK_EC,
            spec.CKA_EC_PARAMS: info["algorithm"]["parameters"].dump(),
            spec.CKA_EC_POINT: point.dump(),
        }
    numbers = info["public_key"].parsed.native
    return common | {
        spec.CKA_KEY_TYPE: spec.CKK_RSA,
        spec.CKA_MODULUS_BITS: bits,
        spec.CKA_MODULUS: _unsigned(numbers["modulus"]),
        spec.CKA_PUBLIC_EXPONENT: _unsigned(numbers["public_exponent"]),
    }


def _unsigned(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


@lru_cache(maxsize=256)
def certificate(der: bytes, label: str, number: bytes) -> Object | None:
    """Return a certificate as an object; None for one that cannot be read."""
    try:
        read = Certificate(der)
    except UsageError:
        return None
    ca = bool(read.parsed.ca)
    return Object(
        MappingProxyType(
            _COMMON
            | {
                spec.CKA_CLASS: spec.CKO_CERTIFICATE,
                spec.CKA_CERTIFICATE_TYPE: spec.CKC_X_509,
                spec.CKA_CERTIFICATE_CATEGORY: _AUTHORITY if ca else _TOKEN_USER,
                spec.CKA_TRUSTED: False,
                spec.CKA_LABEL: (label or read.name).encode(),
                spec.CKA_ID: number or read.key_identifier,
                spec.CKA_SUBJECT: read.subject_der,
                spec.CKA_ISSUER: read.issuer_der,
                spec.CKA_SERIAL_NUMBER: read.serial_der,
                spec.CKA_START_DATE: read.not_before.strftime("%Y%m%d").encode(),
                spec.CKA_END_DATE: read.not_after.strftime("%Y%m%d").encode(),
                spec.CKA_PUBLIC_KEY_INFO: read.spki,
                spec.CKA_VALUE: der,
            }
        )
    )
