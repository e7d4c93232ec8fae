"""A client of Marionette, by which Firefox and Thunderbird are driven: scripts in their windows.

Packets are `LENGTH:JSON`; a command is `[0, id, name, parameters]`, its answer is
`[1, id, error, value]`.
"""

import json
import socket
from typing import Any

TIMEOUT = 120.0  # a script may wait for a PIN


class ScriptFailed(Exception):
    """The script raised something."""


class Marionette:
    """A session with the privileges of the program itself. Connect once its port is open."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self._file = self._socket.makefile("rb")
        self._number = 0
        self._read()  # who it is
        self._command("WebDriver:NewSession", {"capabilities": {}})
        self._command("Marionette:SetContext", {"value": "chrome"})
        self._command("WebDriver:SetTimeouts", {"script": int(TIMEOUT * 1000)})

    def run(self, script: str, *arguments: object) -> Any:
        """Run the body of an async function in a window; return what it returns."""
        parameters = {
            "script": f"return (async (...args) => {{ {PRELUDE} {script} }})(...arguments);",
            "args": arguments,
            "sandbox": "system",
            "newSandbox": False,
        }
        return self._command("WebDriver:ExecuteScript", parameters)["value"]

    def open(self, address: str) -> None:
        """Open a page in the tab, as a person would."""
        self._command("Marionette:SetContext", {"value": "content"})
        try:
            self._command("WebDriver:Navigate", {"url": address})
        finally:
            self._command("Marionette:SetContext", {"value": "chrome"})

    def text(self) -> str:
        """Return what the page in the tab says."""
        self._command("Marionette:SetContext", {"value": "content"})
        try:
            found = self._command(
                "WebDriver:ExecuteScript",
                {"script": "return document.body.textContent", "args": []},
            )
        finally:
            self._command("Marionette:SetContext", {"value": "chrome"})
        return str(found["value"])

    def quit(self) -> None:
        """Have the program end."""
        self._command("Marionette:Quit", {"flags": ["eForceQuit"]})
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._socket.close()

    def _command(self, name: str, parameters: dict[str, object]) -> Any:
        self._number += 1
        data = json.dumps([0, self._number, name, parameters]).encode()
        self._socket.sendall(b"%d:%s" % (len(data), data))
        _, number, error, value = self._read()
        assert number == self._number
        if error is not None:
            raise ScriptFailed(f"{name}: {error['message']}\n{error.get('stacktrace', '')}")
        return value

    def _read(self) -> Any:
        length = b""
        while (byte := self._file.read(1)) != b":":
            if not byte:
                raise EOFError("the program has ended")
            length += byte
        return json.loads(self._file.read(int(length)))


# What scripts have at hand; `until` polls, and returns what became true.
PRELUDE = """
const until = async (condition, seconds = 60) => {
  const end = Date.now() + 1000 * seconds;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) throw new Error("it did not become so: " + condition);
    await new Promise(go => setTimeout(go, 50));
  }
};
const windows = type => [...Services.wm.getEnumerator(type)];
"""
