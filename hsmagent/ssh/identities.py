"""The table of identities: what is listed, in which order, and which key a blob names.

Three sources, one table: the tokens' keys, the keys of providers added with `ssh-add -s`, and
software keys. An added key replaces a token's under the same blob, and brings its constraints.

A token's key may be offered several times: by a configured module, under certificates, and by
several providers. The constraints of the newest `ssh-add -s` that named the key hold for all.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from hsmagent.errors import Refused
from hsmagent.frame import SSH_MAX_FRAME
from hsmagent.model import Clock, Key, Signer, printable, token_name
from hsmagent.ssh import constraints, keys, messages, wire
from hsmagent.ssh.certificates import Certificate
from hsmagent.ssh.constraints import Constraints
from hsmagent.ssh.provider_paths import MAX_PROVIDERS
from hsmagent.ssh.signer import RawSigner, SshSigner

log = logging.getLogger(__name__)

NEVER = float("inf")
# Bytes that all identities together may take in a list: what a client reads, less the message's
# number and their count.
LIST_LIMIT = SSH_MAX_FRAME - 5
# Bytes of the messages whose keys we hold. In memory their contents take several times as much, and
# each list of keys waits while every destination is looked at.
HELD_LIMIT = 2 * SSH_MAX_FRAME


@dataclass(frozen=True, slots=True)
class Choice:
    """How the configuration wants some keys to be offered.

    Keys that an earlier choice matches are listed before those of a later one, and those that none
    matches come last. hide: they are not listed, but sign if a client names them. name: is shown
    instead of the label.
    """

    matches: Callable[[Key], bool]
    hide: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """A key as offered: under its plain blob, or under a certificate's.

    expires: by the agent's clock; provider: what `ssh-add -s` named, "" if it did not; size: bytes
    of the message that added it, its constraints included.
    """

    blob: bytes
    comment: str
    signer: SshSigner
    constraints: Constraints = constraints.NONE
    expires: float = NEVER
    provider: str = ""
    hidden: bool = False
    size: int = 0

    @property
    def listed_size(self) -> int:
        """Bytes that it takes in a list."""
        return len(wire.string(self.blob)) + len(wire.text(self.comment))


@dataclass(frozen=True, slots=True)
class _Rule:
    """What `ssh-add -s` says of a token's key: constraints, and until when it may be used."""

    constraints: Constraints
    expires: float

    @property
    def is_free(self) -> bool:
        """Whether the key may be used as if there were no rule."""
        return self.expires == NEVER and not self.constraints.confirm and not self.constraints.ways


@dataclass(slots=True)
class _Cache:
    """The table as it was worked out from the sources; None of it holds once they change."""

    listed: list[Identity] = field(default_factory=list)
    by_blob: dict[bytes, Identity] = field(default_factory=dict)
    expires: float = NEVER
    restricted: bool = False


class Identities:
    """The table. `version` changes whenever a list that was read before may be out of date."""

    def __init__(self, tokens: Callable[[], Sequence[Signer]], clock: Clock) -> None:
        self._tokens = tokens
        self._clock = clock
        self._added: dict[bytes, Identity] = {}
        self._providers: set[str] = set()
        # Provider and SubjectPublicKeyInfo → its rule; the newest comes last. A rule outlives the
        # lifetime that it sets, and an `ssh-add -e` that came over a forwarded agent.
        self._rules: dict[tuple[str, bytes], _Rule] = {}
        self._choices: Sequence[Choice] = ()
        self._certificates: Sequence[Certificate] = ()
        self._cache: _Cache | None = None
        self._version = 0

    def configure(self, choices: Sequence[Choice], certificates: Sequence[Certificate]) -> None:
        """Take new choices and certificates for the tokens' keys."""
        self._choices = choices
        self._certificates = certificates
        self.changed()

    def changed(self) -> None:
        """Look at the tokens again."""
        self._cache = None
        self._version += 1

    @property
    def version(self) -> int:
        """A number that changes with the list; keys whose time is over are taken away first."""
        self._fresh()
        return self._version

    def listed(self) -> Sequence[Identity]:
        """Return every identity that is not hidden, in order."""
        return self._fresh().listed

    def added_keys(self) -> list[Key]:
        """Return the software and FIDO keys that were added, each once."""
        self._fresh()
        added = (each.signer.key for each in self._added.values() if not each.provider)
        return list({key.spki: key for key in added}.values())

    @property
    def restricted(self) -> bool:
        """Whether any key is for certain destinations only, so that connections see other lists."""
        return self._fresh().restricted

    def find(self, blob: bytes) -> Identity | None:
        """Return the identity under a blob."""
        return self._fresh().by_blob.get(blob)

    def has(self, key: Key, blob: bytes) -> bool:
        """Whether a key is offered under this blob, its own or a certificate's."""
        found = self.find(blob)
        return found is not None and found.signer.key.spki == key.spki

    # -- adding and removing -----------------------------------------------------------------

    def check_size(self, identities: Iterable[Identity]) -> None:
        """Raise Refused when a list with these added would be longer than a client reads.

        Hidden ones count: without a limit, whoever may add keys could have us hold any number.
        """
        there = self._fresh().by_blob | {each.blob: each for each in identities}
        if sum(each.listed_size for each in there.values()) > LIST_LIMIT:
            raise Refused("so many keys are here that a list with another one would be too long")
        if sum(each.size for each in there.values()) > HELD_LIMIT:
            raise Refused("the keys that were added, with their constraints, take too much room")

    def add(self, identities: Iterable[Identity]) -> None:
        """Add identities; one replaces another with the same blob."""
        for identity in identities:
            self._added[identity.blob] = identity
        self.changed()

    def remove(self, blob: bytes, *, keep_rules: bool) -> None:
        """Take one away. Raises Refused when it was not added.

        keep_rules: its constraints stay in force, since the client must not free a token's key.
        """
        gone = self._added.pop(blob, None)
        if gone is None:
            raise Refused("that key was not added with ssh-add, so it cannot be removed")
        name = gone.provider, gone.signer.key.spki
        if not keep_rules and all(_names(each) != name for each in self._added.values()):
            self._rules.pop(name, None)
        self.changed()

    def remove_software(self) -> None:
        """Take every software key away."""
        self._added = {blob: each for blob, each in self._added.items() if each.provider}
        self.changed()

    @property
    def providers(self) -> frozenset[str]:
        """The providers that were added, or whose rules still hold."""
        return frozenset(self._providers).union(provider for provider, _ in self._rules)

    def check_room(self, provider: str) -> None:
        """Raise Refused when this provider would be one too many."""
        if provider not in self.providers and len(self.providers) >= MAX_PROVIDERS:
            raise Refused(f"{MAX_PROVIDERS} providers are added already; remove one first")

    def add_provider(self, provider: str, identities: Sequence[Identity]) -> None:
        """Add a provider's keys, and what holds for them, in place of those it had."""
        self._drop_provider(provider)
        self._drop_rules(provider, all_of_them=True)
        self._providers.add(provider)
        for each in identities:
            self._rules[_names(each)] = _Rule(each.constraints, each.expires)
        self.add(identities)

    def remove_provider(self, provider: str, *, keep_rules: bool) -> bool:
        """Take a provider's keys away; False when there were none. keep_rules: as in `remove`."""
        known = provider in self.providers
        self._drop_provider(provider)
        self._drop_rules(provider, all_of_them=not keep_rules)
        self.changed()
        return known

    def is_ruled(self, key: Key) -> bool:
        """Whether constraints hold for a token's key, however it is offered."""
        rule = self._rules_by_key().get(key.spki)
        return rule is not None and not rule.is_free

    def _drop_provider(self, provider: str) -> None:
        self._providers.discard(provider)
        self._added = {b: each for b, each in self._added.items() if each.provider != provider}

    def _drop_rules(self, provider: str, *, all_of_them: bool) -> None:
        """Drop a provider's rules: all of them, or only those that restrict nothing."""
        self._rules = {
            name: rule
            for name, rule in self._rules.items()
            if name[0] != provider or not (all_of_them or rule.is_free)
        }

    def _rules_by_key(self) -> dict[bytes, _Rule]:
        return {spki: rule for (_, spki), rule in self._rules.items()}

    # -- working it out ----------------------------------------------------------------------

    def _fresh(self) -> _Cache:
        cache = self._cache
        if cache is not None and (cache.expires == NEVER or self._clock() < cache.expires):
            return cache
        now = self._clock()
        self._added = {b: each for b, each in self._added.items() if now < each.expires}
        self._version += 1
        self._cache = self._build()
        return self._cache

    def _build(self) -> _Cache:
        offered: dict[bytes, Identity] = {}
        for signer in self._tokens():
            for identity in offers(signer, self._certificates):
                offered.setdefault(identity.blob, identity)
        offered |= self._added
        rules, now = self._rules_by_key(), self._clock()
        ruled = (_under(identity, rules, now) for identity in offered.values())
        ranked = [self.chosen(identity) for identity in ruled if identity is not None]
        ranked.sort(key=lambda pair: pair[0])
        chosen = [identity for _, identity in ranked]
        return _Cache(
            listed=[identity for identity in chosen if not identity.hidden],
            by_blob={identity.blob: identity for identity in chosen},
            expires=min((identity.expires for identity in chosen), default=NEVER),
            restricted=any(identity.constraints.ways for identity in chosen),
        )

    def chosen(self, identity: Identity) -> tuple[int, Identity]:
        """Return the identity's rank, and the identity as the first matching choice wants it."""
        for rank, choice in enumerate(self._choices):
            if choice.matches(identity.signer.key):
                comment = printable(choice.name) or identity.comment
                return rank, replace(identity, comment=comment, hidden=choice.hide)
        return len(self._choices), identity


def _names(identity: Identity) -> tuple[str, bytes]:
    return identity.provider, identity.signer.key.spki


def _under(identity: Identity, rules: dict[bytes, _Rule], now: float) -> Identity | None:
    """Return an identity as the rule for its key has it; None when its time is over."""
    key = identity.signer.key
    rule = None if key.token is None else rules.get(key.spki)
    if rule is None:
        return identity
    if now >= rule.expires:
        return None
    return replace(identity, constraints=rule.constraints, expires=rule.expires)


def offers(
    signer: Signer,
    certificates: Iterable[Certificate],
    under: Constraints = constraints.NONE,
    expires: float = NEVER,
    provider: str = "",
) -> list[Identity]:
    """Return a token key's identities: the plain one, then one per certificate for it.

    Returns none when ssh has no name for the kind of key, or when the key may not sign.
    """
    blob = keys.blob_of(signer.key.spki)
    if blob is None or not signer.key.can_sign:
        return []
    blobs = [] if under.certs_only else [blob]
    blobs += [certificate.blob for certificate in certificates if certificate.plain == blob]
    comment, offered = comment_of(signer.key), RawSigner(signer)
    return [
        Identity(each, comment, offered, under, expires, provider, size=under.size)
        for each in blobs
    ]


def comment_of(key: Key) -> str:
    """Return the comment for a token's key: the object's label, then the token's."""
    label = printable(key.label)
    if key.token is None:
        return label
    token = token_name(key.token)
    return f"{label} ({token})" if label else token


def list_of(identities: Iterable[Identity]) -> bytes:
    """Return the reply that lists these identities, as many as a client reads."""
    pairs: list[tuple[bytes, str]] = []
    left = LIST_LIMIT
    for identity in identities:
        left -= identity.listed_size
        if left < 0:
            log.warning("a list of keys is too long; only the first %d are in it", len(pairs))
            break
        pairs.append((identity.blob, identity.comment))
    return messages.encode(messages.IdentitiesAnswer(tuple(pairs)))
