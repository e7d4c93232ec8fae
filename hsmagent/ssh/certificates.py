"""SSH certificates (OpenSSH's PROTOCOL.certkeys): blobs read and checked, matched to keys."""

import base64
import binascii
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

from hsmagent.errors import ProtocolError
from hsmagent.ssh import keys, signature, wire
from hsmagent.ssh.keys import CERTIFICATE, PublicKey
from hsmagent.ssh.patterns import matches
from hsmagent.ssh.wire import Reader

SSH2_CERT_TYPE_USER = 1
SSH2_CERT_TYPE_HOST = 2
FOREVER = 2**64 - 1
PRINCIPALS_LIMIT = 256
# Each certificate takes a verification when `ssh-add -s` brings it.
MOST_OF_A_KEY = 32
# OpenSSH's SSH_ALLOWED_CA_SIGALGS: no authority signs with SHA-1 any more.
AUTHORITY_ALGORITHMS = (
    keys.SSH_ED25519,
    *(keys.ECDSA + curve for curve in keys.CURVES),
    *keys.SK,
    "rsa-sha2-256",
    "rsa-sha2-512",
)


@dataclass(frozen=True, slots=True)
class Body:
    """What the authority signs. `key` is what is certified; times are Unix seconds."""

    key: PublicKey
    is_host: bool
    key_id: str
    principals: tuple[str, ...]
    valid_after: int
    valid_before: int
    critical: bool
    authority: bytes


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate whose signature holds.

    plain: the certified key's own blob. algorithm: the one of the authority's signature.
    """

    blob: bytes
    plain: bytes
    body: Body
    algorithm: str

    def names_host(self, host: str, now: float) -> bool:
        """Whether it is good for this host name now, as OpenSSH's sshkey_cert_check_host says."""
        body = self.body
        return (
            body.is_host
            and body.valid_after <= now < body.valid_before
            and not body.critical
            and self.algorithm in AUTHORITY_ALGORITHMS
            and (not body.principals or any(matches(host, name) for name in body.principals))
        )


def is_certificate(name: str) -> bool:
    """Whether a key type is a certificate's."""
    return name.endswith(CERTIFICATE)


def read_body(reader: Reader) -> Body:
    """Read a certificate up to its signature. Raises ProtocolError."""
    name = reader.text()
    if not is_certificate(name):
        raise ProtocolError("not a certificate")
    reader.string()  # nonce
    key = keys.read(reader, keys.plain_type(name))
    reader.u64()  # serial
    kind = reader.u32()
    if kind not in (SSH2_CERT_TYPE_USER, SSH2_CERT_TYPE_HOST):
        raise ProtocolError("a certificate is neither a user's nor a host's")
    key_id = reader.text()
    principals = tuple(_texts(reader.reader()))
    validity = reader.u64(), reader.u64()
    critical = bool(reader.string())
    reader.string()  # extensions
    reader.string()  # reserved
    authority = reader.string()
    is_host = kind == SSH2_CERT_TYPE_HOST
    return Body(key, is_host, key_id, principals, *validity, critical, authority)


def _texts(reader: Reader) -> Iterator[str]:
    for _ in range(PRINCIPALS_LIMIT):
        if not reader.left:
            return
        yield reader.text()
    reader.end()


@lru_cache(maxsize=256)
def parse(blob: bytes) -> Certificate:
    """Read a certificate blob and check the authority's signature. Raises ProtocolError."""
    reader = Reader(blob)
    body = read_body(reader)
    signed = blob[: len(blob) - reader.left]
    signed_with = reader.string()
    reader.end()
    if not signature.verifies(keys.decode(body.authority), signed_with, signed):
        raise ProtocolError("a certificate's signature is not its authority's")
    return Certificate(blob, keys.encode(body.key), body, keys.type_name(signed_with))


def plain_of(blob: bytes) -> bytes:
    """Return the blob of the key that a certificate claims to be for, to find a key by.

    Nothing is verified. Raises ProtocolError when it is no certificate of a kind that we know.
    """
    reader = Reader(blob)
    kind = reader.text()
    name = keys.plain_type(kind)
    fields = keys.FIELDS.get(name)
    if fields is None or not is_certificate(kind):
        raise ProtocolError("not a certificate")
    reader.view()  # nonce
    return wire.text(name) + b"".join(wire.string(reader.view()) for _ in range(fields))


def of_key(plain: bytes, blobs: Iterable[bytes]) -> list[Certificate]:
    """Read those of many certificates that are for one key; one that is not valid is left out.

    Raises ProtocolError when there are more than MOST_OF_A_KEY.
    """
    mine = [blob for blob in blobs if plain_of(blob) == plain]
    if len(mine) > MOST_OF_A_KEY:
        raise ProtocolError(f"more than {MOST_OF_A_KEY} certificates of one key")
    found = []
    for blob in mine:
        with suppress(ProtocolError):
            found.append(parse(blob))
    return found


def from_file(content: bytes) -> list[Certificate]:
    """Read the certificates of a *-cert.pub file; lines that hold none are passed over."""
    found = []
    for line in content.splitlines():
        name, _, rest = line.strip().partition(b" ")
        if name.endswith(CERTIFICATE.encode()):
            encoded, *_ = rest.split() or [b""]
            try:
                found.append(parse(base64.b64decode(encoded, validate=True)))
            except (ProtocolError, binascii.Error):
                continue
    return found


def public_key(blob: bytes) -> PublicKey:
    """Return the public key of a plain key blob or a certificate. Raises ProtocolError."""
    if is_certificate(keys.type_name(blob)):
        return parse(blob).body.key
    return keys.decode(blob)


@lru_cache(maxsize=256)
def plain(blob: bytes) -> bytes:
    """Return the blob of the key that a certificate is for; any other blob as it is.

    known_hosts and fingerprints name keys by that blob. What cannot be read is returned as it is.
    """
    try:
        return parse(blob).plain if is_certificate(keys.type_name(blob)) else blob
    except ProtocolError:
        return blob
