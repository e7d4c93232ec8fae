"""A provider's module in our own workers, without a daemon around them."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from hsmagent.model import ModuleSpec
from hsmagent.token.login import Limits
from hsmagent.token.signer import TokenSigner
from hsmagent.token.token import Token
from hsmagent.token.tokens import Tokens
from tests.parts.token.provider import Provider
from tests.parts.until import async_until

UNLIMITED = Limits(3600, 3600)


@asynccontextmanager
async def loaded(provider: Provider, state: Path, *, release: float = 0.0) -> AsyncIterator[Tokens]:
    """Start a worker with the provider's module; its tokens are listed on entry."""
    tokens = Tokens(
        clock=time.monotonic,
        state_dir=state,
        limits=lambda _: UNLIMITED,
        on_change=lambda: None,
    )
    env = tuple(provider.environment.items())
    try:
        await tokens.add(ModuleSpec(provider.module, 1, provider.parameters, env, release))
        yield tokens
    finally:
        await tokens.close()


def token_of(tokens: Tokens) -> Token:
    """Return the token of the only token, seen now or before."""
    (status,) = tokens.statuses()
    return tokens.token(status.id)


def signer_of(tokens: Tokens, label: str) -> TokenSigner:
    """Return the key with this label."""
    return next(signer for signer in tokens.signers() if signer.key.label == label)


def typed(pin: str) -> bytearray:
    """Return a PIN as it comes from a prompt: a buffer that is wiped once the PIN is used."""
    return bytearray(pin.encode())


async def at_rest(tokens: Tokens) -> None:
    """Wait until nobody uses the module's cards."""
    await async_until(lambda: tokens.modules()[0].state == "at rest")


def labels(tokens: Tokens) -> set[str]:
    """Return the labels of the keys that are listed."""
    return {signer.key.label for signer in tokens.signers()}
