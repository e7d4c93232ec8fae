"""`hsmagent-scd`: what gpg-agent runs in place of GnuPG's scdaemon."""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from hsmagent.cli import arguments, output, programs, usage
from hsmagent.cli.arguments import Given
from hsmagent.cli.daemon import start_logging
from hsmagent.control.client import FACE
from hsmagent.daemon.listening import listen, make_folder
from hsmagent.errors import HsmAgentError, UsageError
from hsmagent.folders import gnupg_folder, runtime_folder
from hsmagent.scd.server import Server
from hsmagent.worker.hardening import forbid_dumps

STDIN, STDOUT = 0, 1


def main() -> int:
    """Run the program hsmagent-scd."""
    output.prepare()
    words = sys.argv[1:]
    if said := usage.about(programs.SCD, words):
        return output.tell(programs.SCD.name, said)
    start_logging(debug=False)
    forbid_dumps()
    try:
        given = _parsed(words)
        asyncio.run(_serve(Path(runtime_folder(given.value("--runtime-dir"))).absolute(), given))
    except HsmAgentError as error:
        sys.stderr.write(f"hsmagent-scd: {error}\n")
        return 2 if isinstance(error, UsageError) else 1
    return 0


def _parsed(words: Sequence[str]) -> Given:
    given = arguments.parse(programs.SCD, words)
    if not given.flag("--multi-server") and not given.flag("--server"):
        raise UsageError("gpg-agent runs this program; see `hsmagent setup --gnupg`")
    return given


async def _serve(runtime: Path, given: Given) -> None:
    make_folder(runtime)
    path = runtime / f"scd-{os.getpid()}.sock"
    listening = listen(path)
    try:
        home = given.value("--homedir")
        server = Server(
            str(runtime / f"{FACE}.sock"),
            listening,
            str(path),
            home=Path(home) if home else Path(gnupg_folder(os.environ)),
            real=given.value("--scdaemon"),
            options=("--homedir", home) if home else (),
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, server.end)
        await server.run(STDIN, STDOUT)
    finally:
        listening.close()
        path.unlink(missing_ok=True)
