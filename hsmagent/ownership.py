"""Whose a path is: whether anybody but root and us could put something else in its place."""

import os
import stat

OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def changeable_by_others(path: str) -> str:
    """Return the first folder above `path` that somebody else may change, or "".

    A link counts by where it lies and by where it leads. In a folder with the sticky bit (/tmp),
    others may add but neither rename nor remove what is ours.
    """
    for end in dict.fromkeys((os.path.abspath(path), os.path.realpath(path))):  # noqa: PTH100 - quick
        folder = end
        while folder != os.path.dirname(folder):  # noqa: PTH120 - as above
            folder = os.path.dirname(folder)  # noqa: PTH120 - as above
            if _is_others(folder):
                return folder
    return ""


def is_others(path: str) -> bool:
    """Whether somebody else owns a file or folder, or may write to it."""
    return _is_others(path, sticky_helps=False)


def _is_others(path: str, *, sticky_helps: bool = True) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False  # it is not there, or we may not look: then nothing is reached through it
    if status.st_uid not in {os.getuid(), _root()}:
        return True
    if stat.S_ISLNK(status.st_mode) or (sticky_helps and status.st_mode & stat.S_ISVTX):
        return False
    writers = status.st_mode & OTHERS_MAY_WRITE
    # A group of the same number as the user's is the user's own (user private groups).
    if status.st_gid in {os.getuid(), _root()}:
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
