"""Every command of README.md and the pages, as it stands there, typed at a terminal."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.guides import served
from tests.guides.blocks import ROOT, blocks, commands, pages
from tests.guides.stage import Stage, stage
from tests.parts.token.card import Card, inserted
from tests.parts.token.swtpm import blank_tpm

# What is not typed here, and why. Each is a beginning of commands.
ELSEWHERE = {
    "sudo ": "changes the machine; `make fresh` installs these packages on a new one",
    "pipx ": "build-aux/newcomer installs by pipx, in a session of its own",
    "hsmagent setup": "tests/setup and build-aux/newcomer set up real sessions",
    "~/.local/bin/hsmagent setup": "likewise",
    "systemctl --user": "wants systemd's user manager: tests/systemd has one",
    "journalctl --user": "likewise",
    "ssh-keygen -t ed25519-sk": "wants an authenticator: tests/daemon/test_fido.py has OpenSSH's",
    "ssh-add ~/.ssh/id_ed25519_sk": "likewise",
    "flatpak ": "wants a flatpak",
}

# Pages that begin with nothing: the commands themselves make token and keys.
FROM_NOTHING = {"README.md", "docs/index.md"}


@contextmanager
def for_page(page: str, folder: Path) -> Iterator[Stage]:
    """Set the stage of a page."""
    match page:
        case "docs/nitrokey.md":
            with (
                inserted(Card.blank()) as reader,
                stage(folder, reader.provider, keys=False, so="fedcba9876543210") as made,
            ):
                yield made
                card = reader.card
                assert len(card.keys) == 2
                assert card.user is not None
                assert card.so is not None
                assert (card.user.wrong, card.so.wrong) == (0, 0)
        case "docs/tpm.md":
            with blank_tpm() as provider, stage(folder, provider, keys=False) as made:
                yield made
        case "docs/first-key.md":
            with stage(folder, keys=False, folder_for_softhsm=False) as made:
                yield made
        case served.PAGE:
            with served.served(folder) as made:
                yield made
        case "docs/mail-sendmail.md":
            with stage(folder) as made:
                made.type("git clone git.example.org:project.git")
                made.type("cd project")
                yield made
        case _:
            with stage(folder, keys=page not in FROM_NOTHING) as made:
                yield made


def typed_here(page: str) -> list[str]:
    found = [each for each in commands(page) if not each.startswith(tuple(ELSEWHERE))]
    if page == served.PAGE:
        return [here for each in found if (here := served.as_on_this_system(each))]
    return found


@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", [page for page in pages() if typed_here(page)])
def test_every_command_of_the_page_works(page: str, tmp_path: Path) -> None:
    with for_page(page, tmp_path) as made:
        for command in typed_here(page):
            made.type(command)


def test_no_command_is_left_out() -> None:
    """What begins with a prompt is in a console block, and what is not typed here is listed."""
    for page in pages():
        prompts = [
            line
            for kind, inside in blocks(page)
            if kind != "console"
            for line in inside.splitlines()
            if line.startswith("$ ")
        ]
        assert prompts == [], page
        text = (ROOT / page).read_text()
        assert re.findall(r"(?m)^\n {4}(?:hsmagent|ssh|git|openssl) .*", text) == [], page
        assert text.count("```console\n") == [kind for kind, _ in blocks(page)].count("console")
    every = [command for page in pages() for command in commands(page)]
    assert len(every) > 80
    unused = [name for name in ELSEWHERE if not any(each.startswith(name) for each in every)]
    assert unused == []


def test_every_link_leads_to_a_file() -> None:
    """Also where the site shows none: what is no page is text there."""
    for page in pages():
        text = (ROOT / page).read_text()
        targets = re.findall(r"\]\((?!\w+:|#)([^)#]+)|<img src=\"([^\"]+)", text)
        assert [
            target
            for target in map("".join, targets)
            if not ((ROOT / page).parent / target).exists()
        ] == []


def test_the_settings_for_neomutt_are_those_of_the_file() -> None:
    [shown] = [inside for kind, inside in blocks("docs/mail-mutt.md") if kind == "muttrc"]
    text = (ROOT / "contrib/mail/neomuttrc").read_text()
    settings = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert shown.splitlines() == settings
