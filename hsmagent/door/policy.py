"""What the configuration says of a request: allow it, ask a person, or refuse it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from hsmagent.config.file import KeyConfig
from hsmagent.model import (
    PKCS11_PURPOSES,
    Clock,
    Destination,
    Doubt,
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
    """A verdict and, when it is not ALLOW, the sentence that says why.

    standing: it is allowed by a yes from before, which holds until the token's login ends.
    """

    verdict: Verdict
    reason: str = ""
    standing: bool = False


ALLOW = Decision(Verdict.ALLOW)
ALLOWED_BEFORE = Decision(Verdict.ALLOW, standing=True)

# A token's key serves these purposes without a question only where its `allow` names them.
WANT_A_WORD = (PurposeKind.SSH_CERT, PurposeKind.UNKNOWN)
# And it serves these only where its `allow` names them: nobody can tell what is signed or
# decrypted.
ONLY_IF_NAMED = PKCS11_PURPOSES | {PurposeKind.GNUPG}

# `confirm = "remember"` does not hold for these: unknown data, and what has a rule of its own.
NOT_REMEMBERED = PKCS11_PURPOSES | {PurposeKind.UNKNOWN}
# The values of `confirm` that say how often a person is asked about ONLY_IF_NAMED.
ANSWERS = dict.fromkeys(PKCS11_PURPOSES, ("never", "always")) | {
    PurposeKind.GNUPG: ("never", "always", "remember")
}

CACHED = 256  # keys: more than a person has; clients may add any number of them

Named = Callable[[Key, KeyConfig], bool]
"""Whether a `[[key]]` entry means this key."""

_Confirmed = tuple[bytes, TokenId | None, str, Purpose, Destination | None]

Agreement = tuple[bytes, TokenId | None, str]
"""Key, token, and the subject of a doubt."""


class Policy:
    """The `[[key]]` entries, and the confirmations that are still remembered.

    The first entry that matches a key decides. A key without an entry may do everything without a
    question, apart from three things for which a person must agree if the key is a token's: the
    purposes in WANT_A_WORD; a request with a doubt of its own (`ssh.signing_rules`); and, where the
    key has an X.509 certificate, a request over a forwarded connection. A key that was added with
    `ssh-add -c` is asked about in any case.

    What PKCS#11 programs and GnuPG want is refused unless `allow` names it. A yes to a PKCS#11
    program holds for that program and key until the token's login ends. A yes to GnuPG, whose agent
    asks for other programs, holds for one request.

    unknown: when doubts count: "always", or "forwarded" for forwarded connections only.
    """

    def __init__(
        self, entries: Sequence[KeyConfig], named: Named, clock: Clock, unknown: str = "always"
    ) -> None:
        self._entries = entries
        self._named = named
        self._clock = clock
        self._unknown = unknown
        self._default = KeyConfig("")
        # The whole key is looked up: `match` looks at more than its public half, which another
        # card or an agent behind ours may hold as well.
        self._by_key: dict[Key, KeyConfig] = {}
        self._remembered: dict[_Confirmed, float] = {}
        self._agreed: set[Agreement] = set()

    def decide(self, request: Request) -> Decision:
        """Return the verdict on a request, and why when it is not ALLOW."""
        entry = self.entry(request.key)
        if not _is_allowed(entry, request.purpose.kind):
            return Decision(
                Verdict.DENY,
                f"the configuration does not allow {key_line(request.key)} "
                f"to be used for {request.purpose.kind}",
            )
        if request.confirm:
            return Decision(Verdict.CONFIRM, "the key was added with a confirm constraint")
        if entry.confirm and self._must_ask(entry, request):
            return Decision(Verdict.CONFIRM, f'the configuration says confirm = "{entry.confirm}"')
        doubt = self._doubt(entry, request)
        if doubt is None:
            return ALLOW
        if _agreement(request, doubt) not in self._agreed:
            return Decision(Verdict.CONFIRM, "a person must agree to this first")
        return ALLOWED_BEFORE

    def allowed(self, key: Key) -> frozenset[PurposeKind]:
        """Return what a key may be used for at all, asked or not."""
        entry = self.entry(key)
        return frozenset(kind for kind in PurposeKind if _is_allowed(entry, kind))

    def holds_for(self, request: Request) -> Agreement | None:
        """Return what a yes to this request holds for until the token's login ends, if it does."""
        doubt = self._doubt(self.entry(request.key), request)
        return _agreement(request, doubt) if doubt is not None and doubt.subject else None

    def confirmed(self, request: Request) -> None:
        """Remember that a person agreed to this request, where that holds for others as well."""
        entry = self.entry(request.key)
        agreement = self.holds_for(request)
        if agreement is not None:
            self._agreed.add(agreement)
        if entry.confirm == "remember" and request.purpose.kind not in NOT_REMEMBERED:
            now = self._clock()
            self._remembered = {what: end for what, end in self._remembered.items() if now < end}
            self._remembered[_what(request)] = now + entry.remember

    def forget(self) -> None:
        """Drop every remembered confirmation, as when the screen or the agent is locked."""
        self._remembered.clear()
        self._agreed.clear()

    def login_ended(self, token: TokenId) -> None:
        """Drop what was agreed to until the login of this token ends."""
        self._agreed = {one for one in self._agreed if one[1] != token}

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
            case "remember" if request.purpose.kind not in PKCS11_PURPOSES:
                until = self._remembered.get(_what(request), float("-inf"))
                return until <= self._clock()
        return False

    def _doubt(self, entry: KeyConfig, request: Request) -> Doubt | None:
        """Return why a token's key may do this only once a person has agreed, if so."""
        if request.key.token is None:
            return None
        kind, doubt = request.purpose.kind, request.purpose.doubt
        if kind in ONLY_IF_NAMED:
            return None if entry.confirm in ANSWERS[kind] else _doubt_of_program(request)
        if doubt is None and kind in WANT_A_WORD:
            doubt = Doubt(kind)
        if doubt is None:
            # To a hostile host, a mail signed in the key owner's name is worth more than a login.
            certified = request.key.certificates and entry.allow is None
            return Doubt(subject=_where(request)) if certified and _is_forwarded(request) else None
        lifted = entry.allow is not None and doubt.lifted_by in entry.allow
        free = lifted or not (self._unknown == "always" or _is_forwarded(request))
        return None if free else doubt


def _is_allowed(entry: KeyConfig, kind: PurposeKind) -> bool:
    return kind not in ONLY_IF_NAMED if entry.allow is None else kind in entry.allow


def _doubt_of_program(request: Request) -> Doubt:
    """Return the doubt about a request of which nobody can tell what is signed or decrypted."""
    if request.purpose.kind is PurposeKind.GNUPG:
        return Doubt()
    return Doubt(subject=f"all that {_asker(request)} wants through PKCS#11")


def _agreement(request: Request, doubt: Doubt) -> Agreement:
    return request.key.spki, request.key.token, doubt.subject


def _is_forwarded(request: Request) -> bool:
    return request.destination is not None and request.destination.forwarded


def _where(request: Request) -> str:
    """Return the destination, with its host key, and the user that the request logs in as."""
    to, purpose = request.destination, request.purpose
    host = "" if to is None else f"{to.host} {to.host_key.hex()}"
    return f"{purpose.kind} {purpose.summary} at {host}"


def _what(request: Request) -> _Confirmed:
    """Return what a confirmation holds for: all that the person was shown, and no more.

    A yes to a login as alice from this machine is no yes to one over a forwarded connection, nor to
    one as root.
    """
    key = request.key
    return key.spki, key.token, _asker(request), request.purpose, request.destination


def _asker(request: Request) -> str:
    """Return for whom a yes is: a program, if its file identifies it, else one process.

    An ssh process counts as a program while it logs in itself: then the connection is bound to the
    key of the host it logs in to. Otherwise it may relay what somebody else wants.
    """
    process, to = request.peer.process, request.destination
    relays = process.program == "ssh" and (to is None or to.forwarded or not to.host_key)
    if process.identity and not relays:
        return process.identity
    return f"{process.pid} {process.start} {process.exe or process.program}"
