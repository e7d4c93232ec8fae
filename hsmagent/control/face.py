"""What can be asked on the face socket, by our processes that serve PKCS#11 programs and GnuPG.

Each connection speaks for one program. The operation `client` says which: a PKCS#11 program's own
socket comes with it, so that the kernel tells who asks, and not the process in between
(`daemon.handed`); for GnuPG it is whoever started that process. Until then no key can be used.

What these programs want cannot be read as an ssh login or a mail can: a digest may be anything. So
a key is neither shown nor used here unless its `allow` names the purpose (`door.policy`).
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial

from hsmagent.control.conversation import Answer, Asked, Conversation, Operation
from hsmagent.control.signed_attributes import is_signed_attributes
from hsmagent.control.values import of_record, to_base64
from hsmagent.door.gate import Gate
from hsmagent.errors import Refused, TokenGone, UsageError
from hsmagent.limit import Budgets
from hsmagent.model import (
    PKCS11_PURPOSES,
    Clock,
    Doubt,
    Key,
    Peer,
    Purpose,
    PurposeKind,
    Request,
    Scheme,
    TokenId,
    TokenStatus,
    token_name,
)
from hsmagent.token.signer import TokenSigner
from hsmagent.token.tokens import Tokens
from hsmagent.token.unwrap import decrypt, derive
from hsmagent.unwraps import Kdf, RsaUnwrap
from hsmagent.uri import parse

SCHEMES = frozenset(Scheme) - {Scheme.RSA_PKCS1_SHA1, Scheme.ED25519}

# For each program, in so many seconds. A server signs for each connection that it accepts, and an
# attack on the padding needs thousands of decryptions.
SIGNATURES = (12_000, 60.0)
DECRYPTIONS = (300, 60.0)
MOST_DERIVED = 512  # bytes
# GnuPG writes each half of an ECDSA signature as it is. Of four with P-521 two have a spare zero.
MOST_TRIES = 12

A_MAIL = "make the signature of a mail"
A_MESSAGE = "a message"
NOT_DESCRIBED = "something it does not describe"
LASTING = "whatever it wants with this key"
FOR_GNUPG = "something for GnuPG, it does not say what"


class Family(StrEnum):
    """On whose behalf a connection speaks."""

    PKCS11 = "pkcs11"
    GNUPG = "gnupg"


PURPOSES = {Family.PKCS11: PKCS11_PURPOSES, Family.GNUPG: frozenset({PurposeKind.GNUPG})}
# The purposes besides these that a client is told a key allows: GnuPG's agent serves ssh, too.
ALSO_TOLD = {Family.PKCS11: frozenset[PurposeKind](), Family.GNUPG: frozenset({PurposeKind.SSH})}

Use = Callable[[TokenSigner, bytearray | None], Awaitable[bytes]]
"""Uses a key; takes the PIN for a key that wants it for each use, else None."""


@dataclass(frozen=True, slots=True)
class _Client:
    """For whom a connection speaks. peer: None where no program was named; it may only look."""

    family: Family
    peer: Callable[[], Peer] | None


class Face:
    """What all connections of the face socket share.

    serves: returns the families that the configuration wants served now. look: sees to it that the
    tokens' objects are those of now. missed: told which program wants which token that is away.
    """

    def __init__(
        self,
        tokens: Tokens,
        gate: Gate,
        *,
        serves: Callable[[], Collection[Family]],
        look: Callable[[], Awaitable[None]],
        missed: Callable[[Peer, TokenId], None],
        clock: Clock,
    ) -> None:
        self.tokens = tokens
        self.gate = gate
        self.serves = serves
        self.look = look
        self.missed = missed
        self.signatures = Budgets(*SIGNATURES, clock)
        self.decryptions = Budgets(*DECRYPTIONS, clock)
        self.change = asyncio.Event()
        self._shown: set[TokenId] = set()

    def changed(self) -> None:
        """Wake whoever waits for a change: of tokens, of keys or of the configuration."""
        self.change.set()
        self.change = asyncio.Event()

    def shown(self, family: Family) -> list[Answer]:
        """Return every token with a key that may be used by such programs, and those keys.

        A token that was here stays in the list when it is removed.
        """
        answers, purposes = [], PURPOSES[family]
        told = purposes | ALSO_TOLD[family]
        for status in self.tokens.statuses():
            keys = [(key, self.gate.allowed(key)) for key in status.keys]
            allowed = [(key, kinds & told) for key, kinds in keys if kinds & purposes]
            if allowed:
                self._shown.add(status.id)
            if allowed or (status.id in self._shown and not status.present):
                answers.append(_token(status, allowed))
        return answers

    def away(self, uri: str) -> TokenId:
        """Return the id of a token that is away; only an earlier daemon may have seen the token.

        Raises UsageError for a URI that names no token, or one that is here.
        """
        named = parse(uri)
        if any(named.matches_token(each.id) for each in self.tokens.statuses() if each.present):
            raise UsageError("a token of that name is here")
        unseen = TokenId("", named.token or "", named.serial or "", named.model or "")
        return next((token for token in self._shown if token.uri == uri), unseen)

    def signer(self, spki: bytes, kind: PurposeKind) -> TokenSigner:
        """Return the signer of a key. Where two tokens hold it, one that may be used for this."""
        found = self.tokens.with_key(spki)
        allowed = [signer for signer in found if kind in self.gate.allowed(signer.key)]
        return (allowed or found)[0]


class FaceOperations:
    """The operations of one connection of the face socket.

    starter: who started the process that made it; GnuPG's agent, where that is for GnuPG.
    """

    def __init__(self, face: Face, starter: Callable[[], Peer]) -> None:
        self._face = face
        self._starter = starter
        self._handed: Callable[[], Peer] | None = None
        self._client: _Client | None = None
        self._told: list[Answer] | None = None

    def table(self) -> dict[str, Operation]:
        """Return the operations by name."""
        return {
            "client": self.client,
            "tokens": self.tokens,
            "changed": self.changed,
            "missed": self.missed,
            "sign_message": self.sign_message,
            "sign_digest": self.sign_digest,
            "decrypt": self.decrypt,
            "derive": self.derive,
        }

    def handed(self, peer: Callable[[], Peer]) -> None:
        """Take in who is at the other end of the socket that came with the first frame."""
        self._handed = peer

    # -- who asks ----------------------------------------------------------------------------

    async def client(self, asked: Asked) -> Answer:
        """Say for whom this connection speaks: `for` "pkcs11" or "gnupg"; once, and first.

        A PKCS#11 program's socket must have come with the frame, or nothing can be used.
        """
        if self._client is not None:
            raise UsageError("this connection speaks for a program already")
        family = asked.one_of(Family, "for")
        if family not in self._face.serves():
            raise Refused(_HOW_TO_SERVE[family])
        if family is Family.GNUPG and self._handed is not None:
            raise UsageError("GnuPG's programs hand no socket over")
        peer = self._handed if family is Family.PKCS11 else self._starter
        self._client = _Client(family, peer)
        return {}

    def _speaks_for(self) -> _Client:
        if self._client is None:
            raise UsageError("the connection does not say yet for whom it speaks")
        if self._client.family not in self._face.serves():
            raise Refused(_HOW_TO_SERVE[self._client.family])
        return self._client

    # -- looking -----------------------------------------------------------------------------

    async def tokens(self, _: Asked) -> Answer:
        """Return the tokens that have a key for this client, those keys, and CAs' certificates."""
        self._speaks_for()
        await self._face.look()
        self._told = self._shown()
        return {"tokens": self._told}

    async def changed(self, _: Asked) -> Answer:
        """Answer when `tokens` would say something else than it last did on this connection."""
        self._speaks_for()
        while True:
            change = self._face.change
            if self._shown() != self._told:
                return {}
            await change.wait()

    async def missed(self, asked: Asked) -> Answer:
        """Tell the person that a PKCS#11 program wants a token that is away: `token`, its URI."""
        client = self._speaks_for()
        if client.family is not Family.PKCS11:
            raise UsageError("GnuPG's programs say by themselves that a token is away")
        if client.peer is None:
            raise Refused("no program was named that wants the token")
        self._tell_missed(client.peer(), asked.text("token"))
        return {}

    def _tell_missed(self, peer: Peer, token: str) -> None:
        self._face.missed(peer, self._face.away(token))

    def _shown(self) -> list[Answer]:
        return self._face.shown(self._speaks_for().family)

    # -- using -------------------------------------------------------------------------------

    async def sign_message(self, asked: Asked) -> Answer:
        """Sign a message, which is hashed here. RSA: as PKCS#1 has it; ECDSA: r‖s."""
        message, scheme = asked.binary("message"), _scheme(asked)
        if self._speaks_for().family is Family.GNUPG:
            raise UsageError("GnuPG's programs hash by themselves")
        summary = A_MAIL if is_signed_attributes(message) else f"sign {NOT_DESCRIBED}"
        purpose = Purpose(PurposeKind.PKCS11_MESSAGE, summary)

        def sign(signer: TokenSigner, pin: bytearray | None) -> Awaitable[bytes]:
            return signer.sign(scheme, message, pin)

        return {"signature": await self._use(asked, purpose, self._face.signatures, sign)}

    async def sign_digest(self, asked: Asked) -> Answer:
        """Sign a digest, as long as that of the scheme's hash. RSA: PKCS#1 builds the DigestInfo.

        An ECDSA digest of another hash goes by its length. Returns what `sign_message` does. For
        GnuPG it is signed until no half has a spare zero, unless that takes a PIN each time.
        """
        digest, scheme = asked.binary("digest"), _scheme(asked)
        if len(digest) != hashlib.new(scheme.hash_name).digest_size:
            raise UsageError(f"a digest of {len(digest)} bytes does not fit {scheme}")
        purpose = self._purpose(PurposeKind.PKCS11_DIGEST, "sign", NOT_DESCRIBED)
        again = purpose.kind is PurposeKind.GNUPG and scheme.value.startswith("ecdsa")

        async def sign(signer: TokenSigner, pin: bytearray | None) -> bytes:
            signature = await signer.sign(scheme, digest, pin, hashed=True)
            tries = MOST_TRIES if again and pin is None else 0
            while tries and has_spare_zero(signature):
                signature = await signer.sign(scheme, digest, hashed=True)
                tries -= 1
            return signature

        return {"signature": await self._use(asked, purpose, self._face.signatures, sign)}

    async def decrypt(self, asked: Asked) -> Answer:
        """Decrypt with RSA and unpad. A wrong padding gives random bytes, as with `unwrap`."""
        what = RsaUnwrap(
            asked.binary("encrypted"),
            asked.text("padding"),
            asked.text("oaep_hash", "sha1"),
            asked.text("mgf_hash", "sha1"),
            asked.binary("label", b""),
        )
        purpose = self._purpose(PurposeKind.PKCS11_DECRYPT, "decrypt", A_MESSAGE)

        def plain(signer: TokenSigner, pin: bytearray | None) -> Awaitable[bytes]:
            return decrypt(signer, what, pin)

        return {"plain": await self._use(asked, purpose, self._face.decryptions, plain)}

    async def derive(self, asked: Asked) -> Answer:
        """Agree on a secret with the owner of a point (04‖x‖y): ECDH and the X9.63 KDF.

        GnuPG's programs derive the key by themselves: with `kdf_hash` "" they get the x coordinate
        of the shared point. No other program does.
        """
        point, cofactor = asked.binary("point"), asked.flag("cofactor")
        kdf: Kdf | None = None
        if asked.text("kdf_hash") or self._speaks_for().family is not Family.GNUPG:
            length = asked.number("length", 1, MOST_DERIVED)
            kdf = Kdf(asked.text("kdf_hash"), length, asked.binary("shared_info", b""))
        purpose = self._purpose(PurposeKind.PKCS11_DECRYPT, "decrypt", A_MESSAGE)

        def secret(signer: TokenSigner, pin: bytearray | None) -> Awaitable[bytes]:
            return derive(signer, point, kdf, cofactor=cofactor, pin=pin)

        return {"secret": await self._use(asked, purpose, self._face.decryptions, secret)}

    def _purpose(self, kind: PurposeKind, verb: str, what: str) -> Purpose:
        if self._speaks_for().family is Family.GNUPG:
            return Purpose(PurposeKind.GNUPG, f"{verb} {FOR_GNUPG}")
        return Purpose(kind, f"{verb} {what}")

    async def _use(self, asked: Asked, purpose: Purpose, budgets: Budgets, use: Use) -> str:
        """Have a key used through the gate; return the result in base64."""
        client = self._speaks_for()
        if client.peer is None:
            raise Refused("no program was named that wants to use the key")
        peer = client.peer()
        signer = self._signer(asked, purpose, peer)
        if not budgets.admit(peer.process.pid):
            raise Refused("too much was asked for in a short time; wait a minute")
        gate, request = self._face.gate, Request(signer.key, purpose, peer)
        if gate.lasts(request):  # the question must say so
            request = replace(request, purpose=replace(purpose, doubt=Doubt(subject=LASTING)))
        unnoticed = partial(use, signer.unnoticed)
        return to_base64(await gate.perform(request, partial(use, signer), unnoticed))

    def _signer(self, asked: Asked, purpose: Purpose, peer: Peer) -> TokenSigner:
        """Return the signer of the key; `token` is the URI of the token where the program saw it.

        Raises TokenGone, and tells the person here that the token is away: such a request does not
        reach the gate, which would.
        """
        try:
            return self._face.signer(asked.binary("key"), purpose.kind)
        except TokenGone:
            if token := asked.text("token", ""):
                with suppress(UsageError):  # the token is here, and the key is gone from it
                    self._tell_missed(peer, token)
            raise


class FaceConversation(Conversation):
    """A connection of the face socket. own: who made it; starter: see `FaceOperations`."""

    def __init__(
        self,
        face: Face,
        own: Callable[[], Peer],
        starter: Callable[[], Peer],
        send: Callable[[bytes], None],
    ) -> None:
        operations = FaceOperations(face, starter)
        self.handed = operations.handed
        super().__init__(operations.table(), own, send)


_HOW_TO_SERVE = {
    Family.PKCS11: "PKCS#11 programs are not served: set enabled = true in [pkcs11] of the"
    " configuration",
    Family.GNUPG: 'GnuPG is not served: no allow in the configuration names "gnupg"',
}


def has_spare_zero(signature: bytes) -> bool:
    """Whether r or s of r‖s begins with a zero that DER does not allow in front (X.690, 8.3.2)."""
    half = len(signature) // 2
    return any(n[0] == 0 and n[1] < 0x80 for n in (signature[:half], signature[half:]))  # noqa: PLR2004 - the sign bit


def _scheme(asked: Asked) -> Scheme:
    scheme = asked.one_of(Scheme, "scheme")
    if scheme not in SCHEMES:
        raise UsageError(f"the face socket does not sign with {scheme}")
    return scheme


def _token(status: TokenStatus, keys: list[tuple[Key, frozenset[PurposeKind]]]) -> Answer:
    authorities = dict.fromkeys(der for key, _ in keys for der in key.authorities)
    return of_record(status.id) | {
        "name": token_name(status.id),
        "uri": status.id.uri,
        "present": status.present,
        "keys": [of_record(key) | {"allowed": sorted(allowed)} for key, allowed in keys],
        "certificates": [
            {"certificate": to_base64(der), "label": "", "id": ""} for der in authorities
        ],
    }
