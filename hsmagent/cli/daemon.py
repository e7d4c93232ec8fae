"""`hsmagent daemon`: the agent in the foreground."""

import logging
import os
import sys
from pathlib import Path

from hsmagent import imports
from hsmagent.cli.arguments import Given
from hsmagent.config import file as config
from hsmagent.config.discovery import modules
from hsmagent.daemon.listening import answers
from hsmagent.door.journal import reads_stderr
from hsmagent.folders import runtime_folder, state_folder
from hsmagent.worker.hardening import forbid_dumps
from hsmagent.worker.process import ahead

# journald reads a level from the start of a line (sd-daemon(3)); a terminal need not see it.
_JOURNAL_FORMAT = "<%(syslog)d>%(message)s"
_PLAIN_FORMAT = "hsmagent: %(message)s"
_SYSLOG = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}


def run(given: Given) -> int:
    """Run the daemon until it is told to stop. Return the exit status."""
    start_logging(debug=given.flag("--debug"))
    forbid_dumps()
    named = given.value("--config")
    file = Path(named or config.default_path()).absolute()
    runtime = Path(runtime_folder(given.value("--runtime-dir")))

    def load(former: config.Config) -> config.Config:
        # The defaults must not take the place of a policy whose file has gone.
        return config.load(file, required=bool(named) or former != config.Config())

    # Where another agent answers, this one will not start, and needs no workers.
    if "LISTEN_FDS" in os.environ or not answers(runtime / "ssh.sock"):
        ahead(modules(load(config.Config())))
    # Imported here, as it is slow: the workers load their modules meanwhile.
    with imports.to_stay():
        from hsmagent.daemon import daemon

    daemon.serve(load, runtime.absolute(), Path(state_folder()))
    return 0


def start_logging(*, debug: bool) -> None:
    """Log to stderr, with journald's level prefix where it reads us."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(_JOURNAL_FORMAT if reads_stderr() else _PLAIN_FORMAT))
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler])
    logging.getLogger("asyncio").setLevel(logging.WARNING)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        record.syslog = _SYSLOG.get(record.levelno, 5)
        return super().format(record)
