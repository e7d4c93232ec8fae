"""OpenSC's pkcs11-tool: another program that uses the token, and a witness of what is on it."""

import os
import subprocess

from tests.parts.provider import Provider

SECONDS = 60


class ToolFailed(Exception):
    """The tool said no; the text is what it said."""


def pkcs11_tool(provider: Provider, *arguments: str, pin: str | None = None) -> str:
    """Run the tool on the token, logged in if a PIN is given; returns what it printed."""
    login = ["--login", "--pin", pin] if pin is not None else []
    return run_tool(provider, "pkcs11-tool", "--module", provider.module, *login, *arguments)


def run_tool(provider: Provider, *command: str) -> str:
    """Run a program where the token is to be found; returns what it printed."""
    ended = subprocess.run(
        command,
        env=os.environ | provider.environment,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=SECONDS,
        check=False,
    )
    if ended.returncode:
        raise ToolFailed(ended.stdout + ended.stderr)
    return ended.stdout
