"""What `hsmagent setup` writes, leaves alone, upgrades and takes away."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hsmagent.errors import HsmAgentError, UsageError
from hsmagent.setup.home import Home
from hsmagent.setup.pieces import File, Line, Link
from hsmagent.setup.plan import Verb, carry_out, placing, removing
from hsmagent.setup.record import Record
from hsmagent.setup.session import others
from hsmagent.setup.wanted import Choices, System, source_line, wanted, with_program
from tests.parts.desktop.terminal import drive
from tests.parts.measured import MEASURED

ROOT = Path(__file__).parents[2]


@dataclass
class Person:
    """Somebody with a home, who runs setup without a session."""

    home: Path
    shell: str = "/bin/bash"
    env: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        return {
            **MEASURED,
            "HOME": str(self.home),
            "PATH": os.environ["PATH"],
            "SHELL": self.shell,
            "XDG_RUNTIME_DIR": str(self.home / "run"),
            "PYTHONPATH": str(ROOT),
            **self.env,
        }

    def setup(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "hsmagent", "setup", "--program", "/bin/true", *arguments],
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            start_new_session=True,  # no terminal
        )

    def has(self) -> dict[str, bytes | None]:
        """Return every path of the home: its content, or None for a folder."""
        return {
            str(path.relative_to(self.home)): path.read_bytes() if path.is_file() else None
            for path in self.home.rglob("*")
        }


@pytest.fixture
def anna(tmp_path: Path) -> Person:
    return Person(tmp_path)


SERVICE = ".config/systemd/user/hsmagent.service"
PROFILE = ".config/hsmagent/profile.sh"


def test_it_leaves_nothing(anna: Person) -> None:
    (anna.home / ".profile").write_text("# mine\numask 077\n")
    (anna.home / ".config").mkdir()
    before = anna.has()
    done = anna.setup("--yes")
    assert done.returncode == 0, done.stderr
    placed = anna.has().keys() - before.keys()
    assert {SERVICE, PROFILE, ".config/environment.d/90-hsmagent.conf"} <= placed
    assert anna.has()[".profile"] == (
        b"# mine\numask 077\n"
        b'[ ! -r "$HOME/.config/hsmagent/profile.sh" ] || . "$HOME/.config/hsmagent/profile.sh"'
        b"  # hsmagent setup\n"
    )
    # Each file was named, those of a folder together.
    for path in placed:
        if (anna.home / path).is_file() and not path.endswith("setup.json"):
            _, folder, name = re.split("^(.*/)?([^/]+)$", path)[:3]
            lines = [line for line in done.stdout.splitlines() if f" ~/{folder or ''}" in line]
            assert any(name in re.split("[/{,}]", line) for line in lines), path
    assert anna.setup("--remove", "--yes").returncode == 0
    assert anna.has() == before


def test_the_manual_is_found(anna: Person) -> None:
    theirs = anna.home / ".local/share/man/man1/hsmagent-scd.1"
    theirs.parent.mkdir(parents=True)
    theirs.symlink_to(ROOT / "contrib/man/man1/hsmagent-scd.1")  # as newer pipx does
    (anna.home / ".local/bin").mkdir()
    done = anna.setup("--yes")
    assert (done.returncode, theirs.is_symlink()) == (0, True), done.stdout
    path = {"PATH": f"{anna.home}/.local/bin:{os.environ['PATH']}", "HOME": str(anna.home)}
    for page in ("hsmagent", "hsmagent.toml"):
        found = subprocess.run(
            ["man", "--where", page], env=path, capture_output=True, text=True, check=True
        )
        assert found.stdout.startswith(f"{anna.home}/.local/share/man/"), page
    assert anna.setup("--remove", "--yes").returncode == 0
    assert [path for path in theirs.parents[1].rglob("*") if path.is_file()] == [theirs]


def test_a_dry_run_and_a_no_change_nothing(anna: Person) -> None:
    done = anna.setup("--dry-run")
    assert done.returncode == 0
    assert "write                  ~/.config/systemd/user/{hsmagent.service," in done.stdout
    assert anna.has() == {}
    # Without a terminal nobody can say yes.
    done = anna.setup()
    assert (done.returncode, anna.has()) == (1, {})
    assert done.stdout == ""
    assert done.stderr == (
        "hsmagent: there is no terminal to ask in, so nothing was done; use --yes, or --dry-run to "
        "see what would be\n"
    )


def test_it_asks(anna: Person) -> None:
    command = [sys.executable, "-m", "hsmagent", "setup", "--program", "/bin/true"]
    question = b"Go on? [y/N] "
    for answer, shown in ((b"no\n", b"nothing was done"), (b"y\n", b"Examples for ssh")):
        assert anna.has() == {}

        def done(text: bytes, shown: bytes = shown) -> bool:
            return shown in text

        drive(command, anna.environment(), [(question, answer)], done)
    assert SERVICE in anna.has()


def test_what_is_not_ours_stays(anna: Person) -> None:
    (anna.home / ".config/environment.d").mkdir(parents=True)
    theirs = anna.home / ".config/environment.d/90-hsmagent.conf"
    theirs.write_text("SSH_AUTH_SOCK=/mine\n")
    done = anna.setup("--yes")
    assert done.returncode == 1
    assert (
        f"leave                  ~/{theirs.relative_to(anna.home)}  (setup did not" in done.stdout
    )
    anna.setup("--remove", "--yes")
    assert theirs.read_text() == "SSH_AUTH_SOCK=/mine\n"
    assert not (anna.home / SERVICE).exists()


def test_what_was_changed_stays(anna: Person) -> None:
    anna.setup("--yes")
    changed = anna.home / SERVICE
    changed.write_text(changed.read_text() + "# mine\n")
    for arguments in ([], ["--remove"]):
        done = anna.setup("--yes", *arguments)
        assert done.returncode == 1
        assert f"leave                  ~/{SERVICE}  (it was changed since" in done.stdout
        assert changed.read_text().endswith("# mine\n")
    assert {path for path, content in anna.has().items() if content is not None} == {SERVICE}


def test_again_it_upgrades(anna: Person, tmp_path: Path) -> None:
    anna.setup("--yes", "--no-network")
    done = anna.setup("--yes")
    assert (done.returncode, "~/" in done.stdout.split("user manager")[0]) == (0, False)
    other = tmp_path / "other program"
    other.touch()
    done = anna.setup("--yes", "--program", str(other))
    assert done.returncode == 0
    lines = [line.split() for line in done.stdout.splitlines() if "~/" in line]
    # The choice of --no-network is kept.
    assert lines == [["upgrade", f"~/{SERVICE}"]]
    assert f'ExecStart="{other}" daemon' in (anna.home / SERVICE).read_text()
    done = anna.setup("--yes", "--program", str(other), "--network")
    assert done.returncode == 0
    assert not (anna.home / ".config/systemd/user/hsmagent.service.d").exists()


@pytest.mark.parametrize("path", ["/nonexistent/hsmagent", "/tmp", "/bin/tr\nue"])
def test_a_wrong_program_is_refused(anna: Person, path: str) -> None:
    done = anna.setup("--yes", "--program", path)
    assert (done.returncode, anna.has()) == (2, {})
    assert "--program" in done.stderr


@pytest.mark.parametrize(
    "text", ["[]", "{}", "no json", '{"format": 9}', '{"format": 1, "written": {"a": "b"}}']
)
def test_a_record_that_is_not_ours_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "setup.json").write_text(text)
    with pytest.raises(HsmAgentError, match="cannot be read"):
        Record.read(tmp_path / "setup.json")


# -- step by step ----------------------------------------------------------------------------


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path / "state" / "setup.json")


def test_an_interruption_at_any_point_is_made_good(tmp_path: Path) -> None:
    """Stop after each write to the disk in turn; the next run ends in the same place."""
    file = File(tmp_path / "home/a/file", b"new")
    link, line = Link(tmp_path / "home/a/link", Path("/new")), Line(tmp_path / "home/rc", "line")
    pieces: list[File | Link | Line] = [file, link, line]
    for stop in range(1, 9):
        record = Record(tmp_path / f"state{stop}" / "setup.json")
        old = File(file.path, b"old")
        for step in placing([old], record):
            carry_out(step, record)
        run_until(stop, pieces, record)
        again = Record.read(record.path)
        for step in placing(pieces, again):
            assert step.verb is not Verb.LEAVE
            carry_out(step, again)
        assert file.path.read_bytes() == b"new"
        assert line.path.read_text() == "line\n"
        again = Record.read(record.path)
        for step in removing(again):
            assert step.verb is not Verb.LEAVE
            carry_out(step, again)
        assert again.written == again.lines == {}
        again.clear()
        assert not (tmp_path / "home").exists()
        assert not record.path.parent.exists()


def run_until(stop: int, pieces: list[File | Link | Line], record: Record) -> None:
    """Place the pieces, but let the disk fail for good at the given write."""
    left = stop

    def failing(*names: str) -> pytest.MonkeyPatch:
        patch = pytest.MonkeyPatch()
        for name in names:
            original = getattr(Path, name)

            def write(*arguments: object, original: object = original, **named: object) -> object:
                nonlocal left
                left -= 1
                if left < 0:
                    raise OSError(28, "No space left on device")
                return original(*arguments, **named)  # type: ignore[operator]

            patch.setattr(Path, name, write)
        return patch

    patch = failing("replace", "symlink_to")
    try:
        for step in placing(pieces, record):
            carry_out(step, record)
    except OSError:
        return
    finally:
        patch.undo()


def test_a_linked_profile_stays_a_link(tmp_path: Path, record: Record) -> None:
    dotfiles = tmp_path / "dotfiles"
    dotfiles.write_text("no newline at the end")
    dotfiles.chmod(0o600)
    profile = tmp_path / ".profile"
    profile.symlink_to(dotfiles)
    [step] = placing([Line(profile, "line")], record)
    carry_out(step, record)
    assert profile.is_symlink()
    assert dotfiles.read_text() == "no newline at the end\nline\n"
    assert dotfiles.stat().st_mode & 0o777 == 0o600
    [step] = removing(record)
    carry_out(step, record)
    assert (profile.is_symlink(), dotfiles.read_text()) == (True, "no newline at the end\n")


def test_a_line_of_an_earlier_setup_is_exchanged(tmp_path: Path, record: Record) -> None:
    profile = tmp_path / ".profile"
    profile.write_text("mine\n")
    for text in ("old", "new"):
        [step] = placing([Line(profile, text)], record)
        carry_out(step, record)
    assert profile.read_text() == "mine\nnew\n"


def test_a_line_that_was_taken_out_is_no_matter(tmp_path: Path, record: Record) -> None:
    profile = tmp_path / ".profile"
    [step] = placing([Line(profile, "line")], record)
    carry_out(step, record)
    profile.write_text("mine\n")
    [step] = removing(record)
    carry_out(step, record)
    assert profile.read_text() == "mine\n"


def test_what_is_no_longer_wanted_goes(tmp_path: Path, record: Record) -> None:
    one, two = File(tmp_path / "one", b""), File(tmp_path / "two", b"")
    for pieces in ([one, two], [two]):
        for step in placing(pieces, record):
            carry_out(step, record)
    assert (one.path.exists(), two.path.exists()) == (False, True)


# -- what is wanted --------------------------------------------------------------------------


def home_of(tmp_path: Path, shell: str = "/bin/sh", **env: str) -> Home:
    return Home.of({"HOME": str(tmp_path), "SHELL": shell, **env})


def paths(home: Home, system: System) -> set[str]:
    pieces = wanted(home, ROOT, Path("/bin/true"), Choices(pkcs11=True), system)
    return {home.short(piece.path) for piece in pieces}


def test_what_a_package_has_is_not_written_again(tmp_path: Path) -> None:
    home, system = home_of(tmp_path / "home"), System(tmp_path)
    pieces = wanted(home, ROOT, Path("/bin/true"), Choices(pkcs11=True), system)
    folder = tmp_path / "usr/lib/systemd/user"
    folder.mkdir(parents=True)
    for piece in pieces:
        if isinstance(piece, File) and piece.path.parent.name == "user":
            (folder / piece.path.name).write_bytes(piece.content)
    again = wanted(home, ROOT, Path("/bin/true"), Choices(pkcs11=True), system)
    assert not any(isinstance(each, File) and each.path.parent.name == "user" for each in again)
    links = [each for each in again if isinstance(each, Link)]
    assert len(links) == len(list((ROOT / "systemd").glob("*.socket")))
    assert all(link.target == folder / link.path.name for link in links)


def test_each_shell_has_its_files(tmp_path: Path) -> None:
    home, system = tmp_path / "home", System(tmp_path)
    home.mkdir()
    assert "~/.zprofile" in paths(home_of(home, "/usr/bin/zsh"), system)
    dots = paths(home_of(home, "/usr/bin/zsh", ZDOTDIR=f"{home}/dots"), system)
    assert "~/dots/.zprofile" in dots
    assert "~/.config/fish/conf.d/hsmagent.fish" in paths(home_of(home, "/usr/bin/fish"), system)
    assert "~/.bash_profile" not in paths(home_of(home, "/bin/bash"), system)
    (home / ".bash_profile").write_text("export A=1\n")
    assert "~/.bash_profile" in paths(home_of(home, "/bin/bash"), system)
    (home / ".bash_profile").write_text(". ~/.profile\n")
    assert "~/.bash_profile" not in paths(home_of(home, "/bin/bash"), system)


def test_debians_x_sessions_and_gnomes_keyring_are_told(tmp_path: Path) -> None:
    home, system = home_of(tmp_path / "home"), System(tmp_path)
    told = {"~/.xsessionrc", "~/.config/autostart/gnome-keyring-ssh.desktop"}
    assert not told & paths(home, system)
    (tmp_path / "etc/X11").mkdir(parents=True)
    (tmp_path / "etc/X11/Xsession").touch()
    (tmp_path / "etc/xdg/autostart").mkdir(parents=True)
    (tmp_path / "etc/xdg/autostart/gnome-keyring-ssh.desktop").touch()
    assert told <= paths(home, system)


def test_only_exec_start_names_the_program() -> None:
    unit = (ROOT / "systemd/hsmagent.service").read_text()
    changed = with_program(unit, Path("/bin/true"))
    assert changed == unit.replace("ExecStart=/usr/bin/hsmagent ", "ExecStart=/bin/true ")
    with pytest.raises(UsageError):
        with_program(unit, Path("bin/true"))


def test_the_line_is_quoted(tmp_path: Path) -> None:
    odd = home_of(tmp_path, XDG_CONFIG_HOME=f"{tmp_path}/it's $HOME")
    profile = odd.config / "profile.sh"
    profile.parent.mkdir()
    profile.write_text("echo read\n")
    shell = ["sh", "-euc", source_line(odd, profile)]
    assert subprocess.run(shell, capture_output=True, check=True).stdout == b"read\n"
    profile.unlink()
    assert subprocess.run(shell, capture_output=True, check=True).stdout == b""


def test_other_agents_are_told(tmp_path: Path) -> None:
    (tmp_path / ".bashrc").write_text("# ssh-agent\nalias a=b\neval $(ssh-agent)\n")
    (tmp_path / ".gnupg").mkdir()
    (tmp_path / ".gnupg/gpg-agent.conf").write_text("enable-ssh-support\n")
    wants = tmp_path / ".config/systemd/user/sockets.target.wants"
    wants.mkdir(parents=True)
    (wants / "gcr-ssh-agent.socket").symlink_to("/x")
    told = "\n".join(others(home_of(tmp_path)))
    assert "~/.bashrc, line 3, " in told
    assert "line 1" not in told
    assert "gcr-ssh-agent" in told
    assert "enable-ssh-support out of ~/.gnupg/gpg-agent.conf" in told
    elsewhere = home_of(tmp_path, GNUPGHOME=str(tmp_path / "other"))
    assert "enable-ssh-support" not in "\n".join(others(elsewhere))


# -- PKCS#11 programs ------------------------------------------------------------------------

MODULE = ".config/pkcs11/modules/hsmagent.module"


def test_pkcs11_programs_are_served_when_that_is_chosen(anna: Person) -> None:
    sockets = ".config/systemd/user/sockets.target.wants"
    assert "your session start `hsmagent daemon`.\n" in anna.setup("--yes").stdout
    before = anna.has().keys()
    assert MODULE not in before
    done = anna.setup("--yes", "--pkcs11")
    assert done.returncode == 0, done.stderr
    assert "your session start `hsmagent daemon` and `hsmagent pkcs11`." in done.stdout
    address = f"unix:path={anna.home}/run/hsmagent/pkcs11/pkcs11.sock"
    lines = (anna.home / MODULE).read_text().splitlines()
    assert lines[1:] == [f"remote: {address}"]
    assert (anna.home / sockets / "hsmagent-pkcs11.socket").is_symlink()
    unit = (anna.home / ".config/systemd/user/hsmagent-pkcs11.service").read_text()
    assert "\nExecStart=/bin/true pkcs11\n" in unit
    assert anna.setup("--yes").returncode == 0
    assert (anna.home / MODULE).exists(), "a later run keeps the choice"
    assert anna.setup("--yes", "--no-pkcs11").returncode == 0
    left = anna.has().keys() - before
    assert left == {".config/pkcs11"}, "the folder above goes with the last of setup"
    assert anna.setup("--yes", "--pkcs11", "--no-pkcs11").returncode == 2


def test_pkcs11_goes_with_everything_else(anna: Person) -> None:
    before = anna.has()
    assert anna.setup("--yes", "--pkcs11").returncode == 0
    assert anna.setup("--yes", "--remove").returncode == 0
    assert MODULE not in anna.has()
    assert anna.has().keys() - before.keys() <= {".profile", ".local", ".local/state"}
