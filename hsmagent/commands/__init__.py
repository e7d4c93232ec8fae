"""The commands that are more than a question to the daemon; each is imported when it is run."""

from importlib import import_module

from hsmagent.errors import UsageError
from hsmagent.model import printable

# command → the module that holds `run(arguments: list[str]) -> int`
_MODULES = {
    "certs": "hsmagent.commands.certs",
    "daemon": "hsmagent.commands.daemon",
    "doctor": "hsmagent.commands.doctor",
    "smime": "hsmagent.commands.smime",
    "ssh-agent": "hsmagent.commands.ssh_agent",
}


def run(command: str, arguments: list[str]) -> int:
    """Run a command by name. Raises UsageError when there is none of that name."""
    if command not in _MODULES:
        raise UsageError(f"there is no command {printable(command)!r}; see `hsmagent --help`")
    status: int = import_module(_MODULES[command]).run(arguments)
    return status
