"""A private agent: what `hsmagent ssh-agent` runs in place of OpenSSH's.

The same parts as the daemon's, for one ssh socket: no modules until `ssh-add -s`, no control
socket, no name on the bus, no configuration unless one is given.
"""

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from hsmagent import config, configured
from hsmagent.config import Config
from hsmagent.gate import Gate
from hsmagent.model import Request
from hsmagent.prompt.askpass import Askpass
from hsmagent.prompt.chain import Chain
from hsmagent.prompt.environment import own_environment
from hsmagent.prompt.pinentry import Pinentry
from hsmagent.providers import TokenProviders
from hsmagent.server import Server
from hsmagent.ssh.agent import Agent, AgentOptions, Connection
from hsmagent.ssh.upstream import Upstream
from hsmagent.token.tokens import Tokens
from hsmagent.upstream import UpstreamAgent
from hsmagent.who.destination import KnownHosts
from hsmagent.who.peer import peer_of

log = logging.getLogger(__name__)

ROOT = 0


@dataclass(frozen=True, slots=True)
class Settings:
    """From the command line. folder: for what lives as long as the agent.

    lifetime in seconds, 0: for ever; providers None: ssh-agent's default.
    """

    folder: Path
    lifetime: int = 0
    providers: tuple[str, ...] | None = None
    allow_remote_pkcs11: bool = False
    config: Path | None = None


class PrivateAgent:
    """One agent and its tokens. Make it in a running loop. Raises ConfigError."""

    def __init__(self, settings: Settings) -> None:
        self._config = Config()
        options = AgentOptions()
        if settings.config is not None:
            self._config = config.load(settings.config, required=True)
            options = configured.agent_options(self._config)
        if settings.providers is not None:
            options = replace(options, providers=settings.providers)
        # Those that the file names, and none that happen to be installed.
        self._modules = {spec.path: spec for spec in self._config.modules}
        self._tokens = Tokens(
            clock=time.monotonic,
            state_dir=settings.folder / "state",
            limits=lambda token: configured.limits(self._config, token),
            on_change=self._tokens_changed,
        )
        gate = Gate(
            sessions=self._tokens.session,
            policy=configured.policy(self._config, time.monotonic),
            prompter=_prompter(self._config.prompt.timeout),
            record=_record,
            timeout=self._config.prompt.timeout,
        )
        self._upstream: UpstreamAgent | None = None
        if self._config.ssh.upstream:
            self._upstream = UpstreamAgent(Path(self._config.ssh.upstream), time.monotonic)
        providers = TokenProviders(self._tokens, lambda: self._modules)
        self._agent = Agent(
            door=gate,
            tokens=providers.configured_signers,
            providers=providers,
            clock=time.monotonic,
            describe=KnownHosts().describe,
            options=replace(
                options,
                lifetime=settings.lifetime,
                allow_remote_pkcs11=settings.allow_remote_pkcs11,
            ),
        )

    def _tokens_changed(self) -> None:
        self._agent.changed()

    async def run(self, listening: socket.socket, stop_at: Collection[signal.Signals]) -> None:
        """Serve until one of the signals comes."""
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in stop_at:
            loop.add_signal_handler(number, stopping.set)
        loop.add_signal_handler(signal.SIGUSR1, self._agent.remove_all)
        server = Server(
            listening,
            self._connection,
            uids={os.getuid(), ROOT},
        )
        await server.start()
        loading = [loop.create_task(self._tokens.add(spec)) for spec in self._modules.values()]
        await stopping.wait()
        await server.close()
        for task in loading:
            task.cancel()
        await self._tokens.close()

    def _connection(self, sock: socket.socket) -> Connection:
        upstream = None if self._upstream is None else Upstream(self._upstream.link())
        return self._agent.connection(peer_of(sock), upstream)


def _prompter(timeout: float) -> Chain:
    """Return the prompters that need no bus; SSH_ASKPASS first, as with ssh-agent."""
    prompters = (Askpass(own_environment, timeout), Pinentry(own_environment, timeout))
    return Chain(prompters, own_environment, time.monotonic)


def _record(request: Request, outcome: str, reason: str) -> None:
    log.info("%s: %s by %s %s", outcome, request.purpose.summary, request.peer.chain, reason)
