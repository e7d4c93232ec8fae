from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from tests.daemon.conftest import furnished, start
from tests.parts.agent.daemon import AgentProcess
from tests.parts.agent.hostile import Client

__all__ = ["furnished", "start"]

Connect = Callable[[AgentProcess], Client]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Connect to agents' ssh sockets, frame by frame, until the test ends."""
    with ExitStack() as clients:
        yield lambda agent: clients.enter_context(closing(Client(agent.ssh_socket)))
