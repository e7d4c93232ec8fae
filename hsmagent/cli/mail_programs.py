"""The entry points of hsmagent-smime, hsmagent-gpgsm and hsmagent-sendmail."""

import gc
import sys
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

from hsmagent.cli import output, programs, usage
from hsmagent.cli.command import Command
from hsmagent.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from hsmagent.config.mail import Settings
    from hsmagent.mail.keys import KeysFactory, MailKeys


def openssl_smime() -> NoReturn:
    """Run the program hsmagent-smime."""
    output.leave(_run(programs.SMIME, "hsmagent.cli.openssl_smime"))


def gpgsm() -> NoReturn:
    """Run the program hsmagent-gpgsm."""
    output.leave(_run(programs.GPGSM, "hsmagent.cli.gpgsm"))


def sendmail() -> NoReturn:
    """Run the program hsmagent-sendmail."""
    import os

    from hsmagent.config import file as config

    def settings() -> "Settings":
        return config.load(config.default_path()).mail

    try:
        status = _run(programs.SENDMAIL, "hsmagent.cli.sendmail", settings)
    except (ConfigError, UsageError) as error:
        sys.stderr.write(f"hsmagent-sendmail: {error}\n")
        status = os.EX_CONFIG
    output.leave(status)


def _run(program: Command, module: str, *more: Callable[[], object]) -> int:
    """Run `main` of this module over the daemon's keys, or print help or version."""
    output.prepare()
    words = sys.argv[1:]
    if said := usage.about(program, words):
        return output.tell(program.name, said)
    values = [value() for value in more]

    def work(keys: "KeysFactory") -> int:
        status: int = import_module(module).main(words, keys, *values)
        return status

    return over_keys(work)


def over_keys(work: "Callable[[KeysFactory], int]") -> int:
    """Do work with the daemon's keys. Return its exit status."""
    # Imported modules are many objects that live to the end; the garbage collector would spend a
    # tenth of the program's time on them.
    gc.set_threshold(50_000)
    try:
        return work(_keys)
    except KeyboardInterrupt:  # a PIN prompt may be left with Ctrl-C
        return 130


def _keys() -> "MailKeys":
    from hsmagent.cli.mail_keys import DaemonKeys  # whoever verifies has no need of the daemon

    return DaemonKeys()
