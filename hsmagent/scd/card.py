"""The one card that GnuPG sees: the keys and certificates of all tokens that are meant for it.

One card for all, since GnuPG learns the keys of one card at a time, and 2.2 asks for a card by its
serial number: this one is always there.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha1

from hsmagent.control.values import Fields, Json, from_base64, to_key
from hsmagent.errors import UsageError
from hsmagent.mail import keygrip
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.model import Key, PurposeKind

SERIAL = b"HSMAGENT".hex().upper()
_KEY, _CERTIFICATE = "HSMAGENT.", "HSMAGENT-CERT."

# Kinds of certificates, as LEARN tells them (gnupg/agent/learncard.c): gpgsm takes them in turn.
ROOT, USEFUL, REGULAR = "111", "102", "100"


def ref_of(grip: str) -> str:
    """Return the name, in commands, of the key with this keygrip."""
    return _KEY + grip


@dataclass(frozen=True, slots=True)
class CardKey:
    """A key that GnuPG may use. for_ssh: for ssh, too. present: whether its token is there."""

    grip: str
    key: Key
    for_ssh: bool = False
    present: bool = True

    @property
    def ref(self) -> str:
        """Its name in commands."""
        return ref_of(self.grip)

    @property
    def usage(self) -> str:
        """What it does, in GnuPG's letters: sign, certify, authenticate, encrypt."""
        key = self.key
        signs, decrypts = key.can_sign, key.opens
        return ("sc" if signs else "") + ("a" * (signs and self.for_ssh)) + "e" * decrypts or "-"


@dataclass(frozen=True, slots=True)
class CardCertificate:
    """A certificate, and its kind in GnuPG's numbers."""

    kind: str
    der: bytes

    @property
    def ref(self) -> str:
        """Its name in commands."""
        return _CERTIFICATE + sha1(self.der).hexdigest().upper()  # noqa: S324 - a name


@dataclass(frozen=True, slots=True)
class Card:
    """Keys by keygrip, and certificates by their names."""

    keys: Mapping[str, CardKey] = field(default_factory=dict)
    certificates: Mapping[str, CardCertificate] = field(default_factory=dict)

    def key(self, name: str) -> CardKey | None:
        """Return a key by its name: in GnuPG 2.2 "HSMAGENT." and keygrip, in 2.4 the keygrip."""
        return self.keys.get(name.upper().removeprefix(_KEY))

    def certificate(self, name: str) -> bytes | None:
        """Return a certificate by its name, or the first of a key by the key's."""
        if found := self.certificates.get(name.upper()):
            return found.der
        key = self.key(name)
        return next(iter(key.key.certificates), None) if key is not None else None

    def has(self, name: str) -> bool:
        """Whether this is the name of a key or certificate of our card, present or not."""
        return name.upper().startswith((_KEY, _CERTIFICATE)) or self.key(name) is not None

    @property
    def present(self) -> list[CardKey]:
        """The keys whose tokens are there."""
        return [key for key in self.keys.values() if key.present]

    def following(self, answer: Json) -> "Card":
        """Return the card as the daemon's answer to `tokens` has it.

        A key that is gone stays known, so that GnuPG is told so and does not ask for another card.
        Raises UsageError for an answer that cannot be read.
        """
        tokens = Fields(answer).each("tokens")
        gone = {grip: replace(key, present=False) for grip, key in self.keys.items()}
        keys = {key.grip: key for token in tokens for key in _keys(token)}
        found = [certificate for token in tokens for certificate in _certificates(token)]
        certificates = {each.ref: each for each in found}
        return Card(gone | keys, certificates)


def _keys(token: Json) -> Iterator[CardKey]:
    for values in Fields(token).each("keys"):
        key, allowed = to_key(values), Fields(values).each("allowed")
        if grip := keygrip.of(key):
            yield CardKey(grip, key, PurposeKind.SSH in allowed)


def _certificates(token: Json) -> Iterator[CardCertificate]:
    """Yield the certificates of keys, and those of CAs beside them."""
    for values in Fields(token).each("certificates"):
        der = Fields(values).binary("certificate")
        yield CardCertificate(ROOT if _is_root(der) else USEFUL, der)
    for values in Fields(token).each("keys"):
        for text in Fields(values).each("certificates"):
            yield CardCertificate(REGULAR, from_base64(text))


def _is_root(der: bytes) -> bool:
    try:
        return Certificate(der).is_root
    except UsageError:
        return False
