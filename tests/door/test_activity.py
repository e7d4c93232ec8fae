import json
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hsmagent.door import activity
from hsmagent.door.activity import FILE_NAME, Activity, Entry, line_of, sentence
from hsmagent.door.journal import Journal, encode, journal, reads_stderr
from hsmagent.model import (
    Destination,
    Key,
    KeyType,
    Purpose,
    PurposeKind,
    Request,
    TokenId,
)
from tests.parts import values
from tests.parts.values import KEY, PEER

LOGIN = replace(values.LOGIN, destination=Destination("git.example.org", b"key", forwarded=True))


class Timer:
    """A `call_later` that a test sets off; what is put off by a moment only is done at once."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def __call__(self, delay: float, call: Callable[[], None]) -> None:
        if delay <= activity.MOMENT:
            call()
        else:
            self.waiting.append(call)

    def ring(self) -> None:
        waiting, self.waiting = self.waiting, []
        for call in waiting:
            call()


def entry(seconds: float = 100.0, request: Request = LOGIN, outcome: str = "used") -> Entry:
    return Entry(seconds, request, outcome, "" if outcome == "used" else "the person said no")


def written(folder: Path, name: str = activity.FILE_NAME) -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_the_first_use_is_written_at_once(tmp_path: Path) -> None:
    log = Activity(tmp_path / "state", Timer())
    log.record(entry())
    [line] = written(tmp_path / "state")
    assert line == {
        "time": 100.0,
        "count": 1,
        "outcome": "used",
        "reason": "",
        "purpose": "ssh",
        "summary": "log in as alice",
        "key": "ssh",
        "key_uri": KEY.uri,
        "token": "work",
        "program": "ssh",
        "chain": "ssh ← git",
        "pid": 7,
        "uid": 1000,
        "destination": "git.example.org",
        "forwarded": True,
    }
    assert sentence(line) == (
        "ssh ← git used “ssh” of work to log in as alice at git.example.org (forwarded)"
    )
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "state" / activity.FILE_NAME).stat().st_mode) == 0o600


def test_a_storm_becomes_a_few_lines(tmp_path: Path) -> None:
    timer = Timer()
    log = Activity(tmp_path, timer)
    for number in range(1001):
        log.record(entry(number))
    log.record(entry(2000, outcome="refused"))
    assert len(timer.waiting) == 1
    timer.ring()
    first, many = written(tmp_path)
    [refused] = written(tmp_path, activity.OTHER_NAME)
    assert (first["count"], many["count"], refused["count"]) == (1, 1000, 1)
    assert (many["time"], refused["outcome"]) == (1, "refused")
    assert sentence(many).endswith("(forwarded), 1000 times")
    log.record(entry(3000))
    assert len(written(tmp_path)) == 3


def test_entries_are_there_at_once_and_from_a_time_on(tmp_path: Path) -> None:
    log = Activity(tmp_path, Timer())
    for seconds in (100, 200, 300):
        other = Request(KEY, Purpose(PurposeKind.SSH, f"log in {seconds}"), PEER)
        log.record(entry(seconds, other))
    assert [line["time"] for line in log.entries()] == [100, 200, 300]
    assert [line["time"] for line in log.entries(since=200)] == [200, 300]


def test_news_are_what_was_written_down_since() -> None:
    timer = Timer()
    log = Activity(None, timer)
    assert log.news(0) == (0, [])
    log.record(entry(100))
    log.record(entry(101))  # gathered: it comes later
    seen, lines = log.news(0)
    assert (seen, [line["time"] for line in lines]) == (1, [100])
    assert log.news(seen) == (1, [])
    log.flush()
    seen, [line] = log.news(seen)
    assert (seen, line["time"]) == (2, 101)
    assert log.news(7) == (2, [])  # of another daemon's count


def test_the_last_use_is_of_that_token() -> None:
    log = Activity(None, Timer())
    log.record(entry(100))
    log.record(entry(200, outcome="refused"))
    log.flush()
    [name] = {line["token"] for line in log.entries()}
    used = log.last_use(name)
    assert used is not None
    assert used["time"] == 100
    assert log.last_use("another") is None


def test_a_restart_remembers(tmp_path: Path) -> None:
    Activity(tmp_path, Timer()).record(entry())
    file = tmp_path / activity.FILE_NAME
    file.write_bytes(file.read_bytes() + b'\xff[]\n3\n{"time": "x"}\n{"time": 5, "cut')
    assert [line["chain"] for line in Activity(tmp_path, Timer()).entries()] == ["ssh ← git"]


def test_the_file_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity, "MAX_FILE", 2000)
    monkeypatch.setattr(activity, "KEPT", 10)
    log = Activity(tmp_path, Timer())
    for seconds in range(100):
        log.record(entry(seconds))
        log.flush()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        activity.FILE_NAME,
        activity.FILE_NAME + ".1",
    ]
    assert all(path.stat().st_size <= 2000 for path in tmp_path.iterdir())
    assert [line["time"] for line in log.entries()] == list(range(90, 100))


@pytest.mark.parametrize(
    ("other", "outcome"),
    [(replace(LOGIN, key=replace(KEY, token=None)), "used"), (LOGIN, "refused")],
)
def test_nothing_pushes_out_what_a_tokens_key_did(
    other: Request, outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activity, "MAX_FILE", 2000)
    log = Activity(tmp_path, Timer())
    log.record(entry(1))
    for seconds in range(2, 2 * activity.OTHERS_KEPT):
        log.record(entry(seconds, other, outcome))
        log.flush()
    for reader in (log, Activity(tmp_path, Timer())):
        assert reader.entries()[0]["time"] == 1
        assert reader.entries()[-1]["outcome"] == outcome
        assert reader.entries()[-1]["time"] == 2 * activity.OTHERS_KEPT - 1


def test_without_a_folder_nothing_is_written(tmp_path: Path) -> None:
    before = list(tmp_path.iterdir())
    log = Activity(None, Timer())
    log.record(entry())
    assert len(log.entries()) == 1
    assert list(tmp_path.iterdir()) == before


def test_a_full_disk_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "state").write_text("not a folder")
    log = Activity(tmp_path / "state", Timer())
    log.record(entry())
    assert len(log.entries()) == 1
    assert "cannot write the activity log" in caplog.text


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("")
    (tmp_path / activity.FILE_NAME).symlink_to(tmp_path / "precious")
    Activity(tmp_path, Timer()).record(entry())
    assert (tmp_path / "precious").read_text() == ""


def test_foreign_text_is_made_printable() -> None:
    token = TokenId("/m.so", "wo\u202erk\x1b", "", "")
    key = Key(b"", KeyType.RSA, 2048, label="a\nb", token=token)
    request = Request(key, Purpose(PurposeKind.MAIL, "sign \x1b[2J"), PEER, Destination("h\n"))
    assert sentence(line_of(Entry(0, request, "failed", "x\ny"))).isprintable()


# -- the journal -----------------------------------------------------------------------------


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[socket.socket]:
    """Listen as journald does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        before = Path.cwd()
        os.chdir(tmp_path)
        listening.bind("socket")
        os.chdir(before)
        listening.settimeout(10)
        yield listening


def decode(datagram: bytes) -> dict[str, str]:
    """Read an entry by the rules of systemd.io/JOURNAL_NATIVE_PROTOCOL."""
    fields = {}
    while datagram:
        name, _, rest = datagram.partition(b"\n")
        size = int.from_bytes(rest[:8], "little")
        fields[name.decode()] = rest[8 : 8 + size].decode()
        assert rest[8 + size : 9 + size] == b"\n"
        datagram = rest[9 + size :]
    return fields


def test_the_journal_gets_fields(
    tmp_path: Path, journald: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ours = Journal("socket")
    Activity(None, Timer(), ours).record(entry(outcome="refused"))
    ours._socket.close()
    fields = decode(journald.recv(65536))
    assert fields["MESSAGE"].startswith("ssh ← git was refused “ssh” of work to log in as alice")
    assert fields["MESSAGE_ID"] == activity.MESSAGE_IDS["refused"]
    assert fields["PRIORITY"] == "5"
    assert fields["HSMAGENT_OUTCOME"] == "refused"
    assert fields["HSMAGENT_REASON"] == "the person said no"
    assert fields["HSMAGENT_DESTINATION"] == "git.example.org"
    assert fields["HSMAGENT_KEY"] == "ssh"


def test_a_journal_that_is_full_or_gone_holds_nobody_up(
    tmp_path: Path, journald: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ours = Journal("socket")
    start = time.monotonic()
    for _ in range(5000):  # far more than a socket's queue holds
        ours.send({"MESSAGE": "x"})
    journald.close()
    ours.send({"MESSAGE": "x"})
    ours._socket.close()
    assert time.monotonic() - start < 10


def test_golden_datagram() -> None:
    assert encode({"A": "b\nc", "D": ""}) == (b"A\n\x03\0\0\0\0\0\0\0b\nc\nD\n\0\0\0\0\0\0\0\0\n")


def test_the_manual_lists_the_ids_and_the_fields() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "desktop.md").read_text()
    for outcome, number in activity.MESSAGE_IDS.items():
        assert f"| {outcome} | `{number}` |" in manual
    for name in line_of(entry()):
        assert f"`{name}`" in manual


def test_the_journal_is_used_only_where_it_reads_our_stderr(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("hsmagent.door.journal.SOCKET", str(tmp_path))
    stderr = os.fstat(2)
    for value, used in (
        (f"{stderr.st_dev}:{stderr.st_ino}", True),
        (f"{stderr.st_dev}:{stderr.st_ino + 1}", False),  # a terminal started by a user unit
        ("nonsense", False),
    ):
        monkeypatch.setenv("JOURNAL_STREAM", value)
        assert reads_stderr() is used
        found = journal()
        assert (found is not None) is used
        if found is not None:
            found._socket.close()
    monkeypatch.delenv("JOURNAL_STREAM")
    assert not reads_stderr()
    assert journal() is None


@pytest.mark.parametrize(
    "line", ['{"time": 1}', '{"time": 1, "count": "x"}', '{"time": "x"}', "[]", "7", '{"time"']
)
def test_a_line_that_somebody_else_wrote_is_left_out(tmp_path: Path, line: str) -> None:
    (tmp_path / FILE_NAME).write_text(f"{line}\n")
    activity = Activity(tmp_path, lambda _seconds, _call: None)
    assert [sentence(each) for each in activity.entries()] == []
