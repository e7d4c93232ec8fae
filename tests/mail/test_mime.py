"""Headers, Content-Types, multiparts and addresses: what is ambiguous is refused."""

import email
import email.policy
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmagent.errors import UsageError
from hsmagent.mail import address, mime, multipart
from hsmagent.mail.cms.ber import Malformed
from hsmagent.mail.spool import Memory, Region


def entity(data: bytes) -> mime.Entity:
    return mime.read(Region.whole(Memory(data)))


def test_header_and_body() -> None:
    read = entity(b"From: a@b\nSubject: one\n two\nX:\n\nbody\n\nmore\n")
    assert [field.name for field in read.fields] == ["from", "subject", "x"]
    assert read.one("subject") == "one two"
    assert read.one("x") == ""
    assert read.body.read(100, "it") == b"body\n\nmore\n"
    assert read.content_type.kind == "text/plain"
    assert entity(b"From a@b Mon\nFrom: a@b\n\n").one("from") == "a@b"
    assert entity(b"A: b\r\n\r\nbody").newline == b"\r\n"
    assert entity(b"A: b").body.size == 0
    assert entity(b"\nbody").body.size == 4


@pytest.mark.parametrize("data", [b"no header\n\n", b"A: b\nnone\n\n", b" a: b\n\n", b"a b: c\n\n"])
def test_no_header(data: bytes) -> None:
    with pytest.raises(Malformed):
        entity(data)


def test_header_size_is_bounded() -> None:
    with pytest.raises(Malformed, match="header is larger"):
        entity(b"A: b\n" * 300_000)


@pytest.mark.parametrize(
    ("value", "kind", "parameters"),
    [
        ("text/plain", "text/plain", {}),
        ("TEXT/Plain; CHARSET=utf-8", "text/plain", {"charset": "utf-8"}),
        ('a/b; x="y;z"; c = d ;', "a/b", {"x": "y;z", "c": "d"}),
        (r'a/b; x="q\"r\\s"', "a/b", {"x": 'q"r\\s'}),
        ("a/b (comment; x=1); y=2 (more)", "a/b", {"y": "2"}),
        ('a/b; x="(no comment)"', "a/b", {"x": "(no comment)"}),
        ("multipart/signed;\r\n boundary=----A.B", "multipart/signed", {"boundary": "----A.B"}),
    ],
)
def test_content_type(value: str, kind: str, parameters: dict[str, str]) -> None:
    read = mime.content_type(value)
    assert (read.kind, read.parameters) == (kind, parameters)


@pytest.mark.parametrize("value", ["a/b; x=1; x=2", "a/b; x", 'a/b; x="y', "a/b; x=y z", "a/b; =1"])
def test_ambiguous_content_type(value: str) -> None:
    with pytest.raises(Malformed):
        mime.content_type(value)


def parts(body: bytes, boundary: str = "b") -> list[bytes]:
    head = f'Content-Type: multipart/mixed; boundary="{boundary}"\n\n'.encode()
    return [part.read(10_000_000, "it") for part in multipart.parts(entity(head + body))]


def test_parts() -> None:
    assert parts(b"--b\none\n--b\ntwo\n--b--\n") == [b"one", b"two"]
    assert parts(b"pre\r\n--b\r\none\r\n\r\n--b--") == [b"one\r\n"]
    assert parts(b"--b  \n--b\t\n--b--x\n--b--\n") == [b"", b"--b--x"]
    assert parts(b"--b\n--bc\n--b \n--b--") == [b"--bc", b""]
    assert parts(b"--b--\n--b\nlate\n--b--") == []


def test_parts_across_chunks() -> None:
    big = b"x" * 262_139
    assert parts(b"--b\n" + big + b"\n--b\n" + big + b"\n--b--\n") == [big, big]


@pytest.mark.parametrize("body", [b"", b"--b\none\n", b"--b\none\n--b", b"x--b--"])
def test_no_closing_boundary(body: bytes) -> None:
    with pytest.raises(Malformed):
        parts(body)


@given(
    st.lists(
        st.lists(st.sampled_from([b"a", b"--", b"-", b"b", b"\n", b"\r\n", b" "]), max_size=12).map(
            b"".join
        ),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from([b"\n", b"\r\n"]),
)
def test_parts_that_were_joined_come_back(pieces: list[bytes], newline: bytes) -> None:
    joined = b"".join(b"--=_x" + newline + piece + newline for piece in pieces) + b"--=_x--"
    assert parts(joined, "=_x") == pieces


@pytest.mark.parametrize(
    ("field", "found"),
    [
        ("a@b.org", ("a@b.org",)),
        ("A@B.ORG", ("A@b.org",)),
        ("Ann <a@b.org>, Bob <b@c.org>", ("a@b.org", "b@c.org")),
        ('"Doe, Jane" <j@d.org>', ("j@d.org",)),
        ("John Q. Public <j@p.org>", ("j@p.org",)),
        ("a@b.org (Ann (the \\) first))", ("a@b.org",)),
        ('"a"@b.org', ("a@b.org",)),
        ('"a b"@c.org', ('"a b"@c.org',)),
        ("a.b@[192.0.2.1]", ("a.b@[192.0.2.1]",)),
        ("Friends: a@b.org, c@d.org; , e@f.org", ("a@b.org", "c@d.org", "e@f.org")),
        ("undisclosed-recipients:;", ()),
        ("=?utf-8?q?J=C3=B6rg?= <j@p.org>", ("j@p.org",)),
        ("Jörg <j@p.org>", ("j@p.org",)),
        ("J\udcf6rg <j@p.org>", ("j@p.org",)),
        ("a@B\u00fccher.org", ("a@xn--bcher-kva.org",)),
        ("a@stra\u00dfe.org", ("a@stra\u00dfe.org",)),  # strasse.org is somebody else
        ("", ()),
        (" , ,a@b.org,", ("a@b.org",)),
    ],
)
def test_mailboxes(field: str, found: tuple[str, ...]) -> None:
    assert address.mailboxes(field) == found


@pytest.mark.parametrize(
    "field",
    [
        "a",
        "a@",
        "@b",
        "a@b@c",
        "a@b <c@d>",
        "<a@b> <c@d>",
        "a@b.org\0@evil.test",
        "x\x1bc@evil.test",
        "x\u202e@evil.test",
        "x\udcff@evil.test",
        "a@b..org",
        "a..b@c",
        ".a@b",
        '"a@b.org" c@d.org',
        "a@b c@d",
        "(a@b.org",
        '"a@b.org',
        "<a@b",
        "a@b>",
        "Friends: a@b",
        "<@route:a@b>",
    ],
)
def test_unclear_mailboxes_are_refused(field: str) -> None:
    with pytest.raises(UsageError):
        address.mailboxes(field)


@given(st.text(alphabet='ab@.<>(),:;"\\[] \t', max_size=30))
def test_where_we_see_one_address_python_sees_no_other(field: str) -> None:
    try:
        found = address.mailboxes(field)
    except UsageError:
        return
    if "(" in field or ":" in field or "\\" in field:
        return  # where Python's parser stumbles
    message = email.message_from_string(f"From: {field}\n\n", policy=email.policy.default)
    theirs = {a.addr_spec.replace('"', "") for a in message["from"].addresses} - {"", "<>"}
    ours = {a.replace('"', "") for a in found}
    if len(found) == 1 and len(theirs) == 1:
        assert ours == {address.normal(a) for a in theirs}


@pytest.mark.parametrize("text", ["(" * 50_000, '"' + "\\" * 50_001, "a." * 50_000, "<" * 50_000])
def test_long_fields_take_linear_time(text: str) -> None:
    started = time.process_time()
    for read in (address.mailboxes, mime.content_type):
        try:
            read(text)
        except UsageError:
            continue
    assert time.process_time() - started < 3
