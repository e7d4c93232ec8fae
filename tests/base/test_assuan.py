"""Assuan's lines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmagent import assuan
from hsmagent.assuan import Data, Err, LineReader, Ok, Other, Reply, command, parse
from hsmagent.errors import ProtocolError


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"OK Pleased to meet you", Ok()),
        (b"OK", Ok()),
        (b"D 123456", Data(bytearray(b"123456"))),
        (b"D a%25b%0Ac%e4", Data(bytearray(b"a%b\nc\xe4"))),
        (b"D ", Data(bytearray())),
        (b"ERR 83886179 Operation cancelled <Pinentry>", Err(99, "Operation cancelled <Pinentry>")),
        (b"ERR 83886142 Timeout", Err(62, "Timeout")),
        (b"ERR 83886194 Not confirmed", Err(114, "Not confirmed")),
        (b"ERR 5", Err(5, "")),
        (b"S PASSWORD_FROM_CACHE", Other()),
        (b"# a comment", Other()),
        (b"", Other()),
    ],
)
def test_replies(line: bytes, reply: Reply) -> None:
    buffer = bytearray(line)
    assert parse(buffer) == reply
    assert not any(buffer)  # wiped


@pytest.mark.parametrize("line", [b"HELLO", b"ERR", b"ERR x", b"D %", b"D 1%zz", b"D %\xff\xff"])
def test_broken_replies(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse(bytearray(line))


def test_commands() -> None:
    assert command("GETPIN") == b"GETPIN\n"
    assert command("SETDESC", "a %b\r\nnäm") == "SETDESC a %25b%0D%0Anäm\n".encode()


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=2000))
def test_a_command_is_one_short_line_of_whole_characters(text: str) -> None:
    line = command("SETDESC", text)
    assert len(line) < 1000
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    line.decode()


@given(st.lists(st.binary(max_size=90).filter(lambda line: b"\n" not in line)), st.data())
def test_lines_are_cut_wherever_they_were_broken(lines: list[bytes], data: st.DataObject) -> None:
    reader, found = LineReader(), []
    stream = b"".join(line + b"\n" for line in lines)
    while stream:
        size = data.draw(st.integers(1, min(len(stream), 200)))
        reader.room[:size] = stream[:size]
        reader.arrived(size)
        stream = stream[size:]
        while (line := reader.next_line()) is not None:
            found.append(bytes(line))
    assert found == lines
    assert not any(reader._buffer)


def test_a_line_without_end_is_refused() -> None:
    reader = LineReader()
    room = reader.room
    room[:] = b"x" * len(room)
    reader.arrived(len(room))
    assert reader.next_line() is None
    with pytest.raises(ProtocolError):
        _ = reader.room


@pytest.mark.parametrize(
    ("line", "name", "options", "words"),
    [
        (b"PKSIGN --hash=sha256 ID", "PKSIGN", {"hash": "sha256"}, ("ID",)),
        (b"pksign  ID ", "PKSIGN", {}, ("ID",)),
        (b"READKEY --info -- --odd", "READKEY", {"info": ""}, ("--odd",)),
        (b"KEYINFO x --list", "KEYINFO", {}, ("x", "--list")),
        (b"", "", {}, ()),
        (b"\xff", "\ufffd", {}, ()),
    ],
)
def test_requests(line: bytes, name: str, options: dict[str, str], words: tuple[str, ...]) -> None:
    found = assuan.request(line)
    assert (found.name, dict(found.options), found.words) == (name, options, words)


def test_replies_of_a_server() -> None:
    assert assuan.ok() == b"OK\n"
    assert assuan.ok("closing connection") == b"OK closing connection\n"
    assert assuan.err(99, "Operation cancelled", 6) == b"ERR 100663395 Operation cancelled\n"
    assert assuan.status("SERIALNO", "00") == b"S SERIALNO 00\n"
    assert assuan.data(b"a%\r\n\0") == b"D a%25%0D%0A\0\n"


@given(st.binary(max_size=4000) | st.lists(st.sampled_from([b"%", b"\n", b"x"])).map(b"".join))
def test_data_comes_out_as_it_went_in(value: bytes) -> None:
    lines = assuan.data(value).split(b"\n")[:-1]
    assert all(len(line) < assuan.LONGEST_LINE for line in lines)
    found = [parse(bytearray(line)) for line in lines]
    assert b"".join(bytes(each.value) for each in found if isinstance(each, Data)) == value
