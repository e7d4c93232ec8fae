"""What the mail programs tell the daemon, and how they are left."""

import time

import pytest

from hsmagent.cli import mail_programs as mail
from hsmagent.mail.keys import Context


def test_the_prompt_reads_encoded_words() -> None:
    said = mail._context(
        Context("mutt", "=?utf-8?q?J=C3=B6rg?= <j@p.org>", "=?utf-8?b?R3LDvMOfZQ==?=")
    )
    assert said == {"purpose": "mail", "what": "a mail from Jörg <j@p.org> “Grüße”"}


def test_a_long_subject_of_encoded_words_takes_no_time() -> None:
    started = time.process_time()
    said = mail._context(Context(subject="=?a?q?x?= " * 100_000))
    assert len(said["what"]) < 200
    assert time.process_time() - started < 1


@pytest.mark.parametrize("program", ["gpgsm", "openssl_smime", "sendmail"])
def test_ctrl_c_ends_a_program_quietly(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"hsmagent.cli.{program}.main", interrupted)
    assert getattr(mail, program)() == 130
