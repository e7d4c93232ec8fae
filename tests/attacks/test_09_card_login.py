"""Another program speaks to the card while we are logged in to it, and acts under our login.

It connected before, sends no SELECT, and asks the card whether the PIN is verified: `9000` says so.
It could as well sign, delete or export.
"""

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hsmagent.errors import ConfigError
from hsmagent.model import ModuleSpec
from hsmagent.token.exclusive import applied
from tests.daemon.conftest import Start
from tests.parts.agent.daemon import AgentProcess
from tests.parts.token.card import DEFAULT_PIN, Reader, furnished, inserted
from tests.parts.until import until

# Another program: connects, then sends VERIFY without data for each line on stdin.
STRANGER = """
import ctypes, sys
pcsc = ctypes.CDLL("libpcsclite.so.1")
long, byte = ctypes.c_ulong, ctypes.c_ubyte
context, card, protocol = ctypes.c_long(), ctypes.c_long(), long()
assert pcsc.SCardEstablishContext(long(2), None, None, ctypes.byref(context)) == 0
name = ctypes.create_string_buffer(sys.argv[1].encode())
shared, any_protocol = long(2), long(3)
rv = pcsc.SCardConnect(context, name, shared, any_protocol, ctypes.byref(card),
                       ctypes.byref(protocol))
print("connected" if rv == 0 else hex(rv & 0xFFFFFFFF), flush=True)

class Request(ctypes.Structure):
    _fields_ = [("protocol", long), ("length", long)]

for line in sys.stdin:
    request = Request(protocol, 16)
    verify = (byte * 4)(0x00, 0x20, 0x00, 0x81)
    answer, size = (byte * 300)(), long(300)
    rv = pcsc.SCardTransmit(card, ctypes.byref(request), verify, long(4), None, answer,
                            ctypes.byref(size))
    said = bytes(answer[: size.value]).hex() if rv == 0 else hex(rv & 0xFFFFFFFF)
    print(said, flush=True)
"""
READER = "Virtual PCD 00 00"
VERIFIED = "9000"
WAIT = 1.5  # without a login of ours, an answer takes a hundredth


@pytest.fixture
def reader() -> Iterator[Reader]:
    with inserted(furnished()) as reader:
        yield reader


@contextmanager
def stranger(reader: Reader) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [sys.executable, "-c", STRANGER, READER],
        env=os.environ | dict(reader.provider.environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "connected\n"
        yield process
        process.kill()


def ask(process: "subprocess.Popen[str]") -> None:
    """Have the stranger ask the card."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def answer(process: "subprocess.Popen[str]", seconds: float) -> str:
    """Return the card's status word, or PC/SC's error; "" when none comes in time."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    return process.stdout.readline().strip() if ready else ""


def start_with(start: Start, reader: Reader, extra: str) -> AgentProcess:
    return start(reader.provider.config(extra))


def signs(agent: AgentProcess) -> bool:
    public, message = agent.home / "key.pub", agent.home / "message"
    public.write_text(agent.hsmagent("pubkey", "ssh").stdout)
    message.write_text("signed by a card")
    command = ["ssh-keygen", "-Y", "sign", "-n", "file", "-f", str(public), str(message)]
    return agent.run(command).returncode == 0


def test_with_exclusive_no_other_program_uses_the_card(start: Start, reader: Reader) -> None:
    agent = start_with(start, reader, "exclusive = true\n")
    with stranger(reader) as other:
        assert agent.unlock(DEFAULT_PIN).returncode == 0
        ask(other)
        assert answer(other, WAIT) == "", "it waits"
        assert signs(agent)
        assert answer(other, WAIT) == ""
        assert agent.hsmagent("lock").returncode == 0
        assert answer(other, 20) not in (VERIFIED, ""), "it is free, and forgot the login"


def test_without_it_a_strangers_words_count(start: Start, reader: Reader) -> None:
    """What SECURITY.md says: else `exclusive` would not be worth its price."""
    agent = start_with(start, reader, "")
    with stranger(reader) as other:
        assert agent.unlock(DEFAULT_PIN).returncode == 0
        assert signs(agent)
        ask(other)
        assert answer(other, 20) == VERIFIED


@pytest.mark.parametrize("ends", ["lock", "stop"])
def test_a_login_that_ends_ends_for_a_stranger_too(start: Start, reader: Reader, ends: str) -> None:
    """Its connection keeps the card powered; OpenSC's C_Logout may leave the card's login."""
    agent = start_with(start, reader, "")
    with stranger(reader) as other:
        assert agent.unlock(DEFAULT_PIN).returncode == 0
        assert signs(agent)
        ended = agent.stop() if ends == "stop" else agent.hsmagent("lock").returncode
        assert ended == 0
        until(lambda: not reader.card.logged_in)
        ask(other)
        assert answer(other, 20) not in (VERIFIED, "")


def test_a_persons_own_configuration_is_kept_or_in_the_way(tmp_path: Path) -> None:
    """OpenSC takes a block from the first place that has it."""
    own = tmp_path / "own.conf"
    spec = ModuleSpec("/usr/lib/opensc-pkcs11.so", env=(("OPENSC_CONF", str(own)),), exclusive=True)
    own.write_text("app default {\n\tdebug = 0;\n}\n")
    written = Path(dict(applied(spec, tmp_path / "state").env)["OPENSC_CONF"]).read_text()
    assert "lock_login = true;" in written
    assert written.endswith(own.read_text())
    own.write_text("app opensc-pkcs11 {\n  pkcs11 {\n    max_virtual_slots = 4;\n  }\n}\n")
    with pytest.raises(ConfigError, match="write lock_login = true; there"):
        applied(spec, tmp_path / "state")
    own.write_text("app opensc-pkcs11 {\n  pkcs11 {\n    lock_login = true;\n  }\n}\n")
    assert applied(spec, tmp_path / "state") == spec
    with pytest.raises(ConfigError, match="only OpenSC"):
        applied(ModuleSpec("/usr/lib/softhsm/libsofthsm2.so", exclusive=True), tmp_path)


def test_the_daemon_says_why_it_cannot(start: Start, tmp_path: Path) -> None:
    agent = start('[[module]]\npath = "/usr/lib/softhsm/libsofthsm2.so"\nexclusive = true\n')
    assert "exclusive in [[module]]: only OpenSC keeps a card to itself" in agent.logged()
