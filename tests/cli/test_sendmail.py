"""hsmagent-sendmail in front of real msmtp, which talks to an SMTP server on loopback."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hsmagent.mail import decrypt, verify
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.spool import CHUNK, Spool
from hsmagent.mail.store import Store
from tests.parts.mail.people import home, judge, person, region, script
from tests.parts.mail.pki import SoftwareKeys
from tests.parts.mail.smtp import Sink, sink

MESSAGE = (
    b"From: Alice <alice@example.org>\nTo: bob@example.org\nCc: carol@example.org\n"
    b"Bcc: eve@example.org\nSubject: Hi\n\nHello\nFrom here\n\n..two dots\n"
)


@dataclass
class Sending:
    program: str
    folder: Path
    sink: Sink
    environment: dict[str, str] = field(default_factory=dict)

    def send(
        self, message: bytes, *arguments: str, **policy: str
    ) -> subprocess.CompletedProcess[bytes]:
        more = {f"HSMAGENT_TEST_{name.upper()}": value for name, value in policy.items()}
        return subprocess.run(
            [self.program, *arguments],
            input=message,
            env={**self.environment, **more},
            capture_output=True,
            check=False,
        )

    def knows(self, *names: str) -> None:
        store = Store(self.folder / "data/hsmagent")
        for name in names:
            store.add(Certificate(person("p256", f"{name}@example.org", name.title()).der))


@pytest.fixture
def sending(tmp_path: Path) -> Iterator[Sending]:
    with sink() as kept:
        config = tmp_path / "msmtprc"
        config.write_text(
            f"account default\nhost 127.0.0.1\nport {kept.port}\nfrom alice@example.org\n"
        )
        config.chmod(0o600)
        program = script(tmp_path, "hsmagent-sendmail", "sendmail", "rsa")
        environment = home(tmp_path, HSMAGENT_TEST_SENDMAIL=f"/usr/bin/msmtp -C {config}")
        yield Sending(program, tmp_path, kept, environment)


def open_for(name: str, mail: bytes) -> verify.Verified:
    """Decrypt for a person and verify what is inside."""
    out = Spool()
    keys = SoftwareKeys([person("p256", f"{name}@example.org", name.title())])
    done = decrypt.message(region(mail), out, keys, decrypt.Options(judge=judge()))
    assert done.report is not None
    return verify.Verified(done.report, region(out.read_at(0, out.size)))


def test_signs_and_sends(sending: Sending) -> None:
    done = sending.send(MESSAGE, "-t", "-oi", "-f", "alice@example.org")
    assert (done.returncode, done.stderr) == (0, b"")
    [(sender, to, mail)] = sending.sink.messages
    assert sender == "alice@example.org"
    assert sorted(to) == ["bob@example.org", "carol@example.org", "eve@example.org"]
    assert b"eve@" not in mail
    assert b"..two dots" in mail
    report = verify.message(region(mail), judge()).report
    assert report.ok, report.text()


@pytest.mark.parametrize("sign", ["always", "never"])
def test_no_bare_cr_is_handed_on(sending: Sending, sign: str) -> None:
    odd = MESSAGE.replace(b"Subject: Hi", b"Subject: Hi\rX-Odd: 1").replace(b"Hello", b"Hel\rlo")
    done = sending.send(odd, "-ti", sign=sign)
    assert (done.returncode, done.stderr) == (0, b"")
    [(_, _, mail)] = sending.sink.messages
    assert b"\r" not in mail.replace(b"\r\n", b"")
    assert b"Subject: Hi X-Odd: 1" in mail
    assert b"Hel=0Dlo" in mail


def test_a_dot_ends_the_message_only_without_i(sending: Sending) -> None:
    sending.send(MESSAGE + b".\nmore\n", "bob@example.org")
    sending.send(MESSAGE + b".\nmore\n", "-i", "bob@example.org")
    sending.send(MESSAGE + b".\nmore\n", "-ti")
    ends = [b"\r\nmore" in mail for _, _, mail in sending.sink.messages]
    assert ends == [False, True, True]
    assert "bob@example.org" in sending.sink.messages[2][1]


def test_a_sender_without_a_key_is_sent_as_is(sending: Sending) -> None:
    message = MESSAGE.replace(b"alice@", b"nobody@")
    assert sending.send(message, "-t").returncode == 0
    assert b"pkcs7" not in sending.sink.messages[0][2]
    done = sending.send(message, "-t", sign="always")
    assert done.returncode == os.EX_USAGE
    assert b"no key signs for nobody@example.org" in done.stderr
    assert len(sending.sink.messages) == 1


def test_a_dot_within_a_long_line_ends_nothing(sending: Sending) -> None:
    real = sending.folder / "real"
    real.write_text(f"#!/bin/sh\ncat >{sending.folder}/sent\n")
    real.chmod(0o755)
    sending.environment["HSMAGENT_TEST_SENDMAIL"] = str(real)
    message = MESSAGE + b"x" * CHUNK + b".\nmore\n"
    assert sending.send(message, "bob@example.org", sign="never").returncode == 0
    without_bcc = message.replace(b"Bcc: eve@example.org\n", b"")
    assert (sending.folder / "sent").read_bytes() == without_bcc


def test_what_goes_unsigned_is_said_to(sending: Sending) -> None:
    done = sending.send(MESSAGE.replace(b"alice@", b"nobody@"), "-t")
    assert done.returncode == 0
    [line] = done.stderr.decode().splitlines()
    assert line.startswith("hsmagent-sendmail: the message goes out unsigned: no key signs for")


@pytest.mark.parametrize(
    "sender",
    [b"Alice@example.org", b"alice@example.org <alice@example.org>", b"A [W] <alice@EXAMPLE.org>"],
)
def test_a_sender_written_otherwise_signs(sending: Sending, sender: bytes) -> None:
    message = MESSAGE.replace(b"Alice <alice@example.org>", sender)
    done = sending.send(message, "-t")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"pkcs7-signature" in sending.sink.messages[0][2]


def test_a_from_that_cannot_be_read_is_an_error(sending: Sending) -> None:
    done = sending.send(MESSAGE.replace(b"Alice <alice@example.org>", b"alice@ <>, x@y <"), "-t")
    assert done.returncode == os.EX_DATAERR
    assert b"cannot tell the addresses" in done.stderr
    assert sending.sink.messages == []


def test_who_has_signed_before_does_not_go_unsigned_unnoticed(sending: Sending) -> None:
    assert sending.send(MESSAGE, "-t").returncode == 0
    # The card is away: the same address has no key now.
    program = script(sending.folder, "without-keys", "sendmail")
    away = Sending(program, sending.folder, sending.sink, sending.environment)
    done = away.send(MESSAGE.replace(b"alice@", b"Alice@"), "-t")
    assert done.returncode == os.EX_TEMPFAIL
    assert done.stderr.count(b"\n") == 1
    assert b"has signed before: nothing was sent" in done.stderr
    assert len(sending.sink.messages) == 1
    assert away.send(MESSAGE.replace(b"alice@", b"other@"), "-t").returncode == 0
    assert away.send(b"X-HSMAgent: unsigned\n" + MESSAGE, "-t").returncode == 0
    assert b"X-HSMAgent" not in sending.sink.messages[-1][2]
    assert away.send(MESSAGE, "-t").returncode == 0
    assert b"goes out unsigned" in away.send(MESSAGE, "-t").stderr


def test_without_t_the_bcc_field_is_dropped(sending: Sending) -> None:
    for policy in ({}, {"sign": "never"}):
        done = sending.send(MESSAGE, "bob@example.org", "eve@example.org", **policy)
        assert done.returncode == 0
        _, to, mail = sending.sink.messages[-1]
        assert to == ("bob@example.org", "eve@example.org")
        assert b"eve@" not in mail


def test_a_signature_by_somebody_else_than_the_from_is_warned_of(sending: Sending) -> None:
    sending.send(MESSAGE, "bob@example.org")
    signed = sending.sink.messages.pop()[2]
    assert sending.send(signed, "bob@example.org").stderr == b""
    done = sending.send(signed.replace(b"<alice@", b"<mallory@"), "bob@example.org")
    assert done.returncode == 0
    assert b"From is mallory@example.org, but the message is signed by alice@" in done.stderr


@pytest.mark.parametrize("sender", [b"", b"From: root (Cron Daemon)\n"])
def test_a_sender_that_says_no_address_is_sent_as_is(sending: Sending, sender: bytes) -> None:
    message = sender + b"Subject: Cron\n\nHello\n"
    assert sending.send(message, "-i", "bob@example.org").returncode == 0
    assert b"pkcs7" not in sending.sink.messages[0][2]
    assert sending.send(message, "bob@example.org", sign="always").returncode == os.EX_USAGE
    assert len(sending.sink.messages) == 1


def test_encrypts_when_asked_one_message_for_each_bcc(sending: Sending) -> None:
    sending.knows("bob", "carol", "eve")
    done = sending.send(b"X-HSMAgent: encrypt\n" + MESSAGE, "-t", "-f", "alice@example.org")
    assert (done.returncode, done.stderr) == (0, b"")
    seen, hidden = sending.sink.messages
    assert seen[1] == ("bob@example.org", "carol@example.org")
    assert hidden[1] == ("eve@example.org",)
    for name, (_, _, mail) in (("bob", seen), ("carol", seen), ("eve", hidden)):
        assert b"eve@" not in mail
        assert b"X-HSMAgent" not in mail
        opened = open_for(name, mail)
        assert opened.report.ok, opened.report.text()
    with pytest.raises(Exception, match="any of your keys"):
        open_for("eve", seen[2])


def test_a_copy_for_oneself_needs_no_contact(sending: Sending) -> None:
    sending.knows("bob", "carol", "eve")
    message = b"X-HSMAgent: encrypt\n" + MESSAGE.replace(b"carol@", b"alice@")
    done = sending.send(message, "-t")
    assert (done.returncode, done.stderr) == (0, b"")
    assert set(sending.sink.messages[0][1]) >= {"alice@example.org", "bob@example.org"}


def test_a_missing_certificate_sends_nothing(sending: Sending) -> None:
    sending.knows("bob", "carol")
    done = sending.send(b"X-HSMAgent: encrypt\n" + MESSAGE, "-t")
    assert done.returncode == os.EX_NOUSER
    assert b"eve@example.org" in done.stderr
    assert sending.sink.messages == []
    assert sending.send(MESSAGE, "-t", encrypt="possible").returncode == 0
    assert b"multipart/signed" in sending.sink.messages[0][2]


@pytest.mark.parametrize("arguments", [["-bs"], ["-bp"], ["-q"], ["-q30m"], ["-bd"], ["-bi"]])
def test_modes_that_do_not_send_are_refused(sending: Sending, arguments: list[str]) -> None:
    done = sending.send(MESSAGE, *arguments)
    assert done.returncode == os.EX_USAGE
    assert done.stderr.count(b"\n") == 1
    assert sending.sink.messages == []


def test_what_is_no_message_is_refused(sending: Sending) -> None:
    assert sending.send(b"Hello there\n", "bob@example.org").returncode == os.EX_DATAERR


def test_the_real_programs_status_is_ours(sending: Sending) -> None:
    sending.environment["HSMAGENT_TEST_SENDMAIL"] = "/bin/false"
    assert sending.send(MESSAGE, "-t").returncode == 1
    sending.environment["HSMAGENT_TEST_SENDMAIL"] = "/nonexistent"
    assert sending.send(MESSAGE, "-t").returncode == os.EX_UNAVAILABLE


def test_it_does_not_call_itself(sending: Sending) -> None:
    link = sending.folder / "sendmail"
    link.symlink_to(sending.program)
    for name in (sending.program, str(link)):
        sending.environment["HSMAGENT_TEST_SENDMAIL"] = name
        assert sending.send(MESSAGE, "-t").returncode == os.EX_USAGE


def test_git_send_email(sending: Sending, tmp_path: Path) -> None:
    """A patch goes signed, with contrib's way of calling us."""
    repository, git = (
        tmp_path / "work",
        ["git", "-c", "user.name=A", "-c", "user.email=a@example.org"],
    )
    subprocess.run(["git", "init", "-q", repository], env=sending.environment, check=True)
    (repository / "file").write_text("Gr\u00fc\u00dfe \nFrom here\n", "utf-8")
    for command in (["add", "file"], ["commit", "-q", "-m", "Add a file"]):
        subprocess.run([*git, *command], cwd=repository, env=sending.environment, check=True)
    done = subprocess.run(
        [
            *(*git, "send-email", "--from=Alice <alice@example.org>", "--to=bob@example.org"),
            *("--confirm=never", "--suppress-cc=all", "--8bit-encoding=UTF-8"),
            *(f"--sendmail-cmd={sending.program}", "-1"),
        ],
        cwd=repository,
        env=sending.environment,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done
    assert sending.sink.messages, (done.stdout, done.stderr)
    [(_, to, mail)] = sending.sink.messages
    assert to == ("bob@example.org",)
    report = verify.message(region(mail), judge()).report
    assert report.ok, report.text()


def test_a_message_that_is_signed_already_is_signed_no_more_but_encrypted(sending: Sending) -> None:
    sending.send(MESSAGE, "bob@example.org")
    signed = sending.sink.messages.pop()[2]
    sending.knows("alice", "bob")
    for policy in ({"encrypt": "never"}, {"encrypt": "possible"}, {"encrypt": "always"}):
        assert sending.send(signed, "bob@example.org", **policy).returncode == 0
    asked = b"X-HSMAgent: encrypt\n" + signed
    assert sending.send(asked, "bob@example.org").returncode == 0
    clear, *sealed = [mail for _, _, mail in sending.sink.messages]
    assert clear.count(b"application/pkcs7-signature") == signed.count(
        b"application/pkcs7-signature"
    )
    for mail in sealed:
        opened = open_for("bob", mail)
        assert opened.report.ok, opened.report.text()
    stranger = sending.send(signed, "dave@example.org", encrypt="always")
    assert stranger.returncode != 0
    assert len(sending.sink.messages) == 4


def test_a_message_that_is_encrypted_already_passes(sending: Sending) -> None:
    sending.knows("bob", "carol", "eve")
    sending.send(b"X-HSMAgent: encrypt\n" + MESSAGE, "-t")
    mail = sending.sink.messages[0][2]
    assert sending.send(mail, "-t").returncode == 0
    assert sending.sink.messages[-1][2].partition(b"\r\n\r\n")[2] == mail.partition(b"\r\n\r\n")[2]
