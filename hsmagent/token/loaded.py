"""One module with its tokens, as its workers see them."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from hsmagent.errors import HsmAgentError, TokenError
from hsmagent.model import Key, Listener, ModuleSpec, TokenId, TokenStatus
from hsmagent.tasks import Tasks
from hsmagent.token import objects, pcscd, unused
from hsmagent.token.hotplug import Watch, movable
from hsmagent.token.member import Deadlines
from hsmagent.token.pool import Pool
from hsmagent.token.readers import Seen
from hsmagent.token.remembered import Memories, memory_of
from hsmagent.token.signer import TokenSigner
from hsmagent.token.stores import Store
from hsmagent.token.token import Token
from hsmagent.worker import spec
from hsmagent.worker.messages import SlotInfo, Slots, TokenInfo
from hsmagent.worker.process import worker_environment

log = logging.getLogger(__name__)

_STALE = "what other programs changed shows in full when nobody is logged in"

# Stands for the info of an expected token: until a worker has looked, it is taken to want a login.
_UNSEEN = TokenInfo(b"", b"", b"", b"", spec.CKF_LOGIN_REQUIRED, 0, 0, complete=False)


@dataclass(frozen=True, slots=True)
class ModuleStatus:
    """One module at this moment; `state` in plain words, `pids` of its living workers.

    named: see `ModuleSpec`.
    """

    path: str
    state: str
    pids: tuple[int, ...] = ()
    last_error: str = ""
    notes: tuple[str, ...] = ()
    named: bool = True


class Loaded:
    """One module with its tokens."""

    def __init__(
        self,
        spec: ModuleSpec,
        deadlines: Deadlines,
        new_token: Callable[[TokenId, Pool, TokenInfo], Token],
        on_change: Listener,
        memories: Memories,
    ) -> None:
        self.spec = spec
        self._memories = memories
        self._public: dict[TokenId, frozenset[bytes]] = {}
        self.tokens: dict[TokenId, Token] = {}
        self.readers: dict[TokenId, str] = {}  # where a token that is in one was seen last
        self.signers: dict[TokenId, tuple[TokenSigner, ...]] = {}
        self.notes: tuple[str, ...] = ()
        self._new_token = new_token
        self._on_change = on_change
        self._told: ModuleStatus | None = None
        self._absorbing = asyncio.Lock()
        self.pool = Pool(
            spec,
            deadlines,
            identify=self._identify,
            on_look=self._absorb,
            on_login_lost=self._login_lost,
            on_state=self._tell_if_changed,
        )
        self._store = Store(spec, self._may_be_outdated)
        self._service = pcscd.Service.SERVES
        self._tasks = Tasks()
        self._freshening: asyncio.Task[None] | None = None
        self._slots: tuple[SlotInfo, ...] = ()
        self._readers: Seen = ()
        self.watch = Watch(self.pool, self.freshen, self._see_readers, told=not self._store.blind)
        self.starting = False
        self._expected: set[TokenId] = set()

    async def start(self, before: Iterable[TokenSigner] = ()) -> None:
        """Start the workers. Until these have looked, the tokens that are remembered are expected.

        So are those of `before`: the keys that a former `Loaded` of the module had at its end. An
        expected token's keys are listed already; a request to use one waits for the look.
        """
        self.starting = True
        try:
            remembered = self._memories.of_module(self.spec.path)
            expected = {name: list(memory.keys.values()) for name, memory in remembered.items()}
            for name, keys in (expected | _by_token(before)).items():
                self._expect(name, keys)
            self._on_change()
            await self.pool.start()
        finally:
            self.starting = False
            self._forget_expected()

    def _expect(self, name: TokenId, keys: Iterable[Key]) -> None:
        token = self.tokens[name] = self._new_token(name, self.pool, _UNSEEN)
        self.signers[name] = tuple(TokenSigner(token, key) for key in keys)
        self._expected.add(name)

    def _forget_expected(self) -> None:
        """Forget the expected tokens that no worker has seen."""
        expected, self._expected = self._expected, set()
        for name in expected:
            token = self.tokens.get(name)
            if token is None or not token.present:
                self.tokens.pop(name, None)
                self.signers.pop(name, None)
        self._tell_if_changed()
        if expected:
            self._on_change()

    @property
    def awaited(self) -> bool:
        """Whether nothing is known of its tokens yet."""
        return self.starting and not self.signers

    def statuses(self) -> Iterator[TokenStatus]:
        """Yield the status of each token that was seen."""
        for name, token in self.tokens.items():
            if token.present or name not in self._expected:
                yield token.status()

    async def close(self) -> None:
        """Log out and end the workers."""
        self._tasks.cancel()
        self._store.close()
        await self.watch.close()
        await self.pool.close()
        for token in self.tokens.values():
            token.unseen("the agent uses its module no longer")

    def _may_be_outdated(self) -> None:
        self.watch.rouse()

    def outdated(self) -> bool:
        """Whether another program has changed a software token since it was last looked at."""
        return self._store.outdated()

    async def freshen(self) -> None:
        """Look again if another program has changed something. Calls meanwhile share that look."""
        if self._freshening is None and self.outdated():
            self._freshening = self._tasks.start(self._refresh_quietly())
        if self._freshening is not None:
            await asyncio.wait([self._freshening])

    async def _refresh_quietly(self) -> None:
        try:
            await self.refresh()
        except HsmAgentError as error:
            log.warning("%s", error)
        finally:
            self._freshening = None

    async def refresh(self) -> None:
        """Look with new workers. A worker that is logged in looks now, and is replaced later.

        A look with a running worker shows some of what other programs did; a new worker shows all.
        """
        self._store.seen()
        if self.pool.logged_in:
            try:
                await self.pool.look(objects=True)
            except TokenError as error:  # this worker cannot even list its slots; a new one may
                self.pool.restart(str(error))
        await self.pool.renew(f"the tokens of {self.spec.path} are looked at anew")
        self.watch.rouse()  # some workers may still be replaced

    def status(self) -> ModuleStatus:
        """Return the module's status."""
        wanted, living = len(self.pool.members), sum(m.up for m in self.pool.members)
        if self.pool.holds_nothing:
            state = "at rest"
        elif living == wanted or self.pool.at_rest:
            state = "running"
        elif living:
            state = f"running with {living} of {wanted} workers"
        elif self.pool.last_error:
            state = "not running"
        else:
            state = "starting"
        notes = (*self.notes, *self._withheld(), *((_STALE,) if self.pool.stale else ()))
        if self._service is pcscd.Service.REFUSES:
            notes += (pcscd.REFUSED,)
        error = self.pool.last_error
        return ModuleStatus(
            self.spec.path, state, self.pool.pids, error, notes, named=self.spec.named
        )

    def _identify(self, slot: SlotInfo) -> TokenId | None:
        token = slot.token
        if token is None or not token.label or not token.flags & spec.CKF_TOKEN_INITIALIZED:
            return None
        words = (token.label, token.serial, token.model, token.manufacturer)
        return TokenId(self.spec.path, *(word.decode(errors="replace") for word in words))

    async def _absorb(self, looked: Slots, with_objects: bool) -> None:  # noqa: FBT001
        """Take in what a worker saw, one look after the other."""
        async with self._absorbing:
            await self._absorb_now(looked, with_objects=with_objects)

    async def _absorb_now(self, looked: Slots, *, with_objects: bool) -> None:
        there: dict[TokenId, int] = {}
        for slot in looked.slots:
            name = self._identify(slot)
            if name is None or slot.token is None or name in there:
                continue
            there[name] = slot.slot
            if slot.hardware:
                self.readers[name] = slot.name.decode(errors="replace")
            token = self.tokens.get(name)
            if token is None:
                token = self.tokens[name] = self._new_token(name, self.pool, slot.token)
            if with_objects:
                await self._absorb_objects(token, slot.token, slot.notes)
            else:
                token.seen(slot.token)
        self._forget_expected()
        for name, token in self.tokens.items():
            if name not in there and token.present:
                self.signers.pop(name, None)
                token.unseen()
        if not any(slot.rv for slot in looked.slots):
            self._forget_replaced(set(there), movable=movable(looked.slots))
        self.notes = unused.notes(looked.slots, frozenset(there.values()))
        self._slots = looked.slots
        self._tell_obstacle()
        self.watch.looked(looked.slots)
        if looked.slots:
            self._service = pcscd.Service.SERVES
        else:
            self._tasks.start(self._ask_pcscd())
        self._tell_if_changed()

    def _see_readers(self, readers: Seen) -> None:
        """Take in the state of the card readers."""
        self._readers = readers
        self._tell_obstacle()
        self._tell_if_changed()

    def _withheld(self) -> tuple[str, ...]:
        """Return the sentences on cards that pcscd sees and the module does not."""
        seen = () if self.pool.at_rest else self._slots
        return unused.withheld(self._readers, seen)

    def _tell_obstacle(self) -> None:
        """Have the absent tokens say why they may be absent."""
        obstacle = "; ".join(self._withheld())
        if obstacle != self.pool.obstacle:
            self.pool.obstacle = obstacle
            for token in self.tokens.values():
                token.changed()

    async def explain(self) -> None:
        """Ask pcscd, too, why a card may be missing. Never raises."""
        if self.pool.uses_pcsc:
            try:
                await self.watch.see_readers()
            except TokenError as error:
                log.info("%s", error)

    async def _ask_pcscd(self) -> None:
        self._service = await pcscd.ask(pcscd.socket_of(worker_environment(self.spec.env)))
        self._tell_if_changed()

    def _forget_replaced(self, there: set[TokenId], *, movable: bool) -> None:
        """Forget tokens that cannot come back: deleted ones, and those with another label now."""
        labelled_anew = {replace(name, label="") for name in there if name.serial.strip("0")}
        for name in tuple(self.tokens.keys() - there):
            if not movable or replace(name, label="") in labelled_anew:
                del self.tokens[name]

    def _tell_if_changed(self) -> None:
        now = self.status()
        if now != self._told:
            self._told = now
            self._on_change()

    async def _absorb_objects(self, token: Token, info: TokenInfo, notes: tuple[str, ...]) -> None:
        listing = objects.Listing()
        # Others go on meanwhile: a hostile module lists as many objects as it may.
        for read in objects.keys_in_slices(token.id, info.objects, complete=info.complete):
            listing = read
            await asyncio.sleep(0)
        if info.complete and info.flags & spec.CKF_LOGIN_REQUIRED:
            public = self._public.get(token.id, frozenset())
            self._memories.keep(token.id, memory_of(listing, public))
        elif not info.complete:
            self._public[token.id] = frozenset(key.spki for key in listing.keys)
            listing = self._memories.of(token.id).complete(listing)
        # The keys that are remembered may hold the token's name as it was then.
        keys = {key.spki: replace(key, token=token.id) for key in listing.keys}
        token.seen(info, (keys, notes + listing.notes))
        known = {signer.key.spki: signer for signer in self.signers.get(token.id, ())}
        self.signers[token.id] = tuple(
            known.get(spki) or TokenSigner(token, key) for spki, key in keys.items()
        )

    def _login_lost(self, name: TokenId, why: str) -> None:
        token = self.tokens.get(name)
        if token is not None:
            token.login_ended(why)


def _by_token(signers: Iterable[TokenSigner]) -> dict[TokenId, list[Key]]:
    keys: defaultdict[TokenId, list[Key]] = defaultdict(list)
    for signer in signers:
        keys[signer.token.id].append(signer.key)
    return dict(keys)
