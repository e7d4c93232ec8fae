"""One token's login: who may use it, for how long, and the keys behind it.

The PIN passes through and is not kept. What is kept is the token's own login, until it was unused
for `idle` seconds, until it is `max` seconds old, or until the token, its worker or a logout ends
it; then C_Logout is called and every handle dropped.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

from hsmagent.errors import (
    HsmAgentError,
    LoginNeeded,
    PinError,
    TokenError,
    TokenGone,
    WorkerDied,
)
from hsmagent.frame import wipe
from hsmagent.model import (
    Clock,
    Key,
    Listener,
    PinState,
    TokenId,
    TokenStatus,
    name_of,
    quoted,
)
from hsmagent.token.failures import login_error, operation_error, told
from hsmagent.token.login import NO_LEASE, Limits, check_pin, check_tries, lease_of, pin_state
from hsmagent.token.member import Call, Member
from hsmagent.token.pool import Pool
from hsmagent.token.states import TOKEN, Life, TokenEvent, TokenState
from hsmagent.worker import spec
from hsmagent.worker.messages import (
    Done,
    Failed,
    KeyUse,
    Login,
    Reply,
    TokenInfo,
)

log = logging.getLogger(__name__)

# What an Ed25519 key signs whole; everything else is hashed before. An ssh frame holds less.
MAX_DATA = 512 << 10

_OPEN = TokenState.OPEN  # looked up once: in the enum it would take a call for each signature


class Token:
    """A token as the rest of the daemon sees it. It stays the same while the token is unplugged."""

    def __init__(
        self,
        token: TokenId,
        pool: Pool,
        info: TokenInfo,
        *,
        clock: Clock,
        limits: Callable[[TokenId], Limits],
        on_change: Listener,
    ) -> None:
        self.id = token
        self._pool = pool
        self._clock = clock
        self._limits = limits
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()
        self._life = Life(TOKEN, TokenState.ABSENT)
        self._logouts = 0
        self._lease = NO_LEASE
        self._timer: asyncio.TimerHandle | None = None
        self._info = info
        self.keys: Mapping[bytes, Key] = {}  # by SPKI
        self._notes: tuple[str, ...] = ()
        self._last_error = ""
        self._status: TokenStatus | None = None  # as it is without a login, until that changes

    # -- what is known -----------------------------------------------------------------------

    @property
    def present(self) -> bool:
        """Whether the token was there when last looked at."""
        return self._life.state is not TokenState.ABSENT

    @property
    def login_required(self) -> bool:
        """CKF_LOGIN_REQUIRED: without a login its private keys cannot be used."""
        flags = self._info.flags & spec.CKF_LOGIN_REQUIRED
        return bool(flags) or not self.present

    @property
    def logged_in(self) -> bool:
        """Whether an operation would find a login that has not run out."""
        return self._life.state is _OPEN and self._clock() < self._lease.ends

    def status(self) -> TokenStatus:
        """Return the token's status."""
        if self._status is None:
            self._status = self._work_out_status()
        if not self.logged_in:
            return self._status
        return self._lease.shown(self._status, self._clock())

    def _work_out_status(self) -> TokenStatus:
        flags = self._info.flags if self.present else spec.CKF_LOGIN_REQUIRED
        return TokenStatus(
            id=self.id,
            present=self.present,
            logged_in=False,
            pin_state=pin_state(flags) if self.present else PinState.OK,
            pin_pad=bool(flags & spec.CKF_PROTECTED_AUTHENTICATION_PATH),
            login_required=self.login_required,
            pin_min=self._info.pin_min if self.present else 0,
            pin_max=self._info.pin_max if self.present else 0,
            keys=tuple(self.keys.values()),
            last_error=self._last_error,
            notes=self._notes,
            obstacle="" if self.present else self._pool.obstacle,
        )

    def seen(
        self, info: TokenInfo, found: tuple[Mapping[bytes, Key], tuple[str, ...]] | None = None
    ) -> None:
        """Take in what a look told. found: keys and notes, if the look was for objects, too."""
        before = self._info, self.keys, self._notes
        self._info = replace(info, objects=(), complete=False)  # they are in `found`
        if found is not None:
            self.keys, self._notes = dict(found[0]), found[1]
        self._take(TokenEvent.SEEN)
        if before != (self._info, self.keys, self._notes):
            self.changed()

    def tell_by(self, told_by: str) -> None:
        """Take in what tells this token from another known one of its label."""
        if told_by != self.id.told_by:
            self.id = replace(self.id, told_by=told_by)
            self.keys = {spki: replace(key, token=self.id) for spki, key in self.keys.items()}
            self.changed()

    def unseen(self, why: str = "the token was removed") -> None:
        """Take in that the token is not there any more, for us."""
        self.keys = {}
        self._notes = ()
        self._take(TokenEvent.REMOVED, why)

    def changed(self) -> None:
        """Forget the status that was worked out, since what it tells has changed; tell of it."""
        self._status = None
        self._on_change()

    def _failed(self, why: str) -> None:
        """Keep the newest failure, "" for none."""
        if why != self._last_error:
            self._last_error = why
            self.changed()

    # -- its life ----------------------------------------------------------------------------

    def _take(self, event: TokenEvent, why: str = "") -> "list[asyncio.Future[Reply]]":
        """Take in what happened (see `states`), and do what the new state calls for.

        why: what ended the login, if a person is to know. Returns the logouts under way.
        """
        was_open = self._life.state is _OPEN
        changed = self._life.take(event)
        if changed:
            self.changed()
        if self._life.state is _OPEN:
            if changed:
                self._lease = lease_of(self._limits_now(), self._clock())
                self._arm()
            return []
        self._lease = NO_LEASE
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if was_open and why:
            self._failed(f"the login to {name_of(self.id)} has ended: {why}")
            log.info("%s", self._last_error)
        logouts = self._pool.log_out(self.id)
        if was_open:
            self._pool.dispatch()  # what waits for a login fails now
        return logouts

    # -- the login ---------------------------------------------------------------------------

    def _limits_now(self) -> Limits:
        limits = self._limits(self.id)
        release = self._pool.spec.release
        return Limits(min(limits.idle, release), limits.max) if release > 0 else limits

    async def login(
        self, pin: bytearray | None, *, at_worst: PinState = PinState.COUNT_LOW
    ) -> bool:
        """Log in with one C_Login, or none when that cannot help; None is the PIN pad.

        With several workers, each needs the PIN once; the first failure ends it, so that a wrong
        PIN costs one try. Returns False when all are logged in already: the PIN was not tried, and
        may be a wrong one. at_worst: how the PIN may stand for a try; FINAL_TRY only where a person
        has agreed to the last one. `pin` is wiped in any case. Raises PinIncorrect, PinLocked,
        PinLength, TriesLow, PinError, TokenGone, WorkerDied, TokenError.
        """
        own = None if pin is None else bytearray(pin)
        if pin is not None:
            wipe(pin)
        # A caller that gives up must not leave a login that nobody knows of, so the login goes on
        # without it. It may wipe the PIN that it gave, so it goes on with a copy: a wiped PIN would
        # be tried, and counted as a wrong one.
        task = self._loop.create_task(self._login_and_wipe(own, at_worst, self._logouts))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    async def _login_and_wipe(
        self, pin: bytearray | None, at_worst: PinState, logouts: int
    ) -> bool:
        try:
            async with self._lock:
                with self._pool.held():
                    tried = await self._login(pin, at_worst, logouts)
                self._failed("")
                return tried
        except HsmAgentError as error:
            self._failed(str(error))
            raise
        finally:
            if pin is not None:
                wipe(pin)

    async def _login(self, pin: bytearray | None, at_worst: PinState, logouts: int) -> bool:
        self._expire()
        await self._pool.wait_for(self.id)
        if all(self.id in member.logins for member in self._pool.members_with(self.id)):
            return False
        await self._pool.look(objects=False)  # the PIN may have been blocked, or unblocked, since
        check_pin(self.status(), pin)
        check_tries(self.status(), at_worst)
        try:
            for member in self._pool.members_with(self.id):
                if self.id not in member.logins:
                    self._check_wanted(logouts)
                    await self._login_with(member, pin, logouts)
        except (PinError, TokenGone):
            await self.look()
            raise
        except WorkerDied:
            # The PIN is not tried again; but a login that other workers have by now will do.
            if not self._pool.has_login(self.id):
                raise
        if not self._pool.has_login(self.id):
            raise WorkerDied(f"{name_of(self.id)} was not asked, its module starts anew: try again")
        await self.look(objects=True)
        self._check_wanted(logouts)
        if not self._pool.has_login(self.id):
            raise WorkerDied(f"the login to {name_of(self.id)} is lost again: {self._last_error}")
        return True

    def _check_wanted(self, logouts: int) -> None:
        """Undo a login under way, and raise PinError, if there was a logout since it began."""
        if self._logouts != logouts:
            self._take(TokenEvent.OVERTAKEN)
            raise PinError(f"{name_of(self.id)} was locked while its PIN was being tried")

    async def _login_with(self, member: Member, pin: bytearray | None, logouts: int) -> None:
        """C_Login on one worker: no other code sends it."""
        place, link = member.places.get(self.id), member.link
        if place is None or link is None:
            return
        deadlines = self._pool.deadlines
        seconds = deadlines.pin_pad if pin is None else deadlines.login
        reply = await link.request(Login(place.slot, place.identity, pin), seconds)
        if isinstance(reply, Failed):
            self._pool.renew_if_lost(member, reply)
            raise login_error(self.id, reply)
        member.logins.add(self.id)
        self._check_wanted(logouts)
        self._take(TokenEvent.ACCEPTED)

    async def look(self, *, objects: bool = False) -> None:
        """Ask the token again for its PIN's state and, if wanted, its `objects`. Never raises."""
        try:
            await self._pool.look(objects=objects)
        except TokenError as error:
            log.warning("%s: %s", self._pool.spec.path, error)

    async def logout(self) -> None:
        """C_Logout and drop every handle; return when the token is logged out.

        A login that is under way is undone as soon as the token has answered.
        """
        self._logouts += 1
        waiting = self._take(TokenEvent.LOGOUT)
        if waiting:
            await asyncio.wait(waiting)

    def login_ended(self, why: str) -> None:
        """Take in that the login ended on the token, or with its worker."""
        self._take(TokenEvent.LOST, why)

    def _arm(self) -> None:
        left = self._lease.ends - self._clock()
        self._timer = self._loop.call_later(max(0.0, left), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._expire()
        if self._life.state is _OPEN:
            self._arm()

    def _expire(self) -> None:
        if self._life.state is _OPEN and self._clock() >= self._lease.ends:
            self._take(TokenEvent.EXPIRED)
            log.info("the login to %s has run out", name_of(self.id))

    # -- private keys ------------------------------------------------------------------------

    async def operate(
        self,
        key: Key,
        use: KeyUse,
        data: bytes,
        pin: bytearray | None = None,
        *,
        extends: bool = True,
    ) -> bytes:
        """Use a private key. Wipes `pin`. Raises LoginNeeded, PinError, TokenGone, WorkerDied."""
        try:
            self._admit(key, data, pin, extends=extends)
            needs_login = self.login_required
            call = self._pool.operate(self.id, use, data, pin, needs_login=needs_login)
            reply = await call.reply
        except WorkerDied as error:
            self._failed(str(error))
            raise
        finally:
            if pin is not None:
                wipe(pin)
        if isinstance(reply, Done):
            return reply.value
        if not isinstance(reply, Failed):
            raise TokenError(f"{name_of(self.id)} gave an answer to something else")
        raise await self._failure(call, reply, with_pin=pin is not None)

    async def _failure(self, call: Call, reply: Failed, *, with_pin: bool) -> TokenError:
        """Take in that an operation failed; return the error."""
        # A look that the worker did before this operation may have found the login gone.
        late = self.login_required and call.member is not None and self.id not in call.member.logins
        failure = operation_error(self.id, reply, with_pin=with_pin, late=late)
        self._failed(str(failure))
        if reply.login_lost and call.member is not None:
            self._pool.login_lost(call.member, self.id, told(reply))
            self._pool.renew_if_lost(call.member, reply)
        if isinstance(failure, PinError):
            await self.look()  # how many tries are left
        return failure

    def _admit(self, key: Key, data: bytes, pin: bytearray | None, *, extends: bool) -> None:
        """Raise for what the token would refuse, or count as a wrong PIN; note the use."""
        if len(data) > MAX_DATA:
            raise TokenError(f"{len(data)} bytes are too many to sign at once")
        if pin is None and self.keys.get(key.spki, key).always_authenticate:
            raise PinError(f"the key {quoted(key.label)} wants its PIN for each use: try again")
        if pin is not None:
            check_pin(self.status(), pin)
        if self._life.state is _OPEN:
            now = self._clock()
            if now >= self._lease.ends:
                self._expire()
                raise LoginNeeded(f"the login to {name_of(self.id)} has run out")
            if extends:
                self._lease = self._lease.used(now)
        elif self.login_required:
            raise LoginNeeded(f"nobody is logged in to {name_of(self.id)}")
