"""FIDO keys in the daemon: OpenSSH's own helper and provider, and an authenticator of ours.

No hardware: what that adds (USB, libfido2) is ssh-sk-helper's affair.
"""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hsmagent import frame
from hsmagent.model import fingerprint
from hsmagent.ssh import wire
from hsmagent.ssh.keys import authorized_key
from hsmagent.ssh.messages import Number
from tests.daemon.conftest import Start
from tests.parts.agent.authenticator import Authenticator, FidoKey, new_key, runs
from tests.parts.agent.daemon import AgentProcess
from tests.parts.agent.drop_in import DropIn
from tests.parts.agent.ssh_login import COMMAND, HELLO
from tests.parts.agent.sshd import Sshd
from tests.parts.desktop.bus import PrivateBus
from tests.parts.desktop.dbusmock import notified, notifying_bus
from tests.parts.until import until

SK_DUMMY = Path("/usr/lib/openssh/regress/misc/sk-dummy/sk-dummy.so")
KINDS = {"ed25519-sk": "Ed25519-SK", "ecdsa-sk": "ECDSA-SK"}
ELSEWHERE = '[[module]]\npath = "/nonexistent/module.so"\n'
ASKPASS = """\
#!/bin/sh
printf '%s|%s\\n' "$SSH_ASKPASS_PROMPT" "$1" >>{folder}/asked
case $SSH_ASKPASS_PROMPT in none) exec sleep 1000;; esac
cat {folder}/pin
"""


@pytest.fixture
def authenticator(tmp_path: Path) -> Authenticator:
    return Authenticator(tmp_path / "sk")


@pytest.fixture
def askpass(tmp_path: Path) -> Path:
    """Write a program that types the PIN in its folder and notes what it is asked."""
    folder = tmp_path / "askpass"
    folder.mkdir()
    program = folder / "askpass"
    program.write_text(ASKPASS.format(folder=folder))
    program.chmod(0o755)
    return program


@contextmanager
def serving(folder: Path, *lines: str) -> Iterator[Sshd]:
    server = Sshd(folder / "sshd", lines)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def bus() -> Iterator[PrivateBus]:
    with notifying_bus() as bus:
        yield bus


@pytest.fixture
def short_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="f") as path:
        yield Path(path)


def line(key: FidoKey) -> str:
    return authorized_key(key.blob)


def give(address: Path, key: FidoKey, constraints: bytes = b"") -> bool:
    """Add a key as ssh-add does; whether it was taken."""
    body = (
        bytes((Number.SSH_AGENTC_ADD_ID_CONSTRAINED,))
        + key.private_fields
        + wire.text("me@home")
        + b"\xff"
        + wire.text("sk-provider@openssh.com")
        + wire.text("Internal")
        + constraints
    )
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(address))
        client.sendall(frame.encode(body))
        return client.recv(5)[4] == Number.SSH_AGENT_SUCCESS


def signing(agent: AgentProcess, public: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["ssh-keygen", "-Y", "sign", "-f", str(public), "-n", "file", str(public)],
        env=agent.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def last(agent: AgentProcess) -> dict[str, str]:
    """Return the newest entry of the activity log."""
    entry: dict[str, str] = agent.json("log")["entries"][-1]
    return entry


# -- OpenSSH's own parts ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_of_openssh_logs_in_and_signs(kind: str, start: Start, tmp_path: Path) -> None:
    agent = start(ELSEWHERE)
    key = tmp_path / "key"
    generate = ["ssh-keygen", "-q", "-t", kind, "-w", str(SK_DUMMY), "-N", "", "-f", str(key)]
    subprocess.run(generate, check=True)
    public = key.with_suffix(".pub")
    assert agent.run(["ssh-add", "-q", "-S", str(SK_DUMMY), str(key)]).returncode == 0
    key.unlink()
    with serving(tmp_path, public.read_text().strip()) as sshd:
        login = agent.run(["ssh", *sshd.ssh_options, *COMMAND])
    assert login.stdout == HELLO, login.stderr + agent.logged()
    assert signing(agent, public).wait(30) == 0
    signature = public.with_suffix(".pub.sig")
    check = ["ssh-keygen", "-Y", "check-novalidate", "-n", "file", "-s", str(signature)]
    checked = agent.run(check, stdin=public.read_text())
    assert checked.returncode == 0, checked.stdout + checked.stderr
    shown = agent.hsmagent("keys").stdout
    assert f"added with ssh-add: {KINDS[kind]}" in shown
    assert public.read_text().split()[1] in agent.hsmagent("keys", "--ssh").stdout
    assert "application: ssh:" in shown
    assert agent.run(["ssh-add", "-q", "-d", str(public)]).returncode == 0
    assert agent.run(["ssh-add", "-l"]).returncode == 1


def test_a_provider_outside_the_allow_list_is_refused(start: Start, tmp_path: Path) -> None:
    agent = start(ELSEWHERE)
    key, copy = tmp_path / "key", tmp_path / "sk-dummy.so"
    shutil.copy(SK_DUMMY, copy)
    generate = ["ssh-keygen", "-q", "-t", "ed25519-sk", "-w", str(copy), "-N", "", "-f", str(key)]
    subprocess.run(generate, check=True)
    assert agent.run(["ssh-add", "-q", "-S", str(copy), str(key)]).returncode == 1
    assert f"FIDO provider {copy} is not allowed" in agent.logged()
    assert agent.run(["ssh-add", "-l"]).returncode == 1


# -- the person, and the door ----------------------------------------------------------------


def test_a_pin_is_asked_for_and_a_touch(
    start: Start, authenticator: Authenticator, askpass: Path, bus: PrivateBus, tmp_path: Path
) -> None:
    agent = start(
        ELSEWHERE,
        SSH_SK_HELPER=str(authenticator.path),
        SSH_ASKPASS=str(askpass),
        DISPLAY=":99",
        DBUS_SESSION_BUS_ADDRESS=bus.address,
    )
    key = new_key()
    assert give(agent.ssh_socket, key)
    authenticator.behave(pin="123456", touch=True)
    (askpass.parent / "pin").write_text("123456\n")
    with serving(tmp_path, line(key)) as sshd:
        command = ["ssh", *sshd.ssh_options, *COMMAND]
        with subprocess.Popen(
            command, env=agent.environment, stdout=subprocess.PIPE, text=True
        ) as login:
            # Shown for the try without a PIN, too: a key may need none.
            until(lambda: notified(bus, "Notify").count("Touch your key “me@home”") == 2)
            shown = notified(bus, "Notify")
            assert "ssh" in shown
            assert f"log in as {sshd.user} at " in shown
            until(lambda: len(authenticator.asked) == 2)
            authenticator.touch()
            assert login.communicate(timeout=30)[0] == HELLO, agent.logged()
    until(lambda: notified(bus, "CloseNotification").count("[<") == 2)
    [asked] = (askpass.parent / "asked").read_text().split("|Enter")[1:]
    assert "the PIN of the FIDO key “me@home” and touch it" in asked
    assert "wants to log in as" in asked
    assert "123456" not in agent.logged()


def test_a_wrong_pin_is_tried_once_and_told(
    start: Start, authenticator: Authenticator, askpass: Path, tmp_path: Path
) -> None:
    agent = start(
        ELSEWHERE,
        SSH_SK_HELPER=str(authenticator.path),
        SSH_ASKPASS=str(askpass),
        DISPLAY=":99",
    )
    key, public = new_key(), tmp_path / "key.pub"
    public.write_text(line(key))
    assert give(agent.ssh_socket, key)
    authenticator.behave(pin="123456")
    (askpass.parent / "pin").write_text("654321\n")
    assert signing(agent, public).wait(30) != 0
    assert [asked["pin"] for asked in authenticator.asked] == ["", "654321"]
    assert last(agent)["outcome"] == "failed"
    assert last(agent)["reason"] == "the PIN of the FIDO key “me@home” is wrong"


def test_who_leaves_ends_the_helper(
    start: Start, authenticator: Authenticator, tmp_path: Path
) -> None:
    agent = start(ELSEWHERE, SSH_SK_HELPER=str(authenticator.path))
    key, public = new_key(), tmp_path / "key.pub"
    public.write_text(line(key))
    assert give(agent.ssh_socket, key)
    authenticator.behave(touch=True)
    client = signing(agent, public)
    until(lambda: authenticator.asked)
    client.kill()
    client.wait()
    until(lambda: not runs(authenticator.asked[0]["pid"]))


def test_policy_confirmation_lifetime_and_lock_hold(
    start: Start, authenticator: Authenticator, askpass: Path, tmp_path: Path
) -> None:
    denied, asked, short = new_key(), new_key(), new_key()
    rules = f'[[key]]\nmatch = "{fingerprint(denied.blob)}"\nallow = ["ssh"]\n'
    agent = start(
        ELSEWHERE + rules,
        SSH_SK_HELPER=str(authenticator.path),
        SSH_ASKPASS=str(askpass),
        DISPLAY=":99",
    )
    publics = [tmp_path / f"{number}.pub" for number in range(3)]
    for key, public in zip((denied, asked, short), publics, strict=True):
        public.write_text(line(key))
    assert give(agent.ssh_socket, denied)
    assert give(agent.ssh_socket, asked, b"\x02")
    assert give(agent.ssh_socket, short, b"\x01\x00\x00\x00\x01")
    assert signing(agent, publics[0]).wait(30) != 0
    assert "does not allow" in last(agent)["reason"]
    (askpass.parent / "pin").write_text("yes\n")
    assert signing(agent, publics[1]).wait(30) == 0
    assert "confirm|" in (askpass.parent / "asked").read_text()
    until(lambda: agent.run(["ssh-add", "-l"]).stdout.count("me@home") == 2)
    assert signing(agent, publics[2]).wait(30) != 0
    assert len(authenticator.asked) == 1


def test_a_private_agent_asks_for_a_touch_by_ssh_askpass(
    authenticator: Authenticator, askpass: Path, tmp_path: Path, short_folder: Path
) -> None:
    authenticator.behave(touch=True)
    program = DropIn(tmp_path)
    address, key, public = short_folder / "s", new_key(), tmp_path / "key.pub"
    public.write_text(line(key))
    environment = os.environ | {
        "SSH_SK_HELPER": str(authenticator.path),
        "SSH_ASKPASS": str(askpass),
        "DISPLAY": ":99",
    }
    subprocess.run(
        [program.path, "-a", address], env=environment, check=True, stdout=subprocess.DEVNULL
    )
    try:
        assert give(address, key)
        client = subprocess.Popen(
            ["ssh-keygen", "-Y", "sign", "-f", str(public), "-n", "file", str(public)],
            env=os.environ | {"SSH_AUTH_SOCK": str(address)},
            stderr=subprocess.DEVNULL,
        )
        asked = askpass.parent / "asked"
        until(lambda: asked.exists() and "none|Touch your key “me@home”" in asked.read_text())
        authenticator.touch()
        assert client.wait(30) == 0
    finally:
        program.end()
