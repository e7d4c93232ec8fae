"""The PKCS#15 descriptions (ISO 7816-15) that tools keep on a SmartCard-HSM beside its keys.

They are read and written as far as backups need them: a key's label, CKA_ID and number.
"""

from dataclasses import dataclass

from hsmagent.schsm.tlv import (
    BIT_STRING,
    INTEGER,
    OCTET_STRING,
    SEQUENCE,
    UTF8_STRING,
    integer,
    tlv,
    walk,
)

_TOKEN_LABEL = 0x80
_TOKEN_FLAGS = bytes.fromhex("0520")  # as sc-hsm-tool writes it
_ATTRIBUTES = 0xA1
_RSA, _EC = SEQUENCE, 0xA0


@dataclass(frozen=True, slots=True)
class KeyDescription:
    """What EF.PrKD says of one key: its label, CKA_ID and the number the card knows it by."""

    label: str
    id: bytes
    reference: int


def token_info(label: str) -> bytes:
    """Return EF.TokenInfo as sc-hsm-tool writes it."""
    flags = tlv(BIT_STRING, _TOKEN_FLAGS)
    return tlv(SEQUENCE, integer(0), tlv(_TOKEN_LABEL, label.encode()), flags)


def token_label(content: bytes) -> str:
    """Return the label in EF.TokenInfo, or "" where there is none. Raises ValueError."""
    _, value = next(walk(content), (0, b""))
    return dict(walk(value)).get(_TOKEN_LABEL, b"").decode("utf-8", "replace")


def key_description(content: bytes) -> KeyDescription:
    """Read one description of a private key. Raises ValueError."""
    common, own = _parts(content)
    label = b""
    for tag, value in walk(common):
        if tag == UTF8_STRING:
            label = value
            break
    key_id, reference = b"", 0
    for tag, value in walk(own):
        if tag == OCTET_STRING:
            key_id = value
        elif tag == INTEGER:
            reference = int.from_bytes(value, "big")
    return KeyDescription(label.decode("utf-8", "replace"), key_id, reference)


def renumbered(content: bytes, reference: int) -> bytes:
    """Return a description with another number, for a key that gets one. Raises ValueError."""
    outer, value = next(walk(content), (0, b""))
    parts = list(walk(value))
    own = [
        integer(reference) if tag == INTEGER else tlv(tag, inner)
        for tag, inner in walk(parts[1][1])
    ]
    parts[1] = (parts[1][0], b"".join(own))
    return tlv(outer, *(tlv(tag, inner) for tag, inner in parts))


def _parts(content: bytes) -> tuple[bytes, bytes]:
    """Return a description's attributes of any object, and those of a key. Raises ValueError."""
    outer, value = next(walk(content), (0, b""))  # the end of an older content may follow it
    parts = list(walk(value)) if outer in (_RSA, _EC) else []
    if len(parts) < 2 or parts[0][0] != SEQUENCE or parts[1][0] != SEQUENCE:  # noqa: PLR2004
        raise ValueError("not a key's description")
    return parts[0][1], parts[1][1]
