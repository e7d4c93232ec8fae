"""Mail signed by a key in a TPM."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from tests.parts.agent.daemon import AgentProcess
from tests.parts.agent.ssh_login import started
from tests.parts.mail.people import ca_file, root
from tests.parts.token.provider import Provider


class InTheTpm:
    """Stands where a private key would, for who needs only its public half."""

    def __init__(self, public: PublicKeyTypes) -> None:
        self._public = public

    def public_key(self) -> PublicKeyTypes:
        return self._public


def certify(agent: AgentProcess, key: str) -> str:
    """Get a certificate for the key and put it into our store; returns its address."""
    pem = agent.hsmagent("pubkey", key, "--pem").stdout.encode()
    address = f"{key}@example.org"
    issued = root().issue(mail=(address,), private=InTheTpm(load_pem_public_key(pem)))
    path = agent.home / f"{key}.crt"
    path.write_bytes(issued.pem)
    added = agent.hsmagent("contacts", "add", str(path))
    assert added.returncode == 0, added.stderr
    return address


@pytest.mark.parametrize("key", ["ssh", "mail"])
def test_signs(tpm: Provider, tmp_path: Path, key: str) -> None:
    with started(tpm, tmp_path) as agent:
        address = certify(agent, key)
        assert agent.unlock(tpm.pin).returncode == 0
        message = f"From: {address}\nContent-Type: text/plain\n\nHello\n"
        signed = agent.hsmagent("smime", "sign", stdin=message)
        assert signed.returncode == 0, signed.stderr
        mail = agent.home / "mail"
        mail.write_text(signed.stdout)
        verify = ["openssl", "cms", "-verify", "-CAfile", ca_file(agent.home), "-in", str(mail)]
        done = agent.run(verify)
        assert done.returncode == 0, done.stderr
