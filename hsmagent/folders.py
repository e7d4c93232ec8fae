"""Where a person's files are (XDG Base Directory), and whether others may change them.

Imports next to nothing.
"""

import os
import stat

from hsmagent.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

RUNTIME = "XDG_RUNTIME_DIR"
# Below our runtime folder, in a folder of its own, which a sandbox can be given. Never the path at
# which p11-kit looks by itself: sandboxes hand that one to browsers.
PKCS11_SOCKET = "pkcs11/pkcs11.sock"
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
# Which modules `ssh-add -s` may load when nobody says otherwise: ssh-agent's own patterns.
PROVIDERS = ("/usr/lib*/*", "/usr/local/lib*/*")
_LONGEST_SOCKET = 107  # bytes of a path (unix(7)), without the zero at its end


def home_folder(variable: str, usual: str) -> str:
    """Return the folder that this variable names; else `usual`, in which `~` is the home directory.

    Raises UsageError when the variable's path is relative. The specification says to ignore such a
    path, but then the policy of the configuration below it would be ignored in silence.
    """
    named = os.environ.get(variable, "")
    if named and not named.startswith("/"):
        raise UsageError(f"{variable} is a relative path; set it to an absolute one, or to nothing")
    return named or os.path.expanduser(usual)  # noqa: PTH111 - pathlib is slow to import


def state_folder() -> str:
    """Return `$XDG_STATE_HOME/hsmagent`, where we remember what is no secret. Raises UsageError."""
    return home_folder("XDG_STATE_HOME", "~/.local/state") + "/hsmagent"


def gnupg_folder(env: "Mapping[str, str]") -> str:
    """Return GnuPG's folder in this environment, as GnuPG finds it: `$GNUPGHOME`, else ~/.gnupg."""
    home = env.get("HOME") or os.path.expanduser("~")  # noqa: PTH111 - as above
    return os.path.abspath(env.get("GNUPGHOME") or f"{home}/.gnupg")  # noqa: PTH100 - as above


def runtime_folder(named: str = "") -> str:
    """Return the folder of the daemon's sockets: `$XDG_RUNTIME_DIR/hsmagent`, if none is named.

    Raises UsageError when there is no runtime directory, or its path is too long for sockets.
    """
    folder = named or _login_folder() + "/hsmagent"
    socket = f"{os.path.abspath(folder)}/{PKCS11_SOCKET}"  # noqa: PTH100 - as above
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


def changeable_by_others(path: str) -> str:
    """Return the first folder above `path` that somebody else may change, or "".

    A link counts by where it lies and by where it leads. In a folder with the sticky bit (/tmp),
    others may add but neither rename nor remove what is ours.
    """
    for end in dict.fromkeys((os.path.abspath(path), os.path.realpath(path))):  # noqa: PTH100 - quick
        folder = end
        while folder != os.path.dirname(folder):  # noqa: PTH120 - as above
            folder = os.path.dirname(folder)  # noqa: PTH120 - as above
            if is_others(folder, sticky_helps=True):
                return folder
    return ""


def is_others(path: str, *, sticky_helps: bool = False) -> bool:
    """Whether somebody else owns a file or folder, or may write to it.

    sticky_helps: a folder that others may write to does not count if it has the sticky bit.
    """
    try:
        status = os.lstat(path)
    except OSError:
        return False  # not there, or not for us to look at: nothing can be reached through it
    if status.st_uid != os.getuid() and status.st_uid != _root():
        return True
    if stat.S_ISLNK(status.st_mode) or (sticky_helps and status.st_mode & stat.S_ISVTX):
        return False
    writers = status.st_mode & OTHERS_MAY_WRITE
    # A group of the same number as the user's is the user's own (user private groups).
    if writers and status.st_gid in {os.getuid(), _root()}:
        writers &= ~stat.S_IWGRP
    return bool(writers)


def _root() -> int:
    """Return the number under which we see what root owns.

    In a user namespace without root (a container of the user's own, systemd's PrivateUsers=) the
    kernel shows it, like everybody who is not mapped there, as one number (user_namespaces(7)).
    """
    with open("/proc/self/uid_map") as file:  # noqa: PTH123 - quick
        mapped = any(line.split()[0] == "0" for line in file)
    if mapped:
        return 0
    with open("/proc/sys/kernel/overflowuid") as file:  # noqa: PTH123 - as above
        return int(file.read())
