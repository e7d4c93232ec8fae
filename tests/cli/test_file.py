"""Any file as CMS: as a person runs it, with openssl and gpgsm as peers both ways."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.mail.peers import CannotDo, Gpgsm, OpenSsl, Peer
from tests.parts.mail.people import ca_file, home, person, root, script

# No text: line ends of every kind, and nothing that reads as a header.
DATA = bytes(range(256)) * 3000 + b"\r\n\n\r\0"
ALICE = "alice@example.org"
PEER = person("rsa", "rsa@example.org", "Rsa")


@pytest.fixture
def hsmagent(tmp_path: Path) -> str:
    (tmp_path / "data.bin").write_bytes(DATA)
    ca_file(tmp_path)
    return script(tmp_path, "hsmagent", "smime", "rsa")


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Peer]]:
    people = {"rsa": PEER}
    folder = tmp_path_factory.mktemp("peers")
    (folder / "openssl").mkdir()
    (folder / "gpgsm").mkdir()
    gpgsm = Gpgsm(folder / "gpgsm", root(), people)
    yield {"openssl": OpenSsl(folder / "openssl", root(), people), "gpgsm": gpgsm}
    gpgsm.close()


def run(
    program: str, *arguments: str, stdin: bytes = b"", status: int = 0
) -> subprocess.CompletedProcess[bytes]:
    folder = Path(program).parent
    done = subprocess.run(
        [program, "file", *arguments],
        input=stdin,
        env=home(folder),
        cwd=folder,
        capture_output=True,
        check=False,
    )
    assert done.returncode == status, done.stderr.decode()
    return done


def refused(program: str, *arguments: str, stdin: bytes = b"") -> str:
    done = run(program, *arguments, stdin=stdin, status=1)
    assert done.stdout == b""
    (line,) = done.stderr.decode().splitlines()
    return line


def test_there_and_back(hsmagent: str, tmp_path: Path) -> None:
    """`--to` finds our own certificate on the token: no contact is needed for one's own files."""
    run(hsmagent, "encrypt", "data.bin", "--to", ALICE, "-o", "data.p7m")
    run(hsmagent, "decrypt", "data.p7m", "-o", "again.bin")
    assert (tmp_path / "again.bin").read_bytes() == DATA
    assert (tmp_path / "again.bin").stat().st_mode & 0o777 == 0o600
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    for cipher in ("gcm", "cbc"):
        to = ("--recipient", "rsa.crt", "--cipher", cipher)
        piped = run(hsmagent, "encrypt", *to, stdin=DATA).stdout
        assert run(hsmagent, "decrypt", stdin=piped).stdout == DATA


def test_signed_beside_and_inside(hsmagent: str, tmp_path: Path) -> None:
    run(hsmagent, "sign", "data.bin", "-o", "data.p7s")
    good = run(hsmagent, "verify", "data.p7s", "data.bin", "--ca", "ca.pem").stdout.decode()
    assert good.startswith(f"Good signature by Alice Example <{ALICE}>")
    assert "over the file" in good
    signed = run(hsmagent, "sign", "--opaque", "--key", ALICE, stdin=DATA).stdout
    (tmp_path / "data.p7m").write_bytes(signed)
    run(hsmagent, "verify", "data.p7m", "--ca", "ca.pem", "-o", "inside.bin")
    assert (tmp_path / "inside.bin").read_bytes() == DATA
    (tmp_path / "data.bin").write_bytes(DATA + b".")
    bad = run(hsmagent, "verify", "data.p7s", "data.bin", "--ca", "ca.pem", status=1).stdout
    assert bad.startswith(b"BAD signature")
    (tmp_path / "data.p7m").write_bytes(signed.replace(DATA, DATA[:-1] + b"."))
    run(hsmagent, "verify", "data.p7m", "--ca", "ca.pem", "-o", "forged.bin", status=1)
    assert not (tmp_path / "forged.bin").exists()


@pytest.mark.parametrize("name", ["openssl", "gpgsm"])
def test_peers(hsmagent: str, peers: dict[str, Peer], name: str, tmp_path: Path) -> None:
    peer, me = peers[name], hsmagent
    certificate, _ = PEER.write(tmp_path, "rsa")  # our key, and theirs
    gcm = ("gcm",) if name == "openssl" else ()
    for cipher in ("cbc", *gcm):
        to = ("--recipient", certificate, "--cipher", cipher)
        assert peer.decrypt(run(me, "encrypt", "data.bin", *to).stdout, "rsa") == DATA
        theirs = peer.encrypt(DATA, "rsa", gcm=cipher == "gcm")
        assert run(me, "decrypt", stdin=theirs).stdout == DATA
    peer.verify(run(me, "sign", "data.bin").stdout, DATA)
    peer.verify(run(me, "sign", "data.bin", "--opaque").stdout, None)
    with pytest.raises(CannotDo):
        peer.verify(run(me, "sign", "data.bin").stdout, DATA + b".")
    signature = tmp_path / "theirs"
    signature.write_bytes(peer.sign(DATA, "rsa", detached=True))
    run(me, "verify", "theirs", "data.bin", "--ca", "ca.pem")
    signature.write_bytes(peer.sign(DATA, "rsa", detached=False))
    assert run(me, "verify", "theirs", "--ca", "ca.pem", "-o", "-").stdout == DATA


def test_pem_is_read(hsmagent: str, tmp_path: Path) -> None:
    made = ["openssl", "cms", "-encrypt", "-binary", "-in", "data.bin", "-outform", "PEM"]
    pem = subprocess.run([*made, "rsa.crt"], cwd=tmp_path, capture_output=True, check=True).stdout
    assert run(hsmagent, "decrypt", stdin=b"a word before\n" + pem).stdout == DATA


def test_nothing_is_overwritten(hsmagent: str, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("precious")
    for command in (("encrypt", "--to", ALICE), ("sign",), ("decrypt",), ("verify",)):
        assert "there is there already" in refused(hsmagent, *command, "data.bin", "-o", "there")
    assert (tmp_path / "there").read_text() == "precious"


def test_damage_leaves_nothing(hsmagent: str, tmp_path: Path) -> None:
    whole = run(hsmagent, "encrypt", "--to", ALICE, "--cipher", "gcm", stdin=DATA).stdout
    for damaged in (whole[:-40] + bytes(40), whole[: len(whole) // 2]):
        refused(hsmagent, "decrypt", "-o", "out", stdin=damaged)
        refused(hsmagent, "decrypt", stdin=damaged)
        assert not (tmp_path / "out").exists()


def test_sentences(hsmagent: str, tmp_path: Path) -> None:
    assert "say who may read it" in refused(hsmagent, "encrypt", "data.bin")
    assert "no valid certificate for bob@" in refused(
        hsmagent, "encrypt", "data.bin", "--to", "bob@example.org"
    )
    assert refused(hsmagent, "decrypt", "data.bin").startswith(
        "hsmagent: data.bin is no CMS message"
    )
    assert refused(hsmagent, "decrypt", "none") == "hsmagent: none: No such file or directory"
    run(hsmagent, "sign", "data.bin", "-o", "data.p7s")
    assert "name the file that it is of" in refused(hsmagent, "verify", "data.p7s")
    run(hsmagent, "sign", "data.bin", "--opaque", "-o", "data.p7m")
    assert "has its file inside" in refused(hsmagent, "verify", "data.p7m", "data.bin")
    two = script(tmp_path, "two", "smime", "rsa", "p256")
    assert "--key" in refused(two, "sign", "data.bin")


def test_50_mb_in_64_mb(hsmagent: str, tmp_path: Path) -> None:
    """Each verb in a process of its own; through files, which are not copied, and through pipes."""
    with (tmp_path / "data.bin").open("wb") as file:
        for _ in range(50):
            file.write(os.urandom(1 << 20))
    peak = tmp_path / "peak"
    for command in (
        "encrypt data.bin --cipher gcm --recipient rsa.crt -o gcm",
        "decrypt gcm -o gcm.bin",
        "encrypt --cipher cbc --recipient rsa.crt < data.bin > cbc",
        "decrypt < cbc > cbc.bin",
        "sign data.bin -o p7s",
        "verify p7s data.bin --ca ca.pem",
        "sign --opaque < data.bin > p7m",
        "verify p7m --ca ca.pem -o p7m.bin",
        'encrypt --recipient rsa.crt < data.bin | "$0" file decrypt > piped.bin',
    ):
        subprocess.run(
            ["/bin/sh", "-c", f'set -e; "$0" file {command}', hsmagent],
            cwd=tmp_path,
            env=home(tmp_path, HSMAGENT_TEST_PEAK=str(peak)),
            stdout=sys.stderr,
            check=True,
        )
        assert int(peak.read_text()) < 64 * 1024, command
    for name in ("gcm.bin", "cbc.bin", "p7m.bin", "piped.bin"):
        subprocess.run(["cmp", "data.bin", name], cwd=tmp_path, check=True)
    for file_made in tmp_path.iterdir():
        if file_made.is_file():
            file_made.unlink()
