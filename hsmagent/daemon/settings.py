"""The configuration for each part: from `Config` to the part's own options."""

import logging
from collections.abc import Iterator
from pathlib import Path

from hsmagent.config.discovery import certificate_files
from hsmagent.config.file import CacheConfig, Config, KeyConfig, TokenConfig
from hsmagent.control.face import Family
from hsmagent.control.names import names_key
from hsmagent.door.policy import Policy
from hsmagent.errors import ProtocolError
from hsmagent.model import Clock, PurposeKind, TokenId
from hsmagent.ssh import certificates
from hsmagent.ssh.certificates import Certificate
from hsmagent.ssh.identities import Choice
from hsmagent.ssh.options import AgentOptions
from hsmagent.token.login import Limits

log = logging.getLogger(__name__)


def cache(settings: Config, token: TokenId) -> CacheConfig:
    """Return how long a login to this token lasts, and what ends it."""
    entry = token_entry(settings, token)
    return settings.cache if entry is None else entry.cache


def token_entry(settings: Config, token: TokenId) -> TokenConfig | None:
    """Return the first `[[token]]` that matches."""
    return next((e for e in settings.tokens if e.match.matches_token(token)), None)


def limits(settings: Config, token: TokenId) -> Limits:
    """Return after how many seconds a login to this token ends."""
    found = cache(settings, token)
    return Limits(found.idle, found.max)


def policy(settings: Config, clock: Clock, unknown: str = "always") -> Policy:
    """Return the policy of the `[[key]]` entries; unknown: see `Policy`."""
    return Policy(settings.keys, lambda key, entry: names_key(entry.match, key), clock, unknown)


def families(settings: Config) -> frozenset[Family]:
    """Return for whom the face socket is there: PKCS#11 programs, GnuPG, both or neither."""
    gnupg = any(PurposeKind.GNUPG in (entry.allow or ()) for entry in settings.keys)
    wanted = {Family.PKCS11: settings.pkcs11.enabled, Family.GNUPG: gnupg}
    return frozenset(family for family, is_wanted in wanted.items() if is_wanted)


def agent_options(settings: Config) -> AgentOptions:
    """Return the ssh agent's options."""
    return AgentOptions(
        providers=settings.ssh.providers,
        choices=tuple(map(_choice, settings.keys)),
        certificates=tuple(_certificates(settings.ssh.certificates)),
    )


def _choice(entry: KeyConfig) -> Choice:
    return Choice(lambda key: names_key(entry.match, key), hide=entry.hide, name=entry.name)


def _certificates(patterns: tuple[str, ...]) -> Iterator[Certificate]:
    """Read every file that a pattern names; a folder stands for the certificates in it."""
    for pattern in patterns:
        for name in certificate_files(pattern):
            try:
                yield from certificates.from_file(Path(name).read_bytes())
            except (OSError, ProtocolError) as error:
                log.warning("the certificate %s is left out: %s", name, error)
