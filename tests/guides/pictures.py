"""Takes pictures of terminals, for docs/pictures: what the programs show there, as SVG.

usage: python -m tests.guides.pictures FOLDER

The commands are typed in a real tmux, in a home of the tests'; only that home's path and the
user's name are written as a person's would be.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from tests.guides.stage import Stage, stage
from tests.parts.desktop.xvfb import screen
from tests.parts.until import until

CONTRIB = Path(__file__).parents[2] / "contrib/mail"
WIDTH, HEIGHT = 112, 40
SHELL = "env PS1='$ ' bash --norc"

# rich's, but for a font that it has fetched from elsewhere whenever a picture is looked at.
FORMAT = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
FORMAT = FORMAT.replace("Fira Code, ", "")

ARTICLE = """
(load "{contrib}/hsmagent-smime.el" nil t)
(require 'gnus-art)
(setq smime-CA-file "{home}/authority.pem" mm-verify-option 'always
      gnus-buttonized-mime-types '("multipart/signed"))
(switch-to-buffer (get-buffer-create "*Article*"))
(insert-file-contents "{home}/signed.eml")
(gnus-article-prepare-display)
(goto-char (point-min))
(run-with-timer 0 nil (lambda () (message nil)))
"""

PANEL_SECONDS = 5
BAR = """
[bar/bar]
width = 100%
height = 34
background = #222222
foreground = #dddddd
padding = 2
font-0 = DejaVu Sans:size=12;2
modules-left = name
modules-right = hsmagent date

[module/name]
type = custom/text
content = alice@laptop

[module/hsmagent]
type = custom/script
exec = {panel} --plain
tail = true

[module/date]
type = internal/date
date = "    %H:%M"
"""


@dataclass(frozen=True, slots=True)
class Terminal:
    """A tmux of the stage's."""

    stage: Stage
    socket: Path

    def tmux(self, *words: str) -> str:
        """Run a command of tmux."""
        done = subprocess.run(
            ["tmux", "-f", "/dev/null", "-S", str(self.socket), *words],
            env={**self.stage.agent.environment, "TERM": "xterm-256color", "PS1": "$ "},
            cwd=self.stage.home,
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout

    def shown(self) -> str:
        """Return what is on the screen, with its colours."""
        lines = self.tmux("capture-pane", "-e", "-p").rstrip()
        home = str(self.stage.home)
        lines = lines.replace(f"log in as {self.stage.user} ", "log in as alice ")
        return lines.replace(f"{home}/run", "/run/user/1000").replace(home, "/home/alice")

    def type(self, text: str) -> None:
        """Type a line."""
        self.tmux("send-keys", "-l", text)
        self.tmux("send-keys", "Enter")

    def wait_for_prompt(self, number: int) -> None:
        """Wait until the shell asks for so many a command."""
        until(lambda: len(re.findall(r"(?m)^\$", self.tmux("capture-pane", "-p"))) >= number)
        self.wait_for("$")

    def wait_for(self, text: str) -> None:
        """Wait until the screen shows it, and stays the same for a while."""
        until(lambda: text in self.tmux("capture-pane", "-p"))
        before = ""
        while before != (now := self.shown()):
            before = now
            time.sleep(0.5)


@contextmanager
def terminal(made: Stage, command: str = SHELL, height: int = HEIGHT) -> Iterator[Terminal]:
    """Start a command in a terminal of its own."""
    shell = Terminal(made, Path(tempfile.mkdtemp(dir=made.home)) / "tmux")
    shell.tmux("new-session", "-d", "-x", str(WIDTH), "-y", str(height), command)
    shell.tmux("set-option", "status", "off")
    try:
        yield shell
    finally:
        shell.tmux("kill-server")


def draw(shown: str, title: str, path: Path) -> None:
    """Write what a terminal shows as SVG."""
    with Path("/dev/null").open("w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True)
        console.print(Text.from_ansi(f"{shown}\n"), soft_wrap=True)  # else its last line is cut
        svg = console.export_svg(title=title, code_format=FORMAT, unique_id=path.stem)
    path.write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n", encoding="utf-8")


def commands(made: Stage, folder: Path) -> None:
    """Take the pictures of our own commands, after some use."""
    for command in (
        "ssh git.example.org true",
        "git clone --quiet git.example.org:project.git",
        "hsmagent smime sign < letter.eml > signed.eml",
        "hsmagent smime decrypt < secret.eml > /dev/null",
    ):
        made.type(command)
    for name, typed in {
        "status": ["hsmagent status", "hsmagent keys"],
        "doctor": ["hsmagent doctor"],
        "log": ["hsmagent log --since 1h"],
    }.items():
        with terminal(made) as shell:
            for number, command in enumerate(typed, 2):
                shell.wait_for("$")
                shell.type(command)
                shell.wait_for_prompt(number)
            draw(shell.shown().rstrip("$ \n"), "hsmagent", folder / f"{name}.svg")


def mail(made: Stage, folder: Path) -> None:
    """Take the pictures of mail programs that show a signed mail."""
    inbox = made.home / "inbox"
    signed = (made.home / "signed.eml").read_text()
    inbox.write_text(f"From alice@example.org Mon Jun  1 10:00:00 2026\n{signed}\n")
    (made.home / "rc").write_text(
        f"source {CONTRIB}/neomuttrc\nset from = alice@example.org\nset folder = {made.home}\n"
        'set record = ""\nset wait_key = no\nset sort = date\n'
    )
    with terminal(made, "neomutt -n -F rc -f inbox", height=26) as shell:
        shell.wait_for("Minutes")
        shell.type("")
        shell.wait_for("Good signature")
        draw(shell.shown(), "neomutt", folder / "neomutt.svg")
    (made.home / "article.el").write_text(ARTICLE.format(contrib=CONTRIB, home=made.home))
    with terminal(made, "emacs -Q -nw -l article.el", height=20) as shell:
        shell.wait_for("Signed Part:Ok")
        draw(shell.shown(), "emacs", folder / "emacs.svg")


def panel(made: Stage, folder: Path) -> None:
    """Take the picture of contrib/panel in a polybar: the token is unlocked."""
    if shutil.which("polybar") is None:
        sys.stderr.write("panel.png is left as it is: polybar is not installed\n")
        return
    (made.home / "polybar.ini").write_text(BAR.format(panel=CONTRIB.parent / "panel"))
    made.type("ssh git.example.org true")
    with screen("700x60x24") as display:
        bar = subprocess.Popen(
            ["polybar", "--config=polybar.ini", "bar"],
            env=made.agent.environment | display.environment,
            cwd=made.home,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            window = display.wait_for_window("polybar")
            # It shows nothing that a program could wait for; the panel is started with it.
            time.sleep(PANEL_SECONDS)
            display.picture(window, folder / "panel.png")
        finally:
            bar.terminate()
            bar.wait()


def main() -> None:
    """Take every picture."""
    folder = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as name, stage(Path(name)) as made:
        made.type("hsmagent smime encrypt < letter.eml > secret.eml || true")
        made.type("hsmagent smime encrypt --to alice@example.org < letter.eml > secret.eml")
        (made.home / "bin/hsmagent").unlink()  # the installed one is meant
        commands(made, folder)
        mail(made, folder)
        panel(made, folder)


if __name__ == "__main__":
    main()
