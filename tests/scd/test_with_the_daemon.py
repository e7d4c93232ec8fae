"""What GnuPG is told when people say no, tokens leave, and the daemon is started anew."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hsmagent.worker import spec
from tests.daemon.conftest import Start, module_config
from tests.parts.agent.daemon import AgentProcess
from tests.parts.desktop.desk import Desk
from tests.parts.mail.gnupg import Gnupg, gnupg, version
from tests.parts.mail.people import root
from tests.parts.token.faulty import Faulty, build
from tests.parts.token.softhsm import MODULE, PIN, SoftHsm
from tests.parts.until import until
from tests.scd.conftest import ALLOWED, KINDS, address, allowing

SIGN = ("gpgsm", "--batch", "--sign", "-u", address("rsa"))
DESK = '[prompt]\norder = ["askpass"]\n'


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "desk")


@pytest.fixture
def homes() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def learned(agent: AgentProcess, homes: ExitStack) -> Gnupg:
    made = homes.enter_context(gnupg(agent.environment, root()))
    made.learn()
    return made


def refused(made: Gnupg) -> str:
    done = made.try_(*SIGN, data=b"x")
    assert done.returncode != 0
    return done.stderr.decode()


def test_each_use_is_asked_about(
    start: Start, people_token: SoftHsm, desk: Desk, homes: ExitStack
) -> None:
    allowed = allowing("gnupg", confirm="")
    agent = start(DESK + allowed + module_config(people_token), **desk.environment)
    made = learned(agent, homes)
    assert desk.asked == "", "to look asks nobody"
    desk.answers(PIN)
    made.run(*SIGN, data=b"x")
    assert "sign something for GnuPG, it does not say what" in desk.asked
    assert "gpg-agent" in desk.asked
    count = desk.asked.count("GnuPG")
    desk.answers("yes")
    made.run(*SIGN, data=b"x")
    assert desk.asked.count("GnuPG") > count
    desk.answers("no")
    assert "Operation cancelled" in refused(made)
    assert not made.asked_by_pinentry


def test_three_requests_share_a_dialog(
    start: Start, people_token: SoftHsm, desk: Desk, homes: ExitStack
) -> None:
    agent = start(DESK + ALLOWED + module_config(people_token), **desk.environment)
    made = learned(agent, homes)
    children = [
        subprocess.Popen(
            [*SIGN, "--output", made.home / f"{number}.p7s", made.program],
            env=made.environment,
            stderr=subprocess.PIPE,
        )
        for number in range(3)
    ]
    until(lambda: Path("/proc/net/unix").read_text().count(str(agent.face_socket)) >= 1 + 3)
    until(lambda: desk.asked)
    desk.answers(PIN)
    for child in children:
        _, said = child.communicate(timeout=60)
        assert child.returncode == 0, said.decode()
    assert desk.asked.count("PIN for the token") == 1
    used = [each for each in agent.json("log")["entries"] if each["outcome"] == "used"]
    assert {each["purpose"] for each in used} == {"gnupg"}
    assert not made.asked_by_pinentry


def test_a_question_goes_when_gnupgs_agent_does(
    start: Start, people_token: SoftHsm, desk: Desk, homes: ExitStack
) -> None:
    agent = start(DESK + ALLOWED + module_config(people_token), **desk.environment)
    made = learned(agent, homes)
    said = made.run("gpg-connect-agent", "GETINFO pid", "/bye").decode()
    found = re.search(r"D (\d+)", said)
    assert found
    with subprocess.Popen(
        SIGN,
        env=made.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as child:
        assert child.stdin
        child.stdin.write(b"x")
        child.stdin.close()
        until(lambda: desk.askers)
        os.kill(int(found[1]), signal.SIGKILL)
        until(lambda: not desk.askers)
        child.kill()


def test_what_is_not_allowed_is_not_there(
    start: Start, people_token: SoftHsm, homes: ExitStack
) -> None:
    only = allowing("gnupg", match="pkcs11:object=rsa")
    agent = start(only + module_config(people_token))
    agent.unlock(PIN)
    made = learned(agent, homes)
    assert made.gpgsm("--list-secret-keys").count(b"S/N:") == 1
    agent.configure(allowing("gnupg", match="pkcs11:object=p256") + module_config(people_token))
    agent.signal(signal.SIGHUP)
    until(lambda: "Forbidden" in refused(made))
    agent.configure(module_config(people_token))
    agent.signal(signal.SIGHUP)
    until(lambda: "Forbidden" in refused(made) or "No SmartCard daemon" in refused(made))
    assert not made.asked_by_pinentry


def test_gpg_agents_ssh_side_signs(
    start: Start, people_token: SoftHsm, homes: ExitStack, tmp_path: Path
) -> None:
    agent = start(allowing("gnupg", "ssh") + module_config(people_token))
    agent.unlock(PIN)
    made = learned(agent, homes)
    with (made.home / "gpg-agent.conf").open("a") as configuration:
        configuration.write("enable-ssh-support\n")
    made.close()
    made.run("gpg-connect-agent", "/bye")
    socket = made.run("gpgconf", "--list-dirs", "agent-ssh-socket").decode().strip()
    made.environment["SSH_AUTH_SOCK"] = socket
    listed = made.run("ssh-add", "-L").splitlines()
    assert len(listed) == (len(KINDS) if version() >= (2, 3) else 1)
    for line in listed:
        (tmp_path / "key.pub").write_bytes(line + b"\n")
        sign = ("ssh-keygen", "-Y", "sign", "-n", "file", "-f", tmp_path / "key.pub")
        (tmp_path / "sig").write_bytes(made.run(*sign, data=b"x"))
        check = ("ssh-keygen", "-Y", "check-novalidate", "-n", "file", "-s", tmp_path / "sig")
        made.run(*check, data=b"x")
    assert not made.asked_by_pinentry


def test_a_blocked_pin(
    start: Start, tmp_path: Path, people_token: SoftHsm, homes: ExitStack
) -> None:
    faulty = Faulty.create(build(tmp_path), tmp_path / "faults", MODULE, people_token.env)
    env = ", ".join(f'{name} = "{value}"' for name, value in faulty.env)
    agent = start(f'{ALLOWED}[[module]]\npath = "{faulty.module}"\nenv = {{ {env} }}\n')
    agent.unlock(PIN)
    made = learned(agent, homes)
    agent.hsmagent("lock")
    faulty.set(token_flags=spec.CKF_USER_PIN_LOCKED)
    assert "PIN blocked" in refused(made)
    assert not made.asked_by_pinentry


def test_a_token_leaves_and_comes_back(
    start: Start, tmp_path: Path, people_token: SoftHsm, homes: ExitStack
) -> None:
    own = people_token.copy(tmp_path / "own")
    agent = start(ALLOWED + module_config(own))
    agent.unlock(PIN)
    made = learned(agent, homes)
    made.run(*SIGN, data=b"x")
    tokens = own.folder / "tokens"
    tokens.rename(own.folder / "away")
    tokens.mkdir()
    agent.hsmagent("refresh")
    assert "Card not present" in refused(made)
    made.close()
    assert "Card not present" in refused(made), "to an agent that has never seen it, too"
    tokens.rmdir()
    (own.folder / "away").rename(tokens)
    agent.hsmagent("refresh")
    agent.unlock(PIN)
    made.run(*SIGN, data=b"x")
    assert not made.asked_by_pinentry


def test_the_daemon_is_started_anew(start: Start, people_token: SoftHsm, homes: ExitStack) -> None:
    agent = start(ALLOWED + module_config(people_token))
    agent.unlock(PIN)
    made = learned(agent, homes)
    made.run(*SIGN, data=b"x")
    agent.stop()
    assert "No SmartCard daemon" in refused(made)
    made.close()
    assert "No SmartCard daemon" in refused(made), "to an agent that has never seen our card, too"
    agent.start()
    agent.unlock(PIN)
    made.run(*SIGN, data=b"x")
    assert not made.asked_by_pinentry
