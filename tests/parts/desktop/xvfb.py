"""A screen without a monitor: Xvfb, typed into with xdotool, and pictures of its windows."""

import os
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.parts.until import until

GTK = {"GDK_BACKEND": "x11", "NO_AT_BRIDGE": "1", "GSETTINGS_BACKEND": "memory"}


@dataclass(frozen=True, slots=True)
class Screen:
    """A running X server. `display` is ":N"."""

    display: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which a GTK program shows its windows here."""
        return GTK | {"DISPLAY": self.display, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}

    def xdotool(self, *arguments: str) -> str:
        """Run xdotool; return what it prints. One that finds nothing prints nothing."""
        done = subprocess.run(
            ["xdotool", *arguments],
            env=os.environ | {"DISPLAY": self.display},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        return done.stdout.strip()

    def windows(self, name: str = ".+") -> list[str]:
        """Return the ids of the visible windows whose title matches."""
        return self.xdotool("search", "--onlyvisible", "--name", name).split()

    def wait_for_window(self, name: str = ".+") -> str:
        """Return the id of a window whose title matches, once it is there."""
        until(lambda: self.windows(name))
        return self.windows(name)[0]

    def wait_until_empty(self) -> None:
        """Return once every window is gone."""
        until(lambda: not self.windows())

    def type(self, text: str) -> None:
        """Type into the window that has the keyboard."""
        self.xdotool("type", "--delay", "5", text)

    def press(self, *keys: str) -> None:
        """Press keys by their X names: Return, Escape, Tab."""
        self.xdotool("key", "--delay", "20", *keys)

    def picture(self, window: str, path: Path) -> None:
        """Write a window as PNG."""
        subprocess.run(
            ["import", "-display", self.display, "-window", window, "-strip", str(path)],
            check=True,
            timeout=20,
        )


@contextmanager
def screen(size: str = "1024x768x24") -> Iterator[Screen]:
    """Start an X server on a display number that it finds itself."""
    read_end, write_end = os.pipe()
    process = subprocess.Popen(
        [
            *("Xvfb", "-displayfd", str(write_end)),
            *("-screen", "0", size, "-nolisten", "tcp", "-noreset"),
        ],
        pass_fds=[write_end],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(write_end)
    try:
        with os.fdopen(read_end) as numbers:
            assert select.select([numbers], [], [], 20)[0], "Xvfb did not start"
            number = numbers.readline().strip()
        assert number, "Xvfb ended"
        yield Screen(f":{number}")
    finally:
        process.terminate()
        process.wait()
