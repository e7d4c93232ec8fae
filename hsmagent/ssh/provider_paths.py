"""Which providers clients may name: the allow-list, and a library's one true path.

`ssh-add -s` names PKCS#11 modules; `ssh-add` of a FIDO key names what speaks to its authenticator.
"""

import os
from collections.abc import Sequence
from typing import Protocol

from hsmagent import uri
from hsmagent.errors import Refused
from hsmagent.model import (
    Key,
    KeyType,
    Peer,
    Purpose,
    PurposeKind,
    Request,
    Signer,
    printable,
    uri_quote,
)
from hsmagent.ssh.patterns import matches_list

MAX_PROVIDERS = 16
INTERNAL = "internal"  # ssh-sk-helper's own support for FIDO


class Providers(Protocol):
    """What loads the tokens that `ssh-add -s` names; the daemon implements it.

    `provider` is what `canonical` returned: a module's path, or a PKCS#11 URI.
    """

    async def add(self, provider: str, pin: bytearray) -> Sequence[Signer]:
        """Load the provider, log in if `pin` is not empty; wipe it. Raises HsmAgentError."""

    async def remove(self, provider: str) -> bool:
        """Let go of the provider; False when it was not there."""


def wish_to_load(provider: str, peer: Peer) -> Request:
    """Return the request to load a provider, for the activity log.

    It holds a URI only up to the query, since people write PINs into that.
    """
    key = Key(b"", KeyType.OTHER, 0, label=provider.partition("?")[0])
    return Request(key, Purpose(PurposeKind.UNKNOWN, "have its keys served (ssh-add -s)"), peer)


def canonical(provider: str, patterns: Sequence[str]) -> str:
    """Return the provider with its module's real path; a URI without module-path unchanged.

    Raises Refused for a module that does not exist or is not on the allow-list, UsageError for a
    URI that is not one, or that holds a PIN.
    """
    if not provider.startswith(uri.SCHEME):
        return _module(provider, patterns, "PKCS#11 module")
    path = uri.parse(provider).module_path
    if not path:
        return provider
    # The checked path goes into the URI: what a link points to may change after the check.
    head, _, query = provider.partition("?")
    attributes = [part for part in query.split("&") if not part.startswith("module-path=")]
    quoted = uri_quote(_module(path, patterns, "PKCS#11 module")).replace("&", "%26")
    attributes.append(f"module-path={quoted}")
    return f"{head}?{'&'.join(attributes)}"


def is_internal(sk_provider: str) -> bool:
    """Whether a FIDO provider is ssh-sk-helper's own support, and no library: "internal", or ""."""
    return sk_provider.lower() in ("", INTERNAL)


def canonical_sk(sk_provider: str, patterns: Sequence[str]) -> str:
    """Return a FIDO provider with its real path, or "internal". Raises Refused."""
    if is_internal(sk_provider):
        return INTERNAL
    return _module(sk_provider, patterns, "FIDO provider")


def _module(path: str, patterns: Sequence[str], what: str) -> str:
    try:
        real = os.path.realpath(path, strict=True)
    except (OSError, ValueError):
        raise Refused(f"there is no {what} {printable(path)}") from None
    if not matches_list(real, patterns):
        raise Refused(f"{what} {printable(real)} is not allowed; allowed are {', '.join(patterns)}")
    return real
