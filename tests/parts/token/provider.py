"""What a test needs to know of a PKCS#11 module: the same for a card, a TPM and a database."""

import json
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Provider:
    """A PKCS#11 module with one token behind it, ready to be loaded by a process of its own.

    `environment` is to be added to the process's; `parameters` is the string for C_Initialize.
    """

    module: str
    pin: str
    environment: Mapping[str, str] = field(default_factory=dict)
    parameters: str = ""

    def config(self, extra: str = "") -> str:
        """Return the [[module]] table for hsmagent's configuration; `extra` lines are added."""
        env = ", ".join(f"{name} = {json.dumps(value)}" for name, value in self.environment.items())
        return (
            f"[[module]]\npath = {json.dumps(self.module)}\nenv = {{ {env} }}\n"
            f"parameters = {json.dumps(self.parameters)}\n{extra}"
        )


def find_module(name: str) -> str:
    """Return the path of a module that the system installed, whatever its architecture.

    Firefox has an NSS of its own (/usr/lib/firefox-esr), which is not meant for others: last.
    """
    system = sysconfig.get_config_var("MULTIARCH") or "*-linux-*"
    places = (name, f"{system}/{name}", f"{system}/pkcs11/{name}", f"*/{name}", f"*/pkcs11/{name}")
    found = [path for place in places for path in Path("/usr/lib").glob(place)]
    if not found:
        raise FileNotFoundError(f"{name} is not installed")
    return str(found[0])
