"""The commands that are more than a question to the daemon; each is imported when it is run."""

from importlib import import_module

from hsmagent.errors import UsageError
from hsmagent.model import printable

USAGE = """
Programs
  daemon [--config F]          run the agent in the foreground
  doctor [--json]              find what is wrong with the set-up, and the remedy
  ssh-agent [options]          a private agent in place of ssh-agent(1); --help shows its options

Mail (each with --help)
  smime sign | verify          one message in, one out, or what is wrong with it
  smime encrypt | decrypt      likewise
  certs add | list | remove    the certificates of those you write to
"""

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
