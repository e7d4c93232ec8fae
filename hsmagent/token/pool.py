"""The workers of one module, and the queue in front of them.

A card has one worker; a software token or a network HSM may have several that sign in parallel.
What a worker had in hand when it died fails; what still waited in the queue goes to another one.

Nothing in here ever repeats a request, and above all no login.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

from hsmagent import tasks
from hsmagent.errors import LoginNeeded, TokenError, WorkerDied
from hsmagent.model import ModuleSpec, TokenId, name_of
from hsmagent.tasks import Tasks
from hsmagent.token.failures import absent, told
from hsmagent.token.member import Call, Deadlines, Member, Place
from hsmagent.token.queue import Queue
from hsmagent.token.states import WorkerEvent, WorkerState
from hsmagent.token.trouble import why
from hsmagent.worker import spec
from hsmagent.worker.link import Link
from hsmagent.worker.messages import (
    PCSC,
    Done,
    Failed,
    KeyUse,
    Logout,
    Look,
    Reply,
    SlotInfo,
    Slots,
)
from hsmagent.worker.process import token_worker

log = logging.getLogger(__name__)

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_SOUND_SECONDS = 5.0  # a worker that lived so long did not die young: the pauses start anew


class Pool:
    """The workers of one module.

    identify: names a slot's token, or returns None for one that is not used.
    on_look: takes what a worker saw, and whether the look was for objects, too.
    on_login_lost: told that a token's last login ended, and why. on_state: told that workers came
    or went. obstacle: why a token may be missing. spawned: the count of workers so far. at_rest:
    the workers were ended until somebody wants one, so that others get the cards.
    """

    def __init__(
        self,
        spec: ModuleSpec,
        deadlines: Deadlines,
        *,
        identify: Callable[[SlotInfo], TokenId | None],
        on_look: Callable[[Slots, bool], Awaitable[None]],
        on_login_lost: Callable[[TokenId, str], None],
        on_state: Callable[[], None],
    ) -> None:
        self.spec = spec
        self.deadlines = deadlines
        self._program = token_worker(spec)
        self._identify = identify
        self._on_look = on_look
        self._on_login_lost = on_login_lost
        self._on_state = on_state
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks()
        self._changed = asyncio.Event()
        self._wanted = asyncio.Event()
        self._links: set[Link] = set()
        self.members = [Member() for _ in range(max(1, spec.workers))]
        self._queue = Queue(self.members, self._nobody_for)
        self.dispatch = self._queue.dispatch
        self.last_error = self.obstacle = self._why_stale = ""
        self._held = self.spawned = 0
        self.uses_pcsc = self._may_rest = self.at_rest = False

    # -- life --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Spawn the workers and look at the tokens. A module that fails shows in `last_error`."""
        await asyncio.gather(*(self._begin(member) for member in self.members))

    async def close(self) -> None:
        """Log out everywhere and end the workers, within Deadlines.close and a moment."""
        self._tasks.cancel()
        self.at_rest = False
        tokens = {token for member in self.members for token in member.logins}
        shared = any(m.places[t].hardware for m in self.members for t in m.logins & set(m.places))
        logouts = [reply for token in tokens for reply in self.log_out(token)]
        for member in self.members:
            member.life.take(WorkerEvent.CLOSE)
        if logouts:
            await asyncio.wait(logouts, timeout=self.deadlines.close)
        if links := tuple(self._links):
            for link in links:
                link.kill("the agent is closing")
            await asyncio.wait([link.exited for link in links], timeout=self.deadlines.close)
        if shared:
            await self._select()

    async def _select(self) -> None:
        """Have a last worker's OpenSC select each card's applet, which ends a login to it."""
        link = self._spawn(lambda: None, lambda _why: None)
        await asyncio.wait([link.ready], timeout=self.deadlines.close)
        link.kill("the agent is closing")
        await asyncio.wait([link.exited], timeout=self.deadlines.close)

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of the living workers."""
        return tuple(member.link.pid for member in self.members if member.link is not None)

    async def _begin(self, member: Member) -> None:
        """Fill one place with a worker that has looked at the tokens, if it has none."""
        if not member.life.take(WorkerEvent.SPAWNED):
            return
        self.spawned += 1
        link = self._spawn(self._queue.dispatch, lambda why: self._lost(member, link, why))
        member.born, member.stale = self._loop.time(), False
        member.link = link
        try:
            reply = await link.ready
            if isinstance(reply, Failed):
                member.life.take(WorkerEvent.UNFIT)
                link.kill(f"{self._program.name} does not start: {why(self.spec) or told(reply)}")
                log.info("%s", self.last_error)
                return
            self.uses_pcsc = isinstance(reply, Done) and reply.value == PCSC
            await self.look_with(member, objects=member is self.members[0])
        except TokenError as error:
            self.last_error = str(error)

    def _spawn(self, on_room: Callable[[], None], on_lost: Callable[[str], None]) -> Link:
        link = Link(
            self._program, start_seconds=self.deadlines.start, on_room=on_room, on_lost=on_lost
        )
        self._links.add(link)
        link.exited.add_done_callback(lambda _: self._exited(link))
        return link

    def _exited(self, link: Link) -> None:
        self._links.discard(link)
        if self.at_rest:
            self._state_changed()

    @property
    def holds_nothing(self) -> bool:
        """Whether the pool is at rest, and every worker that held a card is gone."""
        return self.at_rest and not self._links

    def _lost(self, member: Member, link: Link, why: str) -> None:
        if member.link is not link or member.life.state is WorkerState.CLOSED:
            return
        self.last_error = why
        lost, member.logins, member.places, member.link = member.logins, set(), {}, None
        sound = self._loop.time() - member.born > _SOUND_SECONDS
        member.deaths = 1 if sound else member.deaths + 1
        if member.life.take(WorkerEvent.DIED) and not self.at_rest:
            self._tasks.start(self._revive(member))
        for token in lost:
            self._tell_if_last(token, why)
        self.dispatch()
        self._state_changed()

    async def _revive(self, member: Member) -> None:
        """Put a new worker in the place of a dead one.

        Each that dies young makes the pause before that longer; `wait_for` ends the pause.
        """
        if member.deaths > 1:
            pause = min(_FIRST_PAUSE * 2.0 ** (member.deaths - 2), _LONGEST_PAUSE)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wanted.wait()
        await self._begin(member)

    def restart(self, why: str) -> None:
        """Replace every worker: only in a new one does the module see new readers and tokens."""
        for member in self.members:
            if member.link is not None:
                self._replace(member, member.link, why)

    async def renew(self, why: str) -> None:
        """Replace every worker by one that sees what other programs did, and wait for those.

        No login is lost: a worker that is logged in or at work is replaced later.
        """
        self._why_stale = why
        for member in self.members:
            member.stale = member.link is not None
        self.retire_stale()
        await self._try_again()
        await self.wait_up()

    async def _try_again(self) -> None:
        await asyncio.gather(*self._rouse())
        broken = [each for each in self.members if each.life.state is WorkerState.BROKEN]
        await asyncio.gather(*map(self._begin, broken))

    def retire_stale(self) -> None:
        """Replace the stale workers that nobody uses."""
        for member in self.members:
            if member.stale and member.link is not None and not (member.in_use or self._held):
                self._replace(member, member.link, self._why_stale)

    def rest(self) -> None:
        """End the workers until one is wanted, if none is in use: other programs get the cards."""
        # Only the start of the next worker ends a login that one has left on the card.
        in_use = self._held or any(each.in_use or not each.settled for each in self.members)
        if self.uses_pcsc and self._may_rest and not in_use:
            self.at_rest = True
            self.restart(f"nobody uses {self._program.name}")
            self._state_changed()

    def _rouse(self) -> list[asyncio.Task[None]]:
        """Begin to end a rest."""
        if not self.at_rest:
            return []
        self.at_rest = False
        return [self._tasks.start(self._begin(member)) for member in self.members]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the workers for the block, a login: the typed PIN must find its worker."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    @property
    def stale(self) -> bool:
        """Whether a worker is still to be replaced by one that sees what has changed."""
        return any(member.stale for member in self.members)

    def _replace(self, member: Member, link: Link, why: str) -> None:
        """Put a new worker in the place of one that had no fault: that is no error to be shown."""
        if member.link is link:
            error, member.deaths = self.last_error, 0
            link.kill(why)
            self.last_error = error

    def renew_if_lost(self, member: Member, failed: Failed) -> None:
        """Replace a worker whose module fails a login or a signature without a reason.

        OpenSC fails so for ever when another program has reset the card, or when a signature comes
        between the end of pcscd and its new start. The next PIN must not be typed for nothing.
        """
        if failed.rv == spec.CKR_GENERAL_ERROR and member.link is not None:
            member.link.kill(f"{self._program.name} failed without a reason; restarted")

    def _state_changed(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
        self._on_state()

    # -- looking -----------------------------------------------------------------------------

    async def look(self, *, objects: bool) -> None:
        """Look at the tokens with every worker, and at their objects with one of them.

        That one is the worker with the most logins, since it sees the most objects. Raises
        WorkerDied, TokenError.
        """
        await self._try_again()
        if not self.spawned:  # the module is about to start
            await self.wait_up()
        living = sorted((m for m in self.members if m.link), key=lambda m: -len(m.logins))
        if not living:
            raise WorkerDied(self.last_error or f"{self._program.name} is not running")
        for member in living:
            await self.look_with(member, objects=objects and member is living[0])

    async def look_with(self, member: Member, *, objects: bool) -> None:
        """Look with one worker and learn where it sees which token."""
        if member.link is None:
            return
        reply = await member.link.request(Look(objects), self.deadlines.look)
        if not isinstance(reply, Slots):
            what = told(reply) if isinstance(reply, Failed) else "an answer to something else"
            raise TokenError(f"{self._program.name} does not list its tokens: {what}")
        places: dict[TokenId, Place] = {}
        for slot in reply.slots:
            token = self._identify(slot)
            if token is None or slot.token is None or token in places:
                continue
            places[token] = Place(slot.slot, slot.token.identity, slot.hardware)
            if not slot.logged_in:
                self.login_lost(member, token, "another program ended it")
        for token in member.logins - places.keys():
            self.login_lost(member, token, "the token was removed")
        member.places = places
        tokens = [slot.token for slot in reply.slots if slot.token is not None]
        self._may_rest = all(token.flags & spec.CKF_LOGIN_REQUIRED for token in tokens)
        member.life.take(WorkerEvent.LOOKED)
        await self._on_look(reply, objects)
        self.dispatch()
        self._state_changed()

    async def wait_up(self) -> None:
        """Wait until every worker is up or cannot be started; Deadlines.start at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.deadlines.start):
                while not all(member.settled for member in self.members):
                    await self._changed.wait()

    async def wait_for(self, token: TokenId) -> None:
        """Wait until a worker sees `token`, or Deadlines.start. Raises TokenGone, WorkerDied."""
        self._wanted.set()
        self._rouse()
        try:
            async with asyncio.timeout(self.deadlines.start):
                while not self.members_with(token):
                    if all(member.settled for member in self.members):
                        raise absent(token, self.obstacle)
                    await self._changed.wait()
        except TimeoutError:
            raise WorkerDied(self.last_error or str(absent(token, self.obstacle))) from None
        finally:
            self._wanted.clear()

    # -- logins ------------------------------------------------------------------------------

    def members_with(self, token: TokenId) -> list[Member]:
        """Return the members that see `token`."""
        return [member for member in self.members if member.sees(token)]

    @property
    def logged_in(self) -> bool:
        """Whether any worker is logged in to any token."""
        return any(member.logins for member in self.members)

    def has_login(self, token: TokenId) -> bool:
        """Whether any worker is logged in to `token`."""
        return any(token in member.logins for member in self.members)

    def log_out(self, token: TokenId) -> "list[asyncio.Future[Reply]]":
        """C_Logout on every worker that is logged in to `token`; return what is under way."""
        sent = [self._send_logout(member, token) for member in self.members]
        return [reply for reply in sent if reply is not None]

    def _send_logout(self, member: Member, token: TokenId) -> "asyncio.Future[Reply] | None":
        """C_Logout after the requests that the worker has; from now on it gets no new one.

        C_Logout does not reach every card (with OpenSC since 0.25, no SmartCard-HSM); pcscd's reset
        or the next worker's SELECT does. So a worker for hardware ends with its last login.
        """
        if token not in member.logins:
            return None
        member.logins.discard(token)
        link, place = member.link, member.places.get(token)
        if link is None or place is None:
            return None
        reply = link.request(Logout(place.slot), self.deadlines.logout)
        if (place.hardware or member.stale) and not member.logins:
            member.life.take(WorkerEvent.LAST_LOGOUT)  # a new login waits for the next worker
            reply.add_done_callback(lambda _: self._after_last_logout(member, link))
        return reply

    def _after_last_logout(self, member: Member, link: Link) -> None:
        if not member.logins:
            self._replace(member, link, f"{self._program.name} was logged out of")
        elif member.life.take(WorkerEvent.KEPT):
            self.dispatch()
            self._state_changed()

    def login_lost(self, member: Member, token: TokenId, why: str) -> None:
        """Note that a login ended on the token's side.

        C_Logout is sent all the same, since the slot may only have failed for a moment.
        """
        if token in member.logins:
            self._send_logout(member, token)
            self._tell_if_last(token, why)

    def _tell_if_last(self, token: TokenId, why: str) -> None:
        if not self.has_login(token):
            self._on_login_lost(token, why)

    # -- operations --------------------------------------------------------------------------

    def operate(
        self, token: TokenId, use: KeyUse, data: bytes, pin: bytearray | None, *, needs_login: bool
    ) -> Call:
        """Queue a private-key operation, to be done by any worker that can."""
        call = Call(token, needs_login, use, data, pin, self.deadlines.operate, tasks.Reply())
        self._queue.add(call)
        return call

    def _nobody_for(self, call: Call) -> TokenError:
        if call.needs_login:
            return LoginNeeded(f"the login to {name_of(call.token)} has ended")
        return WorkerDied(self.last_error or str(absent(call.token, self.obstacle)))
