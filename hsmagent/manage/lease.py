"""Having the daemon let go of a token while management has it, and look anew afterwards."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from hsmagent.control.client import Daemon
from hsmagent.errors import HsmAgentError
from hsmagent.manage.person import Person
from hsmagent.manage.place import Token

_SECONDS = 30.0


class Lender:
    """The daemon at these sockets, if there is one. Implements `place.Beside`.

    A lease belongs to the connection: it ends when that does, whatever becomes of us.
    """

    def __init__(self, runtime_dir: str, person: Person) -> None:
        self._runtime_dir = runtime_dir
        self._person = person
        self._foretold: list[str] = []

    def foretell(self, token: Token) -> None:
        """Say which logins of the agent `let_go` will end. Raises Refused."""
        daemon = self._daemon()
        if daemon is None:
            return
        with daemon:
            self._say(daemon.call("foretell", module=token.module.path)["logged_out"])

    @asynccontextmanager
    async def let_go(self, token: Token) -> AsyncIterator[None]:
        """Hold the lease of a token's module."""
        daemon = self._daemon()
        if daemon is None:
            yield
            return
        with daemon:
            try:
                self._say(daemon.call("let_go", module=token.module.path)["logged_out"])
                yield
            finally:
                # This waits until the daemon has looked at the token again, so that what was made
                # can be used at once.
                with suppress(HsmAgentError):
                    daemon.call("take_back", module=token.module.path)

    def _daemon(self) -> Daemon | None:
        try:
            return Daemon(self._runtime_dir, _SECONDS)
        except HsmAgentError:
            return None

    def _say(self, logins: list[str]) -> None:
        """Say which logins end, leaving out those that `foretell` has named."""
        more = [name for name in logins if name not in self._foretold]
        self._foretold += more
        if more:
            self._person.say(f"The agent will be logged out of: {', '.join(more)}")
