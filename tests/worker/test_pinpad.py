"""What a reader with a PIN pad is told (PC/SC, part 10); in tests/manage/ one does it."""

from hypothesis import given
from hypothesis import strategies as st

from hsmagent.schsm.apdu import INS, Command
from hsmagent.schsm.card import USER_PIN, USER_PIN_LENGTHS
from hsmagent.worker.pinpad import Feature, features, modify, verify


def test_the_structures_byte_by_byte() -> None:
    """As GnuPG's scdaemon and OpenSC fill them in for a PIN of a length that may vary."""
    told = verify(Command(0, INS.VERIFY, 0, USER_PIN), USER_PIN_LENGTHS)
    assert told.hex(" ") == (
        "00 00 82 00 00 0f 06 02 01 09 04 00 00 00 00 05 00 00 00 00 20 00 81 00"
    )
    told = modify(Command(0, INS.CHANGE_REFERENCE_DATA, 0, USER_PIN), USER_PIN_LENGTHS)
    assert told.hex(" ") == (
        "00 00 82 00 00 00 00 0f 06 03 02 03 09 04 00 01 02 00 00 00 05 00 00 00 00 24 00 81 00"
    )


def test_the_features_of_a_reader() -> None:
    ccid = bytes.fromhex("0604423300060704423300070a044233000a120442330012")
    told = features(ccid)
    assert told[Feature.VERIFY_PIN_DIRECT] == 0x42330006
    assert told[Feature.MODIFY_PIN_DIRECT] == 0x42330007
    assert features(b"") == {}
    assert features(ccid[:3]) == {}
    assert features(bytes.fromhex("060242330006") + ccid) == {}


@given(st.binary(max_size=300))
def test_any_answer_of_a_reader_is_read(raw: bytes) -> None:
    assert all(0 <= tag < 256 for tag in features(raw))
