import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmagent import frame
from hsmagent.errors import ProtocolError


def drain(reader: frame.Reader) -> list[bytes]:
    bodies = []
    while (body := reader.next_frame()) is not None:
        bodies.append(bytes(body))
    return bodies


@given(st.lists(st.binary(min_size=1, max_size=50)), st.integers(1, 60))
def test_frames_survive_any_cutting(bodies: list[bytes], step: int) -> None:
    stream = b"".join(map(frame.encode, bodies))
    reader = frame.Reader(limit=50)
    out = []
    for start in range(0, len(stream), step):
        reader.feed(stream[start : start + step])
        out += drain(reader)
    assert out == bodies
    assert reader.pending == 0


@pytest.mark.parametrize("length", [0, 262_145, 0xFFFFFFFF])
def test_a_bad_length_is_refused_before_its_body_comes(length: int) -> None:
    reader = frame.Reader(frame.SSH_MAX_FRAME)
    reader.feed(length.to_bytes(4, "big"))
    with pytest.raises(ProtocolError):
        reader.next_frame()


def test_the_largest_frame_is_read() -> None:
    reader = frame.Reader(frame.SSH_MAX_FRAME)
    reader.feed(frame.encode(bytes(frame.SSH_MAX_FRAME)))
    body = reader.next_frame()
    assert body is not None
    assert len(body) == frame.SSH_MAX_FRAME


def test_wipe_leaves_zeros() -> None:
    pin = bytearray(b"648219")
    frame.wipe(pin)
    assert pin == bytes(6)
