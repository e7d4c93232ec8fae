"""A person with a card and a prompt: every PIN the card counts was typed for a window shown."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.agent.daemon import AgentProcess
from tests.parts.agent.ssh_login import HELLO, logging_in, serving, ssh
from tests.parts.agent.sshd import Sshd
from tests.parts.token.card import DEFAULT_PIN, Reader
from tests.parts.until import until

# One that was just refused is not tried again.
WRONG = ("000000", "111111", "222222")

# Types the first line of "answers" each time it asks for a PIN, and notes what it showed. Where
# nothing is left to type, and to every question of yes or no, it gives what "agrees" says.
PERSON = """#!/bin/sh
cd "$(dirname "$0")" || exit 1
printf '%s: %s\\n' "${SSH_ASKPASS_PROMPT:-pin}" "$1" >>shown
case "$SSH_ASKPASS_PROMPT" in
confirm) exec test -e agrees ;;
none) exec sleep 60 ;;
esac
[ -s answers ] || exit 1
head -n 1 answers
sed -i 1d answers
"""


class Person:
    """Sits before SSH_ASKPASS."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.program = folder / "askpass"
        self.program.write_text(PERSON)
        self.program.chmod(0o700)

    def will_type(self, *pins: str, agrees: bool = False) -> None:
        (self._folder / "answers").write_text("".join(f"{pin}\n" for pin in pins))
        if agrees:
            (self._folder / "agrees").touch()

    def shown(self, kind: str) -> int:
        """How many windows of this kind there were."""
        shown = self._folder / "shown"
        lines = shown.read_text().splitlines() if shown.exists() else []
        return sum(line.startswith(f"{kind}: ") for line in lines)


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path)


@pytest.fixture
def agent(reader: Reader, tmp_path: Path, person: Person) -> Iterator[AgentProcess]:
    """Start a daemon that asks the person."""
    config = reader.provider.config() + '[prompt]\norder = ["askpass"]\n'
    environment = {"SSH_ASKPASS": str(person.program), "DISPLAY": ":none"}
    agent = AgentProcess(tmp_path / "home", config, environment)
    agent.start()
    yield agent
    agent.stop()


@pytest.fixture
def sshd(agent: AgentProcess, tmp_path: Path) -> Iterator[Sshd]:
    with serving(agent, tmp_path, "ssh") as server:
        yield server


def presented(reader: Reader) -> int:
    assert reader.card.user is not None
    return reader.card.user.presented


def test_one_window_serves_all_who_wait(
    agent: AgentProcess, sshd: Sshd, person: Person, reader: Reader
) -> None:
    person.will_type(DEFAULT_PIN)
    logins = [logging_in(agent, sshd) for _ in range(3)]
    assert [login.communicate(timeout=60)[0] for login in logins] == [HELLO] * 3, agent.logged()
    assert person.shown("pin") == 1
    assert presented(reader) == 1


def test_wrong_pins_down_to_blocked(
    agent: AgentProcess, sshd: Sshd, person: Person, reader: Reader
) -> None:
    person.will_type(*WRONG, DEFAULT_PIN, agrees=True)
    assert ssh(agent, sshd).returncode != 0
    assert (person.shown("pin"), person.shown("confirm"), presented(reader)) == (3, 1, 3)
    assert ssh(agent, sshd).returncode != 0  # blocked: nobody is asked any more
    assert (person.shown("pin"), presented(reader)) == (3, 3)


def test_the_last_try_is_left_untouched(
    agent: AgentProcess, sshd: Sshd, person: Person, reader: Reader
) -> None:
    person.will_type(*WRONG)
    assert ssh(agent, sshd).returncode != 0
    assert (person.shown("pin"), person.shown("confirm"), presented(reader)) == (2, 1, 2)


def test_the_right_pin_at_the_last_try(
    agent: AgentProcess, sshd: Sshd, person: Person, reader: Reader
) -> None:
    person.will_type(*WRONG[:2], DEFAULT_PIN, agrees=True)
    assert ssh(agent, sshd).stdout == HELLO, agent.logged()
    assert presented(reader) == 3
    assert reader.card.user is not None
    assert reader.card.user.left == 3


def test_a_window_that_is_closed(
    agent: AgentProcess, sshd: Sshd, person: Person, reader: Reader
) -> None:
    assert ssh(agent, sshd).returncode != 0
    assert presented(reader) == 0


def test_the_pin_pad_is_pointed_at(
    agent: AgentProcess, sshd: Sshd, person: Person, reader: Reader
) -> None:
    reader.unplug()
    reader.card.pad = [DEFAULT_PIN]
    reader.plug()
    until(lambda: "ssh (work" in agent.run(["ssh-add", "-l"]).stdout)
    assert ssh(agent, sshd).stdout == HELLO, agent.logged()
    assert person.shown("pin") == 0
    assert presented(reader) == 1
