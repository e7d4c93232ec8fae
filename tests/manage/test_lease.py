"""The daemon beside management: it lets go before, and what was made can be used right after."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsmagent.control.client import Daemon
from hsmagent.errors import HsmAgentError
from tests.parts.agent.daemon import AgentProcess
from tests.parts.token.card import DEFAULT_PIN, Reader
from tests.parts.token.softhsm import MODULE, PIN, SoftHsm
from tests.parts.until import until


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    """Start a daemon with a SoftHSM token "work" that holds one key."""
    token = SoftHsm.create(tmp_path / "softhsm")
    token.init_token("work")
    token.generate("work", "EC:prime256v1", "01", "ec")
    env = ", ".join(f'{name} = "{value}"' for name, value in token.env)
    agent = AgentProcess(tmp_path / "home", f'[[module]]\npath = "{MODULE}"\nenv = {{ {env} }}\n')
    agent.start()
    yield agent
    agent.stop()


def keys(agent: AgentProcess) -> set[str]:
    return {key["label"] for key in agent.json("keys")["keys"]}


def leases(agent: AgentProcess) -> list[str]:
    return [lease["module"] for lease in agent.json("status")["leases"]]


def test_what_was_made_shows_at_once(agent: AgentProcess) -> None:
    assert agent.unlock(PIN).returncode == 0
    made = agent.hsmagent("key", "new", "--stdin", stdin=f"{PIN}\n")
    assert made.returncode == 0, made.stderr
    assert "logged out for that time: work" in made.stderr
    assert keys(agent) == {"ec", "ssh"}
    assert agent.hsmagent("pubkey", "ssh").stdout.split()[:2] == made.stdout.split()[:2]
    assert agent.run(["ssh-add", "-L"]).stdout.count("\n") == 2
    assert not agent.json("status")["tokens"][0]["logged_in"]
    assert leases(agent) == []
    assert agent.unlock(PIN).returncode == 0


def test_a_lease_ends_with_its_connection(agent: AgentProcess) -> None:
    holder = Daemon(str(agent.runtime))
    assert agent.unlock(PIN).returncode == 0
    assert holder.call("let_go", module=MODULE) == {"logged_out": ["work"]}
    assert keys(agent) == set()
    assert leases(agent) == [MODULE]
    assert "manages it since" in agent.hsmagent("status").stdout
    second = Daemon(str(agent.runtime))
    with pytest.raises(HsmAgentError, match="manages a token of"):
        second.call("let_go", module=MODULE)
    second.close()
    assert leases(agent) == [MODULE]
    holder.close()
    until(lambda: keys(agent) == {"ec"})
    assert leases(agent) == []
    assert "taken back" in agent.logged()


def test_unlock_breaks_a_lease(agent: AgentProcess) -> None:
    holder = Daemon(str(agent.runtime))
    holder.call("let_go", module=MODULE)
    assert agent.unlock(PIN).returncode == 0
    assert keys(agent) == {"ec"}
    holder.call("take_back", module=MODULE)
    holder.close()
    time.sleep(0.2)  # what the end of the connection would do is under way by then
    assert agent.json("status")["tokens"][0]["logged_in"]


def test_a_reload_does_not_end_a_lease(agent: AgentProcess) -> None:
    holder = Daemon(str(agent.runtime))
    holder.call("let_go", module=MODULE)
    agent.signal(signal.SIGHUP)
    until(lambda: "reload" in agent.logged())
    assert keys(agent) == set()
    holder.call("take_back", module=MODULE)
    holder.close()
    assert keys(agent) == {"ec"}


def test_a_module_that_the_daemon_does_not_have(agent: AgentProcess) -> None:
    holder = Daemon(str(agent.runtime))
    assert holder.call("let_go", module="/elsewhere.so") == {"logged_out": []}
    assert keys(agent) == {"ec"}
    holder.close()


def test_a_card_is_managed_beside_the_daemon(reader: Reader, tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path / "home", reader.provider.config())
    agent.start()
    try:
        user = reader.card.user
        assert user is not None
        until(lambda: keys(agent) >= {"ssh", "mail"})
        assert agent.unlock(DEFAULT_PIN).returncode == 0
        made = agent.hsmagent("key", "new", "--label", "new", "--stdin", stdin=f"{DEFAULT_PIN}\n")
        assert made.returncode == 0, made.stderr
        assert "new" in keys(agent)
        assert not reader.card.logged_in
        assert (user.presented, user.wrong) == (2, 0)
        assert agent.unlock(DEFAULT_PIN).returncode == 0
        assert user.wrong == 0
    finally:
        agent.stop()
