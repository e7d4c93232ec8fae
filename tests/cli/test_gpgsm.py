"""Real git signs and verifies commits and tags through hsmagent-gpgsm."""

import re
import subprocess
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path

import pytest

from hsmagent.cli import programs, usage
from hsmagent.mail import keygrip
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.store import Store
from tests.parts.mail.peers import Gpgsm
from tests.parts.mail.people import ca_file, home, person, root, script


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


# -- as Emacs and other programs call it -----------------------------------------------------


@dataclass
class Program:
    path: str
    folder: Path

    def run(self, *arguments: str, data: bytes = b"", status: int = 0) -> bytes:
        done = subprocess.run(
            [self.path, "--no-tty", "--status-fd", "1", "--yes", *arguments],
            env=home(self.folder),
            input=data,
            capture_output=True,
            check=False,
        )
        assert done.returncode == status, done.stderr
        return done.stdout


@pytest.fixture
def gpgsm(tmp_path: Path) -> Program:
    return Program(script(tmp_path, "hsmagent-gpgsm", "gpgsm", "rsa", "p256"), tmp_path)


def marks(kind: str) -> tuple[str, str]:
    """Return SHA-1 and serial of a person's certificate."""
    certificate = Certificate(person(kind).der)
    return sha1(certificate.der).hexdigest().upper(), f"{certificate.serial:X}"


def test_git_reads_the_fingerprint(repository: Repository) -> None:
    repository.git("commit", "-q", "-S", "-m", "First")
    mark, _ = marks("p256")
    shown = repository.git("log", "-1", "--format=%G?|%GF|%GP|%GK").stdout
    assert shown == f"G|{mark}|{mark}|{mark}\n"


def test_every_field_of_validsig(gpgsm: Program) -> None:
    mark, _ = marks("rsa")
    sig = gpgsm.folder / "sig"
    gpgsm.run("-u", mark, "--output", str(sig), "--detach-sign", "--", "-", data=b"data")
    lines = gpgsm.run("--verify", "--", str(sig), "-", data=b"data").decode().splitlines()
    assert lines[0] == "[GNUPG:] NEWSIG"
    assert lines[1] == f"[GNUPG:] GOODSIG {mark} Alice Example"
    pattern = rf"\[GNUPG:\] VALIDSIG {mark} \d{{4}}-\d\d-\d\d \d{{8}}T\d{{6}} \d{{8}}T\d{{6}}"
    assert re.fullmatch(pattern + f" 0 0 1 8 00 {mark}", lines[2])
    assert lines[3] == "[GNUPG:] TRUST_FULLY 0 shell"
    bad = gpgsm.run("--verify", "--", str(sig), "-", data=b"other", status=1)
    assert f"BADSIG {mark}".encode() in bad
    assert b"VALIDSIG" not in bad


@pytest.mark.parametrize("kind", ["rsa", "p256"])
def test_every_way_of_naming_a_key(gpgsm: Program, kind: str) -> None:
    mark, serial = marks(kind)
    who = person(kind)
    colons = ":".join(mark[at : at + 2] for at in range(0, 40, 2))
    ways = [mark, f"0x{mark}", mark[-16:], f"0x{mark[-16:]}", mark[-8:], f"0x{mark[-8:]}", colons]
    ways += [f"#{serial}", f"#{serial}/CN=Test Root", f"&{keygrip.of(who.key)}", f"{mark}!"]
    ways += [Certificate(who.der).fingerprint]
    for way in ways:
        made = gpgsm.run("-u", way, "--detach-sign", data=b"data")
        assert mark.encode() in made, way


@pytest.mark.parametrize(
    "way",
    [
        *("<alice@example.org>", "Alice <alice@example.org>", "ALICE@example.org"),
        *("/CN=Alice Example", "CN=Alice Example", "Alice Example", "alice ex"),
    ],
)
def test_names_that_both_keys_bear(gpgsm: Program, way: str) -> None:
    assert b"SIG_CREATED D" in gpgsm.run("-u", way, "-b", data=b"data")


@pytest.mark.parametrize("way", ["#1", "0x12345678", f"&{'0' * 40}", "/CN=Bob", "bob@example.org"])
def test_names_of_nobody(gpgsm: Program, way: str) -> None:
    assert b"SIG_CREATED" not in gpgsm.run("-u", way, "-b", data=b"data", status=1)


def test_an_opaque_signature_and_its_content(gpgsm: Program) -> None:
    sig, out = gpgsm.folder / "sig", gpgsm.folder / "out"
    mark, _ = marks("rsa")
    made = gpgsm.run("-u", mark, "--armor", "--output", str(sig), "--sign", data=b"data")
    assert b"SIG_CREATED S" in made
    assert sig.read_bytes().startswith(b"-----BEGIN SIGNED MESSAGE-----")
    found = gpgsm.run("--output", str(out), "--verify", "-", data=sig.read_bytes())
    assert b"GOODSIG" in found
    assert out.read_bytes() == b"data"


@pytest.mark.parametrize("armor", [(), ("--armor",)])
def test_encrypt_and_decrypt(gpgsm: Program, armor: tuple[str, ...]) -> None:
    sealed, plain = gpgsm.folder / "sealed", gpgsm.folder / "plain"
    mark, _ = marks("rsa")
    arguments = (*armor, "--output", str(sealed), "--encrypt", "-r", mark, "--")
    assert b"END_ENCRYPTION" in gpgsm.run(*arguments, data=b"A secret\n")
    made = gpgsm.run("--output", str(plain), "--decrypt", "--", str(sealed))
    assert b"[GNUPG:] DECRYPTION_OKAY\n[GNUPG:] END_DECRYPTION\n" in made
    assert plain.read_bytes() == b"A secret\n"
    failed = gpgsm.run("--encrypt", "-r", "bob@example.org", data=b"x", status=1)
    assert b"INV_RECP 1 bob@example.org" in failed


def test_lists_are_gpgsms(gpgsm: Program, tmp_path: Path) -> None:
    """Real gpgsm says the same of the same certificates, in every field but what it trusts."""
    (tmp_path / "gnupg").mkdir(mode=0o700)
    theirs = ["gpgsm", "--homedir", str(tmp_path / "gnupg"), "--batch"]
    files = [ca_file(tmp_path), *(str(tmp_path / f"{kind}.crt") for kind in ("rsa", "p256"))]
    subprocess.run([*theirs, "--import", *files], capture_output=True, check=True)
    options = ["--with-colons", "--with-key-data", "--list-keys"]
    done = subprocess.run([*theirs, *options], capture_output=True, text=True, check=True)
    ours = gpgsm.run(*options).decode()

    def fields(text: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        at = ""
        for line in text.splitlines():
            words = line.split(":")
            if words[0] in {"crt", "crs"}:
                at = words[7]
                found[at] = [*words[2:8], words[9]]
            elif at and words[0] in {"fpr", "grp", "uid"}:
                found[at].append(":".join(words[:10]))
        return found

    mine, real = fields(ours), fields(done.stdout)
    for kind in ("rsa", "p256"):
        serial = Certificate(person(kind).der).serial
        named = serial.to_bytes(serial.bit_length() // 8 + 1).lstrip(b"\0").hex().upper()
        assert mine[named] == real[named]


def test_lists_for_a_person_and_by_name(gpgsm: Program) -> None:
    mark, _ = marks("rsa")
    text = gpgsm.run("--list-secret-keys").decode()
    assert text.count("Subject: /CN=Alice Example") == 2
    one = gpgsm.run("--list-keys", mark).decode()
    assert one.count("Subject:") == 1
    assert f"ID: 0x{mark[-8:]}" in one
    secret = gpgsm.run("--with-colons", "--list-secret-keys", mark).decode()
    assert secret.startswith("crs:")
    assert gpgsm.run("--list-keys", "nobody", status=1) == b""


def test_version(gpgsm: Program) -> None:
    assert gpgsm.run("--version").startswith(b"gpgsm (GnuPG) ")
    assert usage.about(programs.GPGSM, ["--version"]) == ""
    assert "--detach-sign" in usage.about(programs.GPGSM, ["--help"])


def test_emacs_epg(gpgsm: Program) -> None:
    mark, _ = marks("rsa")
    lisp = f"""(progn (require 'epg) (setq epg-gpgsm-program "{gpgsm.path}")
      (let* ((context (epg-make-context 'CMS))
             (keys (epg-list-keys context "{mark}" t)))
        (setf (epg-context-program context) "{gpgsm.path}")
        (setq keys (epg-list-keys context "{mark}" t))
        (setf (epg-context-signers context) keys)
        (let* ((sig (epg-sign-string context "data" 'detached))
               (sealed (epg-encrypt-string context "a secret" keys)))
          (epg-verify-string context sig "data")
          (princ (format "%s %s %s" (length keys)
                   (epg-signature-status (car (epg-context-result-for context 'verify)))
                   (epg-decrypt-string context sealed))))))"""
    done = subprocess.run(
        ["emacs", "-Q", "--batch", "--eval", lisp],
        env=home(gpgsm.folder),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "1 good a secret", done.stderr
