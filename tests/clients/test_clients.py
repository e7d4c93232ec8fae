"""Clients that are not OpenSSH's, or that use it in ways of their own, with a token's keys."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.daemon.conftest import Start, module_config
from tests.parts.agent.daemon import AgentProcess
from tests.parts.agent.sshd import Sshd
from tests.parts.token.softhsm import PIN, SoftHsm

NAMES = ("rsa", "ec", "ed")
# What `ssh-keygen -Y sign -n file` has signed; data that nobody can read wants a question.
SSHSIG = b"SSHSIG" + b"".join(
    len(part).to_bytes(4, "big") + part for part in (b"file", b"", b"sha512", bytes(64))
)


def line_of(agent: AgentProcess, name: str) -> str:
    return agent.hsmagent("pubkey", name).stdout.strip()


@pytest.fixture
def unlocked(agent: AgentProcess) -> AgentProcess:
    assert agent.unlock(PIN).returncode == 0
    return agent


@pytest.fixture
def sshd(unlocked: AgentProcess, tmp_path: Path) -> Iterator[Sshd]:
    """Start an sshd that trusts the token's P-256 key."""
    options = ["MaxStartups 100", "Subsystem sftp internal-sftp"]
    server = Sshd(tmp_path / "sshd", [line_of(unlocked, "ec")], options)
    server.start()
    yield server
    server.stop()


def newest(agent: AgentProcess) -> dict[str, Any]:
    """Return the newest line of the activity log."""
    entry: dict[str, Any] = agent.json("log")["entries"][-1]
    return entry


@pytest.mark.parametrize("name", NAMES)
def test_git_signs_commits_and_tags(unlocked: AgentProcess, tmp_path: Path, name: str) -> None:
    agent, line = unlocked, line_of(unlocked, name)
    (tmp_path / "key.pub").write_text(line + "\n")
    (tmp_path / "allowed").write_text(f"me@example.org {line}\n")
    settings = {
        "user.name": "T",
        "user.email": "me@example.org",
        "gpg.format": "ssh",
        "user.signingKey": str(tmp_path / "key.pub"),
        "gpg.ssh.allowedSignersFile": str(tmp_path / "allowed"),
    }
    options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
    agent.environment["GIT_CONFIG_GLOBAL"] = "/dev/null"

    def git(*arguments: str) -> str:
        result = agent.run(["git", "-C", str(tmp_path), *options, *arguments])
        assert result.returncode == 0, result.stderr
        return result.stdout + result.stderr

    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "-S", "-m", "first")
    assert newest(agent)["purpose"] == "git"
    git("tag", "-s", "-m", "a tag", "v1")
    assert 'Good "git" signature for me@example.org' in git("log", "--show-signature")
    assert 'Good "git" signature' in git("verify-tag", "v1")


async def test_asyncssh_logs_in(unlocked: AgentProcess, sshd: Sshd) -> None:
    async with asyncssh.connect(
        "127.0.0.1",
        port=sshd.port,
        username=sshd.user,
        agent_path=str(unlocked.ssh_socket),
        known_hosts=(str(sshd.host_key.with_suffix(".pub")), [], []),
        config=None,
    ) as connection:
        done = await connection.run("echo hello", check=True)
    assert done.stdout == "hello\n"


async def test_asyncssh_lists_signs_and_adds(unlocked: AgentProcess) -> None:
    async with asyncssh.connect_agent(str(unlocked.ssh_socket)) as client:
        keys = await client.get_keys()
        assert len(keys) == len(NAMES)
        for key in keys:
            assert isinstance(key, asyncssh.agent.SSHAgentKeyPair)
            if key.algorithm == b"ssh-rsa":  # else it asks for SHA-1
                key.set_sig_algorithm(b"rsa-sha2-256")
            await key.sign_async(SSHSIG)
        soft = asyncssh.generate_private_key("ssh-ed25519")
        pair = asyncssh.load_keypairs([soft])
        await client.add_keys(pair, lifetime=60, confirm=False)
        assert len(await client.get_keys()) == len(NAMES) + 1
        await client.remove_keys(pair)
        await client.lock("secret")
        assert await client.get_keys() == []
        await client.unlock("secret")


def test_libssh2_by_curl_fetches_a_file(unlocked: AgentProcess, sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("by sftp")
    url = f"sftp://127.0.0.1:{sshd.port}{tmp_path}/file"
    public = tmp_path / "key.pub"
    public.write_text(line_of(unlocked, "ec") + "\n")
    done = unlocked.run(["curl", "--silent", "--insecure", "--user", f"{sshd.user}:", url])
    assert done.stdout == "by sftp", done.stderr


def test_ansible_with_20_forks(unlocked: AgentProcess, sshd: Sshd, tmp_path: Path) -> None:
    inventory = tmp_path / "inventory"
    options = " ".join(sshd.ssh_options)
    inventory.write_text(
        "".join(f"host{n} ansible_host=127.0.0.1\n" for n in range(20))
        + f"[all:vars]\nansible_ssh_common_args={options} -o ControlPath=none\n"
    )
    unlocked.environment |= {
        "ANSIBLE_HOST_KEY_CHECKING": "False",
        "ANSIBLE_SSH_CONTROL_PATH": "none",
        "ANSIBLE_SSH_ARGS": "",
        "ANSIBLE_SSH_USETTY": "False",  # an unprivileged sshd cannot give one away
        "ANSIBLE_LOCAL_TEMP": str(tmp_path / "ansible"),
    }
    command = ["ansible", "all", "-i", str(inventory), "-f", "20", "-m", "raw", "-a", "echo served"]
    done = unlocked.run(command, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert done.stdout.count("\nserved") == 20


# -- certificates ----------------------------------------------------------------------------


def run(*command: str | Path) -> None:
    subprocess.run(list(map(str, command)), check=True, capture_output=True)


def test_a_certificate_for_a_token_key_logs_in(
    start: Start, furnished: SoftHsm, tmp_path: Path
) -> None:
    certificates = tmp_path / "certificates"
    certificates.mkdir()
    agent = start(module_config(furnished, f'[ssh]\ncertificates = ["{certificates}"]\n'))
    agent.unlock(PIN)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "ca")
    public = certificates / "ec.pub"
    public.write_text(line_of(agent, "ec") + "\n")
    server = Sshd(tmp_path / "sshd", [], [f"TrustedUserCAKeys {tmp_path}/ca.pub"])
    run("ssh-keygen", "-q", "-s", tmp_path / "ca", "-I", "me", "-n", server.user, public)
    server.start()
    login = ["ssh", *server.ssh_options, "127.0.0.1", "echo", "certified"]
    assert agent.run(login).returncode != 0, "the certificate is not read yet"
    agent.stop()
    agent.start()
    agent.unlock(PIN)
    listed = agent.run(["ssh-add", "-L"]).stdout
    assert "ecdsa-sha2-nistp256-cert-v01@openssh.com " in listed
    assert agent.run(login).stdout == "certified\n"
    server.stop()


def test_a_token_key_certifies_who_then_logs_in(
    start: Start, furnished: SoftHsm, tmp_path: Path
) -> None:
    allowed = '[[key]]\nmatch = "pkcs11:object=ec"\nallow = ["ssh-cert"]\n'
    unlocked = start(module_config(furnished, allowed))
    assert unlocked.unlock(PIN).returncode == 0
    (tmp_path / "ca.pub").write_text(line_of(unlocked, "ec") + "\n")
    server = Sshd(tmp_path / "sshd", [], [f"TrustedUserCAKeys {tmp_path}/ca.pub"])
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "user")
    command = ["ssh-keygen", "-q", "-Us", str(tmp_path / "ca.pub"), "-I", "me", "-n", server.user]
    done = unlocked.run([*command, str(tmp_path / "user.pub")])
    assert done.returncode == 0, done.stderr
    assert newest(unlocked)["purpose"] == "ssh-cert"
    server.start()
    options = [*server.ssh_options, "-o", f"IdentityFile={tmp_path}/user"]
    login = ["ssh", *options, "-o", "IdentityAgent=none", "127.0.0.1", "echo", "certified"]
    assert unlocked.run(login).stdout == "certified\n"
    server.stop()
