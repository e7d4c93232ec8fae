"""The parts that sign, for the daemon and for a private agent: tokens, gate, providers, upstream.

They are slow to import: a private agent imports this module when something is first to be signed.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from hsmagent.config.file import Config
from hsmagent.daemon import settings as configured
from hsmagent.daemon.providers import TokenProviders
from hsmagent.daemon.sk_helper import SkHelper
from hsmagent.daemon.upstream_socket import UpstreamAgent
from hsmagent.door.gate import Gate, Record, Store, Waiting, no_store, no_waiting
from hsmagent.door.policy import Policy
from hsmagent.door.terminal import Arrival, Tell, never, tell_nobody
from hsmagent.model import Listener, ModuleSpec, Request, TokenId
from hsmagent.prompt import words
from hsmagent.prompt.askpass import Askpass
from hsmagent.prompt.base import Prompter
from hsmagent.prompt.chain import Chain
from hsmagent.prompt.environment import own_environment
from hsmagent.prompt.pinentry import Pinentry
from hsmagent.ssh.options import AgentOptions
from hsmagent.ssh.upstream import Upstream
from hsmagent.tasks import Tasks
from hsmagent.token.login import Limits
from hsmagent.token.tokens import Tokens
from hsmagent.who.destination import KnownHosts

log = logging.getLogger(__name__)

# A module that hangs is killed at its own deadline; a reload does not wait that long.
RELOAD = 5.0


class Parts:
    """Tokens, gate, providers and the agent behind ours, joined. Make it in a running loop.

    config: the configuration that holds until `configure`. modules: returns which modules a
    configuration wants. on_change: told when the tokens' signers have changed. unknown: see
    `Policy`. The other parameters are the gate's.
    """

    def __init__(
        self,
        config: Config,
        *,
        state: Path,
        modules: Callable[[Config], tuple[ModuleSpec, ...]],
        on_change: Listener,
        prompter: Prompter,
        record: Record,
        store: Store = no_store,
        waiting: Waiting = no_waiting,
        tell: Tell = tell_nobody,
        arrival: Arrival = never,
        unknown: str = "always",
    ) -> None:
        self._config = config
        self._wanted = modules
        self._unknown = unknown
        self._modules: tuple[ModuleSpec, ...] = ()
        self._loading = Tasks()
        self.upstream = upstream_of(config)
        self.known_hosts = KnownHosts()
        self.sk_helper = SkHelper(os.environ)
        self.tokens = Tokens(
            clock=time.monotonic, state_dir=state, limits=self._limits, on_change=on_change
        )
        self.gate = Gate(
            tokens=self.tokens.token,
            policy=self._policy(),
            prompter=prompter,
            record=record,
            timeout=config.prompt.timeout,
            store=store,
            waiting=waiting,
            tell=tell,
            arrival=arrival,
        )
        self.providers = TokenProviders(
            self.tokens, self._configured, self.gate.unlock, time.monotonic
        )

    def configure(self, config: Config) -> None:
        """Go by another configuration; its modules are loaded by `load_modules`."""
        self._config = config
        self.upstream = upstream_of(config)
        self.gate.configure(self._policy(), config.prompt.timeout)

    def agent_options(self) -> AgentOptions:
        """Return what the configuration says of the ssh side."""
        return configured.agent_options(self._config)

    def upstream_connection(self) -> Upstream | None:
        """Return the agent behind ours, as one connection uses it, if there is one."""
        return None if self.upstream is None else Upstream(self.upstream.link())

    async def load_modules(self) -> None:
        """Start the modules that are wanted; end those of before that are not; look at the rest.

        Waits until all modules have looked at their tokens, but RELOAD seconds at most.
        """
        await asyncio.wait(await self.start_modules(), timeout=RELOAD)

    async def start_modules(self) -> list[asyncio.Task[None]]:
        """Begin what `load_modules` does, and return the tasks under way."""
        wanted = self._wanted(self._config)
        before, self._modules = self._modules, wanted
        for spec in before:
            if spec not in wanted:
                await self.tokens.remove(spec.path)
        loading = [self._loading.start(self.tokens.refresh())]
        loading += [self._loading.start(self.tokens.add(spec)) for spec in wanted]
        await asyncio.sleep(0)  # so that each is known to be under way
        return loading

    async def close(self) -> None:
        """Log out of every token and end the workers."""
        self._loading.cancel()
        await self.tokens.close()

    def _policy(self) -> Policy:
        return configured.policy(self._config, time.monotonic, self._unknown)

    def _limits(self, token: TokenId) -> Limits:
        return configured.limits(self._config, token)

    def _configured(self) -> set[str]:
        return {spec.path for spec in self._modules}


def upstream_of(config: Config) -> UpstreamAgent | None:
    """Return the agent behind ours that a configuration names, if it does."""
    path = config.ssh.upstream
    return UpstreamAgent(Path(path), time.monotonic) if path else None


def private_parts(folder: Path, config: Config | None, on_change: Listener) -> Parts:
    """Return the parts of a private agent, which has no bus. folder: removed when the agent ends.

    config None: the agent behaves as ssh-agent does, which has no configuration.
    """
    known = config or Config()
    timeout = known.prompt.timeout
    # SSH_ASKPASS first, as with ssh-agent.
    prompters = (
        Askpass(own_environment, timeout),
        Pinentry(own_environment, timeout, known.prompt.pinentry),
    )
    chain = Chain(prompters, own_environment, time.monotonic)
    return Parts(
        known,
        state=folder / "state",
        # Those that the file names, and none that happen to be installed.
        modules=lambda config: config.modules,
        on_change=on_change,
        prompter=chain,
        record=_record,
        waiting=partial(_notice, chain),
        # Without a configuration as ssh-agent does: `ssh-add -T` and sshd's HostKeyAgent have
        # nobody to ask.
        unknown="forwarded" if config is None else "always",
    )


@contextmanager
def _notice(prompter: Prompter, request: Request) -> Iterator[None]:
    """Ask for a touch of a FIDO key in a window, as ssh-agent does."""
    if not request.key.touch:
        yield
        return
    shown = asyncio.ensure_future(prompter.notice(words.touch(request)))
    shown.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        yield
    finally:
        shown.cancel()


def _record(request: Request, outcome: str, reason: str) -> None:
    log.info("%s: %s by %s %s", outcome, request.purpose.summary, request.peer.chain, reason)
