"""`hsmagent ask-here` in terminals of its own, where no window can ask."""

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

ASK_HERE = [*PROGRAM, "ask-here"]
READY = "Ctrl-C ends that."
QUESTION = "PIN for the token “work”"

Open = Callable[..., Terminal]


@pytest.fixture
def terminal() -> Iterator[Open]:
    """Open terminals in which an agent's programs run."""
    opened: list[Terminal] = []

    def begin(agent: AgentProcess, command: list[str]) -> Terminal:
        opened.append(Terminal(command, agent.environment))
        return opened[-1]

    yield begin
    for each in opened:
        each.close()


@pytest.fixture
def place(agent: AgentProcess, terminal: Open) -> Terminal:
    """Open a terminal that is asked in."""
    return attended(agent, terminal)


def attended(agent: AgentProcess, terminal: Open) -> Terminal:
    it = terminal(agent, ASK_HERE)
    it.wait_for(READY)
    return it


def signs(agent: AgentProcess, folder: Path, key: str = "ec") -> list[str]:
    """Return the command that signs a file."""
    public = folder / f"{key}.pub"
    public.write_text(agent.hsmagent("pubkey", key).stdout)
    (folder / "file").write_text("text")
    (folder / "file.sig").unlink(missing_ok=True)
    return ["ssh-keygen", "-Y", "sign", "-n", "file", "-f", str(public), str(folder / "file")]


def signing(agent: AgentProcess, folder: Path) -> "subprocess.Popen[bytes]":
    """Sign in a session of its own, without a terminal."""
    return subprocess.Popen(
        signs(agent, folder),
        env=agent.environment,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def asked_in(agent: AgentProcess) -> list[str]:
    return [each["terminal"] for each in agent.json("status")["ask_here"]]


def test_it_is_asked_what_no_window_can_ask(
    agent: AgentProcess, place: Terminal, tmp_path: Path
) -> None:
    [where] = asked_in(agent)
    assert f"asked in {where} (hsmagent ask-here)" in agent.hsmagent("status").stdout
    client = signing(agent, tmp_path)
    place.wait_for(QUESTION)
    assert "ssh-keygen" in place.wait_for("PIN: ")
    assert not place.echoes()
    place.type("11111111\n")
    assert "Wrong PIN." in place.wait_for("PIN: ")
    place.type(f"{PIN}\n")
    place.wait_for("Done.")
    assert client.wait(60) == 0
    assert PIN not in place.shown()
    assert place.shown().count("\a") == 1
    noted = [line["outcome"] for line in agent.json("log")["entries"]]
    assert noted == ["asked", "wrong-pin", "used"]
    assert f"asked in the terminal {where}, by `hsmagent ask-here`" in agent.hsmagent("log").stdout


def test_what_waits_already_is_asked_when_it_starts(
    agent: AgentProcess, terminal: Open, tmp_path: Path
) -> None:
    client = signing(agent, tmp_path)
    until(lambda: "run `hsmagent unlock work`" in agent.logged())
    place = attended(agent, terminal)
    place.wait_for(QUESTION)
    place.wait_for("PIN: ")
    place.type(f"{PIN}\n")
    assert client.wait(60) == 0


def test_a_dead_display_is_no_window(
    start: Start, furnished: SoftHsm, terminal: Open, tmp_path: Path
) -> None:
    agent = start(module_config(furnished), DISPLAY=":4711", WAYLAND_DISPLAY="wayland-4711")
    place = attended(agent, terminal)
    client = signing(agent, tmp_path)
    place.wait_for("PIN: ")
    place.type(f"{PIN}\n")
    assert client.wait(60) == 0


@pytest.mark.parametrize("within", ["{}", "script -qc '{}' /dev/null"])
def test_a_program_of_its_own_terminal_is_never_asked_about_there(
    agent: AgentProcess, terminal: Open, tmp_path: Path, within: str
) -> None:
    """Nor one of a terminal within that terminal. Another terminal is asked."""
    wish = within.format(" ".join(signs(agent, tmp_path)))
    script = f"{wish} >/dev/null 2>&1 </dev/null & exec {' '.join(ASK_HERE)}"
    own = terminal(agent, ["sh", "-c", script])
    own.wait_for(READY)
    until(lambda: "is not to be asked in for that" in agent.logged())
    other = attended(agent, terminal)
    other.wait_for(QUESTION)
    other.wait_for("PIN: ")
    other.type(f"{PIN}\n")
    until((tmp_path / "file.sig").exists)
    assert QUESTION not in own.shown()


def test_what_was_typed_before_the_question_is_no_answer(
    agent: AgentProcess, place: Terminal, tmp_path: Path
) -> None:
    place.type(f"{PIN}\n")
    client = signing(agent, tmp_path)
    place.wait_for("PIN: ")
    place.type("11111111\n")  # so we see that the first answer is this one
    assert "Wrong PIN." in place.wait_for("PIN: ")
    place.type(f"{PIN}\n")
    assert client.wait(60) == 0
    assert PIN not in place.shown()


def test_a_question_is_taken_back_when_the_asker_hangs_up(
    agent: AgentProcess, place: Terminal, tmp_path: Path
) -> None:
    client = signing(agent, tmp_path)
    place.wait_for("PIN: ")
    place.type(PIN)  # and no Enter
    client.kill()
    client.wait()
    place.wait_for("Taken back")
    again = signing(agent, tmp_path)
    place.wait_for("PIN: ")
    place.type(f"{PIN}\n")  # what was typed for the former question is not in front of it
    place.wait_for("Done.")
    assert again.wait(60) == 0
    assert PIN not in place.shown()


def test_ctrl_c_is_a_no_and_then_ends_it(
    agent: AgentProcess, place: Terminal, tmp_path: Path
) -> None:
    client = signing(agent, tmp_path)
    place.wait_for("PIN: ")
    place.type("\x03")
    place.wait_for("Refused.")
    assert client.wait(60) != 0
    assert asked_in(agent)
    place.type("\x03")
    until(lambda: not asked_in(agent))
    assert place.echoes()
    assert agent.json("log")["entries"][-1]["outcome"] == "refused"


@pytest.mark.parametrize(
    ("answer", "agreed"), [("YES", True), ("y", True), ("n", False), ("", False)]
)
def test_a_confirmation(
    start: Start,
    furnished: SoftHsm,
    terminal: Open,
    tmp_path: Path,
    answer: str,
    *,
    agreed: bool,
) -> None:
    agent = start(module_config(furnished, '[[key]]\nmatch = "ec"\nconfirm = "always"\n'))
    agent.unlock(PIN)
    place = attended(agent, terminal)
    client = signing(agent, tmp_path)
    place.wait_for("Allow the use of ec (ECDSA P-256)?")
    place.wait_for("Allow? [y/N] ")
    assert place.echoes()
    place.type(f"{answer}\n")
    place.wait_for("Done." if agreed else "Refused.")
    assert (client.wait(60) == 0) is agreed
    assert not place.echoes()


def test_who_leaves_in_the_middle_leaves_the_question_to_others(
    agent: AgentProcess, place: Terminal, tmp_path: Path
) -> None:
    client = signing(agent, tmp_path)
    place.wait_for("PIN: ")
    os.kill(place.pid, signal.SIGKILL)
    until(lambda: "run `hsmagent unlock work`" in agent.logged())
    assert agent.unlock(PIN).returncode == 0
    assert client.wait(60) == 0


def test_stopped_it_is_asked_nothing_and_goes_on_in_the_foreground(
    agent: AgentProcess, terminal: Open, tmp_path: Path
) -> None:
    shell = terminal(agent, ["bash", "--norc", "--noprofile", "-i"])
    command = " ".join(ASK_HERE)
    shell.type(f"{command} &\n")
    shell.wait_for("in the foreground only")
    shell.type(f"{command}\n")
    shell.wait_for(READY)
    shell.type("\x1a")
    until(lambda: not asked_in(agent))
    shell.type("fg\n")
    shell.wait_for(READY)
    client = signing(agent, tmp_path)
    shell.wait_for("PIN: ")
    shell.type(f"{PIN}\n")
    assert client.wait(60) == 0
    shell.wait_for("Done.")
    shell.type("\x1a")
    until(lambda: not asked_in(agent))
    shell.type("bg\n")
    shell.wait_for("in the foreground only")
    assert PIN not in shell.shown()


def test_frozen_from_outside_it_is_asked_nothing(
    agent: AgentProcess, place: Terminal, tmp_path: Path
) -> None:
    os.kill(place.pid, signal.SIGSTOP)
    client = signing(agent, tmp_path)
    until(lambda: "is not to be asked in for that" in agent.logged())
    agent.unlock(PIN)
    assert client.wait(60) == 0


def test_without_a_terminal_there_is_nobody_to_ask(agent: AgentProcess) -> None:
    alone = agent.run(["setsid", "--wait", *ASK_HERE])
    assert alone.returncode == 1
    assert alone.stderr == "hsmagent: there is no terminal to be asked in\n"


def test_panes_of_tmux(agent: AgentProcess, tmp_path: Path) -> None:
    def tmux(*arguments: str) -> str:
        done = agent.run(["tmux", "-S", str(tmp_path / "t"), *arguments])
        assert done.returncode == 0, done.stderr
        return done.stdout

    def shown() -> str:
        return tmux("capture-pane", "-p", "-t", "0.0")

    wish = " ".join(signs(agent, tmp_path))
    tmux("-f", "/dev/null", "new-session", "-d", "-x", "150", "-y", "50", " ".join(ASK_HERE))
    try:
        until(lambda: READY in shown())
        tmux("split-window", "-d", wish)
        until(lambda: "\nPIN:" in shown())
        assert QUESTION in shown()
        tmux("send-keys", "-t", "0.0", PIN, "Enter")
        until((tmp_path / "file.sig").exists)
        assert "Done." in shown()
    finally:
        tmux("kill-server")
