"""OpenSC's pkcs11-tool: another program that uses the token, and a witness of what is on it."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

from tests.parts.token.provider import Provider

SECONDS = 180  # a DKEK share takes sc-hsm-tool long


class ToolFailed(Exception):
    """The tool failed; str() is what it printed."""


def pkcs11_tool(provider: Provider, *arguments: str, pin: str | None = None) -> str:
    """Run the tool on the token, logged in if a PIN is given; returns what it printed."""
    login = ["--login", "--pin", pin] if pin is not None else []
    return run_tool(provider, "pkcs11-tool", "--module", provider.module, *login, *arguments)


def reset_card(provider: Provider, folder: Path) -> None:
    """Be a program that looks at the card and resets it when it has done with it."""
    configuration = folder / "reset.conf"
    configuration.write_text("app default { reader_driver pcsc { disconnect_action = reset; } }\n")
    environment = {**provider.environment, "OPENSC_CONF": str(configuration)}
    pkcs11_tool(replace(provider, environment=environment), "--list-objects")


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
