"""What the parts speak of: frozen values, and the interfaces through which parts meet.

A key is a key: whether it lives in a token or was added with ssh-add, the ssh agent, the mail
side and the gate see the same `Key`, named by its SubjectPublicKeyInfo.
"""

from base64 import b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from operator import attrgetter
from typing import Protocol

# -- keys and tokens -------------------------------------------------------------------------


class KeyType(StrEnum):
    """The kinds of key that we use."""

    RSA = "RSA"
    EC = "EC"
    ED25519 = "Ed25519"
    EC_SK = "ECDSA-SK"  # in a FIDO authenticator ("security key"), as OpenSSH calls it
    ED25519_SK = "Ed25519-SK"
    OTHER = "unknown kind"  # a key of another agent (`[ssh] upstream`) that we cannot read


@dataclass(frozen=True, slots=True)
class TokenId:
    """Which token: enough to tell it from every other one, and to find it again after a re-plug.

    `module` is the path of the PKCS#11 module; label, serial and model are the token's own words,
    stripped of padding but otherwise untrusted: pass them through `model.printable` before a
    person sees them. told_by: what tells it from another known token of the same label, else "".
    """

    module: str
    label: str
    serial: str
    model: str
    manufacturer: str = ""
    told_by: str = field(default="", compare=False)

    def __hash__(self) -> int:
        return hash(self.serial)  # one field tells most of them apart, and a text keeps its hash

    @property
    def in_tpm(self) -> bool:
        """Whether a TPM holds it, which counts the wrong PINs of all its tokens together."""
        return "tpm2" in self.module.rpartition("/")[2]

    @property
    def in_nss(self) -> bool:
        """Whether it is a database of NSS (Firefox, Thunderbird), which has no security officer."""
        return "softokn" in self.module.rpartition("/")[2]

    @property
    def uri(self) -> str:
        """The token as a PKCS#11 URI (RFC 7512)."""
        return _token_uri(self.label, self.serial, self.model, self.manufacturer)


@dataclass(frozen=True, slots=True)
class Key:
    """A key pair whose private half somebody can use for us.

    spki: DER SubjectPublicKeyInfo, the key's name within the agent; for KeyType.OTHER the key blob.
    curve: the curve's name as `cryptography` spells it ("secp256r1", "brainpoolP256r1"), or "".
    bits: RSA modulus length or the curve's field size.
    token: where it lives; None for a software key and a FIDO key.
    id: CKA_ID; empty for a software key.
    certificates: X.509 certificates (DER) with the same CKA_ID.
    authorities: certificates (DER) of CAs on the same token.
    always_authenticate: CKA_ALWAYS_AUTHENTICATE: wants the PIN for each operation.
    application: for whom a FIDO key signs: "ssh:", or a web site; untrusted text, as labels are.
    touch: it signs only once its authenticator is touched (FIDO's user presence).
    """

    spki: bytes
    key_type: KeyType
    bits: int
    curve: str = ""
    label: str = ""
    token: TokenId | None = None
    id: bytes = b""
    certificates: tuple[bytes, ...] = ()
    authorities: tuple[bytes, ...] = ()
    always_authenticate: bool = False
    can_sign: bool = True
    can_decrypt: bool = False
    can_derive: bool = False
    application: str = ""
    touch: bool = False

    def __hash__(self) -> int:
        return hash(self.spki)

    @property
    def opens(self) -> bool:
        """Whether messages that are encrypted for the key can be opened with it."""
        return self.can_decrypt or self.can_derive

    @property
    def uri(self) -> str:
        """The key as a PKCS#11 URI, or "" for one that no token holds."""
        if self.token is None:
            return ""
        uri = self.token.uri
        if self.label:
            uri += f";object={uri_quote(self.label)}"
        if self.id:
            uri += ";id=%" + self.id.hex("%")
        return uri + ";type=private"


class Scheme(StrEnum):
    """How to sign: padding and hash. The signer hashes, except a digest from the face socket."""

    RSA_PKCS1_SHA1 = "rsa-pkcs1-sha1"
    RSA_PKCS1_SHA256 = "rsa-pkcs1-sha256"
    RSA_PKCS1_SHA384 = "rsa-pkcs1-sha384"
    RSA_PKCS1_SHA512 = "rsa-pkcs1-sha512"
    RSA_PSS_SHA256 = "rsa-pss-sha256"  # MGF1 with the same hash, salt as long as the hash
    RSA_PSS_SHA384 = "rsa-pss-sha384"
    RSA_PSS_SHA512 = "rsa-pss-sha512"
    ECDSA_SHA256 = "ecdsa-sha256"
    ECDSA_SHA384 = "ecdsa-sha384"
    ECDSA_SHA512 = "ecdsa-sha512"
    ED25519 = "ed25519"

    @property
    def hash_name(self) -> str:
        """The hash as hashlib names it; "" for Ed25519, which takes the message itself."""
        return self.value.rpartition("-")[2] if "-" in self.value else ""


class PinState(StrEnum):
    """What the token says of its user PIN. SoftHSM and TPMs tell less than cards do."""

    OK = "ok"
    COUNT_LOW = "count-low"  # a wrong PIN was given since the last right one
    FINAL_TRY = "final-try"  # the next wrong PIN blocks it
    LOCKED = "locked"
    NOT_SET = "not-set"  # CKF_USER_PIN_INITIALIZED is off

    def is_worse_than(self, other: "PinState") -> bool:
        """Whether wrong PINs lead from the other state to this one; none leads to NOT_SET."""
        order = _BY_WRONG_PINS
        return self in order and other in order and order.index(self) > order.index(other)


_BY_WRONG_PINS = (PinState.OK, PinState.COUNT_LOW, PinState.FINAL_TRY, PinState.LOCKED)


@dataclass(frozen=True, slots=True)
class TokenStatus:
    """One token at this moment; what `hsmagent status`, the prompt and the bus show.

    Times are seconds, and None when logged out: `idle_left` until the login ends if nobody uses it,
    `max_left` until it ends in any case, `login_age` since it began, `idle_limit` as long as it
    lasts unused. `pin_pad`: the PIN is typed on the reader (CKF_PROTECTED_AUTHENTICATION_PATH).
    `notes`: what was skipped and why; `obstacle`: what may keep an absent token from being found.
    """

    id: TokenId
    present: bool
    logged_in: bool
    pin_state: PinState
    pin_pad: bool
    login_required: bool
    pin_min: int
    pin_max: int
    keys: tuple[Key, ...] = ()
    idle_left: float | None = None
    max_left: float | None = None
    login_age: float | None = None
    idle_limit: float | None = None
    last_error: str = ""
    notes: tuple[str, ...] = ()
    obstacle: str = ""


@dataclass(frozen=True, slots=True)
class ModuleSpec:
    """One [[module]] of the configuration, or one that is installed where it names none.

    parameters: for C_Initialize (NSS). env: added to the workers'. release: idle seconds to logout,
    0: never. exclusive: nobody else uses it while we are logged in. named: in the configuration.
    """

    path: str
    workers: int = 1
    parameters: str = ""
    env: tuple[tuple[str, str], ...] = ()
    release: float = 0.0
    exclusive: bool = False
    named: bool = True


# -- who asks, and for what ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Process:
    """A process as /proc shows it. Names inform; they prove nothing.

    start: in clock ticks. identity: which program it is, by its file and where it runs, or "".
    """

    pid: int
    program: str  # the executable's base name, or "unknown"
    exe: str = ""  # its full path where readable
    arguments: tuple[str, ...] = ()
    start: int = 0
    identity: str = ""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is on the other end of a socket. `parents` starts with the nearest one."""

    uid: int
    process: Process
    parents: tuple[Process, ...] = ()

    @property
    def chain(self) -> str:
        """For a person: "ssh ← git ← zsh"."""
        return " ← ".join(map(attrgetter("program"), (self.process, *self.parents)))


@dataclass(frozen=True, slots=True)
class Destination:
    """Where an ssh signature goes, from the session-bind of its connection.

    host: the best name we have ("git.example.org", else "SHA256:…"); forwarded: the request came
    over an agent-forwarding hop, so that `Peer` is only this end of it.
    """

    host: str
    host_key: bytes = b""
    forwarded: bool = False


class PurposeKind(StrEnum):
    """What a private-key operation is for; the words of the config's `allow`."""

    SSH = "ssh"
    SSHSIG = "sshsig"
    SSH_CERT = "ssh-cert"
    MAIL = "mail"
    GIT = "git"
    UNKNOWN = "unknown"
    PKCS11_MESSAGE = "pkcs11-message"
    PKCS11_DIGEST = "pkcs11-digest"
    PKCS11_DECRYPT = "pkcs11-decrypt"
    GNUPG = "gnupg"


# What a program wants through PKCS#11 is known by its kind alone.
PKCS11_PURPOSES = frozenset(
    (PurposeKind.PKCS11_MESSAGE, PurposeKind.PKCS11_DIGEST, PurposeKind.PKCS11_DECRYPT)
)


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why a token's key does something only once a person has agreed.

    lifted_by: the word in the key's `allow` that spares the question; None if no word does.
    subject: what a yes holds for until the token's login ends; "" if it holds for one request.
    """

    lifted_by: PurposeKind | None = None
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Purpose:
    """A purpose and one printable clause about it: "log in as alice", "sign git commit"."""

    kind: PurposeKind
    summary: str
    doubt: Doubt | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One wish for a private-key operation; travels unchanged from the socket to the log.

    confirm: the key's own constraint (ssh-add -c) demands a confirmation. on_wait: takes a sentence
    for the asking program on why it waits, and whether its terminal shows that already.
    """

    key: Key
    purpose: Purpose
    peer: Peer
    destination: Destination | None = None
    confirm: bool = False
    on_wait: Callable[[str, bool], None] | None = field(default=None, compare=False, repr=False)


# -- the interfaces --------------------------------------------------------------------------


class Signer(Protocol):
    """A key that signs, wherever it lives. Called behind the door, and nowhere else."""

    @property
    def key(self) -> Key:
        """The key."""

    async def sign(self, scheme: Scheme, data: bytes, pin: bytearray | None = None) -> bytes:
        """Sign `data` (hashed here, per `scheme`) and check the result against the public key.

        RSA: the signature, as long as the modulus. ECDSA: r‖s, each as long as the order.
        Ed25519: 64 bytes. `pin` is given for `always_authenticate` keys only, and wiped.
        Raises TokenError.
        """


Operation = Callable[[bytearray | None], Awaitable[bytes]]
"""What a key does behind the door; takes the PIN for a key that wants it each time, else None."""


class Door(Protocol):
    """The gate as the protocols see it: every private-key operation passes here."""

    async def perform(self, request: Request, operation: Operation) -> bytes:
        """Decide, ask, log in, carry out, record. Raises Refused or TokenError."""

    def refused(self, request: Request, reason: str) -> None:
        """Record what a protocol refused by its own rules, before it came to a key."""


Clock = Callable[[], float]
"""Seconds from any fixed start, never going back: time.monotonic, or a test's own."""

Listener = Callable[[], None]
"""Told that something changed; looks for itself what."""


# -- words for a person ----------------------------------------------------------------------

FINGERPRINT = "SHA256:"


def fingerprint(blob: bytes) -> str:
    """Return a key blob's fingerprint as OpenSSH writes it: "SHA256:" and base64, unpadded."""
    return FINGERPRINT + b64encode(sha256(blob).digest()).decode().rstrip("=")


PRINTABLE_LIMIT = 120


def printable(text: str, limit: int = PRINTABLE_LIMIT) -> str:
    """Make foreign text safe to show: no control, format or bidi characters, bounded length.

    Prompters render U+202E and friends (a label could reverse the sentence around it), terminals
    obey escape codes, and a long name could push the question out of the window.
    """
    if not text.isprintable():
        text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def quoted(text: str, limit: int = PRINTABLE_LIMIT) -> str:
    """Return foreign text as it stands in a sentence: printable, and in quotes."""
    return f"“{printable(text, limit)}”"


def token_name(token: TokenId) -> str:
    """Return what a person calls a token: its label or model, and what tells it from others."""
    name = printable(token.label or token.model or "token", 60)
    return f"{name} ({token.told_by})" if token.told_by else name


def name_of(token: TokenId) -> str:
    """Return a token's name for a sentence, in quotes."""
    return quoted(token_name(token))


@lru_cache(maxsize=64)
def _token_uri(label: str, serial: str, model: str, manufacturer: str) -> str:
    attributes = {"token": label, "serial": serial, "model": model, "manufacturer": manufacturer}
    given = (f"{name}={uri_quote(value)}" for name, value in attributes.items() if value)
    return "pkcs11:" + ";".join(given)


@lru_cache(maxsize=1024)
def uri_quote(value: str) -> str:
    """Percent-encode one attribute value of a PKCS#11 URI (RFC 7512, section 2.3)."""
    from urllib.parse import quote  # a worker has no need of it

    return quote(value, safe="-._~:[]@!$'()*+,=&")
