"""Verifying for git, by a process that stands by: the same as by one that does it itself."""

import os
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsmagent.cli import standby, standby_client, standby_sample
from hsmagent.mail import verify
from hsmagent.mail.cms import signers
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.cms.signers import Covered
from hsmagent.mail.spool import Memory
from hsmagent.mail.store import Store
from hsmagent.mail.trust import Anchors
from tests.parts.mail.people import root
from tests.parts.mail.standby import Place, children, is_there, place
from tests.parts.measured import MEASURED
from tests.parts.until import until

DATA = b"tree 123\nauthor Alice\n\nFirst\n"


@pytest.fixture
def there() -> Iterator[Place]:
    with place() as made:
        yield made


def both_ways(there: Place, signature: Path, data: bytes) -> tuple[int, bytes, bytes]:
    """Verify by one who stands by and the ordinary way. Return what both said."""
    quick = there.verify(signature, data)
    assert there.ways() == [str(quick[0])]
    slow = there.verify(signature, data, XDG_RUNTIME_DIR=f"{there.folder}/none")
    assert there.ways() == []
    assert quick == slow
    return quick


# -- the same result -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rsa", "p256", "ed25519"])
def test_a_good_signature_and_a_bad_one(kind: str) -> None:
    with place([kind]) as there:
        signature = there.sign(DATA)
        there.stand_by()
        status, out, err = both_ways(there, signature, DATA)
        assert (status, out.count(b"\n[GNUPG:] GOODSIG ")) == (0, 1)
        assert err.startswith(b"hsmagent-gpgsm: Good signature by Alice Example")
        status, out, _ = both_ways(there, signature, DATA + b"x")
        assert (status, out.count(b"\n[GNUPG:] BADSIG ")) == (1, 1)


def test_what_is_no_signature(there: Place) -> None:
    opaque = there.folder / "opaque"
    there.run("-u", "alice@example.org", "-o", str(opaque), "--sign", data=DATA)
    cut = there.folder / "cut"
    cut.write_bytes(there.sign(DATA).read_bytes()[:500])
    empty = there.folder / "empty"
    empty.write_bytes(b"")
    there.stand_by()
    for file in (opaque, cut, empty):
        status, out, err = both_ways(there, file, DATA)
        assert status == 1
        assert b"SIG " not in out
        assert err.startswith(b"hsmagent-gpgsm: ")


def test_a_configuration_that_cannot_be_read(there: Place) -> None:
    signature = there.sign(DATA)
    there.stand_by()
    config = there.folder / "config/hsmagent/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("[cash]")
    status, _, err = both_ways(there, signature, DATA)
    assert status == 1
    assert b"cash" in err
    config.unlink()
    assert both_ways(there, signature, DATA)[0] == 0


@pytest.mark.parametrize("number", [0, 1, 2, 7])
def test_every_status_descriptor(there: Place, number: int) -> None:
    signature = there.sign(DATA)
    there.stand_by()
    told = there.folder / "told"
    redirected = f'to=$1; shift; exec "$@" {number}<>"$to"'
    words = ["sh", "-c", redirected, "sh", str(told), there.program, f"--status-fd={number}"]
    said = []
    for runtime in ("run", "none"):
        told.write_bytes(DATA)
        done = subprocess.run(
            [*words, "--verify", str(signature), "-"],
            env={**there.environment, "XDG_RUNTIME_DIR": f"{there.folder}/{runtime}"},
            input=DATA,
            capture_output=True,
            check=False,
            timeout=60,
        )
        said.append((done.returncode, done.stdout, done.stderr, told.read_bytes()))
    assert said[0] == said[1]
    assert b"[GNUPG:] GOODSIG " in said[0][3]
    assert there.ways() == ["0"]


def test_a_root_that_was_removed_is_trusted_no_more(there: Place) -> None:
    signature = there.sign(DATA)
    there.stand_by()
    assert both_ways(there, signature, DATA)[0] == 0
    store = Store(there.folder / "data/hsmagent")
    store.remove(Certificate(root().der).fingerprint, root=True)
    status, out, _ = both_ways(there, signature, DATA)
    assert status == 1
    assert b"TRUST_UNDEFINED" in out
    store.add(Certificate(root().der), root=True)
    assert both_ways(there, signature, DATA)[0] == 0


def test_much_data(there: Place) -> None:
    data = os.urandom(10 << 20)
    signature = there.sign(data)
    there.stand_by()
    assert both_ways(there, signature, data)[0] == 0
    assert both_ways(there, signature, data[:-1])[0] == 1


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_a_closed_standard_stream(there: Place, closed: str) -> None:
    """Whoever has none does it himself: a socket of ours would get its number."""
    words = ["--status-fd=1", "--verify", str(there.sign(DATA)), "-"]
    there.stand_by()
    said = []
    for runtime in ("run", "none"):
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {closed}', "sh", there.program, *words],
            env={**there.environment, "XDG_RUNTIME_DIR": f"{there.folder}/{runtime}"},
            input=DATA,
            capture_output=True,
            check=False,
            timeout=60,
        )
        said.append((done.returncode, done.stdout, done.stderr))
    assert said[0] == said[1]
    assert there.ways() == ["None"]


def test_what_is_not_gits_own_wish_goes_the_ordinary_way(there: Place) -> None:
    signature = there.sign(DATA)
    for words in (
        ["--verify", str(signature), "-"],
        ["--status-fd=1", "--verify", "-", "-"],
        ["--status-fd=1", "--verify", str(signature), str(signature)],
        ["--status-fd=x", "--verify", str(signature), "-"],
        ["--status-fd=1", "--verify", str(signature), "-", "--output=x"],
    ):
        there.run(*words, data=DATA)
    assert there.ways() == []
    assert not there.socket.exists()


def test_a_signature_that_is_no_file(there: Place) -> None:
    there.stand_by()
    for path in (there.folder, there.folder / "nothing"):
        done = there.verify(path, DATA)
        assert done == there.verify(path, DATA, XDG_RUNTIME_DIR=f"{there.folder}/none")
        assert there.ways() == ["None"]


# -- git -------------------------------------------------------------------------------------


def git(there: Place, *arguments: str) -> subprocess.CompletedProcess[str]:
    options = [*("-c", "user.name=Alice"), *("-c", "user.email=alice@example.org")]
    options += ["-c", "gpg.format=x509", "-c", f"gpg.x509.program={there.program}"]
    return subprocess.run(
        ["git", "-C", str(there.folder / "work"), *options, *arguments],
        env=there.environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def work(there: Place) -> Place:
    (there.folder / "work").mkdir()
    git(there, "init", "-q", "-b", "main")
    for number in range(3):
        made = git(there, "commit", "-q", "-S", "--allow-empty", "-m", f"Commit {number}")
        assert made.returncode == 0, made.stderr
    return there


def test_git_asks_who_stands_by(work: Place) -> None:
    assert git(work, "log", "--format=%G?").stdout == "G\nG\nG\n"
    assert work.ways() == ["None", "0", "0"]
    assert git(work, "verify-commit", "HEAD").returncode == 0
    git(work, "checkout", "-q", "-b", "signed", "HEAD~")
    git(work, "commit", "-q", "-S", "--allow-empty", "-m", "Signed")
    git(work, "checkout", "-q", "-b", "unsigned", "HEAD~")
    git(work, "commit", "-q", "--allow-empty", "-m", "Unsigned")
    git(work, "checkout", "-q", "main")
    merge = "merge", "-q", "--no-edit", "--verify-signatures"
    assert git(work, *merge, "signed").returncode == 0
    assert work.ways() == ["0", "0"]
    assert git(work, *merge, "unsigned").returncode != 0
    signature = "--format=%G?|%GS|%GF|%GP"
    quick = git(work, "log", signature, "signed").stdout
    work.environment["XDG_RUNTIME_DIR"] = f"{work.folder}/none"
    assert git(work, "log", signature, "signed").stdout == quick


def test_two_logs_at_once(work: Place) -> None:
    said: list[str] = []

    def log() -> None:
        said.append(git(work, "log", "--format=%G?").stdout)

    logs = [threading.Thread(target=log) for _ in range(4)]
    for each in logs:
        each.start()
    for each in logs:
        each.join()
    assert said == ["G\nG\nG\n"] * 4
    until(lambda: work.standing() == [work.stands_by()])


# -- when something ends ---------------------------------------------------------------------


def test_whoever_stands_by_is_killed(there: Place) -> None:
    """What it began for somebody goes on, and the next one to ask does it himself."""
    signature = there.sign(DATA)
    pid = there.stand_by()
    with there.start(signature) as asking:
        until(lambda: children(pid))
        os.kill(pid, signal.SIGKILL)
        out, _ = asking.communicate(DATA)
    assert (asking.returncode, out.count(b"GOODSIG")) == (0, 1)
    assert there.ways() == ["0"]
    assert there.verify(signature, DATA)[0] == 0
    assert there.ways() == ["None"]
    until(there.stands_by)
    assert both_ways(there, signature, DATA)[0] == 0


def test_what_verifies_is_killed(there: Place) -> None:
    """Nothing is said twice: after it has begun, nobody can know how far it came."""
    signature = there.sign(DATA)
    pid = there.stand_by()
    with there.start(signature) as asking:
        until(lambda: children(pid))
        reading = children(pid)[0]
        until(lambda: "pipe" in str(Path(f"/proc/{reading}/fd/0").readlink()))
        os.kill(reading, signal.SIGKILL)
        out, err = asking.communicate(DATA)
    assert (asking.returncode, out) == (1, b"")
    assert err.decode() == f"{standby_client.BROKEN_OFF}\n"
    assert there.ways() == ["1"]
    assert is_there(pid)
    assert both_ways(there, signature, DATA)[0] == 0


def test_who_hangs_up_before_it_has_begun_has_touched_nothing(there: Place) -> None:
    signature = there.sign(DATA)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(there.socket))
        listening.listen()
        with there.start(signature) as asking:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1 << 16)
                connection.send(standby_client.READY)
                for descriptor in socket.recv_fds(connection, 1, 10)[1]:
                    os.close(descriptor)
            out, _ = asking.communicate(DATA)
    assert (asking.returncode, out.count(b"GOODSIG")) == (0, 1)
    assert there.ways() == ["None"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_whoever_asks_is_interrupted(there: Place, number: signal.Signals) -> None:
    """Ctrl-C in a terminal reaches the foreground's process group."""
    signature = there.sign(DATA)
    pid = there.stand_by()
    with there.start(signature) as asking:
        until(lambda: children(pid))
        reading = children(pid)[0]
        until(lambda: "pipe" in str(Path(f"/proc/{reading}/fd/0").readlink()))
        os.killpg(asking.pid, number)
        assert asking.wait(20) == (130 if number == signal.SIGINT else -number)
        until(lambda: not is_there(reading))
        assert asking.stderr is not None
        assert asking.stderr.read() == b""
    assert is_there(pid)


def test_whoever_stands_by_is_stopped(there: Place) -> None:
    """One has to wait for a while, and leaves another one."""
    signature = there.sign(DATA)
    pid = there.stand_by()
    os.kill(pid, signal.SIGSTOP)
    try:
        assert there.verify(signature, DATA)[0] == 0
        assert there.verify(signature, DATA)[0] == 0
        assert there.ways() == ["None", "0"]
        assert there.stands_by() != pid
    finally:
        os.kill(pid, signal.SIGKILL)


def test_nothing_stays_when_nobody_asks(there: Place) -> None:
    pid = there.stand_by()
    assert os.getsid(pid) == pid
    assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
    open_files = {str(file.readlink()) for file in Path(f"/proc/{pid}/fd").iterdir()}
    assert {name for name in open_files if not name.startswith("socket:")} == {os.devnull}
    assert stat.S_IMODE(there.socket.stat().st_mode) == 0o600
    until(lambda: not is_there(pid), 2 * standby.IDLE)
    assert not there.socket.exists()


def test_it_ends_in_any_case(monkeypatch: pytest.MonkeyPatch, there: Place) -> None:
    monkeypatch.setattr(standby, "LONGEST", 0.0)
    monkeypatch.setattr(standby, "LOOK", 0.0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(there.socket))
        listening.listen()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
            asking.connect(str(there.socket))
            started = time.monotonic()
            standby._serve(listening, b"")
            assert time.monotonic() - started < standby.IDLE


def test_a_crowd_does_it_itself(there: Place) -> None:
    signature = there.sign(DATA)
    pid = there.stand_by()
    asking = []
    try:
        for count in range(1, standby.MOST + 1):
            asking.append(there.start(signature))
            until(lambda: len(children(pid)) == count)  # noqa: B023 - at once
        assert there.verify(signature, DATA)[0] == 0
        assert there.ways() == ["None"]
    finally:
        for each in asking:
            each.communicate(DATA)
    assert [each.returncode for each in asking] == [0] * standby.MOST


# -- whose it is -----------------------------------------------------------------------------


def test_other_circumstances_are_not_mixed(there: Place) -> None:
    signature = there.sign(DATA)
    pid = there.stand_by()
    for more in ({"LC_ALL": "C"}, {"XDG_DATA_HOME": f"{there.folder}/no"}, {"NEW": "1"}):
        there.verify(signature, DATA, **more)
        assert there.ways() == ["None"]
    until(lambda: not is_there(pid), standby.IDLE / 2)  # it makes room for another one
    for _ in range(2):
        there.verify(signature, DATA, NEW="1")
    there.ways()
    until(there.stands_by)
    assert there.verify(signature, DATA, NEW="1")[0] == 0
    assert there.ways() == ["0"]
    assert there.verify(signature, DATA, NEW="1", PWD="/", GIT_PREFIX="x")[0] == 0
    assert there.ways() == ["0"]


@pytest.mark.parametrize("variable", ["HOME", "TMPDIR"])
def test_what_depends_on_the_current_folder_is_not_handed_over(there: Place, variable: str) -> None:
    there.verify(there.sign(DATA), DATA, **{variable: "relative"})
    assert there.ways() == []


def test_nobody_stands_by_where_others_may_write(there: Place) -> None:
    there.socket.parent.chmod(0o770)
    there.verify(there.sign(DATA), DATA)
    assert not there.socket.exists()
    assert there.ways() == []


def test_no_folder_is_made(there: Place) -> None:
    there.socket.parent.rmdir()
    assert there.verify(there.sign(DATA), DATA)[0] == 0
    assert not there.socket.parent.exists()


def test_another_users_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        assert standby_client._is_ours(ours)
        another = os.getuid() + 1
        monkeypatch.setattr(os, "getuid", lambda: another)
        assert not standby_client._is_ours(ours)
        ours.send(b"circumstances")
        assert standby._request(theirs, b"circumstances") == 0
        ours.settimeout(0)
        with pytest.raises(BlockingIOError):
            ours.recv(100)  # it was not told to hand anything over


def test_one_in_another_mount_namespace_does_it_himself(there: Place) -> None:
    """A sandbox, whose roots are not ours; nor may one pose as who stands by for us."""
    apart = ["unshare", "--user", "--map-current-user", "--mount"]
    if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system lets nobody make a namespace")
    signature = there.sign(DATA)
    there.stand_by()
    with there.start(signature, *apart) as asking:
        asking.communicate(DATA)
    assert asking.returncode == 0
    assert there.ways() == ["None"]


def test_a_program_that_was_replaced_serves_nobody(there: Place) -> None:
    for name in MEASURED:
        del there.environment[name]  # what is copied has gone when the report is made
    checkout = Path(__file__).parents[2]
    copy = there.folder / "copy"
    for name in ("hsmagent", "tests/parts"):
        shutil.copytree(checkout / name, copy / name)
    program = Path(there.program)
    text = program.read_text().replace(f"={checkout} ", f"={copy} ")
    program.write_text(text.replace(f"{checkout}/tests", f"{copy}/tests"))
    signature = there.sign(DATA)
    pid = there.stand_by()
    assert both_ways(there, signature, DATA)[0] == 0
    roots = copy / "hsmagent/mail/roots.py"
    roots.write_text(roots.read_text())
    time.sleep(standby.LOOK)
    assert there.verify(signature, DATA)[0] == 0
    assert there.ways() == ["None"]
    until(lambda: not is_there(pid))


def test_signals_that_are_ignored_where_it_began(there: Place) -> None:
    signature = there.sign(DATA)
    # Not by way of the script: a shell sets them right.
    path, _, *words, _ = shlex.split(Path(there.program).read_text().splitlines()[1])
    ignored = "--ignore-signal=CHLD", "--ignore-signal=IO"
    subprocess.run(
        ["env", *ignored, path, *words, "--status-fd=1", "--verify", str(signature), "-"],
        env=there.environment,
        input=DATA,
        capture_output=True,
        check=True,
        timeout=60,
    )
    until(there.stands_by)
    there.ways()
    for _ in range(standby.MOST + 1):
        assert there.verify(signature, DATA)[0] == 0
    assert there.ways() == ["0"] * (standby.MOST + 1)
    pid = there.stands_by()
    with there.start(signature) as asking:
        until(lambda: children(pid))
        reading = children(pid)[0]
        until(lambda: "pipe" in str(Path(f"/proc/{reading}/fd/0").readlink()))
        asking.kill()
        until(lambda: not is_there(reading))


def test_nobody_stands_by_where_no_process_can_be_had(
    there: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> int:
        raise BlockingIOError

    monkeypatch.setattr(os, "fork", none)
    standby.leave(standby_client.Standby(1, "x", str(there.socket)))
    assert not there.socket.exists()


def test_nobody_is_forked_off_beside_a_thread(
    there: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("it was forked"))
    done = threading.Event()
    beside = threading.Thread(target=done.wait)
    beside.start()
    try:
        standby.leave(standby_client.Standby(1, "x", str(there.socket)))
    finally:
        done.set()
        beside.join()


# -- what it tries out on --------------------------------------------------------------------


def test_the_sample_is_good() -> None:
    data = Memory(b64decode(standby_sample.SIGNATURE))
    roots = [c for c in signers.read(data).certificates if c.issuer_der == c.subject_der]
    known = verify.Judge(Anchors(tuple(roots)), standby_sample.MOMENT)
    (found,) = verify.detached(data, Covered(lambda: iter(())), known, "")
    assert found.ok
