"""gnome-keyring as Secret Service on a private bus, unlocked or not."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.parts.desktop.bus import PrivateBus


@contextmanager
def gnome_keyring(bus: PrivateBus, home: Path, *, unlocked: bool = True) -> Iterator[None]:
    """Run the daemon; `unlocked` makes a default keyring and opens it with a password."""
    runtime = bus.folder / "runtime"
    runtime.mkdir(mode=0o700, exist_ok=True)
    process = subprocess.Popen(
        ["gnome-keyring-daemon", "--foreground", "--components=secrets"] + ["--unlock"] * unlocked,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(runtime),
            "DBUS_SESSION_BUS_ADDRESS": bus.address,
        },
    )
    try:
        assert process.stdin is not None
        if unlocked:
            process.stdin.write(b"password")
        process.stdin.close()
        yield
    finally:
        process.kill()
        process.wait()
