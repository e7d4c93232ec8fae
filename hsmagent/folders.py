"""Where a person's files are (XDG Base Directory Specification). Imports next to nothing."""

import os

from hsmagent.errors import UsageError

RUNTIME = "XDG_RUNTIME_DIR"
_LONGEST_SOCKET = 107  # bytes of a path (unix(7)), without the zero at its end


def home_folder(variable: str, usual: str) -> str:
    """Return the folder that this variable names; `usual`, below the home directory, if none.

    Raises UsageError when it is not absolute. The specification has such a one ignored, which would
    take the policy of its configuration away without a word.
    """
    named = os.environ.get(variable, "")
    if named and not named.startswith("/"):
        raise UsageError(f"{variable} is a relative path; set it to an absolute one, or to nothing")
    return named or os.path.expanduser(usual)  # noqa: PTH111 - pathlib costs more than all this


def state_folder() -> str:
    """Return `$XDG_STATE_HOME/hsmagent`, where we remember what is no secret. Raises UsageError."""
    return home_folder("XDG_STATE_HOME", "~/.local/state") + "/hsmagent"


def runtime_folder(named: str = "") -> str:
    """Return the folder of the daemon's sockets: `$XDG_RUNTIME_DIR/hsmagent`, if none is named.

    Raises UsageError when there can be none.
    """
    folder = named or _login_folder() + "/hsmagent"
    socket = f"{os.path.abspath(folder)}/control.sock"  # noqa: PTH100 - as above
    if len(os.fsencode(socket)) > _LONGEST_SOCKET:
        raise UsageError(
            f"{folder} is too long a path for a socket in it; name a shorter one as {RUNTIME} "
            "or --runtime-dir"
        )
    return folder


def _login_folder() -> str:
    usual = f"/run/user/{os.getuid()}"
    folder = home_folder(RUNTIME, usual)
    if os.path.isdir(folder):  # noqa: PTH112 - as above
        return folder
    remedy = "set it to a folder of yours, or give --runtime-dir"
    if folder == usual:
        raise UsageError(f"{RUNTIME} is not set, and there is no {usual}; {remedy}")
    lacks = "is no folder" if os.path.lexists(folder) else "is not there"
    raise UsageError(f"{RUNTIME} is {folder}, which {lacks}; {remedy}")
