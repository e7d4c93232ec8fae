"""Every token of every module: the part of this package that the daemon holds.

A module that cannot be loaded, a slot that fails or a token that is gone raises nothing here:
`modules()` and `statuses()` tell of it. `signers()` is a snapshot and never waits.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

from hsmagent.errors import ConfigError, HsmAgentError, TokenGone
from hsmagent.model import Clock, Listener, ModuleSpec, TokenId, TokenStatus
from hsmagent.token import exclusive
from hsmagent.token.apart import told_apart
from hsmagent.token.failures import absent, managed
from hsmagent.token.loaded import Loaded, ModuleStatus
from hsmagent.token.login import Limits
from hsmagent.token.member import Deadlines
from hsmagent.token.pool import Pool
from hsmagent.token.remembered import Memories
from hsmagent.token.signer import TokenSigner
from hsmagent.token.token import Token
from hsmagent.worker.messages import TokenInfo

log = logging.getLogger(__name__)

GLANCE = 0.025  # seconds between two looks; nothing changes a token and lists the keys in less


@dataclass(frozen=True, slots=True)
class _Lent:
    """A module that is lent to management. Its keys stay listed, but cannot be used."""

    spec: ModuleSpec
    signers: tuple[TokenSigner, ...]


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
        self._modules: dict[str, Loaded] = {}
        self._lent: dict[str, _Lent] = {}
        self._told_apart: dict[TokenId, str] = {}  # with their readers
        self._telling: asyncio.Handle | None = None
        self._loop = asyncio.get_running_loop()
        self._glanced = -inf
        self._starting = 0
        self._looked = asyncio.Event()

    def _new_token(self, name: TokenId, pool: Pool, info: TokenInfo) -> Token:
        return Token(
            name, pool, info, clock=self._clock, limits=self._limits, on_change=self._changed
        )

    async def add(self, spec: ModuleSpec) -> None:
        """Start a module's workers and list its tokens; a module that is there already stays."""
        if spec.path in self._modules:
            await self._looked_at(spec.path)
            return
        if spec.path in self._lent:
            self._lent[spec.path] = replace(self._lent[spec.path], spec=spec)
            return
        await self._add(spec, ())

    async def _add(self, spec: ModuleSpec, before: Iterable[TokenSigner]) -> None:
        failure = ""
        try:
            spec = exclusive.applied(spec, self._state_dir)
        except ConfigError as error:
            failure = str(error)
        loaded = Loaded(spec, self._deadlines, self._new_token, self._changed, self._memories)
        self._modules[spec.path] = loaded
        if failure:
            log.error("%s", failure)
            loaded.pool.last_error = failure
            self._changed()
            return
        self._starting += 1
        try:
            await loaded.start(before)
        finally:
            self._starting -= 1
            self._looked.set()
            self._looked = asyncio.Event()

    async def remove(self, path: str) -> None:
        """Log out of a module's tokens and end its workers."""
        self._lent.pop(path, None)
        loaded = self._modules.pop(path, None)
        if loaded is not None:
            await loaded.close()
            self._changed()

    async def lend(self, path: str) -> None:
        """Remove a module until it is taken back; does nothing for one that is not loaded.

        Its keys stay listed, so that whoever wants one is told why it cannot be used now.
        """
        loaded = self._modules.pop(path, None)
        if loaded is not None:
            self._lent[path] = _Lent(loaded.spec, _signers(loaded))
            await loaded.close()
            self._changed()

    async def take_back(self, path: str) -> None:
        """Start a module that was lent, if nobody has removed it meanwhile.

        Until it has looked at its tokens, those from before are expected (see `Loaded.start`).
        """
        lent = self._lent.pop(path, None)
        if lent is not None:
            await self._add(lent.spec, lent.signers)

    def _changed(self) -> None:
        """Tell once, however much changes in one turn of the loop."""
        self._tell_apart()
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_soon(self._tell)

    def _tell_apart(self) -> None:
        tokens = [each for loaded in self._modules.values() for each in loaded.tokens.values()]
        known: dict[TokenId, str] = {}
        for loaded in self._modules.values():
            known |= {name: loaded.readers.get(name, "") for name in loaded.tokens}
        if known != self._told_apart:
            self._told_apart = known
            names = told_apart(known)
            for token in tokens:
                token.tell_by(names[token.id])

    def _tell(self) -> None:
        self._telling = None
        self._on_change()

    def modules(self) -> tuple[ModuleStatus, ...]:
        """Return the status of each module."""
        lent = (ModuleStatus(path, "lent to management") for path in self._lent)
        return (*(loaded.status() for loaded in self._modules.values()), *lent)

    def statuses(self) -> tuple[TokenStatus, ...]:
        """Return the status of each token that was seen since the start."""
        return tuple(status for loaded in self._modules.values() for status in loaded.statuses())

    def signers(self) -> tuple[TokenSigner, ...]:
        """Return every key of every token that is there, in the order of modules and objects."""
        ours = (signer for loaded in self._modules.values() for signer in _signers(loaded))
        return (*ours, *(signer for lent in self._lent.values() for signer in lent.signers))

    def with_key(self, spki: bytes) -> list[TokenSigner]:
        """Return the signers of a key: several where several tokens hold it. Raises TokenGone."""
        found = [signer for signer in self.signers() if signer.key.spki == spki]
        if not found:
            raise TokenGone("the key is not on any token that is present")
        return found

    def token(self, name: TokenId) -> Token:
        """Return the token of that name. Raises TokenGone."""
        loaded = self._modules.get(name.module)
        token = loaded.tokens.get(name) if loaded is not None else None
        if token is None:
            raise managed(name) if name.module in self._lent else absent(name)
        return token

    @property
    def awaited(self) -> bool:
        """Whether a module was started of whose tokens nothing is known yet."""
        return self._starting > 0 and any(loaded.awaited for loaded in self._modules.values())

    async def explain(self) -> None:
        """Ask pcscd, too, why a card may be missing: for callers that do not keep watching."""
        await asyncio.gather(*(loaded.explain() for loaded in self._modules.values()))

    async def looked(self) -> None:
        """Wait until every module has looked at its tokens, or cannot be started."""
        for path in tuple(self._modules):
            await self._looked_at(path)

    async def _looked_at(self, path: str) -> None:
        while (loaded := self._modules.get(path)) is not None and loaded.starting:
            await self._looked.wait()

    def outdated(self) -> bool:
        """Whether a software token was changed since the last look, or nobody has looked yet.

        It takes a few stats, at most once in GLANCE, so that a flood of calls costs little.
        """
        if self._starting and self.awaited:
            return True
        now = self._loop.time()
        if now - self._glanced < GLANCE:
            return False
        outdated = any(loaded.outdated() for loaded in self._modules.values())
        self._glanced = -inf if outdated else self._loop.time()
        return outdated

    async def freshen(self) -> None:
        """Look again at the tokens that other programs have changed. Never raises."""
        await asyncio.gather(*(loaded.freshen() for loaded in self._modules.values()))

    async def refresh(self) -> None:
        """Look again now, at tokens, objects and PIN flags, with new workers.

        Nobody loses a login: where we are logged in, some changes show only after the logout.
        """
        await asyncio.gather(*map(self._refresh, tuple(self._modules.values())))

    async def _refresh(self, loaded: Loaded) -> None:
        try:
            await loaded.refresh()
        except HsmAgentError as error:
            log.warning("%s", error)

    async def logout(self, tokens: Iterable[TokenId]) -> None:
        """Log out of these tokens, and end logins under way. Raises TokenGone.

        The tokens are logged out side by side: a module that hangs must not keep others logged in.
        """
        found = [self.token(name) for name in tokens]
        await asyncio.gather(*(token.logout() for token in found))

    async def logout_all(self) -> None:
        """Log out of every token."""
        await self.logout([status.id for status in self.statuses()])

    async def close(self) -> None:
        """Log out everywhere and end all workers, in bounded time; `on_change` is not called."""
        for path in tuple(self._modules):
            await self.remove(path)
        if self._telling is not None:
            self._telling.cancel()


def _signers(loaded: Loaded) -> tuple[TokenSigner, ...]:
    return tuple(signer for signers in loaded.signers.values() for signer in signers)
