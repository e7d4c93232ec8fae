"""A person who is asked by a program, as ssh-askpass is run."""

import stat
from pathlib import Path

ASKPASS = """\
#!/bin/sh
# Notes what it is asked, and answers what the file beside it holds; no such file: no answer yet.
echo "$1" >> {folder}/asked
while [ ! -f {folder}/answer ]; do sleep 0.05; done
cat {folder}/answer
read answer < {folder}/answer && [ "$answer" != no ]
"""


class Desk:
    """A person at an askpass."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self.program = folder / "askpass"
        self.program.write_text(ASKPASS.format(folder=folder))
        self.program.chmod(stat.S_IRWXU)

    @property
    def environment(self) -> dict[str, str]:
        return {"SSH_ASKPASS": str(self.program), "DISPLAY": ":0"}

    @property
    def asked(self) -> str:
        file = self._folder / "asked"
        return file.read_text() if file.exists() else ""

    def answers(self, text: str | None) -> None:
        file = self._folder / "answer"
        if text is None:
            file.unlink(missing_ok=True)
        else:
            file.write_text(text + "\n")

    @property
    def askers(self) -> list[int]:
        """The processes that ask now."""
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal():
                try:
                    words = (folder / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if str(self.program).encode() in words:
                    found.append(int(folder.name))
        return found
