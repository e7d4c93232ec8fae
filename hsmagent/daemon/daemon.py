"""The composition root: builds every part and joins them. Nothing imports it but its command."""

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from hsmagent.config.discovery import modules
from hsmagent.config.file import Config
from hsmagent.control.ask_here import AskHereOperation
from hsmagent.control.client import CONTROL, CONTROL_MAX_FRAME, MAIL
from hsmagent.control.conversation import Conversation, Operation
from hsmagent.control.face import Face
from hsmagent.control.leases import Leases
from hsmagent.control.mail import MailOperations
from hsmagent.control.operations import ControlOperations
from hsmagent.daemon import settings as configured
from hsmagent.daemon.aside import aside
from hsmagent.daemon.connection import Send
from hsmagent.daemon.desktop import Desktop
from hsmagent.daemon.face import FaceSocket
from hsmagent.daemon.fresh import FIRST_LOOK, SHOWN, Fresh, look_anew
from hsmagent.daemon.listening import Sockets
from hsmagent.daemon.parts import Parts, upstream_of
from hsmagent.daemon.server import Server
from hsmagent.daemon.systemd import Notifier, listen_sockets
from hsmagent.daemon.turns import Turns
from hsmagent.daemon.upstream_socket import UpstreamAgent
from hsmagent.desktop.let_go import Told, Why
from hsmagent.desktop.service import Agent as BusAgent
from hsmagent.desktop.service import Caller
from hsmagent.door.activity import ASKED, WRONG_PIN, Activity, Entry
from hsmagent.door.journal import journal
from hsmagent.errors import ConfigError, TokenError, UsageError
from hsmagent.model import Purpose, PurposeKind, Request, TokenId, TokenStatus, name_of
from hsmagent.ssh.agent import LIST, Agent
from hsmagent.tasks import Tasks
from hsmagent.who.peer import peer_of, peer_of_process
from hsmagent.who.terminal import Terminals
from hsmagent.worker.process import end_unwanted

log = logging.getLogger(__name__)

ROOT = 0
# A socket's name is the FileDescriptorName= of its unit and the file's name: also CONTROL and MAIL.
SSH = "ssh"

# Seconds to wait for the buses at the end: one that hangs must not keep us from leaving.
GOODBYE = 3.0


Load = Callable[[Config], Config]
"""Reads the configuration, at the start and at each SIGHUP; takes the one that holds until then.

Raises ConfigError.
"""


def serve(load: Load, runtime: Path, state: Path) -> None:
    """Run the daemon in a loop of its own. Raises what `Daemon.run` raises."""

    async def run() -> None:
        await Daemon(load, runtime, state).run()

    asyncio.run(run())


class Daemon:
    """One agent: its sockets, tokens and gate, for the life of a login session."""

    _face_socket: FaceSocket | None = None  # made when we run

    def __init__(self, load: Load, runtime: Path, state: Path) -> None:
        self._load = load
        self._settings = settings = load(Config())
        self._runtime = runtime
        self._notifier = Notifier()
        self._stopping = asyncio.Event()
        self._tasks = Tasks()
        self._sockets = Sockets(runtime, listen_sockets())
        later = asyncio.get_running_loop().call_later
        self._activity = Activity(state, later, journal(), self._tell_desktop)
        self._terminals = Terminals(time.monotonic)
        self._desktop = desktop = Desktop(
            lambda: self._settings,
            agent=BusAgent(self._statuses, self._lock, self._raise_prompt, time.time),
            told=Told(self._let_go, self._screen),
            state=state,
            clock=time.monotonic,
            asked=self._note_asked,
        )
        self._parts = Parts(
            settings,
            state=state,
            modules=modules,
            on_change=self._tokens_changed,
            prompter=desktop.prompter,
            record=self._record,
            store=desktop.store,
            waiting=desktop.notifications.waiting,
            tell=self._tell,
            arrival=desktop.ask_here.arrival,
        )
        self._agent = self._new_agent(self._parts)

    @staticmethod
    def _new_agent(parts: Parts) -> Agent:
        return Agent(
            door=parts.gate,
            tokens=parts.providers.configured_signers,
            providers=parts.providers,
            sk_helper=parts.sk_helper,
            clock=time.monotonic,
            sleep=asyncio.sleep,
            aside=aside,
            soon=asyncio.get_running_loop().call_soon,
            describe=parts.known_hosts.describe,
            knows_host=parts.known_hosts.holds,
            options=parts.agent_options(),
        )

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT; then log out of every token and leave.

        Raises UsageError when a socket cannot be had, ConfigError when [ssh] upstream is us.
        """
        try:
            servers = self._servers()
        except UsageError:
            self._sockets.unbind_all()
            raise
        self._catch_signals()
        desktop = self._tasks.start(self._desktop.run())
        try:
            self._check(self._parts.upstream)
            # Not awaited: where an answer needs what the modules see, `Fresh` waits for it.
            self._tasks.start(_end_unwanted_after(await self._parts.start_modules()))
            for server in servers:
                await server.start()
            self._face_socket = self._new_face_socket()
            await self._face_socket.follow()
            self._notifier.tell("READY=1")
            log.info("ready: SSH_AUTH_SOCK=%s", self._runtime / f"{SSH}.sock")
            await self._stopping.wait()
        finally:
            self._notifier.tell("STOPPING=1")
            self._sockets.unbind_all()
            for server in servers:
                await server.close()
            if self._face_socket is not None:
                await self._face_socket.close()
            desktop.cancel()
            await asyncio.wait([desktop], timeout=GOODBYE)
            await self._parts.close()
            await asyncio.sleep(0)  # what has been recorded is noted down by then
            self._activity.flush()

    # -- sockets -----------------------------------------------------------------------------

    def _servers(self) -> list[Server]:
        own = os.getuid()
        self._turns = turns = Turns(time.monotonic)
        listening = self._sockets.listen(SSH)
        self._ssh_address: str = listening.getsockname()
        return [
            Server(
                listening,
                self._ssh_connection,
                uids={own, ROOT},  # `sudo -E ssh` must work, as with OpenSSH's agent
                turns=turns,
            ),
            *(
                Server(
                    self._sockets.listen(role),
                    partial(self._conversation, role, table),
                    uids={own},
                    turns=turns,
                    limit=CONTROL_MAX_FRAME,
                )
                for role, table in self._operations().items()
            ),
        ]

    def _new_face_socket(self) -> FaceSocket:
        tokens = self._parts.tokens
        face = Face(
            tokens,
            self._parts.gate,
            serves=lambda: configured.families(self._settings),
            look=partial(look_anew, tokens),
            missed=self._desktop.notifications.missed,
            clock=time.monotonic,
        )
        return FaceSocket(face, self._sockets, self._turns)

    def _ssh_connection(self, sock: socket.socket, _: Send) -> Fresh:
        connection = self._agent.connection(peer_of(sock), self._parts.upstream_connection())
        return Fresh(connection, self._parts.tokens, LIST)

    def _conversation(
        self, role: str, table: Mapping[str, Operation], sock: socket.socket, send: Send
    ) -> Fresh:
        conversation = Conversation(table, peer_of(sock), send)
        first_look = SHOWN if role == CONTROL else FIRST_LOOK
        return Fresh(conversation, self._parts.tokens, first_look=first_look)

    def _operations(self) -> dict[str, Mapping[str, Operation]]:
        """Return what can be asked for on the socket of each role."""
        tokens, gate = self._parts.tokens, self._parts.gate
        added, leases = self._agent.identities.added_keys, Leases(tokens, time.monotonic)
        for_persons = ControlOperations(
            *(tokens, added, gate, self._activity, self._desktop.forget_pin),
            leases=leases,
            ask_here=AskHereOperation(self._desktop.ask_here),
        )
        for_mail = MailOperations(tokens, gate, time.monotonic)
        return {CONTROL: for_persons.table(), MAIL: for_mail.table()}

    def _check(self, upstream: UpstreamAgent | None) -> None:
        """Raise ConfigError if the agent behind ours is ourselves."""
        if upstream is not None and upstream.is_at(self._ssh_address):
            raise ConfigError("the configuration: upstream in [ssh] is this agent's own socket")

    # -- signals -----------------------------------------------------------------------------

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._tasks.start(self._reload()))
        loop.add_signal_handler(signal.SIGUSR1, self._agent.remove_all)

    async def _reload(self) -> None:
        """Reread the configuration, end all logins, and look anew.

        A configuration that is wrong or gone changes nothing.
        """
        try:
            settings = self._load(self._settings)
            self._check(upstream_of(settings))
        except ConfigError as error:
            log.error("the configuration stays as it was: %s", error)  # noqa: TRY400 - no traceback
            return
        self._notifier.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        self._settings = settings
        self._desktop.configure()
        self._parts.configure(settings)
        self._agent.configure(self._parts.agent_options())
        await self._follow_face()
        ended = [name_of(status.id) for status in self._statuses() if status.logged_in]
        await self._parts.tokens.logout_all()
        await self._parts.load_modules()
        self._notifier.tell("READY=1")
        log.info(
            "the configuration was read again, and every token looked at; logins that ended: %s",
            ", ".join(ended) or "none",
        )

    async def _follow_face(self) -> None:
        try:
            if self._face_socket is not None:
                await self._face_socket.follow()
        except UsageError as error:
            log.error("%s", error)  # noqa: TRY400 - no traceback

    # -- what the desktop calls, and is told -------------------------------------------------

    def _statuses(self) -> tuple[TokenStatus, ...]:
        return self._parts.tokens.statuses()

    def _tokens_changed(self) -> None:
        self._agent.changed()
        if self._face_socket is not None:
            self._face_socket.changed()
        self._desktop.look(self._statuses())

    async def _lock(self, tokens: Sequence[TokenId]) -> None:
        self._parts.gate.forget()
        await self._parts.tokens.logout(tokens)

    async def _let_go(self, why: Why) -> None:
        """Log out of the tokens that the configuration lets go of for this reason."""
        await self._lock(
            [
                status.id
                for status in self._statuses()
                if why in configured.cache(self._settings, status.id).let_go
            ]
        )

    def _screen(self, closed_because: str) -> None:
        if closed_because:
            self._parts.gate.close(closed_because)
        else:
            self._parts.gate.open()

    async def _raise_prompt(self, token: TokenId, caller: Caller) -> None:
        status = self._parts.tokens.token(token).status()
        if not status.keys:
            raise TokenError(f"the token {name_of(token)} has no keys to unlock")
        purpose = Purpose(PurposeKind.UNKNOWN, "unlock the token")
        peer = peer_of_process(caller.pid, caller.uid)
        await self._parts.gate.raise_prompt(Request(status.keys[0], purpose, peer))

    def _tell(self, request: Request, sentence: str) -> None:
        """Tell the program that made a request that the request waits for a terminal."""
        on_terminal = self._terminals.tell(request)
        if request.on_wait is not None:
            request.on_wait(sentence, on_terminal)

    def _note_asked(self, request: Request, where: str) -> None:
        """Write down that a person was asked in a terminal, where no window shows it."""
        reason = f"asked in the terminal {where}, by `hsmagent ask-here`"
        self._record(request, ASKED, reason)

    def _record(self, request: Request, outcome: str, reason: str) -> None:
        self._activity.record(Entry(time.time(), request, outcome, reason))

    def _tell_desktop(self, entry: Entry) -> None:
        """Tell the desktop what became of a request; of wrong PINs a token's state tells it."""
        if entry.outcome not in {ASKED, WRONG_PIN}:
            self._desktop.used(entry.request, entry.outcome, entry.reason)


async def _end_unwanted_after(started: list[asyncio.Task[None]]) -> None:
    """Once all modules are started, end the workers spawned ahead that no module has taken."""
    await asyncio.wait(started)
    end_unwanted()
