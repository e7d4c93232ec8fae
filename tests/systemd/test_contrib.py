"""The examples in contrib/, each used for real."""

import asyncio
import json
import os
import pty
import re
import select
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from hsmagent.bus import Bus
from hsmagent.cli import commands, programs
from hsmagent.cli.command import Command
from hsmagent.desktop.service import Agent, Service
from hsmagent.model import PinState, TokenId, TokenStatus
from tests.parts.desktop.bus import PrivateBus, private_bus
from tests.parts.until import async_until

CONTRIB = Path(__file__).parents[2] / "contrib"
COMPLETIONS = CONTRIB / "completions"
EVERY = [*programs.PROGRAMS, *commands.BY_NAME.values()]

FAKE = """\
#!/bin/sh
case "$*" in
    'status --json') printf '{\\n    "label": "my card",\\n    "serial": "1"\\n}\\n' ;;
    'keys --json') printf '{\\n      "label": "ssh-key",\\n      "x": 1\\n}\\n' ;;
esac
"""


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """Have an `hsmagent` that knows a token "my card" and a key "ssh-key"."""
    program = tmp_path / "bin" / "hsmagent"
    program.parent.mkdir()
    program.write_text(FAKE)
    program.chmod(0o755)
    return {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "LANG": "C.UTF-8",
        "TERM": "dumb",
    }


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not shutil.which(program), reason=f"there is no {program}")


LINES = [
    ("hsmagent st", "status"),
    ("hsmagent unlock my", "my card"),
    ("hsmagent pubkey ss", "ssh-key"),
    ("hsmagent smime enc", "encrypt"),
    ("hsmagent status --j", "--json"),
    ("hsmagent smime verify --req", "--require-crl"),
    ("hsmagent smime encrypt --cipher g", "gcm"),
    ("hsmagent key new rsa2", "rsa2048"),
    ("hsmagent key new --for ma", "mail"),
    ("hsmagent key rename ss", "ssh-key"),
    ("hsmagent key backup ss", "ssh-key"),
    ("hsmagent roots l", "list"),
    ("hsmagent-smime -crl_check_", "-crl_check_all"),
    ("hsmagent-gpgsm --status", "--status-fd"),
]
HOSTILE = "x$(touch pwned)"


@needs("bash")
@pytest.mark.parametrize(("line", "completed"), LINES)
def test_bash(env: dict[str, str], tmp_path: Path, line: str, completed: str) -> None:
    assert complete_in_bash(env, line, tmp_path) == [completed]


def complete_in_bash(env: dict[str, str], line: str, folder: Path) -> list[str]:
    library = Path("/usr/share/bash-completion/bash_completion")
    if not library.exists():
        pytest.skip("there is no bash-completion")
    program = line.split(maxsplit=1)[0]
    script = f"""
        source {library}
        source {COMPLETIONS}/bash/{program}
        compopt() {{ :; }}
        COMP_LINE={line!r} COMP_POINT={len(line)} COMP_TYPE=9
        COMP_WORDS=({line}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        _{program.replace("-", "_")}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env=env,
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


@needs("bash")
@pytest.mark.parametrize("command", EVERY, ids=lambda command: command.path)
def test_bash_offers_every_option(env: dict[str, str], tmp_path: Path, command: Command) -> None:
    offered = complete_in_bash(env, f"{command.path} -", tmp_path)
    assert offered == [name for option in command.options for name in option.names]


@needs("fish")
@pytest.mark.parametrize("command", EVERY, ids=lambda command: command.path)
def test_fish_offers_every_option(env: dict[str, str], command: Command) -> None:
    wanted = {name for option in command.options for name in option.names}
    assert wanted <= {*complete_in_fish(env, f"{command.path} -")}
    offered = {*complete_in_fish(env, f"{command.path} --")}  # fish 4 offers -aes-128-gcm as well
    wanted, offered = ({n for n in names if n.startswith("--")} for names in (wanted, offered))
    assert wanted == offered


@pytest.mark.parametrize("command", EVERY, ids=lambda command: command.path)
def test_zsh_is_told_every_option(command: Command) -> None:
    program = command.path.split()[0]
    function = "_".join(("", program.replace("-", "_"), *command.path.split()[1:]))
    text = (COMPLETIONS / "zsh" / f"_{program}").read_text()
    body = text.split(f"\n{function}() {{\n")[1].split("\n}\n")[0]
    for option in command.options:
        for name in option.names:
            assert re.search(rf"(?<![\w-]){name}(?![\w-])", body), name


@needs("fish")
@pytest.mark.parametrize(("line", "completed"), LINES)
def test_fish(env: dict[str, str], line: str, completed: str) -> None:
    assert complete_in_fish(env, line) == [completed]


def complete_in_fish(env: dict[str, str], line: str) -> list[str]:
    file = COMPLETIONS / "fish" / f"{line.split(maxsplit=1)[0]}.fish"
    script = f"source {file}; complete --do-complete {line!r}"
    done = subprocess.run(
        ["fish", "--no-config", "-c", script], env=env, capture_output=True, text=True, check=True
    )
    return [row.partition("\t")[0].replace("\\ ", " ") for row in done.stdout.splitlines()]


@needs("zsh")
@pytest.mark.parametrize(("line", "completed"), LINES)
def test_zsh(env: dict[str, str], tmp_path: Path, line: str, completed: str) -> None:
    """Type the line into a shell on a pty and press Tab."""
    (tmp_path / ".zshrc").write_text(
        f"fpath=({COMPLETIONS}/zsh $fpath)\nautoload -Uz compinit\ncompinit -u -D\nPS1='ready> '\n"
    )
    added = completed.removeprefix(line.rsplit(maxsplit=1)[-1]).replace(" ", "\\ ")
    assert added in on_pty(["zsh", "-i"], env, f"{line}\t", added)


@needs("bash")
def test_a_label_runs_nothing(env: dict[str, str], tmp_path: Path) -> None:
    """Whoever made the token chose its label."""
    (tmp_path / "bin/hsmagent").write_text(
        f"""#!/bin/sh\nprintf '    "label": "{HOSTILE}",\\n'\n"""
    )
    offered = complete_in_bash(env, "hsmagent unlock x", tmp_path)
    assert offered == [HOSTILE]
    assert not (tmp_path / "pwned").exists()


def on_pty(command: list[str], env: dict[str, str], typed: str, wanted: str) -> str:
    """Run a shell on a pty, type once it is ready, and return what it showed."""
    terminal, end = pty.openpty()
    shell = subprocess.Popen(["setsid", "--ctty", *command], env=env, stdin=end, stdout=end)
    os.close(end)
    shown, sent, deadline = "", False, time.monotonic() + 20
    try:
        while time.monotonic() < deadline and not (sent and wanted in shown):
            readable, _, _ = select.select([terminal], [], [], 0.2)
            if readable:
                shown += os.read(terminal, 4096).decode(errors="replace")
            if not sent and "ready> " in shown:
                os.write(terminal, typed.encode())
                sent, shown = True, ""
    finally:
        shell.kill()
        shell.wait()
        os.close(terminal)
    return shown


@pytest.mark.parametrize("sock", [None, "/run/forwarded"])
def test_ssh_understands_the_example(sock: str | None) -> None:
    """In a cron job too, where nothing is set."""
    done = subprocess.run(
        ["ssh", "-F", CONTRIB / "ssh_config", "-G", "git.example.org"],
        env={"HOME": "/nonexistent", "PATH": os.environ["PATH"]}
        | ({} if sock is None else {"SSH_AUTH_SOCK": sock}),
        capture_output=True,
        text=True,
        check=True,
    )
    settings = done.stdout.splitlines()
    assert "identitiesonly yes" in settings
    ours = any(line.startswith("identityagent /run/user/") for line in settings)
    assert ours == (sock is None)


# -- the panel -------------------------------------------------------------------------------

WORK = TokenStatus(
    TokenId("/m.so", "work", "4711", "SmartCard-HSM"),
    present=True,
    logged_in=False,
    pin_state=PinState.FINAL_TRY,
    pin_pad=False,
    login_required=True,
    pin_min=6,
    pin_max=15,
)


@pytest.fixture
async def bus() -> AsyncIterator[tuple[PrivateBus, Bus]]:
    with private_bus() as private:
        private.start()
        bus = Bus(lambda: private.address)
        task = asyncio.create_task(bus.run())
        await async_until(lambda: bus.connected)
        yield private, bus
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@needs("gdbus")
async def test_the_panel_follows_the_tokens(bus: tuple[PrivateBus, Bus]) -> None:
    private, ours = bus
    now = [WORK]

    async def unasked(*_: object) -> None:
        raise AssertionError

    service = Service(ours, Agent(lambda: now, unasked, unasked, lambda: 0.0))
    await service.start()
    panel = await asyncio.create_subprocess_exec(
        CONTRIB / "panel",
        env={"PATH": os.environ["PATH"], "DBUS_SESSION_BUS_ADDRESS": private.address, "TZ": "UTC"},
        stdout=asyncio.subprocess.PIPE,
    )
    assert panel.stdout is not None
    try:
        async with asyncio.timeout(20):
            assert json.loads(await panel.stdout.readline()) == {
                "text": "\N{LOCK}",
                "tooltip": "work: locked, one PIN try left",
                "class": "locked",
            }
            now[:] = [replace(WORK, logged_in=True, idle_left=60.0, pin_state=PinState.OK)]
            while True:
                # gdbus may not listen yet: change something until it does.
                now[:] = [replace(now[0], pin_pad=not now[0].pin_pad)]
                service.changed()
                with suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        line = json.loads(await panel.stdout.readline())
                        break
        assert line["class"] == "unlocked"
        assert line["tooltip"] == "work: unlocked until 00:01"
    finally:
        panel.terminate()
        await panel.wait()
        service.stop()
