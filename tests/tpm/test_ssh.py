"""ssh with keys in a TPM and in NSS's database, through the real daemon."""

from pathlib import Path

import pytest

from tests.parts.agent.ssh_login import HELLO, serving, ssh, started
from tests.parts.token.provider import Provider

KEYS = ("ssh", "mail")  # P-256 and RSA-2048


@pytest.mark.parametrize("key", KEYS)
def test_logs_in_with_a_tpm(tpm: Provider, tmp_path: Path, key: str) -> None:
    with started(tpm, tmp_path) as agent, serving(agent, tmp_path, key) as sshd:
        assert agent.unlock(tpm.pin).returncode == 0
        assert ssh(agent, sshd).stdout == HELLO


@pytest.mark.parametrize("key", KEYS)
def test_logs_in_with_the_database(database: Provider, tmp_path: Path, key: str) -> None:
    with started(database, tmp_path) as agent, serving(agent, tmp_path, key) as sshd:
        assert agent.unlock(database.pin).returncode == 0
        assert ssh(agent, sshd).stdout == HELLO
