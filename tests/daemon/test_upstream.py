"""The daemon in front of OpenSSH's agent."""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.conftest import Start, module_config
from tests.parts.token.softhsm import SoftHsm


@pytest.fixture
def openssh() -> Iterator[Path]:
    """Run OpenSSH's ssh-agent with a key of its own."""
    with tempfile.TemporaryDirectory(prefix="u") as folder:
        path, key = Path(folder) / "s", Path(folder) / "key"
        command = ["ssh-agent", "-D", "-a", str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as agent:
            assert agent.stdout is not None
            agent.stdout.readline()
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "theirs", "-f", str(key)],
                check=True,
            )
            subprocess.run(
                ["ssh-add", "-q", str(key)], env={"SSH_AUTH_SOCK": str(path)}, check=True
            )
            try:
                yield path
            finally:
                agent.terminate()


def test_its_keys_are_listed_after_ours_and_sign(
    start: Start, furnished: SoftHsm, openssh: Path
) -> None:
    agent = start(module_config(furnished, f'[ssh]\nupstream = "{openssh}"\n'))
    env = agent.environment
    listed = subprocess.run(
        ["ssh-add", "-L"], env=env, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert len(listed) == 4
    assert listed[-1].endswith(" theirs")
    public = openssh.parent / "key.pub"
    (openssh.parent / "key").unlink()
    subprocess.run(["ssh-add", "-T", str(public)], env=env, check=True)


def test_our_own_socket_as_upstream_is_an_error(start: Start, tmp_path: Path) -> None:
    own = tmp_path / "h0" / "run" / "hsmagent" / "ssh.sock"
    with pytest.raises(RuntimeError, match=r"upstream in \[ssh\] is this agent's own socket"):
        start(f'[ssh]\nupstream = "{own}"\n')
    assert not own.exists()
