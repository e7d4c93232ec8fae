"""A home with a daemon, and whatever else a page needs, in which its commands are typed."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from tests.manage.authority import Ca
from tests.parts.agent.daemon import AgentProcess
from tests.parts.agent.sshd import Sshd
from tests.parts.desktop.bus import PrivateBus
from tests.parts.mail.people import person
from tests.parts.token.managed import START
from tests.parts.token.provider import Provider
from tests.parts.token.softhsm import MODULE

SECONDS = 120
ROUNDS = 1000  # of MD5 around a DKEK share, in place of ten million
KEPT = "session.sh"  # what one command leaves to the next: variables and the folder

# What is asked for, and what a person would type; the PINs are those of the moment.
ANSWERS = (
    (r"The new SO-PIN again: $", "{so}"),
    (r"New SO-PIN for .*: $", "{so}"),
    (r"SO-PIN of .*: $", "{so}"),
    (r"The new PIN again: $", "{new}"),
    (r"New PIN for .*: $", "{new}"),
    (r"PIN (of|for) .*: $", "{pin}"),
    (r"(Password for the share|The password again|Password of .*): $", "correct horse"),
    (r"Type (.*) to go on: $", r"\1"),
    (r"\[y/N\] $", "y"),
    (r"or <enter> to continue: ?$", ""),
)

# What runs until it is ended: what it shows when it is at work.
ENDLESS = {
    "gdbus monitor": r"is owned by",
    "hsmagent ask-here": r"(?i)asked|waiting",
    "gnutls-cli": r"Handshake was completed",
}

ASKPASS = """#!/bin/sh
[ "$SSH_ASKPASS_PROMPT" = confirm ] || cat "{folder}/pin"
"""
LETTER = """From: Alice <alice@example.org>
To: Bob <bob@example.org>
Subject: Minutes of Monday
Date: Mon, 1 Jun 2026 10:00:00 +0000

We met, and it was good.
"""


@dataclass
class Stage:
    """`agent`'s home is where commands are typed; `pins` has "so", "pin" and "new"."""

    agent: AgentProcess
    pins: dict[str, str]
    ca: Ca = field(default_factory=Ca)
    cwd: Path = field(init=False)

    def __post_init__(self) -> None:
        """Furnish the home: programs, files, an authority that is trusted."""
        self.cwd = self.home
        self.agent.environment["PATH"] = ":".join(
            (str(self.home / "bin"), str(Path(sys.executable).parent), "/usr/sbin:/usr/bin:/bin")
        )
        self.agent.environment |= {
            "XDG_CONFIG_HOME": str(self.home / ".config"),
            "SSH_ASKPASS": str(self.home / "bin/askpass"),
            "DISPLAY": ":none",
            "USER": self.user,
            "EMAIL": "alice@example.org",
        }
        self.program(
            "hsmagent",
            f"#!{sys.executable}\nimport sys\nsys.argv.insert(1, '{ROUNDS}')\n{START}",
        )
        self.program("askpass", ASKPASS.format(folder=self.home))
        self.program("real-sendmail", f"#!/bin/sh\ncat >> {self.home}/sent\n")
        (self.home / "authority.pem").write_bytes(self.ca.certificate.public_bytes(Encoding.PEM))
        (self.home / "bob.pem").write_bytes(person("rsa", "bob@example.org", "Bob").pem)
        (self.home / "letter.eml").write_text(LETTER)
        for name in ("backup.tar", "release.tar", "plan.pdf"):
            (self.home / name).write_bytes(os.urandom(100_000))
        self.write_pin()

    @property
    def home(self) -> Path:
        return self.agent.home

    @property
    def user(self) -> str:
        return subprocess.run(
            ["id", "-un"], check=True, capture_output=True, text=True
        ).stdout.strip()

    def program(self, name: str, text: str) -> None:
        """Put a program on the PATH."""
        path = self.home / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def write_pin(self) -> None:
        """Have askpass answer with the PIN of the moment."""
        for place in (self.home, self.home / "run"):
            (place / "pin").write_text(self.pins["pin"] + "\n")

    # -- typing ------------------------------------------------------------------------------

    def type(self, command: str) -> str:
        """Type a command that succeeds, and do what others would do then; return what it showed."""
        status, shown = self.typed(command)
        assert status == 0, f"$ {command}\n{shown}\n{self.agent.logged()}"
        assert "Traceback" not in shown, shown
        self.after(command)
        return shown

    def typed(self, command: str) -> tuple[int, str]:
        """Run a command in a shell on a terminal; return its exit status and what was shown."""
        kept = self.home / KEPT
        script = (
            f"[ ! -e {kept} ] || . {kept}; trap '' HUP; cd {self.cwd}\n{command}\n"
            f"status=$?; export -p >{kept}; pwd >{kept}.pwd; exit $status"
        )
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(self.home)
            os.execvpe("bash", ["bash", "-c", script], self.agent.environment)
        try:
            shown = self._answer(terminal, pid, ended=_endless(command))
        finally:
            os.close(terminal)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if (self.home / f"{KEPT}.pwd").exists():
            self.cwd = Path((self.home / f"{KEPT}.pwd").read_text().strip())
        return (0 if _endless(command) else status), shown

    def _answer(self, terminal: int, pid: int, ended: str) -> str:
        """Answer what is asked until the command ends, or shows what it is ended at."""
        shown = answered = b""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            if select.select([terminal], [], [], 0.1)[0]:
                try:
                    shown += os.read(terminal, 65536)
                except OSError:
                    return shown.decode(errors="replace")
                continue
            line = shown.decode(errors="replace").rpartition("\n")[2]
            for question, answer in ANSWERS:
                found = re.search(question, line)
                if found and shown != answered:
                    answered = shown
                    os.write(terminal, found.expand(answer).format(**self.pins).encode() + b"\n")
                    break
            if ended and re.search(ended, shown.decode(errors="replace")):
                os.write(terminal, b"\x03")
        os.kill(pid, signal.SIGKILL)
        return shown.decode(errors="replace") + "\n(it did not end)"

    def after(self, command: str) -> None:
        """Do what others do: the authority answers, the server lets a new key in."""
        request = self.home / "mail.csr"
        if command.startswith("hsmagent cert request"):
            leaf = self.ca.answer(request.read_text())
            (self.home / "mail.pem").write_bytes(leaf.public_bytes(Encoding.PEM))
        if command.startswith("hsmagent key new --for ssh"):
            line = self.agent.hsmagent("pubkey", "ssh").stdout
            (self.home / "server" / "authorized_keys").write_text(line)
        if command.split()[1:3] in (["token", "pin"], ["token", "init"], ["token", "unblock"]):
            self.pins["pin"], self.pins["new"] = self.pins["new"], self.pins["pin"] + "0"
            self.pins["new"] = self.pins["new"][-8:]
            self.write_pin()


def _endless(command: str) -> str:
    return next((shown for name, shown in ENDLESS.items() if command.startswith(name)), "")


# -- what a page needs -----------------------------------------------------------------------


@contextmanager
def stage(
    folder: Path,
    provider: Provider | None = None,
    *,
    keys: bool = True,
    folder_for_softhsm: bool = True,
    so: str = "31415926",
) -> Iterator[Stage]:
    """Set a stage: a daemon, a server, a bus; with `keys`, a token with keys for ssh and mail.

    provider: another module than SoftHSM. folder_for_softhsm: SoftHSM has one to make tokens in.
    """
    home = folder / "home"
    config = (provider or Provider(MODULE, "")).config() + _REST.format(home=home)
    agent = AgentProcess(home, "")
    agent.config = home / ".config/hsmagent/config.toml"
    agent.configure(config)
    agent.environment |= dict(provider.environment) if provider else {}
    bus = PrivateBus(home / "run")
    with ExitStack() as stack:
        bus.start()
        stack.callback(bus.stop)
        agent.environment["DBUS_SESSION_BUS_ADDRESS"] = bus.address
        made = Stage(agent, {"so": so, "pin": "271828", "new": "161803"})
        stack.enter_context(_server(made))
        if folder_for_softhsm:
            softhsm_of_its_own(home)
        stack.callback(agent.stop)
        agent.start()
        if keys:
            _furnish(made)
        yield made


_REST = """
[prompt]
order = ["askpass"]

[mail]
sendmail = ["{home}/bin/real-sendmail"]
"""


@contextmanager
def _server(made: Stage) -> Iterator[None]:
    """Every host is an sshd of our own, with a repository to clone."""
    folder = made.home / "server"
    within = f'cd {folder} && exec sh -c "${{SSH_ORIGINAL_COMMAND:-true}}"'
    sshd = Sshd(folder, [], [f"ForceCommand {within}", f"SetEnv HOME={folder}"])
    (folder / "ssh_config").write_text(
        f"Host *\n HostName 127.0.0.1\n Port {sshd.port}\n User {made.user}\n"
        " IdentityFile none\n RequestTTY no\n"
        f" UserKnownHostsFile {folder}/known_hosts\n GlobalKnownHostsFile none\n"
    )
    known = made.home / ".ssh" / "known_hosts"
    known.parent.mkdir(mode=0o700)
    known.write_text(f"git.example.org {sshd.host_key.with_suffix('.pub').read_text()}")
    # ssh finds its files by the password database and not by HOME.
    made.program("ssh", f'#!/bin/sh\nexec /usr/bin/ssh -F {folder}/ssh_config "$@"\n')
    git = ["git", "-c", "user.name=Bob", "-c", "user.email=bob@example.org"]
    own = ["git", "config", "--file", str(made.home / ".gitconfig")]
    work = folder / "work"
    work.mkdir()
    (work / "README").write_text("A project.\n")
    (folder / ".ssh").mkdir()
    for words in (
        [*git, "init", "--quiet", "--initial-branch=main"],
        [*git, "add", "README"],
        [*git, "commit", "--quiet", "--message=The first"],
        [*git, "clone", "--quiet", "--bare", str(work), str(folder / "project.git")],
        [*own, "user.name", "Alice Example"],
        [*own, "user.email", "alice@example.org"],
    ):
        subprocess.run(words, check=True, cwd=work, env=made.agent.environment, timeout=60)
    sshd.start()
    try:
        yield
    finally:
        sshd.stop()


def softhsm_of_its_own(home: Path) -> None:
    """Give SoftHSM a folder, as the first lines of first-key.md do; a card would be plugged in."""
    tokens = home / ".local/share/softhsm2"
    tokens.mkdir(parents=True)
    conf = home / ".config/softhsm2/softhsm2.conf"
    conf.parent.mkdir()
    conf.write_text(f"directories.tokendir = {tokens}\n")


def _furnish(made: Stage) -> None:
    """Go the way of first-key.md, to a token "work" with a key for ssh and one for mail."""
    for command in (
        "hsmagent token init --label work",
        "hsmagent key new --for ssh",
        "hsmagent key new rsa2048 --for mail",
        "hsmagent cert request mail --email alice@example.org > ~/mail.csr",
        "hsmagent cert import ~/mail.pem",
        "hsmagent roots add ~/authority.pem",
        "hsmagent contacts add ~/bob.pem",
    ):
        made.type(command)
