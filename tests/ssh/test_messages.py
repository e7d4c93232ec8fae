import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmagent import frame
from hsmagent.errors import ProtocolError
from hsmagent.ssh import messages
from hsmagent.ssh.messages import LAYOUTS, Number
from tests.ssh import vectors

# Messages whose end is free: the private keys, constraints and extensions have readers of their
# own, which the tests of those parts cut short.
OPEN_ENDED = {17, 25, 26, 27, 29}

COMMENTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
FIELDS = {
    "STRING": st.binary(max_size=40),
    "REST": st.binary(max_size=40),
    "SECRET": st.binary(max_size=40).map(bytearray),
    "SECRET_REST": st.binary(max_size=40).map(bytearray),
    "TEXT": COMMENTS,
    "U32": st.integers(0, 0xFFFFFFFF),
    "IDENTITIES": st.lists(st.tuples(st.binary(max_size=40), COMMENTS)).map(tuple),
}
STRATEGIES = [
    st.builds(
        message,
        *[next(FIELDS[name] for name in FIELDS if getattr(messages, name) is c) for c in codecs],
    )
    for message, codecs in LAYOUTS.values()
]


@pytest.mark.parametrize("golden", vectors.ALL, ids=lambda golden: golden[:6].hex())
def test_what_openssh_says_is_read_and_written_back(golden: bytes) -> None:
    assert messages.encode(messages.decode(golden)) == golden
    assert messages.encode(messages.decode(bytearray(golden))) == golden


@pytest.mark.parametrize("golden", vectors.ALL, ids=lambda golden: golden[:6].hex())
def test_no_message_cut_short_or_grown_is_read(golden: bytes) -> None:
    if golden[0] in OPEN_ENDED:
        return
    for length in range(len(golden)):
        with pytest.raises(ProtocolError):
            messages.decode(golden[:length])
    with pytest.raises(ProtocolError):
        messages.decode(golden + b"\0")


def test_golden_vectors_are_there_for_every_request() -> None:
    requests = {number for number in Number if number not in range(5, 7) and number < 28}
    assert requests <= {golden[0] for golden in vectors.ALL}


def said(body: bytes) -> object:
    try:
        return messages.decode(body)
    except ProtocolError as error:
        return str(error)


@given(st.lists(st.integers(0, 9) | st.sampled_from([11, 12, 13, 0x0D000000]), max_size=6))
def test_a_sign_request_is_read_in_one_go_as_it_is_by_the_table(words: list[int]) -> None:
    body = b"\x0d" + b"".join(word.to_bytes(4, "big") for word in words)
    with pytest.MonkeyPatch.context() as patch:
        in_one_go = said(body)
        patch.setattr(messages, "_SIGN", b"none")
        assert said(body) == in_one_go


@given(st.binary(max_size=300))
def test_a_sign_response_is_written_in_one_go_as_it_is_by_the_table(signature: bytes) -> None:
    by_the_table = messages.encode(messages.SignResponse(signature))
    assert messages.sign_response(signature) == by_the_table


def test_fed_byte_by_byte() -> None:
    reader = frame.Reader(frame.SSH_MAX_FRAME)
    found = []
    for byte in b"".join(map(frame.encode, vectors.ALL)):
        reader.feed(bytes((byte,)))
        while (body := reader.next_frame()) is not None:
            found.append(messages.encode(messages.decode(body)))
    assert found == vectors.ALL


@given(st.one_of(STRATEGIES))
def test_every_message_comes_back(message: messages.Request | messages.Reply) -> None:
    assert messages.decode(messages.encode(message)) == message


@given(st.binary(max_size=80))
def test_any_bytes_are_a_message_or_a_protocol_error(body: bytes) -> None:
    try:
        message = messages.decode(body)
    except ProtocolError:
        return
    assert messages.encode(message) == body


def test_a_count_of_identities_that_lies_ends_at_once() -> None:
    with pytest.raises(ProtocolError):
        messages.decode(bytes((Number.SSH_AGENT_IDENTITIES_ANSWER,)) + b"\xff\xff\xff\xff")


def test_no_secret_is_shown() -> None:
    shown = repr([messages.decode(golden) for golden in vectors.ALL if golden[0] != 13])
    assert "1234" not in shown


def test_values_of_one_request() -> None:
    message = messages.decode(vectors.message("smartcard constrained"))
    assert message == messages.AddSmartcardKeyConstrained(
        "pkcs11:token=work", bytearray(b"1234"), bytes.fromhex("010000003c")
    )
