"""`hsmagent status` and `log` on a person's terminal: in colour, `--watch` and `--follow`."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.daemon.conftest import Start, module_config
from tests.parts.agent.daemon import PROGRAM, AgentProcess
from tests.parts.desktop.terminal import Terminal
from tests.parts.token.softhsm import PIN, SoftHsm
from tests.parts.until import until

Open = Callable[..., Terminal]
CLEAN = "\x1b[?7h\x1b[?25h\x1b[?1049l"


@pytest.fixture
def terminal() -> Iterator[Open]:
    """Open terminals in which an agent's commands run."""
    opened: list[Terminal] = []

    def begin(agent: AgentProcess, *words: str, **environment: str) -> Terminal:
        opened.append(
            Terminal([*PROGRAM, *words], agent.environment | {"TERM": "xterm"} | environment)
        )
        return opened[-1]

    yield begin
    for each in opened:
        each.close()


def sign(agent: AgentProcess, folder: Path) -> "subprocess.Popen[bytes]":
    """Sign a file with the token's key, in a session of its own."""
    public = folder / "ec.pub"
    public.write_text(agent.hsmagent("pubkey", "ec").stdout)
    (folder / "file").write_text("text")
    (folder / "file.sig").unlink(missing_ok=True)
    return subprocess.Popen(
        ["ssh-keygen", "-Y", "sign", "-n", "file", "-f", str(public), str(folder / "file")],
        env=agent.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def ended(terminal: Terminal) -> int:
    """Return the status with which a terminal's program ended; it is not reaped."""
    found = os.waitid(os.P_PID, terminal.pid, os.WEXITED | os.WNOWAIT)
    assert found is not None
    return found.si_status


def test_a_terminal_gets_colour_and_a_pipe_gets_none(agent: AgentProcess, terminal: Open) -> None:
    agent.unlock(PIN)
    shown = terminal(agent, "status").wait_for("module")
    assert "\x1b[32m●\x1b[m" in shown
    assert "━━━" in shown
    without = terminal(agent, "status", NO_COLOR="1").wait_for("module")
    assert "● work" in without
    assert "\x1b" not in without
    piped = agent.hsmagent("status").stdout
    assert piped.startswith("work\n  login   unlocked")
    assert "━" not in piped


def test_ascii_where_the_terminal_has_no_more(agent: AgentProcess, terminal: Open) -> None:
    agent.unlock(PIN)
    shown = terminal(
        agent, "status", NO_COLOR="1", LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0"
    ).wait_for("module")
    assert "* work" in shown
    assert "=====" in shown


def test_watch_shows_what_changes_and_leaves_the_terminal_clean(
    agent: AgentProcess, terminal: Open, tmp_path: Path
) -> None:
    it = terminal(agent, "status", "--watch")
    it.wait_for("Ctrl-C ends this")
    assert not it.echoes()
    assert "locked" in it.shown()
    waiting = sign(agent, tmp_path)  # nothing can ask: it waits for a terminal's PIN
    it.wait_for("waits for a PIN:")
    it.wait_for("ssh-keygen")
    assert agent.json("status")["waiting"][0]["wants"] == "pin"
    agent.unlock(PIN)
    it.wait_for("unlocked")
    assert waiting.wait(timeout=20) == 0
    it.wait_for("last use")
    assert agent.json("status")["waiting"] == []
    it.type("\x03")
    it.wait_for(CLEAN)
    assert ended(it) == 130
    assert it.shown().endswith(CLEAN)
    assert it.echoes()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_watch_cleans_up_whatever_ends_it(
    agent: AgentProcess, terminal: Open, number: signal.Signals
) -> None:
    it = terminal(agent, "status", "--watch")
    it.wait_for("Ctrl-C ends this")
    os.kill(it.pid, number)
    it.wait_for(CLEAN)
    assert ended(it) == 128 + number
    assert it.echoes()


def test_watch_ends_with_the_daemon(agent: AgentProcess, terminal: Open) -> None:
    it = terminal(agent, "status", "--watch")
    it.wait_for("Ctrl-C ends this")
    agent.stop()
    it.wait_for(CLEAN)
    it.wait_for("the daemon hung up")
    assert ended(it) == 1


def test_watch_asks_sparingly(agent: AgentProcess, terminal: Open) -> None:
    def turns(pid: int) -> int:
        found = Path(f"/proc/{pid}/status").read_text()
        return int(found.split("\nvoluntary_ctxt_switches:")[1].split()[0])

    it = terminal(agent, "status", "--watch")
    it.wait_for("Ctrl-C ends this")
    before = turns(it.pid)
    for _ in range(3):
        it.wait_for("Ctrl-C ends this")
    assert turns(it.pid) - before < 60


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["status", "--watch"], "--watch draws on a terminal"),
        (["status", "--watch", "--json"], "give one"),
    ],
)
def test_watch_is_for_eyes(agent: AgentProcess, words: list[str], why: str) -> None:
    result = agent.hsmagent(*words)
    assert result.returncode == 2
    assert why in result.stderr


@pytest.mark.parametrize("words", [[], ["--since", "1h"]])
def test_an_empty_log_says_so(agent: AgentProcess, terminal: Open, words: list[str]) -> None:
    said = agent.hsmagent("log", *words)
    since = " since 1h" if words else ""
    assert (said.returncode, said.stdout) == (0, "")
    assert said.stderr == f"hsmagent: nothing is in the log{since}\n"
    terminal(agent, "log", *words).wait_for(f"nothing is in the log{since}")
    said = agent.hsmagent("log", "--json", *words)
    assert (json.loads(said.stdout)["entries"], said.stderr) == ([], "")


def test_follow_shows_what_is_added(agent: AgentProcess, terminal: Open, tmp_path: Path) -> None:
    agent.unlock(PIN)
    assert sign(agent, tmp_path).wait(timeout=20) == 0
    it = terminal(agent, "log", "--follow")
    it.wait_for("used “ec” of work")
    (tmp_path / "file").write_text("another text")
    assert sign(agent, tmp_path).wait(timeout=20) == 0
    it.wait_for("used “ec” of work")
    assert it.shown().count("ssh-keygen") == 1  # one heading for both
    it.type("\x03")
    assert ended(it) == 130


def test_follow_into_a_pipe(agent: AgentProcess, tmp_path: Path) -> None:
    agent.unlock(PIN)
    follow = subprocess.Popen(
        [*PROGRAM, "log", "-f", "--json"], env=agent.environment, stdout=subprocess.PIPE
    )
    assert follow.stdout is not None
    try:
        assert sign(agent, tmp_path).wait(timeout=20) == 0
        line = json.loads(follow.stdout.readline())
        assert (line["outcome"], line["key"]) == ("used", "ec")
        follow.stdout.close()  # its reader leaves, and nothing is added
        assert follow.wait(timeout=20) == 1
    finally:
        follow.kill()
        follow.wait()


def test_labels_bring_no_escapes(start: Start, terminal: Open, tmp_path: Path) -> None:
    token = SoftHsm.create(tmp_path / "hsm")
    token.init_token("\x1b[2Jred\x1b[31m")
    agent = start(module_config(token))
    it = terminal(agent, "status", NO_COLOR="1")
    shown = it.wait_for("module")
    assert "[2Jred" in shown
    assert "\x1b" not in shown
    until(lambda: ended(it) == 0)
