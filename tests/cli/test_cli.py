"""The command line itself, without a daemon."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hsmagent.cli import commands, management, programs, usage
from hsmagent.cli import main as cli
from hsmagent.cli.command import Command
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
    grouped = {name.rpartition(" ")[0] for name in commands.BY_NAME if " " in name}
    assert grouped == set(commands.GROUPS)
    # One is a command itself, and says the same of itself in both places.
    both = set(commands.GROUPS) & set(commands.BY_NAME)
    assert both == {"pkcs11"}
    assert all(commands.GROUPS[name] == commands.BY_NAME[name].meaning for name in both)


def test_shares_are_found_with_their_group_and_without() -> None:
    named, rest = commands.find(["token", "share", "make", "F"])
    assert named is not None
    assert (named.name, rest[0]) == ("token share make", "F")
    assert commands.find(["share", "make", "F"])[0] is named
    assert commands.find(["share"]) == (None, ("token", "share"))


def test_what_can_be_ambiguous_takes_a_token() -> None:
    """Every command that finds a key, or a place for something, among all tokens."""
    for command in management.MANAGEMENT["Certificates in tokens"]:
        assert command.option("--token")
    for name in ("new", "test", "rename", "delete", "backup", "restore"):
        assert commands.BY_NAME[f"key {name}"].option("--token")
    for name in ("read", "write", "delete"):
        assert commands.BY_NAME[f"data {name}"].option("--token")
    assert commands.BY_NAME["token share import"].option("--token")


def test_keys_and_key_list_are_one() -> None:
    one, other = commands.BY_NAME["keys"], commands.BY_NAME["key list"]
    assert (one.run, one.options) == (other.run, other.options)


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["help"], ["log", "--json", "-h"], ["help", "log"], ["share", "--help"]],
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
    [*PROGRAM, "setup", "--dry-run"],
]


def with_words(command: Command) -> list[str]:
    """Return a command with a word for each argument that it needs."""
    needed = ["x" for argument in command.arguments if argument.least]
    return [*PROGRAM, *command.name.split(), *needed]


# What a command is given beside the words that it needs: nothing, or how a program would call it.
CALLS = [
    (name, option)
    for name, command in sorted(commands.BY_NAME.items())
    for option in ("", "--json", "--stdin")
    if name not in {"ssh-agent", "daemon", "setup"} and (not option or command.option(option))
]


@pytest.mark.parametrize(("name", "option"), [*CALLS, ("setup", "--dry-run")])
def test_no_command_ends_in_a_traceback(name: str, option: str, tmp_path: Path) -> None:
    """Where there is nothing: no daemon, no token, no terminal, no input."""
    command = commands.BY_NAME[name]
    (tmp_path / "hsmagent").mkdir(mode=0o700)
    (tmp_path / "hsmagent" / "config.toml").write_text('[[module]]\npath = "/nonexistent.so"\n')
    done = subprocess.run(
        [*with_words(command), *filter(None, [option])],
        env={
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(tmp_path),
            "XDG_CONFIG_HOME": str(tmp_path),
            "XDG_RUNTIME_DIR": str(tmp_path),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
        start_new_session=True,
    )
    assert done.returncode in {0, 1, 2}
    assert "Traceback" not in done.stderr


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
