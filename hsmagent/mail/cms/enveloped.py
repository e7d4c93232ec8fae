"""EnvelopedData (RFC 5652, section 6) and AuthEnvelopedData (RFC 5083)."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.padding import PKCS7

from hsmagent.mail.cms import ber, content, der, oids, recipients
from hsmagent.mail.cms.ber import Content
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.cms.content import ContentCipher
from hsmagent.mail.cms.parse import algorithm, object_identifier, open_content
from hsmagent.mail.cms.recipients import Nobody, Ours, Recipient
from hsmagent.mail.spool import Source

MAX_RECIPIENTS = 10_000
_RECIPIENT_MAX = 256 * 1024
_ORIGINATOR_MAX = 1024 * 1024
_ATTRIBUTES_MAX = 64 * 1024
_KEY = 32
_TAG = 16


@dataclass(frozen=True, slots=True)
class Enveloped:
    """An encrypted message. recipient: ours, or why none. attributes: authAttrs as SET OF."""

    recipient: Recipient | Nobody
    cipher: ContentCipher
    content: Content
    tag: bytes
    attributes: bytes

    def decrypt(self, key: bytes) -> Iterator[bytes]:
        """Yield the plaintext; Undecryptable may be raised at the very end."""
        chunks = self.content.chunks()
        return content.decrypt(self.cipher, key, chunks, self.tag, self.attributes)


def read(source: Source, ours: Ours) -> Enveloped:
    """Read a ContentInfo that holds EnvelopedData or AuthEnvelopedData."""
    kind, reader = open_content(source)
    authenticated = kind == oids.ID_CT_AUTH_ENVELOPED_DATA
    reader.enter(ber.SEQUENCE, "EnvelopedData")
    reader.element(16, "the version", ber.INTEGER)
    if reader.peek() == ber.context(0):
        reader.element(_ORIGINATOR_MAX, "OriginatorInfo")
    reader.enter(ber.SET, "the recipients")
    infos = reader.elements(_RECIPIENT_MAX, MAX_RECIPIENTS, "the recipients")
    recipient = recipients.find(infos, ours)
    reader.leave("the recipients")
    reader.enter(ber.SEQUENCE, "the encrypted content")
    object_identifier(reader, "the content type")
    cipher = content.read(*algorithm(reader, "the content cipher"), authenticated=authenticated)
    encrypted = reader.content(ber.ENCRYPTED_CONTENT, "the encrypted content")
    reader.leave("the encrypted content")
    attributes = tag = b""
    if authenticated:
        if reader.peek() == ber.context(1):
            attributes = b"\x31" + reader.element(_ATTRIBUTES_MAX, "the attributes")[1:]
        tag = reader.octets(_TAG, "the authentication tag")
    if reader.peek() is not None:
        reader.element(_ATTRIBUTES_MAX, "the unprotected attributes")
    reader.leave("EnvelopedData")
    return Enveloped(recipient, cipher, encrypted, tag, attributes)


def build(
    plain: Callable[[], Iterable[bytes]],
    certificates: Sequence[Certificate],
    *,
    gcm: bool,
    oaep: bool = False,
) -> Iterator[bytes]:
    """Yield the ContentInfo for `plain`, whose bytes are read twice: to count, and to encrypt.

    AES-256, in GCM (AuthEnvelopedData) or CBC (EnvelopedData).
    """
    key, length = os.urandom(_KEY), sum(len(chunk) for chunk in plain())
    infos = [recipients.info_for(c, key, oaep=oaep) for c in certificates]
    if gcm:
        return _build_gcm(plain(), key, length, infos)
    return _build_cbc(plain(), key, length, infos)


def _build_cbc(
    plain: Iterable[bytes], key: bytes, length: int, infos: Sequence[bytes]
) -> Iterator[bytes]:
    vector = os.urandom(16)
    how = der.sequence(der.oid(oids.AES_256_CBC), der.octets(vector))
    version = 0 if all(info[0] == ber.SEQUENCE for info in infos) else 2
    head = der.integer(version) + der.set_of(*infos)
    yield _around(oids.ID_ENVELOPED_DATA, head, how, length + 16 - length % 16, 0)
    encryptor = Cipher(AES(key), modes.CBC(vector)).encryptor()
    padder = PKCS7(128).padder()
    for chunk in plain:
        yield encryptor.update(padder.update(chunk))
    yield encryptor.update(padder.finalize()) + encryptor.finalize()


def _build_gcm(
    plain: Iterable[bytes], key: bytes, length: int, infos: Sequence[bytes]
) -> Iterator[bytes]:
    nonce = os.urandom(content.NONCE)
    parameters = der.sequence(der.octets(nonce), der.integer(_TAG))
    how = der.sequence(der.oid(oids.AES_256_GCM), parameters)
    head = der.integer(0) + der.set_of(*infos)
    yield _around(oids.ID_CT_AUTH_ENVELOPED_DATA, head, how, length, 2 + _TAG)
    encryptor = Cipher(AES(key), modes.GCM(nonce)).encryptor()
    for chunk in plain:
        yield encryptor.update(chunk)
    yield encryptor.finalize()
    yield der.octets(encryptor.tag)


def _around(kind: str, head: bytes, how: bytes, length: int, trailer: int) -> bytes:
    """Return all that stands before `length` bytes of ciphertext, which `trailer` bytes follow."""
    before = der.oid(oids.ID_DATA) + how + der.header(ber.ENCRYPTED_CONTENT, length)
    head += der.header(ber.SEQUENCE, len(before) + length) + before
    return der.content_info(kind, len(head) + length + trailer) + head
