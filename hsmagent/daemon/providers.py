"""What `ssh-add -s` and `ssh-add -e` do: load a PKCS#11 module while the daemon runs, and let go.

Implements `ssh.provider_paths.Providers` over the tokens.
"""

import asyncio
import logging
import os
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace

from hsmagent import uri
from hsmagent.errors import PinError, PinIncorrect, TokenError, TriesLow
from hsmagent.frame import wipe
from hsmagent.limit import RateLimit
from hsmagent.model import (
    Clock,
    ModuleSpec,
    PinState,
    TokenId,
    TokenStatus,
    name_of,
    printable,
    uri_quote,
)
from hsmagent.tasks import in_a_task
from hsmagent.token.signer import TokenSigner
from hsmagent.token.tokens import Tokens
from hsmagent.uri import Pkcs11Uri

log = logging.getLogger(__name__)

# More wrong PINs by `ssh-add -s` than these, in so many seconds, are guesses of a program.
WRONG_PINS, WRONG_PINS_WINDOW = 3, 600.0
REMEDY = "add it without a PIN: you are asked for it when a key is used"


class TokenProviders:
    """Adds and removes providers, and knows those that were added.

    configured: returns the modules of the configuration, which stay when a provider is removed.
    log_in: tries a PIN, which serves all who wait for that token, unless the token's PIN state is
    worse than the one given; wipes the PIN. Raises TokenError.
    """

    def __init__(
        self,
        tokens: Tokens,
        configured: Callable[[], Collection[str]],
        log_in: Callable[[TokenId, bytearray, PinState], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self._tokens = tokens
        self._configured = configured
        self._try_pin = log_in
        self._clock = clock
        self._wrong: dict[TokenId, RateLimit] = {}
        self._one_try = defaultdict[TokenId, asyncio.Lock](asyncio.Lock)
        self._added: dict[str, str] = {}  # provider, as it was named → its module's path, or ""
        # A module that is being loaded has no keys yet: a second client that names it waits.
        self._loading = asyncio.Lock()

    def configured_signers(self) -> list[TokenSigner]:
        """Return the keys of the configured modules, for the agent to offer by itself.

        Of a module that `ssh-add -s` added, the agent offers only what the client asked for.
        """
        modules = self._configured()
        return [
            signer
            for signer in self._tokens.signers()
            if signer.key.token is not None and signer.key.token.module in modules
        ]

    async def add(self, provider: str, pin: bytearray) -> Sequence[TokenSigner]:
        """Load the provider and return its keys; log in when a PIN came along and is for one token.

        A PIN that could be meant for several tokens is tried on none of them: it would cost the
        others a try. Raises TokenError when the module cannot be loaded or the PIN is wrong; then
        everything is as before.
        """
        await in_a_task()
        try:
            named, module = _read(provider)
            async with self._loading:
                known = provider in self._added
                path = self._added[provider] = await self._load(module)
            try:
                if pin:
                    await self._log_in(named, path, pin)
            except BaseException:
                if not known:
                    await self.remove(provider)
                raise
        finally:
            wipe(pin)
        return [
            signer
            for signer in self._tokens.signers()
            if named.matches_key(signer.key) and _is_in(signer.key.token, path)
        ]

    async def remove(self, provider: str) -> bool:
        """Let go of a provider; return whether it was there. The last provider ends its module."""
        if provider not in self._added:
            return False
        path = self._added.pop(provider)
        await in_a_task()
        async with self._loading:
            if path and path not in self._added.values() and path not in self._configured():
                await self._tokens.remove(path)
        return True

    async def _load(self, path: str) -> str:
        """Load a module, unless it is loaded under this or another path; return that path."""
        known = [module.path for module in self._tokens.modules()]
        found = next((each for each in known if path and _same_file(each, path)), "")
        if found or not path:
            await self._tokens.looked()  # the agent may have been started for this
            return found
        try:
            await self._start(path)
        except BaseException:
            await self._tokens.remove(path)
            raise
        return path

    async def _start(self, path: str) -> None:
        await self._tokens.add(ModuleSpec(path))
        [module] = [module for module in self._tokens.modules() if module.path == path]
        if module.last_error:
            raise TokenError(module.last_error)

    async def _log_in(self, named: Pkcs11Uri, path: str, pin: bytearray) -> None:
        meant = [status for status in self._tokens.statuses() if _is_meant(status, named, path)]
        if len(meant) == 1:
            await self._try(meant[0].id, pin)
        elif meant:
            log.warning(
                "the PIN that came with %s was not tried: it could be for any of %d tokens; "
                "name one, as in pkcs11:token=%s",
                printable(path or "the provider"),
                len(meant),
                uri_quote(meant[0].id.label),
            )

    async def _try(self, token: TokenId, pin: bytearray) -> None:
        """Try a PIN that a program gave: nobody knows whether a person typed it for this token.

        So a PIN is tried only while the token tells that all tries are left. For tokens that do not
        tell, a few wrong PINs are the limit; tries come one after the other, since those under way
        are not counted yet. A TPM counts for all its tokens together. Raises TokenError.
        """
        counts = replace(token, label="", serial="") if token.in_tpm else token
        limit = RateLimit(WRONG_PINS, WRONG_PINS_WINDOW, self._clock)
        wrong = self._wrong.setdefault(counts, limit)
        async with self._one_try[counts]:
            if wrong.is_full():
                raise PinError(f"too many wrong PINs came for {name_of(token)}; {REMEDY}")
            try:
                await self._try_pin(token, pin, PinState.OK)
            except TriesLow:
                said = f"a wrong PIN was given to {name_of(token)} before; {REMEDY}"
                raise TriesLow(said) from None
            except PinIncorrect:
                wrong.admit()
                raise


def _read(provider: str) -> tuple[Pkcs11Uri, str]:
    """Return what a provider names within its module, and the module's path."""
    if not provider.startswith(uri.SCHEME):
        return Pkcs11Uri(), provider
    named = uri.parse(provider)
    # The module may be loaded under another name, so its path is compared by `_load` alone.
    return replace(named, module_path=""), named.module_path


def _is_in(token: TokenId | None, path: str) -> bool:
    return token is not None and path in ("", token.module)


def _is_meant(status: TokenStatus, named: Pkcs11Uri, path: str) -> bool:
    return status.present and _is_in(status.id, path) and named.matches_token(status.id)


def _same_file(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
