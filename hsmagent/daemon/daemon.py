"""The composition root: builds every part and joins them. Nothing imports it but its command."""

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path

from hsmagent.config.file import Config
from hsmagent.control import conversation as control
from hsmagent.control.client import CONTROL_MAX_FRAME
from hsmagent.control.operations import Operations
from hsmagent.daemon import settings as configured
from hsmagent.daemon.desktop import Presence
from hsmagent.daemon.listening import listen, make_folder
from hsmagent.daemon.providers import TokenProviders
from hsmagent.daemon.server import Server
from hsmagent.daemon.systemd import Notifier, listen_sockets
from hsmagent.daemon.upstream_socket import UpstreamAgent
from hsmagent.desktop.let_go import Told, Why
from hsmagent.desktop.service import Agent as BusAgent
from hsmagent.desktop.service import Caller
from hsmagent.door.activity import Activity, Entry
from hsmagent.door.gate import Gate
from hsmagent.door.journal import journal
from hsmagent.errors import ConfigError, TokenError, UsageError
from hsmagent.model import ModuleSpec, Purpose, PurposeKind, Request, TokenId
from hsmagent.prompt import words
from hsmagent.ssh.agent import Agent, Connection
from hsmagent.ssh.upstream import Upstream
from hsmagent.token.tokens import Tokens
from hsmagent.who.destination import KnownHosts
from hsmagent.who.peer import peer_of, peer_of_process

log = logging.getLogger(__name__)

ROOT = 0
SSH, CONTROL = "ssh", "control"  # FileDescriptorName= in the socket units; the files' names too

# A module that hangs is killed at its own deadline; the others' keys do not wait that long.
FIRST_LISTING = 5.0
# A bus that hangs does not keep us from leaving.
GOODBYE = 3.0


class Daemon:
    """One agent: its sockets, tokens and gate, for the life of a login session.

    load: reads the configuration, now and at each SIGHUP. Raises ConfigError.
    """

    def __init__(self, load: Callable[[], Config], runtime: Path, state: Path) -> None:
        self._load = load
        self._settings = settings = load()
        self._runtime = runtime
        self._notifier = Notifier()
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._modules: tuple[ModuleSpec, ...] = ()
        self._bound: list[Path] = []
        self._activity = Activity(state, asyncio.get_running_loop().call_later, journal())
        self._tokens = Tokens(
            clock=time.monotonic,
            state_dir=state,
            limits=lambda token: configured.limits(self._settings, token),
            on_change=self._tokens_changed,
        )
        self._presence = Presence(
            lambda: self._settings,
            agent=BusAgent(self._tokens.statuses, self._lock, self._raise_prompt, time.time),
            told=Told(self._let_go, self._screen),
            state=state,
            clock=time.monotonic,
        )
        self._gate = Gate(
            sessions=self._tokens.session,
            policy=configured.policy(settings, time.monotonic),
            prompter=self._presence.prompter(),
            record=self._record,
            timeout=settings.prompt.timeout,
            store=self._presence.store,
            waiting=self._presence.waiting,
        )
        providers = TokenProviders(self._tokens, self._configured_modules, self._gate.unlock)
        self._agent = Agent(
            door=self._gate,
            tokens=providers.configured_signers,
            providers=providers,
            clock=time.monotonic,
            describe=KnownHosts().describe,
            options=configured.agent_options(settings),
        )
        self._upstream: UpstreamAgent | None = None
        self._operations = Operations(
            self._tokens,
            self._gate,
            self._activity,
            self._presence.forget_pin,
            time.monotonic,
        )

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT; then log out of every token and leave.

        Raises UsageError when a socket cannot be had, ConfigError when [ssh] upstream is us.
        """
        try:
            servers = self._servers()
        except UsageError:
            self._unbind()
            raise
        self._catch_signals()
        presence = self._spawn(self._presence.run())
        try:
            self._upstream = self._upstream_agent(self._settings)
            await self._load_modules()
            for server in servers:
                await server.start()
            self._notifier.tell("READY=1")
            log.info("ready: SSH_AUTH_SOCK=%s", self._runtime / f"{SSH}.sock")
            await self._stopping.wait()
        finally:
            self._notifier.tell("STOPPING=1")
            self._unbind()
            for server in servers:
                await server.close()
            presence.cancel()
            await asyncio.wait([presence], timeout=GOODBYE)
            await self._tokens.close()
            self._activity.flush()

    # -- sockets -----------------------------------------------------------------------------

    def _servers(self) -> list[Server]:
        given = listen_sockets()
        own = os.getuid()
        listening = self._listen(SSH, given)
        self._ssh_address: str = listening.getsockname()
        return [
            Server(
                listening,
                self._ssh_connection,
                uids={own, ROOT},  # `sudo -E ssh` must work, as with OpenSSH's agent
            ),
            Server(
                self._listen(CONTROL, given),
                self._control_connection,
                uids={own},
                limit=CONTROL_MAX_FRAME,
            ),
        ]

    def _listen(self, name: str, given: dict[str, socket.socket]) -> socket.socket:
        if name in given:
            return given[name]
        make_folder(self._runtime)
        path = self._runtime / f"{name}.sock"
        listening = listen(path)
        self._bound.append(path)
        return listening

    def _unbind(self) -> None:
        # Before we stop listening: after that, a file may be another agent's.
        for path in self._bound:
            path.unlink(missing_ok=True)

    def _ssh_connection(self, sock: socket.socket) -> Connection:
        upstream = None if self._upstream is None else Upstream(self._upstream.link())
        return self._agent.connection(peer_of(sock), upstream)

    def _control_connection(self, sock: socket.socket) -> control.Conversation:
        return control.Conversation(
            self._operations.table(),
            self._operations.find_token,
            self._operations.unlock_with,
            peer_of(sock),
        )

    def _upstream_agent(self, settings: Config) -> UpstreamAgent | None:
        """Return the agent behind ours, if one is wanted. Raises ConfigError if that is us."""
        if not settings.ssh.upstream:
            return None
        upstream = UpstreamAgent(Path(settings.ssh.upstream), time.monotonic)
        if upstream.is_at(self._ssh_address):
            raise ConfigError("the configuration: upstream in [ssh] is this agent's own socket")
        return upstream

    # -- signals -----------------------------------------------------------------------------

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self._reload()))
        loop.add_signal_handler(signal.SIGUSR1, self._agent.remove_all)

    async def _reload(self) -> None:
        """Reread the configuration and forget logins; with a mistake in it nothing changes."""
        try:
            settings = self._load()
            upstream = self._upstream_agent(settings)
        except ConfigError as error:
            log.error("the configuration stays as it was: %s", error)  # noqa: TRY400 - no traceback
            return
        self._notifier.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        self._settings, self._upstream = settings, upstream
        policy = configured.policy(settings, time.monotonic)
        self._gate.configure(policy, self._presence.prompter(), settings.prompt.timeout)
        self._agent.configure(configured.agent_options(settings))
        await self._tokens.logout_all()
        await self._load_modules()
        self._notifier.tell("READY=1")
        log.info("the configuration was read again; every login is forgotten")

    # -- tokens ------------------------------------------------------------------------------

    async def _load_modules(self) -> None:
        """Start the modules that are wanted; end those of before that are not any more."""
        wanted = configured.modules(self._settings)
        for spec in self._modules:
            if spec not in wanted:
                await self._tokens.remove(spec.path)
        self._modules = wanted
        loading = [self._spawn(self._tokens.add(spec)) for spec in wanted]
        if loading:
            await asyncio.wait(loading, timeout=FIRST_LISTING)

    def _configured_modules(self) -> set[str]:
        return {spec.path for spec in self._modules}

    def _tokens_changed(self) -> None:
        self._agent.changed()
        self._presence.look(self._tokens.statuses())

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- what the desktop says and is told ---------------------------------------------------

    async def _lock(self, tokens: Sequence[TokenId]) -> None:
        self._gate.forget()
        await self._tokens.logout(tokens)

    async def _let_go(self, why: Why) -> None:
        """Log out of the tokens that the configuration lets go of for this reason."""
        await self._lock(
            [
                status.id
                for status in self._tokens.statuses()
                if why in configured.cache(self._settings, status.id).let_go
            ]
        )

    def _screen(self, closed_because: str) -> None:
        if closed_because:
            self._gate.close(closed_because)
        else:
            self._gate.open()

    async def _raise_prompt(self, token: TokenId, caller: Caller) -> None:
        status = self._tokens.session(token).status()
        if not status.keys:
            raise TokenError(f"the token {words.token_name(token)!r} has no keys to unlock")
        purpose = Purpose(PurposeKind.UNKNOWN, "unlock the token")
        peer = peer_of_process(caller.pid, caller.uid)
        await self._gate.raise_prompt(Request(status.keys[0], purpose, peer))

    def _record(self, request: Request, outcome: str, reason: str) -> None:
        self._activity.record(Entry(time.time(), request, outcome, reason))
        self._presence.used(request, outcome)
