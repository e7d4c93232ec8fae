"""One function for each parser of foreign bytes, and seeds to start from.

A target feeds bytes to its parser and swallows the errors that the parser promises; whatever else
comes out is a finding.
"""

import base64
from collections.abc import Callable
from contextlib import suppress
from functools import cache

from cryptography.hazmat.primitives.asymmetric import ed25519

from hsmagent.cli import openssl_args, sendmail_args
from hsmagent.errors import HsmAgentError, ProtocolError, Refused, UsageError
from hsmagent.frame import SSH_MAX_FRAME, Reader
from hsmagent.mail import address, canonical, layers, mime, multipart
from hsmagent.mail.cms import certificates, enveloped, signers
from hsmagent.mail.cms.content import Undecryptable
from hsmagent.mail.cms.signers import Covered
from hsmagent.mail.report import Who
from hsmagent.mail.spool import Memory, Region
from hsmagent.ssh import messages, signed_data
from hsmagent.ssh.keys import decode as decode_key
from hsmagent.ssh.signing_rules import judge
from hsmagent.ssh.software import SoftwareSigner
from tests.fuzz import card, elsewhere, free, pkcs11, scd
from tests.parts.agent.ssh_agent import PEER, Parts, token_signer
from tests.parts.mail.people import person, signed
from tests.parts.mail.pki import NOW
from tests.ssh import vectors

MESSAGE = b"From: alice@example.org\nTo: b@c\nSubject: Hi\nContent-Type: text/plain\n\nHello\n"


@cache
def _ours() -> tuple[bytes, certificates.Certificate]:
    who = person("p256")
    return signed(MESSAGE, who, opaque=True), certificates.Certificate(who.der)


def cms_signed(data: bytes) -> None:
    """SignedData, and the check of its signatures."""
    try:
        found = signers.read(Memory(data))
        content = found.content
        covered = Covered(content.chunks if content else lambda: iter([MESSAGE]))
        for info in found.infos:
            signers.check(info, found.certificates, covered)
    except UsageError:
        pass


def cms_enveloped(data: bytes) -> None:
    """EnvelopedData and AuthEnvelopedData, decrypted with a wrong key."""
    who = person("rsa")
    ours = [(who.key, certificates.Certificate(who.der))]
    try:
        found = enveloped.read(Memory(data), ours)
        for _ in found.decrypt(bytes(found.cipher.key_length)):
            pass
    except (UsageError, Undecryptable):
        pass


def certificate(data: bytes) -> None:
    """One certificate, and what we ask of it."""
    try:
        for found in certificates.read(data):
            _ = found.addresses, found.name, found.issuer_name, found.key_usage, found.not_after
            _ = found.issuer_and_serial, found.key_identifier, found.spki, found.is_root
            _ = Who.of(found), found.valid_at(NOW), found.can_be_validated
    except UsageError:
        pass


def message(data: bytes) -> None:
    """Read a whole message: header, parts, layers, and the form in which it would be signed."""
    try:
        entity = mime.read(Region.whole(Memory(data)))
        if entity.content_type.kind.startswith("multipart/"):
            multipart.parts(entity)
        layers.find(entity)
        pieces = canonical.prepare(entity.fields, entity.body, entity.newline)
        made = mime.read(pieces[0] if len(pieces) == 1 else pieces[1])
        assert made is not None
    except UsageError:
        pass


def addresses(data: bytes) -> None:
    """Read an address list, and a Content-Type."""
    text = data.decode("utf-8", "surrogateescape")
    for read in (address.mailboxes, mime.content_type):
        try:
            read(text)
        except UsageError:
            continue


def arguments(data: bytes) -> None:
    """Command lines of the stand-ins."""
    words = data.decode("utf-8", "replace").split("\0")
    for read in (openssl_args.parse, sendmail_args.parse):
        try:
            read(words)
        except UsageError:
            continue


def agent_messages(data: bytes) -> None:
    """Read the agent protocol: frames, messages, keys and data to be signed."""
    reader = Reader(SSH_MAX_FRAME)
    try:
        reader.feed(data)
        while (body := reader.next_frame()) is not None:
            found = messages.decode(bytes(body))
            assert messages.decode(messages.encode(found)) == found
    except ProtocolError:
        pass
    with suppress(HsmAgentError):
        decode_key(data)
    for read in (signed_data.read_userauth, signed_data.read_sshsig, signed_data.read_certificate):
        read(data)
    signed_data.read_sudo(data)
    signed_data.is_mail(data)


def signed_freely(data: bytes) -> None:
    """Have other protocols' readers look at what a token's key signs unasked: none may take it."""
    here = free.circumstances()
    try:
        purpose = judge(data, signed_data.read_userauth(data), here)
    except Refused:
        return
    if purpose.kind in free.KINDS and purpose.doubt is None:
        assert [name for name, takes in elsewhere.READERS.items() if takes(data)] == []


def _signed_der() -> bytes:
    return base64.b64decode(_ours()[0].partition(b"\n\n")[2])


def _enveloped_der(*, gcm: bool) -> bytes:
    to = [certificates.Certificate(person(kind).der) for kind in ("rsa", "p256")]
    return b"".join(enveloped.build(lambda: iter([MESSAGE]), to, gcm=gcm))


Target = Callable[[bytes], None]


@cache
def _token_key() -> SoftwareSigner:
    return token_signer(ed25519.Ed25519PrivateKey.generate())


def agent(data: bytes) -> None:
    """One frame to an agent that has a key: keys, constraints, bindings, logins, certificates."""
    connection = Parts([_token_key()]).agent.connection(lambda: PEER)
    answer = connection.answer(bytearray(data))
    if not isinstance(answer, bytes):
        # Nothing in these parts waits, so that one step of the coroutine is all of it.
        with suppress(StopIteration):
            answer.send(None)


TARGETS: dict[str, tuple[Target, Callable[[], list[bytes]]]] = {
    "cms_signed": (cms_signed, lambda: [_signed_der()]),
    "cms_enveloped": (
        cms_enveloped,
        lambda: [_enveloped_der(gcm=True), _enveloped_der(gcm=False)],
    ),
    "certificate": (certificate, lambda: [_ours()[1].der, certificates.pem(_ours()[1]).encode()]),
    "message": (message, lambda: [signed(MESSAGE, person("p256")), _ours()[0], MESSAGE + b"\xff "]),
    "addresses": (addresses, lambda: [b'"A (b)" <a@b.org>, c: d@e;', b'a/b; c="d"; e=f (g)']),
    "arguments": (arguments, lambda: [b"smime\0-sign\0-md\0sha256", b"-t\0-oi\0-f\0a@b\0--\0c@d"]),
    "signed_freely": (signed_freely, free.seeds),
    "card_backup": (card.card_backup, card.backups),
    "card_wrapped_key": (card.card_wrapped_key, card.wrapped_keys),
    "card_certificate": (card.card_certificate, card.certificates),
    "card_answer": (card.card_answer, card.answers),
    "pkcs11_calls": (pkcs11.calls, pkcs11.seeds),
    "scd_conversation": (scd.conversation, scd.seeds),
    "agent": (agent, lambda: vectors.ALL),
    "agent_messages": (
        agent_messages,
        lambda: [
            b"\0\0\0\1\x0b",
            b"\0\0\0\x13\x0d\0\0\0\2ab\0\0\0\4data\0\0\0\1",
            b"\0\0\0\x0b\x1b\0\0\0\5query\0",
        ],
    ),
}

if __name__ == "__main__":
    print(*TARGETS)  # noqa: T201 - for `make fuzz`
