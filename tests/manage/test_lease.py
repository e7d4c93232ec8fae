"""The daemon beside management: it lets go before, and what was made can be used right after."""

import asyncio
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsmagent.control.client import Daemon
from hsmagent.control.conversation import Asked
from hsmagent.control.leases import LONGEST, Leases
from hsmagent.errors import HsmAgentError
from hsmagent.model import Peer, Process
from tests.parts.agent.daemon import AgentProcess
from tests.parts.agent.ssh_login import HELLO, serving, ssh
from tests.parts.token.card import DEFAULT_PIN, Reader
from tests.parts.token.softhsm import MODULE, PIN, SoftHsm
from tests.parts.until import until

PEER = Peer(1000, Process(1, "stuck"))


class Lent:
    """Stands for `Tokens`, of which none is logged in."""

    def __init__(self) -> None:
        self.lent: list[str] = []

    def statuses(self) -> tuple[()]:
        return ()

    async def lend(self, path: str) -> None:
        self.lent.append(path)

    async def take_back(self, path: str) -> None:
        self.lent.remove(path)


def table(module: str | Path, token: SoftHsm) -> str:
    env = ", ".join(f'{name} = "{value}"' for name, value in token.env)
    return f'[[module]]\npath = "{module}"\nenv = {{ {env} }}\n'


@pytest.fixture
def token(tmp_path: Path) -> SoftHsm:
    """Make a SoftHSM token "work" that holds one key."""
    token = SoftHsm.create(tmp_path / "softhsm")
    token.init_token("work")
    token.generate("work", "EC:prime256v1", "01", "ec")
    return token


@pytest.fixture
def agent(token: SoftHsm, tmp_path: Path) -> Iterator[AgentProcess]:
    """Start a daemon with that token."""
    agent = AgentProcess(tmp_path / "home", table(MODULE, token))
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
    assert "The agent will be logged out of: work" in made.stderr
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
    assert agent.json("status")["tokens"] == []
    assert leases(agent) == [MODULE]
    shown = agent.hsmagent("status").stdout
    assert re.search(rf"python.* \(process {os.getpid()}\) manages it since \d+ s", shown), shown
    assert f"let go of for {shown.split(': ')[-1].split(' manages')[0]}" in agent.logged()
    second = Daemon(str(agent.runtime))
    with pytest.raises(HsmAgentError, match="manages a token of"):
        second.call("let_go", module=MODULE)
    second.close()
    assert leases(agent) == [MODULE]
    holder.close()
    until(lambda: [token["label"] for token in agent.json("status")["tokens"]] == ["work"])
    assert leases(agent) == []
    assert re.search(r"taken back after \d+ s, .* is done", agent.logged())


COMMANDS = (
    ("key", "new", "--token", "work"),
    ("key", "test", "ec"),
    ("key", "rename", "ec", "x"),
    ("key", "delete", "ec", "--yes"),
    ("cert", "request", "ec", "--email", "a@example.org"),
    ("cert", "self-sign", "ec", "--email", "a@example.org"),
    ("data", "write", "x", "/dev/null", "--token", "work"),
    ("data", "list", "work", "--private"),
    ("token", "pin", "work"),
    ("token", "unblock", "work"),
    ("token", "so-pin", "work"),
    ("token", "init", "work", "--yes"),
)


def test_it_is_said_beforehand_who_loses_a_login(agent: AgentProcess, token: SoftHsm) -> None:
    """Before a PIN is asked for: whoever does not want it types none, and nothing was done."""
    token.init_token("other")
    assert agent.hsmagent("refresh").returncode == 0
    for name in ("work", "other"):
        assert agent.unlock(PIN, name).returncode == 0
    for words in COMMANDS:
        said = agent.hsmagent(*words, "--stdin").stderr
        notice = re.match(r"The agent will be logged out of: (\w+), (\w+)\n", said)
        assert notice, (words, said)
        assert set(notice.groups()) == {"work", "other"}
        assert "nothing was given for" in said, (words, said)
    assert all(each["logged_in"] for each in agent.json("status")["tokens"])


def test_a_token_that_is_managed_already_is_refused_before_the_pin(agent: AgentProcess) -> None:
    holder = Daemon(str(agent.runtime))
    holder.call("let_go", module=MODULE)
    said = agent.hsmagent("key", "new", "--stdin").stderr
    assert "manages a token of" in said
    assert "nothing was given" not in said
    holder.close()


def test_a_lease_lasts_ten_minutes_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the loop's clock, which the test sets forward."""

    async def go() -> None:
        loop, passed = asyncio.get_running_loop(), [0.0]
        real = loop.time
        monkeypatch.setattr(loop, "time", lambda: real() + passed[0])
        tokens = Lent()
        leases = Leases(tokens, loop.time)  # type: ignore[arg-type]
        said = {"module": "/m.so"}
        await leases.let_go(Asked(said, lambda: PEER, lambda _: None, lambda _: None))
        passed[0] = LONGEST - 5
        for _ in range(3):
            await asyncio.sleep(0)
        (shown,) = leases.shown()
        assert shown["holder"] == "stuck (process 1)"
        assert LONGEST - 5 <= shown["age"] < LONGEST
        assert tokens.lent == ["/m.so"]
        passed[0] = LONGEST + 1
        while tokens.lent:
            await asyncio.sleep(0)
        assert leases.shown() == []

    asyncio.run(go())
    assert LONGEST == 600


def test_unlock_of_one_token_leaves_the_lease_of_another(
    agent: AgentProcess, token: SoftHsm, tmp_path: Path
) -> None:
    second = tmp_path / "second.so"
    shutil.copy(MODULE, second)
    other = SoftHsm.create(tmp_path / "other")
    other.init_token("home")
    agent.configure(table(MODULE, token) + table(second, other))
    agent.signal(signal.SIGHUP)
    until(lambda: len(agent.json("status")["tokens"]) == 2)
    holders = [Daemon(str(agent.runtime)) for _ in range(2)]
    for holder, module in zip(holders, (MODULE, str(second)), strict=True):
        holder.call("let_go", module=module)
    assert "which token?" in agent.unlock(PIN).stderr
    assert sorted(leases(agent)) == sorted([MODULE, str(second)])
    assert agent.unlock(PIN, "home").returncode == 0
    assert leases(agent) == [MODULE]
    assert [each["label"] for each in agent.json("status")["tokens"]] == ["home"]
    for holder in holders:
        holder.close()


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
    assert agent.json("status")["tokens"] == []
    holder.call("take_back", module=MODULE)
    holder.close()
    assert keys(agent) == {"ec"}
    assert agent.json("status")["tokens"]


def test_an_ssh_login_meanwhile_is_refused_clearly_and_works_right_after(
    agent: AgentProcess, tmp_path: Path
) -> None:
    assert agent.unlock(PIN).returncode == 0
    with serving(agent, tmp_path, "ec") as sshd:
        assert ssh(agent, sshd).stdout == HELLO
        holder = Daemon(str(agent.runtime))
        holder.call("let_go", module=MODULE)
        refused = ssh(agent, sshd)
        assert refused.returncode != 0
        assert "agent refused operation" in refused.stderr
        why = agent.hsmagent("log").stdout.splitlines()[-1]
        assert "“work” is being managed: wait until that is done" in why
        holder.call("take_back", module=MODULE)
        holder.close()
        assert agent.unlock(PIN).returncode == 0
        assert ssh(agent, sshd).stdout == HELLO


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
