"""Every command of the guides, as they stand there, typed at a terminal."""

import os
import pty
import re
import select
import sys
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from tests.manage.authority import Ca
from tests.parts.token.card import Reader
from tests.parts.token.managed import START, Managed
from tests.parts.token.provider import Provider
from tests.parts.token.softhsm import MODULE

DOCS = Path(__file__).parents[2] / "docs"
SECONDS = 90

# What is asked for, and what a person would type; the PINs are those of the moment.
ANSWERS = (
    (r"The new SO-PIN again: $", "{so}"),
    (r"New SO-PIN for .*: $", "{so}"),
    (r"SO-PIN of .*: $", "{so}"),
    (r"The new PIN again: $", "{new}"),
    (r"New PIN for .*: $", "{new}"),
    (r"PIN of .*: $", "{pin}"),
    (r"(Password for the share|The password again|Password of .*): $", "correct horse"),
    (r"Type (.*) to go on: $", r"\1"),
)


def commands(guide: str) -> list[str]:
    blocks = re.findall(
        r"^```console\n(.*?)^```", (DOCS / guide).read_text(), re.DOTALL | re.MULTILINE
    )
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def typed(command: str, managed: Managed, pins: dict[str, str]) -> tuple[int, str]:
    """Run a command in a shell on a terminal; return its exit status and what was shown."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(managed.folder)
        os.execvpe("bash", ["bash", "-c", command], managed.environment)
    shown = answered = b""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                part = os.read(terminal, 65536)
            except OSError:
                break
            shown += part
            continue
        line = shown.decode(errors="replace").rpartition("\n")[2]
        for question, answer in ANSWERS:
            found = re.search(question, line)
            if found and shown != answered:
                answered = shown
                os.write(terminal, found.expand(answer).format(**pins).encode() + b"\n")
                break
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode(errors="replace")


def follow(guide: str, managed: Managed, pins: dict[str, str]) -> None:
    program = managed.folder / "bin" / "hsmagent"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.argv.insert(1, '{managed.rounds}')\n{START}"
    )
    program.chmod(0o755)
    path = f"PATH={program.parent}:$PATH; "
    for command in commands(guide):
        status, shown = typed(path + command, managed, pins)
        assert status == 0, f"{command}: {shown}"
        assert "Traceback" not in shown
        request = managed.folder / "mail.csr"
        if "cert request" in command:
            leaf = Ca().answer(request.read_text())
            (managed.folder / "mail.pem").write_bytes(leaf.public_bytes(Encoding.PEM))
        if command.split()[1:3] in (["token", "pin"], ["token", "init"], ["token", "unblock"]):
            pins["pin"], pins["new"] = pins["new"], pins["pin"] + "0"
            pins["new"] = pins["new"][-8:]


@pytest.mark.timeout(900)
def test_the_guide_to_the_first_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SoftHSM as it is installed: what it is to use is what the guide says."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SOFTHSM2_CONF", raising=False)
    plain = Managed(Provider(MODULE, ""), tmp_path)
    assert len(commands("first-key.md")) == 10
    follow("first-key.md", plain, {"so": "31415926", "pin": "271828", "new": "161803"})


@pytest.mark.timeout(900)
def test_the_guide_to_a_nitrokey(blank: Reader, blank_card: Managed) -> None:
    assert len(commands("nitrokey.md")) == 25
    pins = {"so": "fedcba9876543210", "pin": "271828", "new": "161803"}
    follow("nitrokey.md", blank_card, pins)
    card = blank.card
    assert len(card.keys) == 2
    assert card.user is not None
    assert card.so is not None
    assert (card.user.wrong, card.so.wrong) == (0, 0)
    assert not card.logged_in
