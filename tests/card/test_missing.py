"""Why a card is missing, as a person is told: by status, keys and the doctor, daemon or not."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.card.test_contents import RAW
from tests.parts.agent.daemon import AgentProcess
from tests.parts.token.card import Reader
from tests.parts.until import until

KEPT = "the card in “Virtual PCD 00 00” is kept by another program to itself"


@pytest.fixture
def kept_off(reader: Reader) -> Iterator[Reader]:
    """Let another program keep the card to itself, as GnuPG's scdaemon does."""
    other = subprocess.Popen(
        [sys.executable, "-c", RAW, "exclusive"],
        env={**reader.provider.environment, "PATH": "/usr/bin"},
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == b"connected\n"
    yield reader
    other.communicate(b"")


def notes_of_doctor(agent: AgentProcess) -> list[str]:
    found = json.loads(agent.hsmagent("doctor", "--json").stdout)
    return [each["sentence"] for each in found if each["check"] == "module"]


def test_a_card_that_another_program_keeps_to_itself(kept_off: Reader, tmp_path: Path) -> None:
    agent = AgentProcess(
        tmp_path / "home", kept_off.provider.config(), kept_off.provider.environment
    )
    # Without a daemon the doctor looks itself.
    assert any(KEPT in sentence for sentence in notes_of_doctor(agent))
    agent.start()
    try:
        until(lambda: KEPT in agent.hsmagent("status").stdout)
        assert KEPT in agent.hsmagent("keys").stdout
        assert any(KEPT in sentence for sentence in notes_of_doctor(agent))
    finally:
        agent.stop()
