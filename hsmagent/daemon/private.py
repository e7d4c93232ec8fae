"""A private agent: what `hsmagent ssh-agent` runs in place of OpenSSH's.

It has the daemon's parts, for one ssh socket: no modules until `ssh-add -s`, no control socket, no
name on the bus, no configuration unless one is given. So that it answers soon, the parts that sign
are imported only when something is first to be signed (`parts`).
"""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from hsmagent.daemon.aside import aside
from hsmagent.daemon.connection import Send
from hsmagent.daemon.server import Server
from hsmagent.daemon.turns import Turns
from hsmagent.model import Operation, Peer, Request, Signer
from hsmagent.ssh.agent import LIST, Agent, Connection
from hsmagent.ssh.options import AgentOptions
from hsmagent.who.peer import peer_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hsmagent.config.file import Config
    from hsmagent.daemon.fresh import Fresh
    from hsmagent.daemon.parts import Parts

ROOT = 0


class PrivateAgent:
    """One agent. Make it in a running loop.

    folder: for what lives as long as the agent. given: the fields of `AgentOptions` that the
    command line sets. It implements `model.Door` and `ssh.provider_paths.Providers` by passing the
    calls on to the parts that sign.
    """

    def __init__(self, folder: Path, config: "Config | None", given: Mapping[str, Any]) -> None:
        self._folder = folder
        self._config = config
        self._loaded: Parts | None = None
        options = AgentOptions() if config is None else self._parts().agent_options()
        self._agent = Agent(
            door=self,
            tokens=self._signers,
            providers=self,
            sk_helper=lambda request: self._parts().sk_helper(request),
            clock=time.monotonic,
            sleep=asyncio.sleep,
            aside=aside,
            soon=asyncio.get_running_loop().call_soon,
            describe=self._describe,
            knows_host=self._knows_host,
            options=replace(options, **given),
        )

    async def run(self, listening: socket.socket, stop_at: Collection[signal.Signals]) -> None:
        """Serve until one of these signals comes, then remove the socket.

        The caller has blocked the signals.
        """
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in stop_at:
            loop.add_signal_handler(number, stopping.set)
        loop.add_signal_handler(signal.SIGUSR1, self._agent.remove_all)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, stop_at)
        server = Server(
            listening, self._connection, uids={os.getuid(), ROOT}, turns=Turns(time.monotonic)
        )
        await server.start()
        loading = None if self._loaded is None else loop.create_task(self._loaded.load_modules())
        await stopping.wait()
        # Before we stop listening: after that, the file may be another agent's.
        with suppress(OSError):
            os.unlink(listening.getsockname())  # noqa: PTH108 - a str it is
        await server.close()
        if loading is not None:
            loading.cancel()
        if self._loaded is not None:
            await self._loaded.close()

    def _connection(self, sock: socket.socket, _: Send) -> "Connection | Fresh":
        if self._loaded is None:
            return self._agent.connection(peer_of(sock), None)
        from hsmagent.daemon.fresh import Fresh

        connection = self._agent.connection(peer_of(sock), self._loaded.upstream_connection())
        return Fresh(connection, self._loaded.tokens, LIST)

    def _parts(self) -> "Parts":
        if self._loaded is None:
            from hsmagent.daemon.parts import private_parts

            self._loaded = private_parts(self._folder, self._config, self._tokens_changed)
        return self._loaded

    def _tokens_changed(self) -> None:
        self._agent.changed()

    def _signers(self) -> Sequence[Signer]:
        return () if self._loaded is None else self._loaded.providers.configured_signers()

    def _describe(self, host_key: bytes, peer: Peer) -> str:
        return self._parts().known_hosts.describe(host_key, peer)

    def _knows_host(self, host_key: bytes, authority: bytes) -> bool:
        return self._parts().known_hosts.holds(host_key, authority)

    # -- Door and Providers ------------------------------------------------------------------

    async def perform(self, request: Request, operation: Operation) -> bytes:
        """Carry out an operation through the gate (`model.Door`)."""
        return await self._parts().gate.perform(request, operation)

    def refused(self, request: Request, reason: str) -> None:
        """Keep no record: the agent's own log has a line (`model.Door`)."""

    async def add(self, provider: str, pin: bytearray) -> Sequence[Signer]:
        """Load a provider (`ssh.provider_paths.Providers`)."""
        return await self._parts().providers.add(provider, pin)

    async def remove(self, provider: str) -> bool:
        """Let go of a provider (`ssh.provider_paths.Providers`)."""
        return await self._parts().providers.remove(provider)
