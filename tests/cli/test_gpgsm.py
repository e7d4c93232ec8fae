"""Real git signs and verifies commits and tags through hsmagent-gpgsm."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.store import Store
from tests.parts.mail import home, root, script
from tests.parts.peers import Gpgsm


@dataclass
class Repository:
    folder: Path
    environment: dict[str, str]

    def git(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=check,
        )


@pytest.fixture
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> Repository:
    program = script(tmp_path, "hsmagent-gpgsm", "gpgsm", getattr(request, "param", "p256"))
    folder = tmp_path / "work"
    folder.mkdir()
    found = Repository(folder, home(tmp_path, GIT_CONFIG_NOSYSTEM="1"))
    found.git("init", "-q")
    for name, value in {
        "user.name": "Alice (Example), Jr.",
        "user.email": "alice@example.org",
        "gpg.format": "x509",
        "gpg.x509.program": program,
    }.items():
        found.git("config", name, value)
    (folder / "file").write_text("content\n")
    found.git("add", "file")
    return found


@pytest.mark.parametrize("repository", ["rsa", "p256", "ed25519"], indirect=True)
def test_commit_tag_and_log(repository: Repository) -> None:
    repository.git("commit", "-q", "-S", "-m", "First")
    assert "BEGIN SIGNED MESSAGE" in repository.git("cat-file", "commit", "HEAD").stdout
    repository.git("verify-commit", "HEAD")
    repository.git("tag", "-s", "-m", "A tag", "v1")
    repository.git("verify-tag", "v1")
    log = repository.git("log", "--show-signature", "-1").stdout
    assert "Good signature by Alice Example <alice@example.org>" in log
    assert repository.git("log", "-1", "--format=%G? %GS").stdout == "G Alice Example\n"


def test_changed_commit_is_bad(repository: Repository) -> None:
    repository.git("commit", "-q", "-S", "-m", "First")
    changed = repository.git("cat-file", "commit", "HEAD").stdout.replace("First", "Other")
    (repository.folder / "changed").write_text(changed)
    name = repository.git("hash-object", "-t", "commit", "-w", "changed").stdout.strip()
    assert repository.git("verify-commit", name, check=False).returncode == 1
    assert repository.git("log", "-1", "--format=%G?", name).stdout == "B\n"


def test_untrusted_signer_is_said(repository: Repository) -> None:
    repository.git("commit", "-q", "-S", "-m", "First")
    store = Store(Path(repository.environment["XDG_DATA_HOME"]) / "hsmagent")
    store.remove(Certificate(root().der).fingerprint, root=True)
    assert repository.git("log", "-1", "--format=%G?").stdout == "U\n"
    assert "no chain" in repository.git("log", "--show-signature", "-1").stdout


def test_a_signer_without_a_certificate_is_not_said_to_be_bad(tmp_path: Path) -> None:
    program = script(tmp_path, "hsmagent-gpgsm", "gpgsm", "rsa")
    sign = ["openssl", "cms", "-sign", "-binary", "-nocerts", "-outform", "DER"]
    sign += ["-signer", f"{tmp_path}/rsa.crt", "-inkey", f"{tmp_path}/rsa.key"]
    (tmp_path / "signature").write_bytes(
        subprocess.run(sign, input=b"data", capture_output=True, check=True).stdout
    )
    done = subprocess.run(
        [program, "--status-fd=1", "--verify", str(tmp_path / "signature"), "-"],
        input=b"data",
        env=home(tmp_path),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout.startswith(b"[GNUPG:] NEWSIG\n[GNUPG:] ERRSIG ")
    assert b"the signer's certificate is not there" in done.stderr


def test_no_key_for_the_committer(repository: Repository) -> None:
    repository.git("config", "user.email", "nobody@example.org")
    assert repository.git("commit", "-q", "-S", "-m", "First", check=False).returncode != 0
    program = repository.git("config", "gpg.x509.program").stdout.strip()
    done = subprocess.run(  # git itself keeps what is said on the status descriptor
        [program, "--status-fd=2", "-bsau", "Alice <nobody@example.org>"],
        input=b"tree 123\n",
        env=repository.environment,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert b"no key signs for Alice <nobody@example.org>; there are keys for" in done.stderr
    assert done.stdout == b""


def test_gpgsm_verifies_what_we_sign_for_git(tmp_path: Path) -> None:
    program = script(tmp_path, "hsmagent-gpgsm", "gpgsm", "rsa")
    done = subprocess.run(
        [program, "--status-fd=2", "-bsau", "alice@example.org"],
        input=b"tree 123\n",
        env=home(tmp_path),
        capture_output=True,
        check=True,
    )
    assert b"\n[GNUPG:] SIG_CREATED D 1 8 00 " in done.stderr
    (tmp_path / "gnupg").mkdir()
    peer = Gpgsm(tmp_path / "gnupg", root(), {})
    try:
        peer.verify(done.stdout, b"tree 123\n")
    finally:
        peer.close()


@pytest.mark.parametrize(
    "arguments",
    [["--decrypt"], ["-z"], ["--export"], ["-sd"], ["--status-fd=x", "-bsau", "a@b"], []],
)
def test_what_git_does_not_ask_for_is_refused(arguments: list[str], tmp_path: Path) -> None:
    program = script(tmp_path, "hsmagent-gpgsm", "gpgsm", "rsa")
    done = subprocess.run(
        [program, *arguments], env=home(tmp_path), input=b"", capture_output=True, check=False
    )
    assert done.returncode != 0
    assert done.stdout == b""
    assert done.stderr.startswith(b"hsmagent-gpgsm: ")
