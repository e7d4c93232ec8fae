"""The table of identities: what is listed, in which order, and which key a blob names.

Three sources, one table: the tokens' keys, the keys of providers added with `ssh-add -s`, and
software keys. An added key replaces a token's under the same blob, and brings its constraints.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from hsmagent.errors import Refused
from hsmagent.model import Clock, Key, Signer, printable
from hsmagent.ssh import constraints, keys
from hsmagent.ssh.certificates import Certificate
from hsmagent.ssh.constraints import Constraints
from hsmagent.ssh.providers import MAX_PROVIDERS

NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Choice:
    """What a person wants of some keys.

    Keys of an earlier choice are listed before those of a later one and those of none; `hide`
    leaves them out of the list (asked for by name, they sign); `name` is shown instead of the
    label.
    """

    matches: Callable[[Key], bool]
    hide: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """A key as offered: under its plain blob, or under a certificate's.

    expires: by the agent's clock; provider: what `ssh-add -s` named, "" if it did not.
    """

    blob: bytes
    comment: str
    signer: Signer
    constraints: Constraints = constraints.NONE
    expires: float = NEVER
    provider: str = ""
    hidden: bool = False


@dataclass(slots=True)
class _Cache:
    """What is worked out from the sources, until they change."""

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
        """A number for the list as it is now; keys whose time is over leave first."""
        self._fresh()
        return self._version

    def listed(self) -> Sequence[Identity]:
        """Return every identity that is not hidden, in order."""
        return self._fresh().listed

    @property
    def restricted(self) -> bool:
        """Whether any is for certain destinations only, so that lists differ."""
        return self._fresh().restricted

    def find(self, blob: bytes) -> Identity | None:
        """Return the identity under a blob."""
        return self._fresh().by_blob.get(blob)

    # -- adding and removing -----------------------------------------------------------------

    def add(self, identities: Iterable[Identity]) -> None:
        """Add or replace."""
        for identity in identities:
            self._added[identity.blob] = identity
        self.changed()

    def remove(self, blob: bytes) -> None:
        """Take one away. Raises Refused when it was not added."""
        if self._added.pop(blob, None) is None:
            raise Refused("that key was not added with ssh-add, so it cannot be removed")
        self.changed()

    def remove_software(self) -> None:
        """Take every software key away."""
        self._added = {blob: each for blob, each in self._added.items() if each.provider}
        self.changed()

    @property
    def providers(self) -> frozenset[str]:
        """The providers that were added."""
        return frozenset(self._providers)

    def check_room(self, provider: str) -> None:
        """Raise Refused when this provider would be one too many."""
        if provider not in self._providers and len(self._providers) >= MAX_PROVIDERS:
            raise Refused(f"{MAX_PROVIDERS} providers are added already; remove one first")

    def add_provider(self, provider: str, identities: Iterable[Identity]) -> None:
        """Add a provider's keys in place of those it had."""
        self._drop_provider(provider)
        self._providers.add(provider)
        self.add(identities)

    def remove_provider(self, provider: str) -> bool:
        """Take a provider's keys away; False when it was not added."""
        known = provider in self._providers
        self._drop_provider(provider)
        self.changed()
        return known

    def _drop_provider(self, provider: str) -> None:
        self._providers.discard(provider)
        self._added = {b: each for b, each in self._added.items() if each.provider != provider}

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
        ranked = [self.chosen(identity) for identity in offered.values()]
        ranked.sort(key=lambda pair: pair[0])
        chosen = [identity for _, identity in ranked]
        return _Cache(
            listed=[identity for identity in chosen if not identity.hidden],
            by_blob={identity.blob: identity for identity in chosen},
            expires=min((identity.expires for identity in chosen), default=NEVER),
            restricted=any(identity.constraints.ways for identity in chosen),
        )

    def chosen(self, identity: Identity) -> tuple[int, Identity]:
        """Return the identity's rank, and itself as the first choice that matches wants it."""
        for rank, choice in enumerate(self._choices):
            if choice.matches(identity.signer.key):
                comment = printable(choice.name) or identity.comment
                return rank, replace(identity, comment=comment, hidden=choice.hide)
        return len(self._choices), identity


def offers(
    signer: Signer,
    certificates: Iterable[Certificate],
    under: Constraints = constraints.NONE,
    expires: float = NEVER,
    provider: str = "",
) -> list[Identity]:
    """Return a token key's identities: the plain one, then one per certificate for it.

    None at all when ssh has no name for the key, or when it may not sign.
    """
    blob = keys.blob_of(signer.key.spki)
    if blob is None or not signer.key.can_sign:
        return []
    blobs = [] if under.certs_only else [blob]
    blobs += [certificate.blob for certificate in certificates if certificate.plain == blob]
    comment = comment_of(signer.key)
    return [Identity(each, comment, signer, under, expires, provider) for each in blobs]


def comment_of(key: Key) -> str:
    """Return the comment for a token's key: the object's label, then the token's."""
    label = printable(key.label)
    if key.token is None:
        return label
    token = printable(key.token.label)
    return f"{label} ({token})" if label else token
