"""The content ciphers (RFC 3565, RFC 5084; RFC 3370 for old mail), streaming both ways."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from asn1crypto import core
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.padding import PKCS7

from hsmagent.errors import HsmAgentError
from hsmagent.mail.cms import ber, oids
from hsmagent.mail.cms.ber import Malformed
from hsmagent.mail.cms.parse import load

NONCE = 12
TAG_MIN = 12
_TAG_DEFAULT = 12  # RFC 5084, section 3.2
_AES_BLOCK = 16
# Content cipher → the length of its key, and of its block.
_CBC = {kind: (length, _AES_BLOCK) for kind, length in oids.AES_CBC.items()}
_CBC[oids.DES_EDE3_CBC] = (24, 8)


class Undecryptable(HsmAgentError):
    """Decryption failed. The sentence is the same for every reason, so that it tells none."""

    def __init__(self) -> None:
        super().__init__("the message cannot be decrypted: it is damaged or not meant for this key")


@dataclass(frozen=True, slots=True)
class ContentCipher:
    """A content-encryption algorithm with its parameters. tag: its length, 0 for CBC."""

    kind: str
    key_length: int
    vector: bytes
    tag: int = 0

    @property
    def authenticated(self) -> bool:
        """Whether a changed ciphertext is noticed."""
        return self.tag > 0


def read(kind: str, parameters: bytes, *, authenticated: bool) -> ContentCipher:
    """Return the cipher of an AlgorithmIdentifier. Raises Malformed for an unsupported one.

    authenticated: of an AuthEnvelopedData, which takes AEAD ciphers only; EnvelopedData none.
    """
    if authenticated and kind in oids.AES_GCM:
        reader = ber.inside(parameters, "the GCM parameters")
        given = reader.element(len(parameters), "the GCM nonce", ber.OCTET_STRING)
        nonce = ber.octets(given, "the GCM nonce")
        tag = _TAG_DEFAULT
        if reader.peek() is not None:
            tag = load(core.Integer, reader.element(8, "the GCM tag length"), "it").native
        reader.leave("the GCM parameters")
        if len(nonce) != NONCE or not TAG_MIN <= tag <= _AES_BLOCK:
            raise Malformed("AES-GCM with a nonce or tag of an unusual length")
        return ContentCipher(kind, oids.AES_GCM[kind], nonce, tag)
    if not authenticated and kind in _CBC:
        key_length, block = _CBC[kind]
        vector = ber.octets(parameters, "a cipher's vector")
        if len(vector) != block:
            raise Malformed("a content cipher with a wrong initialisation vector")
        return ContentCipher(kind, key_length, vector)
    raise Malformed(f"a content cipher that is not supported ({kind})")


def decrypt(
    cipher: ContentCipher, key: bytes, chunks: Iterable[bytes], tag: bytes, attributes: bytes
) -> Iterator[bytes]:
    """Yield the plaintext. Undecryptable may be raised at the very end: use nothing before that.

    tag: the MAC of AuthEnvelopedData. attributes: its authAttrs as SET OF, which the MAC covers.
    """
    return (
        _open_gcm(cipher, key, chunks, tag, attributes)
        if cipher.tag
        else _open_cbc(cipher, key, chunks)
    )


def _open_gcm(
    cipher: ContentCipher, key: bytes, chunks: Iterable[bytes], tag: bytes, attributes: bytes
) -> Iterator[bytes]:
    if len(tag) != cipher.tag:
        raise Undecryptable
    mode = modes.GCM(cipher.vector, None, min_tag_length=TAG_MIN)
    decryptor = Cipher(AES(key), mode).decryptor()
    decryptor.authenticate_additional_data(attributes)
    for chunk in chunks:
        yield decryptor.update(chunk)
    try:
        yield decryptor.finalize_with_tag(tag)
    except InvalidTag:
        raise Undecryptable from None


def _open_cbc(cipher: ContentCipher, key: bytes, chunks: Iterable[bytes]) -> Iterator[bytes]:
    algorithm = TripleDES(key) if cipher.kind == oids.DES_EDE3_CBC else AES(key)
    decryptor = Cipher(algorithm, modes.CBC(cipher.vector)).decryptor()
    unpadder = PKCS7(algorithm.block_size).unpadder()
    for chunk in chunks:
        yield unpadder.update(decryptor.update(chunk))
    try:
        yield unpadder.update(decryptor.finalize()) + unpadder.finalize()
    except ValueError:
        raise Undecryptable from None
