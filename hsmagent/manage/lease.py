"""Having the daemon let go of a token while management has it, and look anew afterwards."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from hsmagent.control.client import Daemon
from hsmagent.errors import HsmAgentError
from hsmagent.manage.person import Person
from hsmagent.manage.place import LetGo, Token

_SECONDS = 30.0


def let_go(runtime_dir: str, person: Person) -> LetGo:
    """Return what has the daemon let go. Without a daemon nobody has to.

    The lease belongs to the connection: it ends when that does, whatever becomes of us.
    """

    @asynccontextmanager
    async def lease(token: Token) -> AsyncIterator[None]:
        try:
            daemon = Daemon(runtime_dir, _SECONDS)
        except HsmAgentError:
            yield
            return
        try:
            answer = daemon.call("let_go", module=token.module.path)
            if answer["logged_out"]:
                person.say(f"logged out for that time: {', '.join(answer['logged_out'])}")
            yield
        finally:
            # Back when the daemon has looked: what was made can be used right after.
            with suppress(HsmAgentError):
                daemon.call("take_back", module=token.module.path)
            daemon.close()

    return lease
