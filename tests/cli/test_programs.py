"""The tables say what the programs take, all of it and no more; the completions say the same."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from hsmagent.cli import (
    commands,
    gpgsm_args,
    openssl_args,
    programs,
    sendmail_args,
    ssh_agent,
)
from hsmagent.cli.command import Command
from hsmagent.errors import UsageError

ROOT = Path(__file__).parents[2]
COMPLETIONS = ROOT / "contrib" / "completions"
MANUAL = ROOT / "contrib" / "man"
SAID = {"--help", "-help", "--version"}  # by `usage.about`, before anything reads the arguments
EVERY = [*programs.PROGRAMS, *commands.BY_NAME.values()]


def names(program: Command, *, value: bool | None = None) -> set[str]:
    """Return the spellings of the options that take a value, of those that do not, or of all."""
    return {
        name
        for option in program.options
        if value is None or bool(option.value) is value
        for name in option.names
    } - SAID


def test_hsmagent_smime_takes_what_the_table_says() -> None:
    ciphers = {name for name in names(programs.SMIME) if name.startswith("-aes")}
    every = set().union(*openssl_args.OBEYED.values()) | openssl_args.HARMLESS
    assert names(programs.SMIME) - ciphers == {*openssl_args.OPERATIONS, *every}
    for cipher in ciphers:
        assert openssl_args.parse(["-encrypt", cipher]).cipher == cipher


@pytest.mark.parametrize("spelling", sorted(names(programs.GPGSM)))
def test_hsmagent_gpgsm_takes_what_the_table_says(spelling: str) -> None:
    option = programs.GPGSM.option(spelling)
    assert option is not None
    does = {f"--{command}" for command in gpgsm_args.COMMANDS} & set(option.names)
    words = [spelling, *(["word"] if option.value else []), *([] if does else ["--sign"])]
    given = gpgsm_args.parse(words)
    assert given.files == []
    found = {f"--{given.command}", *given.flags, *given.values}
    assert found & set(option.names)
    assert list(given.values.values()) == ([["word"]] if option.value else [])


def test_hsmagent_gpgsm_takes_nothing_else() -> None:
    letters = {f"-{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"} - names(programs.GPGSM)
    for spelling in (*letters, "--frobnicate"):
        with pytest.raises(UsageError):
            gpgsm_args.parse([spelling])


def test_hsmagent_sendmail_takes_what_the_table_says() -> None:
    letters = {f"-{letter}" for letter in sendmail_args._WITH_VALUE}
    assert names(programs.SENDMAIL, value=True) == {*letters, "-r", "-o"}
    alone = {f"-{letter}" for letter in sendmail_args._ALONE}
    assert names(programs.SENDMAIL, value=False) == {*alone, "-oi"}


def test_hsmagent_ssh_agent_takes_what_the_table_says() -> None:
    assert names(programs.SSH_AGENT) == {*ssh_agent._OPTIONS, "-O", "-V"}
    assert programs.SSH_AGENT.options[: len(commands.SSH_AGENT_OPTIONS)] == list(
        commands.SSH_AGENT_OPTIONS
    )


@pytest.mark.parametrize("command", EVERY, ids=lambda command: command.path)
def test_a_row_of_the_table_is_in_order(command: Command) -> None:
    spelled = [name for option in command.options for name in option.names]
    assert len(spelled) == len(set(spelled))
    for option in command.options:
        assert option.meaning
        assert not option.meaning.endswith(".")
        assert option.value or not (option.choices or option.kind)


def test_the_completions_are_what_is_made_of_the_table(tmp_path: Path) -> None:
    """`make completions` mends this."""
    subprocess.run([sys.executable, ROOT / "build-aux/completions", tmp_path], check=True)
    assert texts(COMPLETIONS) == texts(tmp_path)


def test_the_manual_is_what_is_made_of_the_table_and_the_configuration(tmp_path: Path) -> None:
    """`make manpages` mends this. Each program has a page, and mandoc finds nothing to say."""
    subprocess.run([sys.executable, ROOT / "build-aux/manpages", tmp_path], check=True)
    assert texts(MANUAL) == texts(tmp_path)
    pages = sorted(str(page) for page in MANUAL.rglob("*.?"))
    assert {f"{each.name}.1" for each in programs.PROGRAMS} < {Path(page).name for page in pages}
    lint = ["mandoc", "-T", "lint", "-W", "warning", *pages]
    assert subprocess.run(lint, check=False, capture_output=True, text=True).stdout == ""


def test_the_manual_shows_every_command_and_every_key_of_the_configuration() -> None:
    """What is read is the page as a terminal shows it, so that nothing was lost as markup."""
    manual = shown("man1/hsmagent.1")
    assert [name for name in commands.BY_NAME if f" hsmagent {name}" not in manual] == []
    keys = re.findall(r"^\| `(\w+)`", (ROOT / "docs/configuration.md").read_text(), re.MULTILINE)
    assert len(keys) > 20
    settings = shown("man5/hsmagent.toml.5")
    assert [key for key in keys if key not in settings] == []
    assert '"ssh-cert" Sign ssh certificates. Without any allow: asked each time.' in settings
    assert '"pkcs11-message" Have a message signed' in settings
    assert " An example [[module]]" in settings


def shown(page: str) -> str:
    """Return a manual page's text, without the backspaces that make it bold, on single lines."""
    command = ["mandoc", "-T", "ascii", str(MANUAL / page)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return " ".join(re.sub(r".\x08", "", text).split())


def texts(folder: Path) -> dict[Path, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder): path.read_text() for path in files}
