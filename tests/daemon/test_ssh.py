"""Real ssh programs against the real daemon with a SoftHSM token."""

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from tests.daemon.conftest import Start, module_config
from tests.parts.agent.daemon import ANY_DATA, AgentProcess
from tests.parts.agent.sshd import Sshd
from tests.parts.token.softhsm import PIN, SoftHsm
from tests.parts.until import until

NAMES = ("rsa", "ec", "ed")


def line_of(agent: AgentProcess, name: str) -> str:
    return agent.hsmagent("pubkey", name).stdout.strip()


@pytest.fixture
def sshd(agent: AgentProcess, tmp_path: Path) -> Iterator[Sshd]:
    """Start an sshd that trusts all keys of the furnished token."""
    server = Sshd(tmp_path / "sshd", [line_of(agent, name) for name in NAMES])
    server.start()
    yield server
    server.stop()


def ssh(agent: AgentProcess, sshd: Sshd, *command: str) -> subprocess.CompletedProcess[str]:
    return agent.run(["ssh", *sshd.ssh_options, "127.0.0.1", *command])


def test_ssh_add_lists_the_keys_without_a_pin(agent: AgentProcess) -> None:
    result = agent.run(["ssh-add", "-l"])
    assert result.returncode == 0
    for name in NAMES:
        assert f" {name} (work) " in result.stdout
    fingerprints = {key["fingerprint"] for key in agent.json("keys")["keys"]}
    assert fingerprints == {line.split()[1] for line in result.stdout.splitlines()}


@pytest.mark.parametrize("name", NAMES)
def test_a_login_with_each_kind_of_key(agent: AgentProcess, tmp_path: Path, name: str) -> None:
    server = Sshd(tmp_path / name, [line_of(agent, name)])
    server.start()
    agent.unlock(PIN)
    assert ssh(agent, server, "echo", "hello").stdout == "hello\n"
    server.stop()


@pytest.mark.parametrize("algorithm", ["rsa-sha2-256", "rsa-sha2-512", "ssh-rsa"])
def test_rsa_with_each_hash(
    start: Start, furnished: SoftHsm, algorithm: str, tmp_path: Path
) -> None:
    agent = start(module_config(furnished, ANY_DATA if algorithm == "ssh-rsa" else ""))
    agent.unlock(PIN)
    server = Sshd(
        tmp_path / "rsa", [line_of(agent, "rsa")], [f"PubkeyAcceptedAlgorithms {algorithm}"]
    )
    server.start()
    chosen = ["-o", f"PubkeyAcceptedAlgorithms={algorithm}"]
    result = agent.run(["ssh", *server.ssh_options, *chosen, "127.0.0.1", "echo", "hello"])
    server.stop()
    assert result.stdout == "hello\n", result.stderr


def test_a_login_waits_for_the_pin_and_unlock_serves_all_who_wait(
    agent: AgentProcess, sshd: Sshd
) -> None:
    waiting = [
        subprocess.Popen(
            ["ssh", *sshd.ssh_options, "127.0.0.1", "echo", "served"],
            env=agent.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for _ in range(3)
    ]
    until(lambda: agent.logged().count("run `hsmagent unlock work`") >= 1)
    # Listing does not wait behind those who do.
    assert agent.run(["ssh-add", "-l"]).returncode == 0
    agent.unlock(PIN)
    assert [process.communicate(timeout=60)[0] for process in waiting] == ["served\n"] * 3


def test_a_display_that_has_gone_is_nobodys_no(agent: AgentProcess, sshd: Sshd) -> None:
    """A daemon outlives the session it was started in; ssh-askpass and pinentry need a display."""
    agent.stop()
    askpass = "/usr/lib/openssh/gnome-ssh-askpass"
    agent.environment |= {"DISPLAY": ":4711", "SSH_ASKPASS": askpass}
    agent.start()
    waiting = subprocess.Popen(
        ["ssh", *sshd.ssh_options, "127.0.0.1", "echo", "served"],
        env=agent.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    until(lambda: "run `hsmagent unlock work`" in agent.logged())
    agent.unlock(PIN)
    assert waiting.communicate(timeout=60)[0] == "served\n"


def test_a_login_is_refused_when_nobody_gives_the_pin(
    agent: AgentProcess, sshd: Sshd, furnished: SoftHsm
) -> None:
    agent.stop()
    agent.configure(module_config(furnished, '[prompt]\ntimeout = "1s"\n'))
    agent.start()
    result = ssh(agent, sshd, "echo", "hello")
    assert result.returncode == 255
    assert "run `hsmagent unlock work` and try again" in agent.logged()


def test_many_logins_at_once(agent: AgentProcess, sshd: Sshd) -> None:
    agent.unlock(PIN)
    running = [
        subprocess.Popen(
            ["ssh", *sshd.ssh_options, "127.0.0.1", "echo", str(number)],
            env=agent.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for number in range(8)
    ]
    answers = {process.communicate(timeout=60)[0] for process in running}
    assert answers == {f"{number}\n" for number in range(8)}


def test_git_clones_and_pushes(agent: AgentProcess, sshd: Sshd, tmp_path: Path) -> None:
    agent.unlock(PIN)
    bare, work = tmp_path / "repo.git", tmp_path / "work"
    command = "ssh " + " ".join(map(shlex.quote, sshd.ssh_options))
    agent.environment |= {"GIT_SSH_COMMAND": command, "GIT_CONFIG_GLOBAL": "/dev/null"}

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=T", "-c", "user.email=t@example.org"]
        result = agent.run(["git", *identity, *arguments])
        assert result.returncode == 0, result.stderr

    git("init", "--quiet", "--bare", str(bare))
    git("clone", "--quiet", f"ssh://127.0.0.1{bare}", str(work))
    git("-C", str(work), "commit", "--quiet", "--allow-empty", "-m", "first")
    git("-C", str(work), "push", "--quiet", "origin", "HEAD:main")
    git("-C", str(bare), "rev-parse", "main")


@pytest.mark.parametrize("name", NAMES)
def test_ssh_keygen_signs_and_verifies(agent: AgentProcess, tmp_path: Path, name: str) -> None:
    agent.unlock(PIN)
    line = line_of(agent, name)
    (tmp_path / "key.pub").write_text(line + "\n")
    (tmp_path / "allowed").write_text(f"me@example.org {line}\n")
    (tmp_path / "message").write_text("signed by a token")
    public, message = str(tmp_path / "key.pub"), tmp_path / "message"
    signed = agent.run(["ssh-keygen", "-Y", "sign", "-n", "file", "-f", public, str(message)])
    assert signed.returncode == 0, signed.stderr
    verify = ["ssh-keygen", "-Y", "verify", "-f", str(tmp_path / "allowed"), "-n", "file"]
    verify += ["-I", "me@example.org", "-s", f"{message}.sig"]
    assert "Good" in agent.run(verify, stdin="signed by a token").stdout
    assert agent.run(verify, stdin="signed by somebody").returncode != 0


def test_unknown_data_is_signed_for_nobody_unasked(agent: AgentProcess, tmp_path: Path) -> None:
    agent.unlock(PIN)
    public = tmp_path / "key.pub"
    public.write_text(agent.hsmagent("pubkey", "ec").stdout)
    assert agent.run(["ssh-add", "-T", str(public)]).returncode != 0
    until(lambda: "unknown data (they may be good as a mail or a certificate)" in agent.logged())


def test_paramiko_signs_with_every_key(
    start: Start, furnished: SoftHsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = start(module_config(furnished, ANY_DATA))
    agent.unlock(PIN)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent.ssh_socket))
    client = paramiko.Agent()
    keys = client.get_keys()
    assert len(keys) == len(NAMES)
    for key in keys:
        algorithm = "rsa-sha2-512" if key.get_name() == "ssh-rsa" else key.get_name()
        signature = paramiko.Message(key.sign_ssh_data(b"data", algorithm))
        assert signature.get_text() == algorithm
    client.close()


def test_data_that_is_a_mails_is_not_signed_over_ssh(
    start: Start, furnished: SoftHsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = start(module_config(furnished, ANY_DATA))
    agent.unlock(PIN)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent.ssh_socket))
    client = paramiko.Agent()
    attributes = bytes.fromhex("31 1c 30 1a 06 09 2a 86 48 86 f7 0d 01 09 03 31 0d 06 0b")
    attributes += bytes.fromhex("2a 86 48 86 f7 0d 01 09 10 01 04")
    for key in client.get_keys():
        with pytest.raises(paramiko.SSHException):
            key.sign_ssh_data(attributes)
        assert key.sign_ssh_data(attributes + b"\0")
    client.close()


def test_after_lock_the_next_login_asks_again(agent: AgentProcess, sshd: Sshd) -> None:
    agent.unlock(PIN)
    assert ssh(agent, sshd, "true").returncode == 0
    agent.hsmagent("lock")
    process = subprocess.Popen(
        ["ssh", *sshd.ssh_options, "127.0.0.1", "echo", "again"],
        env=agent.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    until(lambda: "run `hsmagent unlock work`" in agent.logged())
    agent.unlock(PIN)
    assert process.communicate(timeout=60)[0] == "again\n"


def test_a_client_that_gives_up_leaves_nothing_behind(agent: AgentProcess, sshd: Sshd) -> None:
    process = subprocess.Popen(
        ["ssh", *sshd.ssh_options, "127.0.0.1", "true"],
        env=agent.environment,
        stderr=subprocess.DEVNULL,
    )
    until(lambda: "run `hsmagent unlock work`" in agent.logged())
    process.terminate()
    process.wait()
    agent.unlock(PIN)
    assert ssh(agent, sshd, "true").returncode == 0


def test_no_token_is_an_empty_list_not_a_failure(agent: AgentProcess, tmp_path: Path) -> None:
    agent.stop()
    empty = SoftHsm.create(tmp_path / "empty")
    agent.configure(module_config(empty))
    agent.start()
    result = agent.run(["ssh-add", "-l"])
    assert (result.returncode, result.stdout.strip()) == (1, "The agent has no identities.")
