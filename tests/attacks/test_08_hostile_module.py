"""A hostile module has written over its worker, which now tells the daemon what it likes."""

import cProfile
import struct
import time
from collections import Counter
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_der_public_key

from hsmagent.errors import ProtocolError
from hsmagent.model import TokenId
from hsmagent.token import objects, public_keys
from hsmagent.worker import codec, spec
from hsmagent.worker.messages import RawObject

TOKEN = TokenId("/usr/lib/hostile.so", "work", "1", "card")
SECONDS = 0.5  # of processor; a reply of 16 MiB took seven


def timed(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def calls_of(work: Callable[[], object]) -> int:
    """Return how many functions are called: the same on every machine, however busy."""
    profile = cProfile.Profile()
    profile.runcall(work)
    return sum(int(entry.callcount) for entry in profile.getstats())


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


def test_keys_of_one_id_are_paired_in_good_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each public half was compared with each private one of its id, and parsed anew for that."""
    parsed = Counter[bytes]()

    def load(spki: bytes) -> PublicKeyTypes:
        parsed[spki] += 1
        return load_der_public_key(spki)

    public_keys.modulus.cache_clear()
    monkeypatch.setattr(public_keys, "load_der_public_key", load)
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
    calls = calls_of(lambda: listing.append(objects.keys_of(TOKEN, those, complete=True)))
    assert len(listing[0].keys) <= 256
    assert len(parsed) == len(those)
    assert max(parsed.values()) == 1
    assert calls < 100 * len(those)
