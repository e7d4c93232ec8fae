"""Every token of every module: what the daemon holds of this package.

A module that cannot be loaded, a slot that fails, a token that is gone: none raises here, each is
told in `modules()` and `statuses()`. Listing (`signers`) is a snapshot and never waits.
"""

import asyncio
import logging
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from hsmagent.errors import ConfigError, HsmAgentError
from hsmagent.model import Clock, Listener, ModuleSpec, TokenId, TokenStatus, quoted
from hsmagent.token import exclusive, objects
from hsmagent.token.apart import told_apart
from hsmagent.token.failures import absent
from hsmagent.token.hotplug import Watch
from hsmagent.token.login import Limits
from hsmagent.token.member import Deadlines
from hsmagent.token.pool import Pool
from hsmagent.token.remembered import Memories, memory_of
from hsmagent.token.signer import TokenSigner
from hsmagent.token.token import Token
from hsmagent.worker import spec
from hsmagent.worker.messages import SlotInfo, Slots, TokenInfo

log = logging.getLogger(__name__)

__all__ = [
    "Deadlines",
    "Limits",
    "ModuleSpec",
    "ModuleStatus",
    "Token",
    "TokenSigner",
    "Tokens",
]


@dataclass(frozen=True, slots=True)
class ModuleStatus:
    """One module at this moment; `state` in plain words, `pids` of its living workers."""

    path: str
    state: str
    pids: tuple[int, ...] = ()
    last_error: str = ""
    notes: tuple[str, ...] = ()


class _Loaded:
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
        self.watch = Watch(self.pool)

    async def close(self) -> None:
        """Log out and end the workers."""
        self.watch.close()
        await self.pool.close()
        for token in self.tokens.values():
            token.unseen()

    async def refresh(self) -> None:
        """Look again; a software token that was made since needs new workers to be seen."""
        await self.pool.look(objects=True)
        if self.watch.movable:
            return
        there = {name for name, token in self.tokens.items() if token.present}
        if await self.pool.look_afresh() == there:
            return
        if any(self.pool.has_login(name) for name in there):
            self.notes += ("tokens were made or removed: that shows when nobody is logged in",)
            return
        self.pool.restart(f"the tokens of {self.spec.path} changed")
        await self.pool.wait_up()

    def status(self) -> ModuleStatus:
        """Return the module as it is now."""
        wanted, living = len(self.pool.members), sum(m.up for m in self.pool.members)
        if living == wanted:
            state = "running"
        elif living:
            state = f"running with {living} of {wanted} workers"
        elif self.pool.last_error:
            state = "not running"
        else:
            state = "starting"
        return ModuleStatus(self.spec.path, state, self.pool.pids, self.pool.last_error, self.notes)

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
        notes: list[str] = []
        there: set[TokenId] = set()
        for slot in looked.slots:
            name = self._identify(slot)
            if name is None or slot.token is None or name in there:
                notes += _slot_notes(slot, again=name is not None)
                continue
            there.add(name)
            token = self.tokens.get(name)
            if token is None:
                token = self.tokens[name] = self._new_token(name, self.pool, slot.token)
            if with_objects:
                await self._absorb_objects(token, slot.token, slot.notes)
            else:
                token.seen(slot.token)
        for name, token in self.tokens.items():
            if name not in there and token.present:
                self.signers.pop(name, None)
                token.unseen()
        self.notes = tuple(notes)
        self.watch.looked(looked.slots)
        self._tell_if_changed()

    def _tell_if_changed(self) -> None:
        now = self.status()
        if now != self._told:
            self._told = now
            self._on_change()

    async def _absorb_objects(self, token: Token, info: TokenInfo, notes: tuple[str, ...]) -> None:
        listing = await _in_slices(
            objects.keys_in_slices(token.id, info.objects, complete=info.complete)
        )
        if info.complete and info.flags & spec.CKF_LOGIN_REQUIRED:
            public = self._public.get(token.id, frozenset())
            self._memories.keep(token.id, memory_of(listing, public))
        elif not info.complete:
            self._public[token.id] = frozenset(key.spki for key in listing.keys)
            listing = self._memories.of(token.id).complete(listing)
        # What is remembered of it may call it otherwise.
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


async def _in_slices(reading: Generator[None, None, objects.Listing]) -> objects.Listing:
    """Read a token's objects while others go on: a hostile module lists as many as it may."""
    while True:
        try:
            next(reading)
        except StopIteration as done:
            listing: objects.Listing = done.value
            return listing
        await asyncio.sleep(0)


def _slot_notes(slot: SlotInfo, *, again: bool) -> list[str]:
    """Say why a slot's token is not used, if there is one."""
    if slot.rv:
        return [f"slot {slot.slot} cannot be read: {spec.rv_meaning(slot.rv)}"]
    token = slot.token
    if token is None:
        return []
    if not token.flags & spec.CKF_TOKEN_INITIALIZED:
        return [f"slot {slot.slot} holds a blank token: `hsmagent token init` makes it usable"]
    if again:
        label = quoted(token.label.decode(errors="replace"))
        return [f"slot {slot.slot}: a second token that calls itself {label} is skipped"]
    return [
        f"slot {slot.slot}: a token without a label is skipped: `hsmagent token init` gives it one"
    ]


class Tokens:
    """All modules. Make it in a running loop.

    state_dir: where public keys are remembered. limits: how long a login to that token may last;
    asked at each login. on_change: something that `modules`, `statuses` or `signers` return has
    changed; told at most once in each turn of the loop.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        state_dir: Path,
        limits: Callable[[TokenId], Limits],
        on_change: Listener,
        deadlines: Deadlines | None = None,
    ) -> None:
        self._clock = clock
        self._state_dir = state_dir
        self._memories = Memories(state_dir)
        self._limits = limits
        self._on_change = on_change
        self._deadlines = deadlines or Deadlines()
        self._modules: dict[str, _Loaded] = {}
        self._lent: dict[str, ModuleSpec] = {}
        self._told_apart: frozenset[TokenId] = frozenset()
        self._telling: asyncio.Handle | None = None

    def _new_token(self, name: TokenId, pool: Pool, info: TokenInfo) -> Token:
        return Token(
            name, pool, info, clock=self._clock, limits=self._limits, on_change=self._changed
        )

    async def add(self, spec: ModuleSpec) -> None:
        """Start a module's workers and list its tokens; a module that is there already stays."""
        if spec.path in self._modules:
            return
        if spec.path in self._lent:
            self._lent[spec.path] = spec
            return
        failure = ""
        try:
            spec = exclusive.applied(spec, self._state_dir)
        except ConfigError as error:
            failure = str(error)
        loaded = _Loaded(spec, self._deadlines, self._new_token, self._changed, self._memories)
        self._modules[spec.path] = loaded
        if failure:
            log.error("%s", failure)
            loaded.pool.last_error = failure
            self._changed()
            return
        await loaded.pool.start()

    async def remove(self, path: str) -> None:
        """Log out of a module's tokens and end its workers."""
        self._lent.pop(path, None)
        loaded = self._modules.pop(path, None)
        if loaded is not None:
            await loaded.close()
            self._changed()

    async def lend(self, path: str) -> None:
        """Remove a module until it is taken back; what is not loaded has nothing to let go of."""
        loaded = self._modules.get(path)
        if loaded is not None:
            await self.remove(path)
            self._lent[path] = loaded.spec

    async def take_back(self, path: str) -> None:
        """Start a module that was lent, if nobody has removed it meanwhile."""
        spec = self._lent.pop(path, None)
        if spec is not None:
            await self.add(spec)

    def _changed(self) -> None:
        """Tell once, however much changes in one turn of the loop."""
        self._tell_apart()
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_soon(self._tell)

    def _tell_apart(self) -> None:
        tokens = [each for loaded in self._modules.values() for each in loaded.tokens.values()]
        known = frozenset(token.id for token in tokens)
        if known != self._told_apart:
            self._told_apart = known
            names = told_apart(known)
            for token in tokens:
                token.tell_by(names[token.id])

    def _tell(self) -> None:
        self._telling = None
        self._on_change()

    def modules(self) -> tuple[ModuleStatus, ...]:
        """Return how each module is."""
        lent = (ModuleStatus(path, "lent to management") for path in self._lent)
        return (*(loaded.status() for loaded in self._modules.values()), *lent)

    def statuses(self) -> tuple[TokenStatus, ...]:
        """Return how each token is that was seen since the start."""
        return tuple(
            token.status() for loaded in self._modules.values() for token in loaded.tokens.values()
        )

    def signers(self) -> tuple[TokenSigner, ...]:
        """Return every key of every token that is there, in the order of modules and objects."""
        return tuple(
            signer
            for loaded in self._modules.values()
            for signers in loaded.signers.values()
            for signer in signers
        )

    def token(self, name: TokenId) -> Token:
        """Return the token of that name. Raises TokenGone."""
        loaded = self._modules.get(name.module)
        token = loaded.tokens.get(name) if loaded is not None else None
        if token is None:
            raise absent(name)
        return token

    async def refresh(self) -> None:
        """Look again now, at tokens, objects and PIN flags."""
        for loaded in tuple(self._modules.values()):
            try:
                await loaded.refresh()
            except HsmAgentError as error:
                log.warning("%s", error)

    async def logout(self, tokens: Iterable[TokenId]) -> None:
        """Log out of these tokens, and end logins under way. Raises TokenGone.

        All at once: a module that hangs must not keep the other tokens logged in.
        """
        found = [self.token(name) for name in tokens]
        await asyncio.gather(*(token.logout() for token in found))

    async def logout_all(self) -> None:
        """Log out of every token."""
        await self.logout([status.id for status in self.statuses()])

    async def close(self) -> None:
        """Log out everywhere and end all workers, bounded in time. Nobody is told any more."""
        for path in tuple(self._modules):
            await self.remove(path)
        if self._telling is not None:
            self._telling.cancel()
