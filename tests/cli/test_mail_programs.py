"""What the mail programs tell the daemon, and how they are left."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hsmagent import __version__
from hsmagent.cli import mail_keys, output, programs
from hsmagent.cli import mail_programs as mail
from hsmagent.cli.command import Command
from hsmagent.mail.keys import Context


def test_the_prompt_reads_encoded_words() -> None:
    said = mail_keys._context(
        Context("mutt", "=?utf-8?q?J=C3=B6rg?= <j@p.org>", "=?utf-8?b?R3LDvMOfZQ==?=")
    )
    assert said == {"purpose": "mail", "what": "a mail from Jörg <j@p.org> “Grüße”"}


def test_a_long_subject_of_encoded_words_takes_no_time() -> None:
    started = time.process_time()
    said = mail_keys._context(Context(subject="=?a?q?x?= " * 100_000))
    assert len(said["what"]) < 200
    assert time.process_time() - started < 1


@pytest.mark.parametrize("program", ["gpgsm", "openssl_smime", "sendmail"])
def test_ctrl_c_ends_a_program_quietly(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"hsmagent.cli.{program}.main", interrupted)
    monkeypatch.setattr(output, "leave", sys.exit)
    with pytest.raises(SystemExit) as left:
        getattr(mail, program)()
    assert left.value.code == 130


@pytest.mark.parametrize("program", programs.PROGRAMS, ids=lambda program: program.name)
def test_every_program_says_what_it_is(program: Command, tmp_path: Path) -> None:
    """Without a configuration that can be read, and without a daemon."""
    (tmp_path / "hsmagent").mkdir()
    (tmp_path / "hsmagent/config.toml").write_text("[cash]")
    environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path)}

    def said(option: str) -> str:
        command = [str(Path(sys.executable).parent / program.name), option]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        assert done.stderr == ""
        return done.stdout

    # hsmagent-gpgsm begins with what programs look for that want a gpgsm.
    assert said("--version").splitlines()[-1].startswith(f"{program.name} {__version__}")
    assert said("--help").startswith(f"usage: {program.name} ")


@pytest.mark.parametrize("stdout", ["open", "closed", "left"])
def test_a_program_ends_with_all_said(stdout: str) -> None:
    """It ends at once, and what is still in a buffer must be out by then."""
    code = (
        "import sys; from hsmagent.cli import output; output.prepare();"
        " sys.stdout and sys.stdout.write('said'); sys.stderr.write('why'); output.leave(3)"
    )
    ours, theirs = os.pipe()
    if stdout == "left":
        os.close(ours)
    command = [sys.executable, "-c", code]
    if stdout == "closed":
        command = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    done = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (3, b"why")
    if stdout != "left":
        assert os.read(ours, 100) == (b"said" if stdout == "open" else b"")
        os.close(ours)
