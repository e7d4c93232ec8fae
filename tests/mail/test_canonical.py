"""What is signed is in a form that relays leave alone, and says what the message said."""

import email
import email.policy
import time
from email.message import EmailMessage, Message
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmagent.mail import canonical, mime, spool
from hsmagent.mail.cms.ber import Malformed
from hsmagent.mail.spool import Memory, Region

NEWLINES = st.sampled_from([b"\n", b"\r\n"])


def region(data: bytes) -> Region:
    return Region.whole(Memory(data))


def prepared(entity: bytes) -> bytes:
    read = mime.read(region(entity))
    pieces = canonical.prepare(read.fields, read.body, read.newline)
    return b"".join(chunk for piece in pieces for chunk in piece.chunks())


def chunked(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(edges)]


TEXT = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b"From ", b" ", b"\xff"])).map(
    b"".join
)


@given(TEXT, st.lists(st.integers(0, 1000), max_size=5))
def test_line_endings_in_any_chunks(data: bytes, cuts: list[int]) -> None:
    plain = data.replace(b"\r\n", b"\n")
    assert b"".join(canonical.lf(chunked(data, cuts))) == plain
    assert b"".join(canonical.crlf(chunked(data, cuts))) == plain.replace(b"\n", b"\r\n")


@given(st.binary(max_size=2000), st.lists(st.integers(0, 2000), max_size=5), NEWLINES)
def test_base64_in_any_chunks(data: bytes, cuts: list[int], newline: bytes) -> None:
    coded = b"".join(canonical.base64_lines(chunked(data, cuts), newline))
    assert all(len(line) <= 76 for line in coded.split(newline))
    assert b"".join(canonical.from_base64(chunked(coded, cuts), "it")) == data


@given(st.binary(max_size=100))
def test_what_is_no_base64_is_malformed_or_round_trips(data: bytes) -> None:
    try:
        plain = b"".join(canonical.from_base64([data], "it"))
    except Malformed:
        return
    assert b"".join(canonical.base64_lines([plain])).split() == [] or plain


def bodies() -> st.SearchStrategy[bytes]:
    pieces = st.sampled_from(
        [b"word", b" ", b"\t", b"\n", b"From ", b".", b"=", b"=\n", b"\xc3\xbc", b"x" * 990, b"-- "]
    )
    return st.lists(pieces, max_size=30).map(b"".join)


@given(bodies(), NEWLINES, st.sampled_from(["7bit", "8bit", "quoted-printable", "base64"]))
def test_text_keeps_its_meaning_and_becomes_sturdy(
    body: bytes, newline: bytes, encoding: str
) -> None:
    body = body.replace(b"\n", newline)
    if encoding == "base64":
        body = b"".join(canonical.base64_lines([body], newline))
    head = b"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: "
    entity = (head + encoding.encode() + b"\n\n").replace(b"\n", newline) + body
    made = prepared(entity)
    assert canonical.sturdy(mime.read(region(made)).body)
    assert decoded(made) == decoded(entity)


def decoded(entity: bytes) -> bytes:
    """Return what Python's own parser makes of it, in LF."""
    parsed: Message = email.message_from_bytes(entity, policy=email.policy.compat32)
    payload = parsed.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.replace(b"\r\n", b"\n")


def test_every_part_of_a_multipart_keeps_its_meaning() -> None:
    message = EmailMessage(policy=email.policy.SMTPUTF8.clone(cte_type="8bit", linesep="\n"))
    message.set_content("Grüße\nFrom here\n", cte="8bit")
    message.add_alternative("<p>Grüße </p>\n", subtype="html", cte="8bit")
    message.add_attachment(bytes(range(256)), maintype="image", subtype="png")
    original = message.as_bytes()
    made = prepared(original)
    assert canonical.sturdy(mime.read(region(made)).body)
    parsed = email.message_from_bytes(made, policy=email.policy.default)
    for mine, theirs in zip(parsed.walk(), message.walk(), strict=True):
        assert mine.get_content_type() == theirs.get_content_type()
        if not mine.is_multipart():
            assert mine.get_payload(decode=True) == theirs.get_payload(decode=True)


def test_a_forwarded_message_becomes_sturdy_too() -> None:
    made = prepared(
        b"Content-Type: message/rfc822\nContent-Transfer-Encoding: 8bit\n\n"
        b"Subject: old\nContent-Type: text/plain; charset=utf-8\n\nGr\xc3\xbc\xc3\x9fe \n"
    )
    assert canonical.sturdy(mime.read(region(made)).body)
    assert b"Subject: old\n" in made
    assert b"Gr=C3=BC=C3=9Fe=20" in made


def test_a_signed_part_is_not_touched() -> None:
    inner = b'Content-Type: multipart/signed; boundary="b"\n\n--b\n\nFrom here \n--b--\n'
    mixed = b'Content-Type: multipart/mixed; boundary="a"\n\n--a\n' + inner + b"\n--a--\n"
    assert inner in prepared(mixed)


@pytest.mark.parametrize(
    ("body", "sturdy"),
    [
        (b"plain\nlines\n", True),
        (b"", True),
        (b"x" * 998 + b"\n", True),
        (b"x" * 997 + b"\r\n", True),
        (b"a\n" * 200_000 + b"x" * 998, True),
        (b"x" * 999 + b"\n", False),
        (b"x" * 300_000 + b"\n", False),
        (b"a\nFrom b\n", False),
        (b"From b\n", False),
        (b"a \n", False),
        (b"a\t\r\n", False),
        (b"a ", False),
        (b"a\rb", False),
        (b"a\r", False),
        (b"a\0", False),
        (b"\xc3\xbc", False),
    ],
)
def test_sturdy(body: bytes, sturdy: bool) -> None:
    assert canonical.sturdy(region(body)) is sturdy


LINES = st.lists(
    st.tuples(st.sampled_from([0, 1, 76, 990, 997, 998, 999]), st.sampled_from([b"\n", b"\r\n"])),
    max_size=8,
)


@given(LINES, st.sampled_from([b"", b"x", b"x" * 998, b"x" * 999]), st.integers(1, 2000))
def test_long_lines_are_seen_across_chunks(
    lines: list[tuple[int, bytes]], last: bytes, size: int
) -> None:
    body = b"".join(b"x" * length + end for length, end in lines) + last
    longest = max(len(line) for line in body.split(b"\n"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "CHUNK", size)
        assert canonical.sturdy(region(body)) is (longest <= 998)


HEADS = st.sampled_from(
    [
        b"Content-Type: text/plain\n\n",
        b"Content-Type: text/plain\nContent-Transfer-Encoding: binary\n\n",
        b"Content-Type: multipart/mixed; boundary=x\n\n--x\n\na\n--x--\n",
        (
            b"Content-Type: multipart/mixed; boundary=x\n\n--x\n"
            b"Content-Transfer-Encoding: binary\n\na\n--x--\n"
        ),
    ]
)
FRAGILE = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b"From ", b" ", b"\t", b"\0", b"x" * 998])
).map(b"".join)


@given(HEADS, FRAGILE, st.integers(1, 12))
def test_what_can_stay_as_it_is_turns_out_on_the_way(head: bytes, body: bytes, size: int) -> None:
    entity = mime.read(region(head + body))
    parts = entity.fields, entity.body, entity.newline
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "CHUNK", size)
        pieces = canonical.prepare(*parts)
        try:
            found = list(canonical.unless_fragile(*parts))
        except canonical.Fragile:
            assert len(pieces) == 1
            return
        for same in (pieces, canonical.as_it_is(*parts)):
            assert b"".join(found) == b"".join(c for piece in same for c in piece.chunks())
    assert pieces[1] is entity.body


@pytest.mark.parametrize(
    "line",
    [
        b"x" * 75 + b"From " * 300 + b"y" * 700,
        b"x" * 73 + b"From " * 15 + b"From \xc3\xbc" * 200,
        b"\xc3\xbc" * 700_000,
        b"x" + b" " * 300_000 + b"y",
    ],
    ids=["From", "From and escapes", "escapes", "spaces"],
)
def test_a_long_line_is_broken_in_linear_time(line: bytes) -> None:
    entity = b"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n" + line
    started = time.process_time()
    made = prepared(entity)
    assert time.process_time() - started < 4
    assert canonical.sturdy(mime.read(region(made)).body)
    assert decoded(made) == line
    assert max(map(len, made.split(b"\n"))) <= 76
