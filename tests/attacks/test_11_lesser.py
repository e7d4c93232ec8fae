"""A configuration that others write names the modules that the daemon loads; the log's size.

And what a core file, a debugger of root's or a swapped page shows of a key that was removed.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hsmagent.door.activity import Activity, Entry
from tests.door.doubles import request
from tests.parts.agent import memory
from tests.parts.agent.daemon import AgentProcess

HALF_A_MEGABYTE = 512 << 10  # what docs/desktop.md says


@pytest.mark.parametrize("mode", [0o666, 0o602])
def test_the_daemon_reads_no_configuration_that_others_may_write(tmp_path: Path, mode: int) -> None:
    agent = AgentProcess(tmp_path / "h", "[cache]\n")
    agent.config.chmod(mode)
    with pytest.raises(RuntimeError, match="others may change"):
        agent.start()
    assert "others may change" in agent.hsmagent("doctor").stdout


def test_nor_one_in_a_folder_that_others_may_write(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path / "h", "[cache]\n")
    agent.config.parent.chmod(0o777)
    with pytest.raises(RuntimeError, match="others may change"):
        agent.start()


def test_the_log_is_as_large_as_the_docs_say(tmp_path: Path) -> None:
    """Names in other scripts take two to four bytes a character."""
    activity = Activity(tmp_path, lambda _seconds, _what: None)
    for number in range(3000):
        wish = request(summary=f"log in as {number} " + "長" * 180)
        activity.record(Entry(float(number), wish, "used"))
        activity.flush()
    sizes = {file.name: file.stat().st_size for file in tmp_path.iterdir()}
    assert max(sizes.values()) <= HALF_A_MEGABYTE, sizes
    assert json.loads((tmp_path / "activity.jsonl").read_text().splitlines()[-1])["time"]


PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

KINDS: dict[str, Callable[[], PrivateKey]] = {
    "RSA 2048": lambda: rsa.generate_private_key(65537, 2048),
    "RSA 4096": lambda: rsa.generate_private_key(65537, 4096),
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
}


@pytest.fixture
def dumpable(tmp_path: Path) -> Iterator[AgentProcess]:
    agent = AgentProcess(tmp_path / "h", "[cache]\n", dumpable=True)
    agent.start()
    yield agent
    agent.stop()


def secrets_of(private: PrivateKey) -> dict[str, int]:
    """Return each number that, with the public key, is as good as the private one."""
    if isinstance(private, rsa.RSAPrivateKey):
        names = ("p", "q", "d", "dmp1", "dmq1", "iqmp")
        return {name: getattr(private.private_numbers(), name) for name in names}
    if isinstance(private, ec.EllipticCurvePrivateKey):
        return {"d": private.private_numbers().private_value}
    return {"seed": int.from_bytes(private.private_bytes_raw(), "big")}


@pytest.mark.parametrize("removal", ["-d", "-D"])
@pytest.mark.parametrize("kind", KINDS)
def test_of_a_key_that_was_removed_nothing_stays_in_memory(
    dumpable: AgentProcess, tmp_path: Path, kind: str, removal: str
) -> None:
    private = KINDS[kind]()
    file, pid, secrets = tmp_path / "key", dumpable.process.pid, secrets_of(private)
    file.touch(0o600)
    file.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    assert dumpable.run(["ssh-add", str(file)]).returncode == 0
    # As OpenSSL holds them, and in no other form: an int of ours would stay.
    held = "big-endian" if kind == "Ed25519" else "little-endian"
    assert memory.found(pid, secrets) == {(name, held) for name in secrets}
    signed = dumpable.run(["ssh-add", "-T", str(file)])
    assert signed.returncode == 0, signed.stderr
    assert (
        dumpable.run(["ssh-add", removal, *([str(file)] if removal == "-d" else [])]).returncode
        == 0
    )
    assert memory.found(pid, secrets) == set()
