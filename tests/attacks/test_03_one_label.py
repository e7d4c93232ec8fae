"""Two tokens of one label, as a card and its backup have: which one is meant nobody can tell."""

from pathlib import Path

import pytest

from tests.daemon.conftest import Start, module_config
from tests.parts.agent.daemon import AgentProcess
from tests.parts.agent.ssh_login import logging_in, serving
from tests.parts.token.softhsm import PIN, SoftHsm
from tests.parts.until import until

LABEL = "SmartCard-HSM (UserPIN)"


@pytest.fixture
def agent(start: Start, tmp_path: Path) -> AgentProcess:
    """Start a daemon with two tokens of one label, each with a key "ssh"."""
    hsm = SoftHsm.create(tmp_path / "hsm")
    for number in range(2):
        # pkcs11-tool finds tokens by their label: the first has its own until it has its key.
        label = f"one {number}"
        hsm.init_token(label)
        hsm.generate(label, "EC:prime256v1", "01", "ssh")
    for file in (tmp_path / "hsm" / "tokens").glob("*/token.object"):
        content = file.read_bytes()
        for number in range(2):
            content = content.replace(f"one {number}".ljust(32).encode(), LABEL.ljust(32).encode())
        file.write_bytes(content)
    return start(module_config(hsm, '[prompt]\ntimeout = "2s"\n'))


def serials(agent: AgentProcess) -> list[str]:
    return [token["serial"] for token in agent.json("status")["tokens"]]


def test_the_list_names_the_serial(agent: AgentProcess) -> None:
    lines = agent.run(["ssh-add", "-l"]).stdout.splitlines()
    assert len(lines) == 2
    assert len(set(serials(agent))) == 2
    for serial in serials(agent):
        assert sum(f"ssh ({LABEL} ({serial}))" in line for line in lines) == 1


def test_the_wait_and_the_refusal_name_the_serial(agent: AgentProcess, tmp_path: Path) -> None:
    serial = serials(agent)[1]
    key = next(k for k in agent.json("keys")["keys"] if serial in k["uri"])
    with serving(agent, tmp_path, key["uri"]) as sshd:
        waiting = logging_in(agent, sshd)
        until(lambda: f"hsmagent unlock '{LABEL} ({serial})'" in agent.logged())
        # And the command that it names does what it says.
        assert agent.unlock(PIN, f"{LABEL} ({serial})").returncode == 0
        assert waiting.communicate(timeout=60)[0] == "hello\n"
    [entry] = [entry for entry in agent.json("log")["entries"] if entry["outcome"] == "used"]
    assert entry["token"] == f"{LABEL} ({serial})"


def test_hsmagent_unlock_wants_to_know_which(agent: AgentProcess) -> None:
    done = agent.unlock(PIN)
    assert done.returncode != 0
    for serial in serials(agent):
        assert serial in done.stderr
