"""From nothing to a signature, as somebody goes who has a wheel, or a package that is installed.

`build-aux/newcomer` and `build-aux/try-deb` run this, for an ordinary user in a real
`systemd --user`. It prints each command with the seconds that it took. Nothing but the standard
library is needed.
"""

import subprocess
import sys
import time
from pathlib import Path

from tests.parts.desktop import sessions
from tests.parts.desktop.systemd import UserManager, missing, user_manager
from tests.parts.token.softhsm import PIN, SoftHsm, module_config

# pipx's own, which `pipx uninstall` takes away.
PIPX = (".local/bin", ".local/share/pipx", ".local/state/pipx", ".local/pipx", ".cache")

# What the agent, not setup, keeps of its use; `setup --remove` says where it is.
AGENT = (".local/state/hsmagent/activity", ".local/state/hsmagent/token-")


def main() -> None:
    """Go the whole way, with the wheel if one is named. Raises AssertionError where it ends."""
    wheels = sys.argv[1:]
    assert not missing(), missing()
    with user_manager() as session:
        give_a_token(session)
        session.environment["SHELL"] = "/bin/bash"
        session.environment["PATH"] = f"{session.home}/.local/bin:{session.environment['PATH']}"
        (session.home / ".profile").write_text("umask 022\n")
        for wheel in wheels:
            typed(session, "pipx", "install", wheel)
        before = files(session)
        typed(session, "hsmagent", "setup", "--yes")
        # A package has put the units there for everybody: they are not written again for one.
        assert (session.home / ".config/systemd/user/hsmagent.service").exists() == bool(wheels)
        look_and_use(session)
        typed(session, "hsmagent", "setup", "--remove", "--yes")
        left = files(session).items() - before.items()
        assert not left, left
        assert before.items() <= files(session).items()
    print("nothing was left")


def typed(session: UserManager, *command: str) -> str:
    """Run what a person types, and say how long it took."""
    started = time.monotonic()
    said = session.run(*command, timeout=600).stdout
    print(f"$ {' '.join(command)}    # {time.monotonic() - started:.1f} s", flush=True)
    return said


def give_a_token(session: UserManager) -> None:
    token = SoftHsm.create(session.home / "hsm")
    token.init_token("work")
    token.generate("work", "EC:prime256v1", "01", "ec")
    config = session.home / ".config/hsmagent/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(module_config(token))


def look_and_use(session: UserManager) -> None:
    """Every kind of session finds the agent, and it signs."""
    ours = sessions.ours(session)
    assert sessions.found(session, "bash", "-l", "-c", sessions.PRINT) == ours
    assert sessions.x_session(session) == f"found={ours}\npid=\n"
    assert sessions.bus_program(session).splitlines()[0] == f"found={ours}"
    listed = typed(session, "bash", "-l", "-c", "ssh-add -l")
    assert "ECDSA" in listed, listed
    unlock = ["hsmagent", "unlock", "--stdin"]
    subprocess.run(unlock, env=session.environment, input=PIN, text=True, check=True, timeout=60)
    key, text = session.home / "key.pub", session.home / "text"
    key.write_text(session.run("hsmagent", "pubkey", "ec").stdout)
    text.write_text("text")
    command = f"ssh-keygen -Y sign -n file -f {key} {text}"
    session.run("bash", "-l", "-c", command)
    assert Path(f"{text}.sig").exists()


def files(session: UserManager) -> dict[str, bytes | str]:
    """Return what lies in the home but for pipx's, the session's runtime folder and our log."""
    made_here = ("key.pub", "text", "text.sig", "log", "x-program", "bus-program")
    return {
        name: f"-> {path.readlink()}" if path.is_symlink() else path.read_bytes()
        for path in session.home.rglob("*")
        if (path.is_file() or path.is_symlink())
        and (name := str(path.relative_to(session.home)))
        and not name.startswith((*PIPX, *AGENT, "run/", "hsm/"))
        and name.removesuffix("-told") not in made_here
    }


if __name__ == "__main__":
    main()
