"""What the configuration says of a request: allow it, ask a person, or refuse it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from hsmagent.config.file import KeyConfig
from hsmagent.model import (
    Clock,
    Destination,
    Key,
    Purpose,
    PurposeKind,
    Request,
    TokenId,
)
from hsmagent.prompt.words import key_line


class Verdict(StrEnum):
    """What the policy says of a request."""

    ALLOW = "allow"
    CONFIRM = "confirm"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict and, when it is not ALLOW, the sentence that says why."""

    verdict: Verdict
    reason: str = ""


ALLOW = Decision(Verdict.ALLOW)

CACHED = 256  # keys: more than anyone has, and clients may add any number

Named = Callable[[Key, KeyConfig], bool]
"""Whether a `[[key]]` entry means this key."""

_Confirmed = tuple[bytes, TokenId | None, str, Purpose, Destination | None]


class Policy:
    """The `[[key]]` entries, and the confirmations that are still remembered.

    The first entry that matches a key decides; a key without one may do everything unasked, but
    for one thing: a token's key signs data that we cannot read only after a question, unless its
    `allow` names that. For such data may be a mail or a certificate, which a forwarded host wants
    signed. A constraint set with `ssh-add -c` asks in any case.

    unknown: "always", or "forwarded" to ask only then; as in `KeyConfig.confirm`.
    """

    def __init__(
        self, entries: Sequence[KeyConfig], named: Named, clock: Clock, unknown: str = "always"
    ) -> None:
        self._entries = entries
        self._named = named
        self._clock = clock
        self._unknown = unknown
        self._default = KeyConfig("")
        # By the whole key: `match` looks at more than its public half, which another card or an
        # agent behind ours may hold as well.
        self._by_key: dict[Key, KeyConfig] = {}
        self._remembered: dict[_Confirmed, float] = {}

    def decide(self, request: Request) -> Decision:
        """Return the verdict on a request, and why when it is not ALLOW."""
        entry = self.entry(request.key)
        if entry.allow is not None and request.purpose.kind not in entry.allow:
            return Decision(
                Verdict.DENY,
                f"the configuration does not allow {key_line(request.key)} "
                f"to be used for {request.purpose.kind}",
            )
        if request.confirm:
            return Decision(Verdict.CONFIRM, "the key was added with a confirm constraint")
        if self._must_ask(entry, request):
            return Decision(Verdict.CONFIRM, f'the configuration says confirm = "{entry.confirm}"')
        if self._is_doubtful(entry, request):
            return Decision(Verdict.CONFIRM, 'its allow does not name "unknown"')
        return ALLOW

    def confirmed(self, request: Request) -> None:
        """Remember that a person agreed to this request, where the configuration says so."""
        entry = self.entry(request.key)
        if entry.confirm == "remember" and request.purpose.kind is not PurposeKind.UNKNOWN:
            now = self._clock()
            self._remembered = {what: end for what, end in self._remembered.items() if now < end}
            self._remembered[_what(request)] = now + entry.remember

    def forget(self) -> None:
        """Drop every remembered confirmation: the screen was locked, the user said lock."""
        self._remembered.clear()

    def entry(self, key: Key) -> KeyConfig:
        """Return the entry that decides for a key."""
        found = self._by_key.get(key)
        if found is None:
            if len(self._by_key) >= CACHED:
                self._by_key.clear()
            found = next((e for e in self._entries if self._named(key, e)), self._default)
            self._by_key[key] = found
        return found

    def _must_ask(self, entry: KeyConfig, request: Request) -> bool:
        match entry.confirm:
            case "always":
                return True
            case "forwarded":
                return _is_forwarded(request)
            case "remember":
                until = self._remembered.get(_what(request), float("-inf"))
                return until <= self._clock()
        return False

    def _is_doubtful(self, entry: KeyConfig, request: Request) -> bool:
        """Whether a token's key is to sign what nobody can tell, without anyone having agreed."""
        return (
            entry.allow is None
            and request.purpose.kind is PurposeKind.UNKNOWN
            and request.key.token is not None
            and (self._unknown == "always" or _is_forwarded(request))
        )


def _is_forwarded(request: Request) -> bool:
    return request.destination is not None and request.destination.forwarded


def _what(request: Request) -> _Confirmed:
    """Return what a confirmation holds for: all that the person was shown, and no more.

    Who may log in as alice over here is not asked whether a forwarded host may, or as root.
    """
    key, process = request.key, request.peer.process
    return (
        *(key.spki, key.token, process.exe or process.program),
        *(request.purpose, request.destination),
    )
