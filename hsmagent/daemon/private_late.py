"""The parts of a private agent that are slow to import and needed late: tokens, gate, prompters."""

import asyncio
import logging
import time
from pathlib import Path

from hsmagent.config.file import Config
from hsmagent.daemon import settings as configured
from hsmagent.daemon.providers import TokenProviders
from hsmagent.daemon.upstream_socket import UpstreamAgent, UpstreamLink
from hsmagent.door.gate import Gate
from hsmagent.model import Listener, Peer, Request
from hsmagent.prompt.askpass import Askpass
from hsmagent.prompt.chain import Chain
from hsmagent.prompt.environment import own_environment
from hsmagent.prompt.pinentry import Pinentry
from hsmagent.ssh.options import AgentOptions
from hsmagent.token.tokens import Tokens
from hsmagent.who.destination import KnownHosts

log = logging.getLogger(__name__)


class LateParts:
    """Tokens, gate and prompters. folder: of the agent; config: None is an empty one.

    on_change: the tokens' signers are others now.
    """

    def __init__(self, folder: Path, config: Config | None, on_change: Listener) -> None:
        self._config = config or Config()
        # Those that the file names, and none that happen to be installed.
        self._modules = {spec.path: spec for spec in self._config.modules}
        self._known_hosts = KnownHosts()
        self._upstream: UpstreamAgent | None = None
        if self._config.ssh.upstream:
            self._upstream = UpstreamAgent(Path(self._config.ssh.upstream), time.monotonic)
        self._tokens = Tokens(
            clock=time.monotonic,
            state_dir=folder / "state",
            limits=lambda token: configured.limits(self._config, token),
            on_change=on_change,
        )
        self.gate = Gate(
            sessions=self._tokens.session,
            # As ssh-agent does: `ssh-add -T` and sshd's HostKeyAgent have nobody to ask.
            policy=configured.policy(
                self._config, time.monotonic, "forwarded" if config is None else "always"
            ),
            prompter=_prompter(self._config.prompt.timeout),
            record=_record,
            timeout=self._config.prompt.timeout,
        )
        self.providers = TokenProviders(self._tokens, lambda: self._modules, self.gate.unlock)

    def agent_options(self) -> AgentOptions:
        """Return what the configuration says of the ssh side."""
        return configured.agent_options(self._config)

    def describe(self, host_key: bytes, peer: Peer) -> str:
        """Return a host's name for a person."""
        return self._known_hosts.describe(host_key, peer)

    def upstream_link(self) -> UpstreamLink | None:
        """Return a connection to the other agent that the configuration names, if it does."""
        return None if self._upstream is None else self._upstream.link()

    async def load_modules(self) -> None:
        """Load what the configuration names."""
        await asyncio.gather(*map(self._tokens.add, self._modules.values()))

    async def close(self) -> None:
        """Log out of every token."""
        await self._tokens.close()


def _prompter(timeout: float) -> Chain:
    """Return the prompters that need no bus; SSH_ASKPASS first, as with ssh-agent."""
    prompters = (Askpass(own_environment, timeout), Pinentry(own_environment, timeout))
    return Chain(prompters, own_environment, time.monotonic)


def _record(request: Request, outcome: str, reason: str) -> None:
    log.info("%s: %s by %s %s", outcome, request.purpose.summary, request.peer.chain, reason)
