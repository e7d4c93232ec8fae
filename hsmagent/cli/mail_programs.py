"""The entry points of hsmagent-smime, hsmagent-gpgsm and hsmagent-sendmail.

git runs hsmagent-gpgsm for each commit of a log, so this module imports next to nothing.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from hsmagent.cli.command import Command
    from hsmagent.cli.standby_client import Standby
    from hsmagent.config.mail import Settings
    from hsmagent.mail.keys import KeysFactory, MailKeys


def openssl_smime() -> "NoReturn":
    """Run the program hsmagent-smime."""
    from hsmagent.cli import output, programs

    output.leave(_run(programs.SMIME, "hsmagent.cli.openssl_smime"))


def gpgsm() -> "NoReturn":
    """Run the program hsmagent-gpgsm, or have it done by one that stands by."""
    from hsmagent.cli import standby_client

    standby = standby_client.of(sys.argv[1:])
    try:
        status = standby.verify() if standby else None
    except KeyboardInterrupt:
        status = 130
    if status is not None:
        os._exit(status)
    from hsmagent.cli import output, programs

    output.leave(_run(programs.GPGSM, "hsmagent.cli.gpgsm", standby=standby))


def sendmail() -> "NoReturn":
    """Run the program hsmagent-sendmail."""
    from hsmagent.cli import output, programs
    from hsmagent.config import file as config
    from hsmagent.errors import ConfigError, UsageError

    def settings() -> "Settings":
        return config.load(config.default_path()).mail

    try:
        status = _run(programs.SENDMAIL, "hsmagent.cli.sendmail", settings)
    except (ConfigError, UsageError) as error:
        sys.stderr.write(f"hsmagent-sendmail: {error}\n")
        status = os.EX_CONFIG
    output.leave(status)


def _run(
    program: "Command",
    module: str,
    *more: "Callable[[], object]",
    standby: "Standby | None" = None,
) -> int:
    """Run `main` of this module over the daemon's keys, or print help or version.

    standby: who is to do this for us the next time.
    """
    from importlib import import_module

    from hsmagent.cli import output, usage

    output.prepare()
    words = sys.argv[1:]
    if said := usage.about(program, words):
        return output.tell(program.name, said)
    values = [value() for value in more]

    def work(keys: "KeysFactory") -> int:
        if standby:
            from hsmagent.cli.standby import leave

            leave(standby)
        status: int = import_module(module).main(words, keys, *values)
        return status

    return over_keys(work)


def over_keys(work: "Callable[[KeysFactory], int]") -> int:
    """Do work with the daemon's keys. Return its exit status."""
    import gc

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
