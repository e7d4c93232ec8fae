"""A key that wants its PIN for each use (CKA_ALWAYS_AUTHENTICATE), with ssh-keygen and a window."""

import subprocess
from functools import partial
from pathlib import Path

import pytest

from tests.daemon.conftest import Start
from tests.parts.agent.daemon import AgentProcess
from tests.parts.token.faulty import Faulty, build
from tests.parts.token.softhsm import MODULE, PIN, SoftHsm
from tests.parts.until import until

# Answers with the next line of the file "answers"; keeps what it was asked.
ASKPASS = """#!/bin/sh
printf '%s\\n---\\n' "$1" >>{folder}/asked
head -n 1 {folder}/answers
sed -i 1d {folder}/answers
"""


@pytest.fixture
def faulty(tmp_path: Path) -> Faulty:
    """Make a token with a key that wants its PIN each time, in a module that counts calls."""
    token = SoftHsm.create(tmp_path / "hsm")
    token.init_token("work")
    token.generate("work", "EC:prime256v1", "02", "ec", "--always-auth")
    return Faulty.create(build(tmp_path), tmp_path / "faults", MODULE, token.env)


def config_of(faulty: Faulty) -> str:
    env = ", ".join(f'{name} = "{value}"' for name, value in faulty.env)
    return f'[[module]]\npath = "{faulty.module}"\nenv = {{ {env} }}\n'


def signing(agent: AgentProcess, folder: Path) -> "subprocess.Popen[bytes]":
    public = folder / "ec.pub"
    public.write_text(agent.hsmagent("pubkey", "ec").stdout)
    (folder / "file").write_text("text")
    (folder / "file.sig").unlink(missing_ok=True)
    command = ["ssh-keygen", "-Y", "sign", "-n", "file", "-f", str(public), str(folder / "file")]
    return subprocess.Popen(command, env=agent.environment, stderr=subprocess.DEVNULL)


def waits(agent: AgentProcess, times: int) -> bool:
    return agent.logged().count("run `hsmagent unlock work`") == times


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    askpass = tmp_path / "askpass"
    askpass.write_text(ASKPASS.format(folder=tmp_path))
    askpass.chmod(0o755)
    return tmp_path / "answers"


def test_one_dialog_for_login_and_use_then_one_for_each_use(
    faulty: Faulty, start: Start, answers: Path, tmp_path: Path
) -> None:
    agent = start(
        config_of(faulty) + '[prompt]\norder = ["askpass"]\n',
        DISPLAY=":4711",
        SSH_ASKPASS=str(tmp_path / "askpass"),
    )
    answers.write_text(f"{PIN}\n")
    assert signing(agent, tmp_path).wait(60) == 0
    assert faulty.calls("C_Login") == 2  # the login, and the use; one PIN was typed
    answers.write_text(f"11111111\n{PIN}\n")
    assert signing(agent, tmp_path).wait(60) == 0
    assert faulty.calls("C_Login") == 4
    login, use, again = (tmp_path / "asked").read_text().split("\n---\n")[:3]
    assert login.startswith("PIN for the token “work”\n")
    assert "This key wants its PIN for each use." not in login  # not known before the login
    assert use.startswith("PIN to use the key “ec” of “work” once\n")
    assert "wrong" not in use.lower()
    assert again.startswith("Wrong PIN.")
    agent.hsmagent("lock")
    answers.write_text(f"{PIN}\n")
    assert signing(agent, tmp_path).wait(60) == 0
    asked = (tmp_path / "asked").read_text().split("\n---\n")
    assert "This key wants its PIN for each use." in asked[3]
    assert faulty.calls("C_Login") == 6
    said = [line["outcome"] for line in agent.json("log")["entries"]]
    assert said == ["used", "wrong-pin", "used", "used"]


def test_a_wrong_pin_in_the_one_dialog_is_tried_once(
    faulty: Faulty, start: Start, answers: Path, tmp_path: Path
) -> None:
    agent = start(
        config_of(faulty) + '[prompt]\norder = ["askpass"]\n',
        DISPLAY=":4711",
        SSH_ASKPASS=str(tmp_path / "askpass"),
    )
    answers.write_text(f"11111111\n{PIN}\n")
    assert signing(agent, tmp_path).wait(60) == 0
    assert faulty.calls("C_Login") == 3
    assert len((tmp_path / "asked").read_text().split("\n---\n")) == 3


def test_without_a_window_unlock_serves_login_and_use(
    faulty: Faulty, start: Start, tmp_path: Path
) -> None:
    agent = start(config_of(faulty))
    for calls in (2, 3):  # the first time, the login as well
        waiting = signing(agent, tmp_path)
        until(partial(waits, agent, calls - 1))
        done = agent.unlock(PIN)
        assert waiting.wait(60) == 0
        assert "ssh-keygen" in done.stderr
        assert ("This key wants its PIN for each use." in done.stderr) is (calls == 3)
        assert done.stdout == "work is unlocked, and what waited for the PIN goes on\n"
        assert faulty.calls("C_Login") == calls
    assert agent.unlock(PIN).stdout == "work is unlocked already\n"


def test_a_wrong_pin_from_the_terminal_is_told_there_and_the_use_waits_on(
    faulty: Faulty, start: Start, tmp_path: Path
) -> None:
    agent = start(config_of(faulty))
    agent.unlock(PIN)
    waiting = signing(agent, tmp_path)
    until(partial(waits, agent, 1))
    wrong = agent.unlock("11111111")
    assert wrong.returncode == 1
    assert "wrong" in wrong.stderr
    assert waiting.poll() is None
    assert agent.unlock(PIN).returncode == 0
    assert waiting.wait(60) == 0
    assert faulty.calls("C_Login") == 3
