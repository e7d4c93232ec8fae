"""A hostile module has written over its worker, which now tells the daemon what it likes."""

import struct
import time

import pytest

from hsmagent.errors import ProtocolError
from hsmagent.model import TokenId
from hsmagent.token import objects
from hsmagent.worker import codec, spec
from hsmagent.worker.messages import RawObject

TOKEN = TokenId("/usr/lib/hostile.so", "work", "1", "card")
SECONDS = 0.5  # of processor; a reply of 16 MiB took seven


def timed(work: object) -> float:
    started = time.process_time()
    work()  # type: ignore[operator]
    return time.process_time() - started


def test_a_reply_of_empty_objects_is_refused_before_it_costs_anything() -> None:
    count = codec.MAX_REPLY // 4 - 100
    token = b"".join(struct.pack(">I", 1) + b"x" for _ in range(4))  # label, maker, model, serial
    token += struct.pack(">QQQB", 0, 0, 0, 0)  # flags, shortest and longest PIN, complete
    slot = struct.pack(">QQQB", 0, 0, 0, 0) + struct.pack(">I", 0) + b"\x01"
    body = b"\x83" + struct.pack(">I", 1) + slot + token
    body += struct.pack(">I", count) + bytes(4 * count)

    def read() -> None:
        with pytest.raises(ProtocolError):
            codec.decode_reply(body)

    assert timed(read) < SECONDS
    assert codec.MAX_REPLY <= 4 << 20


def test_keys_of_one_id_are_paired_in_good_time() -> None:
    """Each public half was compared with each private one of its id, and parsed anew for that."""
    number = (1 << 2047) + 1
    ulong = struct.Struct("@L").pack

    def raw(kind: int, modulus: int) -> RawObject:
        values = {
            spec.CKA_CLASS: ulong(kind),
            spec.CKA_KEY_TYPE: ulong(spec.CKK_RSA),
            spec.CKA_ID: b"\x01",
            spec.CKA_MODULUS: modulus.to_bytes(256, "big"),
            spec.CKA_PUBLIC_EXPONENT: b"\x01\0\x01",
        }
        return RawObject(tuple(values.items()))

    those = [
        *(raw(spec.CKO_PUBLIC_KEY, number + 2 * each) for each in range(400)),
        *(raw(spec.CKO_PRIVATE_KEY, number + 2 * each) for each in range(1000, 1400)),
    ]
    listing: list[objects.Listing] = []
    taken = timed(lambda: listing.append(objects.keys_of(TOKEN, those, complete=True)))
    assert taken < SECONDS
    assert len(listing[0].keys) <= 256
