"""The agent with OpenSSH's own clients."""

import base64
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsmagent.model import fingerprint
from hsmagent.ssh import keys, wire
from tests.parts.agent.ssh_agent import Parts, Served, new_keys, serve, token_signer

# A host's keys of kinds that few or none can verify with yet.
STRANGE = [
    f"{kind} {base64.b64encode(wire.text(kind) + wire.string(bytes(32)) + more).decode()}"
    for kind, more in (
        ("sk-ssh-ed25519@openssh.com", wire.text("ssh:")),
        ("ssh-mldsa44-ed25519@openssh.com", b""),
    )
]


@pytest.fixture(scope="module")
def private_keys() -> list:
    return new_keys()


@pytest.fixture
def served(private_keys: list) -> Iterator[Served]:
    with serve(Parts([token_signer(key) for key in private_keys])) as running:
        yield running


def public_lines(served: Served, folder: Path) -> list[Path]:
    paths = []
    for number, line in enumerate(served.run("ssh-add", "-L").stdout.splitlines()):
        path = folder / f"{number}.pub"
        path.write_text(line + "\n")
        paths.append(path)
    return paths


def test_no_token_gives_an_empty_list() -> None:
    with serve(Parts()) as served:
        assert "no identities" in served.run("ssh-add", "-l", status=1).stdout


def test_ssh_add_lists_keys_with_our_fingerprints(served: Served) -> None:
    lines = served.run("ssh-add", "-l").stdout.splitlines()
    signers = served.parts.signers
    assert [line.split()[1] for line in lines] == [
        fingerprint(keys.blob_of(signer.key.spki) or b"") for signer in signers
    ]
    assert all("ssh (work)" in line for line in lines)


def test_ssh_add_tests_every_key(served: Served, tmp_path: Path) -> None:
    for path in public_lines(served, tmp_path):
        served.run("ssh-add", "-T", str(path))


def test_sshsig_by_every_key_verifies(served: Served, tmp_path: Path) -> None:
    for path in public_lines(served, tmp_path):
        message = tmp_path / "message"
        message.write_text("hello\n")
        served.run("ssh-keygen", "-Y", "sign", "-f", str(path), "-n", "file", str(message))
        signature = tmp_path / "message.sig"
        served.run(
            *("ssh-keygen", "-Y", "check-novalidate", "-n", "file", "-s", str(signature)),
            stdin="hello\n",
        )
        assert "'file' (sha512)" in served.parts.door.requests[-1].purpose.summary
        signature.unlink()


def test_a_token_key_is_an_ssh_authority(served: Served, tmp_path: Path) -> None:
    served.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "user"))
    for path in public_lines(served, tmp_path):
        served.run(
            *("ssh-keygen", "-q", "-Us", str(path), "-I", "me", "-n", "alice,bob", "-V", "+1d"),
            str(tmp_path / "user.pub"),
        )
        summary = served.parts.door.requests[-1].purpose.summary
        assert "certify the user key 'me' for alice, bob, valid until 2" in summary
        shown = served.run("ssh-keygen", "-L", "-f", str(tmp_path / "user-cert.pub")).stdout
        assert "alice" in shown


def test_ssh_add_restricts_a_key_to_a_host_with_keys_of_strange_kinds(
    served: Served, tmp_path: Path
) -> None:
    """A FIDO key, a DSA key and one of a kind to come: the host's others are what counts."""
    user, host = tmp_path / "user", tmp_path / "host"
    known = tmp_path / "known_hosts"
    served.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(user))
    served.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host))
    lines = [host.with_suffix(".pub").read_text().strip(), *STRANGE]
    old = tmp_path / "dsa"
    # Newer releases of ssh-keygen know no DSA; then ssh-add sends none either.
    made = subprocess.run(["ssh-keygen", "-q", "-t", "dsa", "-N", "", "-f", str(old)], check=False)
    if made.returncode == 0:
        lines.append(old.with_suffix(".pub").read_text().strip())
    known.write_text("".join(f"host.example {line}\n" for line in lines))
    served.run("ssh-add", "-H", str(known), "-h", "host.example", str(user))
    assert "ED25519" in served.run("ssh-add", "-l").stdout.splitlines()[-1]
