"""The verbs as a person runs them: exit status, one line on stderr, nothing half done."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.parts.mail.people import ca_file, home, person, script, signed
from tests.parts.mail.pki import authority

BODY = "Content-Type: text/plain\n\nHello\n"
MESSAGE = f"From: alice@example.org\nTo: bob@example.org\nSubject: Hi\n{BODY}"


@pytest.fixture
def hsmagent(tmp_path: Path) -> str:
    return script(tmp_path, "hsmagent", "smime", "rsa")


def run(program: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *arguments],
        input=stdin,
        env=home(Path(program).parent),
        capture_output=True,
        text=True,
        check=False,
    )


def test_signing_loads_little() -> None:
    """It has to be quick: no cryptography, no asyncio, none of email's parsers or zip's packers."""
    code = (
        "import sys; from hsmagent.cli import arguments, commands, mail_programs, smime;"
        " from hsmagent.mail import sign, store;"
        " arguments.parse(commands.BY_NAME['smime sign'], ['--key', 'x']);"
        " print([m for m in ('cryptography', 'asyncio', 'email.message', 'asn1crypto.cms',"
        " 'tempfile', 'subprocess', 'shutil') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_usage(hsmagent: str) -> None:
    for arguments in (["smime"], ["smime", "frob"], ["smime", "sign", "--frob"], ["contacts"]):
        assert run(hsmagent, *arguments).returncode == 2
    assert run(hsmagent, "smime", "sign", "--help").returncode == 0


def test_contacts_and_roots(hsmagent: str, tmp_path: Path) -> None:
    certificate, _ = person("p256", "bob@example.org", "Bob").write(tmp_path, "bob")
    added = run(hsmagent, "contacts", "add", certificate)
    assert "bob@example.org  Bob" in added.stdout
    assert "bob@example.org" in run(hsmagent, "contacts", "list").stdout
    assert "Test Root" not in run(hsmagent, "contacts", "list").stdout
    assert "Test Root" in run(hsmagent, "roots", "list").stdout
    assert run(hsmagent, "contacts", "remove", "bob@EXAMPLE.org").stdout == "1 removed\n"
    again = run(hsmagent, "contacts", "remove", "bob@example.org")
    assert again.returncode == 1
    assert again.stderr.startswith("hsmagent: no certificate for")


def test_a_leaf_is_no_root(hsmagent: str, tmp_path: Path) -> None:
    certificate, _ = person("p256", "bob@example.org", "Bob").write(tmp_path, "bob")
    both = tmp_path / "both.pem"
    both.write_text(authority("Other Root").pem.decode() + Path(certificate).read_text())
    for path in (certificate, str(both)):
        added = run(hsmagent, "roots", "add", path)
        assert (added.returncode, added.stdout) == (1, "")
        assert "the certificate of Bob is no authority's (CA:FALSE)" in added.stderr
    listed = run(hsmagent, "roots", "list").stdout
    assert "Bob" not in listed
    assert "Other Root" not in listed


def test_a_root_without_an_address_is_removed_by_its_fingerprint(
    hsmagent: str, tmp_path: Path
) -> None:
    path = tmp_path / "other.pem"
    path.write_bytes(authority("Other Root").pem)
    [digits] = [w for w in run(hsmagent, "roots", "add", str(path)).stdout.split() if len(w) == 16]
    failed = run(hsmagent, "roots", "remove", "Other Root")
    assert failed.returncode == 1
    assert "the first 16 digits of its fingerprint, as `hsmagent roots list`" in failed.stderr
    assert run(hsmagent, "roots", "remove", digits).stdout == "1 removed\n"
    assert "Other Root" not in run(hsmagent, "roots", "list").stdout


def test_a_signed_mail_teaches_what_its_sender_can_read(hsmagent: str, tmp_path: Path) -> None:
    bob = person("p256", "bob@example.org", "Bob")
    mail = tmp_path / "mail"
    mail.write_bytes(signed(b"From: bob@example.org\n" + BODY.encode(), bob))
    assert "Bob" in run(hsmagent, "contacts", "add", str(mail)).stdout
    encrypted = run(hsmagent, "smime", "encrypt", stdin=MESSAGE)
    assert encrypted.returncode == 0, encrypted.stderr
    assert "smime-type=authEnveloped-data" in encrypted.stdout
    mail.write_bytes(mail.read_bytes().replace(b"Hello", b"Hallo"))
    changed = run(hsmagent, "contacts", "add", str(mail))
    assert changed.returncode == 1
    assert "neither a certificate nor a message whose signature holds" in changed.stderr


def test_encrypt_says_who_has_no_certificate(hsmagent: str) -> None:
    done = run(hsmagent, "smime", "encrypt", stdin=MESSAGE)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no valid certificate for bob@example.org" in done.stderr


@pytest.mark.parametrize("options", [(), ("--not-to-self",)])
def test_an_own_address_is_met_by_the_own_certificate(
    hsmagent: str, options: tuple[str, ...]
) -> None:
    mail = MESSAGE.replace("bob@", "alice@")
    done = run(hsmagent, "smime", "encrypt", *options, stdin=mail)
    assert done.returncode == 0, done.stderr
    assert "smime-type=authEnveloped-data" in done.stdout
    assert "Hello" in run(hsmagent, "smime", "decrypt", stdin=done.stdout).stdout
    others = run(hsmagent, "smime", "encrypt", *options, stdin="Cc: eve@example.org\n" + mail)
    assert "no valid certificate for eve@example.org;" in others.stderr


def test_the_openssl_face_meets_an_own_address_and_says_what_cbc_proves(tmp_path: Path) -> None:
    program = script(tmp_path, "hsmagent-smime", "openssl_smime", "rsa")
    for cipher, said in (("-aes256", True), ("-aes-256-gcm", False)):
        sealed = run(program, "-encrypt", cipher, "-text", "alice@example.org", stdin="Hello\n")
        assert (sealed.returncode, sealed.stderr) == (0, "")
        opened = run(program, "-decrypt", stdin=sealed.stdout)
        assert opened.returncode == 0
        assert opened.stdout.endswith("Hello\n")
        assert ("does not show whether somebody changed" in opened.stderr) is said


def test_bcc_is_taken_out_and_said(hsmagent: str, tmp_path: Path) -> None:
    certificate, _ = person("p256", "bob@example.org", "Bob").write(tmp_path, "bob")
    run(hsmagent, "contacts", "add", certificate)
    done = run(hsmagent, "smime", "encrypt", stdin="Bcc: eve@example.org\n" + MESSAGE)
    assert done.returncode == 0
    assert "eve@" not in done.stdout
    assert "those in Bcc are left out" in done.stderr


def test_verify_writes_the_content_only_if_it_holds(hsmagent: str, tmp_path: Path) -> None:
    mail = run(hsmagent, "smime", "sign", stdin=MESSAGE).stdout
    target = tmp_path / "content"
    arguments = ("smime", "verify", "--ca", ca_file(tmp_path), "--content", str(target))
    assert run(hsmagent, *arguments, stdin=mail.replace("Hello", "Hallo")).returncode == 1
    assert not target.exists()
    assert run(hsmagent, *arguments, stdin=mail).returncode == 0
    assert target.read_text() == BODY
    both = run(hsmagent, "smime", "verify", "--content", "-", stdin=mail)
    assert both.stdout == BODY
    assert "Verification successful" in both.stderr
    late = run(hsmagent, "smime", "verify", "--at", "2060-01-01", stdin=mail)
    assert late.returncode == 1
    assert "expired" in late.stdout


def test_a_reader_that_leaves_early(hsmagent: str, tmp_path: Path) -> None:
    (tmp_path / "big").write_text(MESSAGE + "x\n" * 500_000)
    done = subprocess.run(
        ["sh", "-c", f"{hsmagent} smime sign {tmp_path}/big | head -c 10"],
        env=home(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("target", "said"),
    [("/dev/full", "the message: No space left on device"), ("&-", "standard output is closed")],
)
@pytest.mark.parametrize("command", ["smime sign", "smime verify", "roots list"])
def test_output_that_cannot_be_written(
    hsmagent: str, tmp_path: Path, command: str, target: str, said: str
) -> None:
    (tmp_path / "mail").write_text(run(hsmagent, "smime", "sign", stdin=MESSAGE).stdout)
    done = subprocess.run(
        ["sh", "-c", f"{hsmagent} {command} <mail >{target}"],
        cwd=tmp_path,
        env=home(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == f"hsmagent: {said}\n"


@pytest.mark.parametrize("face", ["smime", "gpgsm", "openssl_smime", "sendmail"])
def test_input_that_is_closed(face: str, tmp_path: Path) -> None:
    arguments = {
        "smime": "smime sign",
        "gpgsm": "-bsau alice@example.org",
        "openssl_smime": "-sign -signer alice@example.org",
        "sendmail": "-t",
    }
    program = script(tmp_path, face, face, "rsa")
    done = subprocess.run(
        ["sh", "-c", f"{program} {arguments[face]} <&-"],
        env=home(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert done.stderr.endswith(": standard input is closed\n")
    assert done.stderr.count("\n") == 1


def test_a_file_that_is_not_there(hsmagent: str) -> None:
    done = run(hsmagent, "smime", "sign", "/nonexistent")
    assert done.returncode == 1
    assert done.stderr == "hsmagent: /nonexistent: No such file or directory\n"
