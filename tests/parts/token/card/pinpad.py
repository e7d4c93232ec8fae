"""A reader's PIN pad: pinpad.c, a driver in front of the virtual reader's, and who types there."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.parts.token.pcscd import DRIVER

_SOURCE = Path(__file__).with_name("pinpad.c")


class PinPad:
    """A pad, and what a person is going to type on it."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "typed"
        self._file.touch()
        self._driver = folder / "libpinpad.so"
        subprocess.run(
            [
                *("gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"),
                *(str(_SOURCE), "-o", str(self._driver), "-ldl"),
            ],
            check=True,
            timeout=60,
        )

    @property
    def driver(self) -> tuple[str, Mapping[str, str]]:
        """What pcscd loads in place of the virtual reader's driver, and for its environment."""
        return str(self._driver), {"PINPAD_DRIVER": DRIVER, "PINPAD_TYPED": str(self._file)}

    def will_type(self, *lines: str) -> None:
        """Type these, one at each question; "cancel" is the key for that."""
        self._file.write_text("".join(f"{line}\n" for line in lines))

    @property
    def left(self) -> list[str]:
        """What was to be typed and was not asked for."""
        return self._file.read_text().splitlines()
