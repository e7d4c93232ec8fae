"""Targets for what comes from a SmartCard-HSM, and from files that are said to be its backups."""

import json
from contextlib import suppress
from functools import cache
from pathlib import Path

from hsmagent.errors import ProtocolError
from hsmagent.schsm import apdu, backup, cvc, tlv
from hsmagent.schsm.backup import Backup, Blob, KeyKind
from hsmagent.schsm.card import END_ENTITY, PRIVATE_KEY_DESCRIPTION, file_id
from hsmagent.schsm.dkek import Dkek
from tests.parts.mail.people import person
from tests.parts.token.card import commands, furnished
from tests.parts.token.card.furnished import P256, RSA

_GOLDEN = json.loads((Path(__file__).parents[1] / "schsm/golden.json").read_text())
_DKEK = Dkek(bytes.fromhex(_GOLDEN["dkek"]))
_BLOCK = 16


def card_backup(data: bytes) -> None:
    """One backup file: its key's description, its certificate, its wrapped key."""
    with suppress(ValueError):
        found = backup.read(data)
        with suppress(ValueError):
            found.public_key()
        with suppress(backup.WrongDkek):
            backup.decrypt(backup.blob(found.blob), _DKEK)


def card_wrapped_key(data: bytes) -> None:
    """Read what is inside a wrapped key: whoever knows the DKEK can put anything there."""
    plain = data[1:] + bytes(-len(data[1:]) % _BLOCK)
    kinds = tuple(KeyKind)
    kind = kinds[data[0] % len(kinds)] if data else kinds[0]
    made = Blob(_DKEK.kcv, kind, _DKEK.encrypt(plain), plain, _DKEK.mac(plain))
    with suppress(ValueError):
        backup.decrypt(made, _DKEK)


def card_certificate(data: bytes) -> None:
    """Read a card-verifiable certificate or request, and the public key in it."""
    with suppress(ValueError):
        _ = tlv.fields(data)
    with suppress(ValueError):
        found = cvc.read(data)
        _ = found.serial
        cvc.public_key(found.public_key)


def card_answer(data: bytes) -> None:
    """Read what a card answers, and the commands of the codec that its double reads."""
    with suppress(ProtocolError):
        apdu.split(data)
    with suppress(ProtocolError):
        assert commands.parse(commands.parse(data).encode()) == commands.parse(data)


@cache
def _stored() -> list[Backup]:
    content = furnished().files.content
    wrapped = {P256: "ec", RSA: "rsa"}
    return [
        Backup(
            bytes.fromhex(_GOLDEN[name]["blob"]),
            content[file_id(PRIVATE_KEY_DESCRIPTION, number)],
            content[file_id(END_ENTITY, number)],
        )
        for number, name in wrapped.items()
    ]


def backups() -> list[bytes]:
    """Return files as sc-hsm-tool makes them, with certificates of both kinds."""
    x509 = Backup(bytes.fromhex(_GOLDEN["rsa_crt"]["blob"]), b"", person("p256").der)
    return [each.encode() for each in (*_stored(), x509)]


def wrapped_keys() -> list[bytes]:
    """Return a kind's number, and the key of that kind as it is before it is wrapped."""
    kinds = tuple(KeyKind)
    blobs = [backup.blob(bytes.fromhex(_GOLDEN[name]["blob"])) for name in ("ec", "rsa", "rsa_crt")]
    return [bytes([kinds.index(b.kind)]) + _DKEK.decrypt(b.encrypted) for b in blobs]


def certificates() -> list[bytes]:
    """Return requests as a card makes them."""
    return [each.certificate for each in _stored()]


def answers() -> list[bytes]:
    """Return commands in each form of the lengths."""
    return [bytes.fromhex(each) for each in ("00A40000022F0200", "00A400000000022F020000")]
