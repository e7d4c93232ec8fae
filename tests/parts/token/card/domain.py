"""The card's DKEK, and keys that leave and enter wrapped in it."""

import os
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import rsa

from hsmagent.schsm import backup, cvc
from hsmagent.schsm.apdu import SW
from hsmagent.schsm.backup import KeyKind, WrongDkek
from hsmagent.schsm.dkek import KCV, SHARE, Dkek, combine
from tests.parts.token.card import curves
from tests.parts.token.card.answer import Answer
from tests.parts.token.card.keys import PrivateKey

BLOCK = 16


@dataclass(slots=True)
class Domain:
    """A DKEK of so many shares; of none: it is random, so that no other card has it."""

    shares: int
    missing: int
    dkek: Dkek

    @classmethod
    def of(cls, shares: int) -> "Domain":
        return cls(shares, shares, combine([] if shares else [os.urandom(SHARE)]))

    @property
    def status(self) -> bytes:
        """What the card tells of it: no check value while shares are missing."""
        kcv = bytes(KCV) if self.missing else self.dkek.kcv
        return bytes([self.shares, self.missing]) + kcv

    def take(self, share: bytes) -> None:
        """Add one share."""
        if not self.missing:
            raise Answer(SW.CONDITIONS_NOT_MET)
        if len(share) != SHARE:
            raise Answer(SW.WRONG_LENGTH)
        self.dkek = combine([self.dkek.key, share])
        self.missing -= 1

    def wrap(self, key: PrivateKey) -> bytes:
        """Return the blob of a key."""
        self._need_all()
        if isinstance(key, rsa.RSAPrivateKey):
            kind, algorithm = KeyKind.RSA, cvc.ID_TA_RSA_V1_5_SHA_256
        else:
            kind, algorithm = KeyKind.EC, cvc.ID_TA_ECDSA_SHA_256
        plain = os.urandom(8) + key.key_size.to_bytes(2, "big") + b"".join(map(_l2, _numbers(key)))
        plain += b"\x80"
        plain += bytes(-len(plain) % BLOCK)
        head = self.dkek.kcv + bytes([kind]) + _l2(algorithm) + _l2(b"") * 3
        body = head + self.dkek.encrypt(plain)
        return body + self.dkek.mac(body)

    def unwrap(self, blob: bytes) -> PrivateKey:
        """Return the key in a blob."""
        self._need_all()
        try:
            return backup.decrypt(backup.blob(blob), self.dkek)
        except (ValueError, WrongDkek) as error:
            raise Answer(SW.WRONG_DATA) from error

    def _need_all(self) -> None:
        if self.missing:
            raise Answer(SW.CONDITIONS_NOT_MET)


def _l2(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def _numbers(key: PrivateKey) -> list[bytes]:
    """Return the components of a private key, in the card's order."""
    if isinstance(key, rsa.RSAPrivateKey):
        own = key.private_numbers()
        size = key.key_size // 8
        n, e = own.public_numbers.n, own.public_numbers.e
        return [own.d.to_bytes(size, "big"), n.to_bytes(size, "big"), e.to_bytes(3, "big")]
    curve = curves.of(key.curve)
    prime, a, b, generator, order = (value for _, value in curve.parameters())
    public = key.public_key().public_numbers()
    point = b"\x04" + public.x.to_bytes(curve.size, "big") + public.y.to_bytes(curve.size, "big")
    d = key.private_numbers().private_value.to_bytes(curve.size, "big")
    return [a, b, prime, order, generator, d, point]
