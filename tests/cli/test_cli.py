"""The command line itself, without a daemon."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hsmagent.cli import commands, programs, usage
from hsmagent.cli import main as cli
from tests.parts.agent.daemon import PROGRAM

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def hsmagent(*arguments: str, stdout: int, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*PROGRAM, *arguments],
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **env},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        check=False,
    )


def test_every_command_is_in_the_overview_and_has_a_help() -> None:
    overview = usage.overview()
    for command in commands.BY_NAME.values():
        assert f"\n  {command.name} " in overview
        assert callable(command.load())
    helps = {c.path: usage.of(c) for c in (*commands.BY_NAME.values(), *programs.PROGRAMS)}
    for path, text in helps.items():
        assert text.startswith(f"usage: {path} ")
    for text in (overview, *helps.values(), *map(usage.group, commands.GROUPS)):
        assert max(map(len, text.splitlines())) <= 80


def test_a_command_of_two_words_has_a_group() -> None:
    two = [name.split() for name in commands.BY_NAME if " " in name]
    assert {group for group, _ in two} == set(commands.GROUPS)
    # One is a command itself, and says the same of itself in both places.
    both = set(commands.GROUPS) & set(commands.BY_NAME)
    assert both == {"pkcs11"}
    assert all(commands.GROUPS[name] == commands.BY_NAME[name].meaning for name in both)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["help"], ["log", "--json", "-h"], ["help", "log"]]
)
def test_help_is_no_failure(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(arguments) == 0
    assert capsys.readouterr().out.startswith("usage: hsmagent")


# What any program says of itself, and a command that looks at much before it speaks.
SPEAKING = [
    *([*PROGRAM, *words] for words in (["--help"], ["--version"], ["smime", "--help"])),
    *([*PROGRAM, *name.split(), "--help"] for name in commands.BY_NAME),
    *([str(BIN / program.name), "--help"] for program in programs.PROGRAMS),
    [*PROGRAM, "doctor"],
    [*PROGRAM, "doctor", "--json"],
]


def shell(command: list[str], redirection: str) -> "subprocess.CompletedProcess[str]":
    """Run a command as a shell does with a redirection."""
    return subprocess.run(
        ["sh", "-c", f'"$@" {redirection}', "sh", *command],
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", SPEAKING, ids=lambda command: " ".join(command[-3:]))
def test_output_that_cannot_be_written_is_one_line(command: list[str]) -> None:
    for redirection, sentence in (
        (">/dev/full", "the output cannot be written: No space left on device"),
        (">&-", "standard output is closed"),
    ):
        done = shell(command, redirection)
        assert done.returncode == 1
        assert re.fullmatch(f"hsmagent[a-z-]*: {sentence}\n", done.stderr), done.stderr


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", "0<&- 1>&- 2>&-"])
def test_a_complaint_that_cannot_be_written_changes_no_exit_status(redirection: str) -> None:
    assert shell([*PROGRAM, "stauts"], redirection).returncode == 2
    smime = shell([str(BIN / "hsmagent-smime"), "-decrypt", "-in", "/nonexistent"], redirection)
    assert smime.returncode == 4
    assert smime.stdout == ""


def test_a_reader_who_has_gone_is_told_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = hsmagent("--help", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_letter_that_the_locale_lacks_is_no_traceback() -> None:
    done = hsmagent("pubkey", "--help", stdout=subprocess.PIPE, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert r"(SHA256:\u2026)" in done.stdout


def test_a_daemon_that_hangs_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "AT_HAND", 0.1)
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "control.sock"))
        mute.listen()
        for command in (["status"], ["keys"], ["log"], ["pubkey", "x"]):
            assert cli.run([*command, "--runtime-dir", str(tmp_path)]) == 1
            assert "the daemon does not answer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["stauts"], "there is no command 'stauts'; did you mean status?"),
        (["unlok", "work"], "did you mean unlock?"),
        (["forget_pin"], "did you mean forget-pin?"),
        (["smime", "singn"], "there is no command 'smime singn'; did you mean smime sign?"),
        (["smine", "verify", "x"], "did you mean smime verify?"),
        (["contact"], "did you mean contacts?"),
        (["frobnicate"], "there is no command 'frobnicate'; see `hsmagent --help`"),
        (["smime", "frobnicate"], "see `hsmagent smime --help`"),
        (["status", "--jsn"], "`hsmagent status` has no option --jsn; did you mean --json?"),
        (["status", "--colour"], "has no option --colour; usage: hsmagent status [options]"),
        (["daemon", "--runtime_dir", "x"], "did you mean --runtime-dir?"),
    ],
)
def test_a_typo_gets_the_nearest_right_word(
    capsys: pytest.CaptureFixture[str], given: list[str], sentence: str
) -> None:
    assert cli.run(given) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("program", "given", "meant"),
    [
        ("hsmagent-smime", ["-decrypt", "-recipt", "x"], "-recip"),
        ("hsmagent-gpgsm", ["--armour"], "--armor"),
    ],
)
def test_a_typo_in_another_programs_option(program: str, given: list[str], meant: str) -> None:
    assert f"did you mean {meant}?" in shell([str(BIN / program), *given], "").stderr
