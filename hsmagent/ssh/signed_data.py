"""Reads what is to be signed, field by field; what may be signed is `signing_rules`' affair.

It reads a login (RFC 4252, section 7, and OpenSSH's hostbound variant), SSHSIG (PROTOCOL.sshsig),
an SSH certificate (PROTOCOL.certkeys) and the request of pam_ssh_agent_auth; and it tells whether
data begins or ends as the signed data of other protocols does.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from hsmagent.errors import ProtocolError
from hsmagent.ssh import certificates, keys
from hsmagent.ssh.wire import UINT32, Reader

KEPT = 4096  # bytes of a login's data up to which it is remembered how it reads

SSH2_MSG_USERAUTH_REQUEST = 50
PUBLICKEY = "publickey"
HOSTBOUND = "publickey-hostbound-v00@openssh.com"
SSHSIG_MAGIC = b"SSHSIG"

# pam_ssh_agent_auth's own numbers (its ssh2.h and pam_ssh_agent_auth.c).
SSH2_MSG_USERAUTH_TRUST_REQUEST = 54
PAM_SSH_AGENT_AUTH_REQUESTV1 = 101
PAM_SSH_AGENT_AUTH = "pam_ssh_agent_auth"

DER_SET = b"\x31"
DER_SEQUENCE = b"\x30"
DER_HEADER = 2  # a tag and the first byte of the length
LONG_FORM = 0x80

# OpenPGP hashes after the document (RFC 9580, section 5.2.4; LibrePGP for v5): version, 0xff,
# and how many bytes of the signature packet were hashed before that.
OPENPGP_TRAILERS = ((b"\4\xff", 4), (b"\5\xff", 8), (b"\6\xff", 4))  # and bytes of that number

# The header of a MIME entity: fields of text (RFC 5322, section 2.2), and the empty line after it.
HEADER_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f\n]*\n")
CONTINUED = re.compile(rb"[ \t][^\x00-\x08\x0b\x0c\x0e-\x1f\x7f\n]*\n")
CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class UserAuth:
    """A login: session id, user, signature algorithm, key; and for hostbound the host's key."""

    session_id: bytes
    user: str
    algorithm: str
    key_blob: bytes
    host_key: bytes | None


def read_userauth(data: bytes) -> UserAuth | None:
    """Read the data that a login signs, or return None if it is anything else."""
    start = UINT32 + int.from_bytes(data[:UINT32], "big")
    rest = data[start:]
    read = _after_session_id if len(rest) <= KEPT else _after_session_id.__wrapped__
    fields = read(rest) if start > UINT32 else None
    return None if fields is None else UserAuth(data[UINT32:start], *fields)


@lru_cache(maxsize=64)
def _after_session_id(rest: bytes) -> tuple[str, str, bytes, bytes | None] | None:
    """Read what follows the session id: the same whenever a user logs in to a host with a key."""
    reader = Reader(rest)
    try:
        message, user, service = reader.u8(), reader.text(), reader.text()
        method, signed = reader.text(), reader.u8()
        algorithm, blob = reader.text(), reader.string()
        host_key = reader.string() if method == HOSTBOUND else None
        reader.end()
    except ProtocolError:
        return None
    if message != SSH2_MSG_USERAUTH_REQUEST or signed != 1:
        return None
    if service != "ssh-connection" or method not in (PUBLICKEY, HOSTBOUND):
        return None
    return user, algorithm, blob, host_key


def names_key(login: UserAuth, blob: bytes) -> bool:
    """Whether a login names the key that is to sign it, and an algorithm of that key's type."""
    return login.key_blob == blob and _key_type(login.algorithm) == keys.type_name(blob)


def _key_type(algorithm: str) -> str:
    for name in ("rsa-sha2-256", "rsa-sha2-512"):
        if algorithm in (name, name + keys.CERTIFICATE):
            return algorithm.replace(name, keys.SSH_RSA)
    return algorithm


@dataclass(frozen=True, slots=True)
class Sshsig:
    """The data that an SSHSIG signs: what the message is for, and its digest."""

    namespace: str
    reserved: bytes
    hash_name: str
    digest: bytes


def read_sshsig(data: bytes) -> Sshsig | None:
    """Read `"SSHSIG", string namespace, reserved, hash, H(message)`, or return None."""
    if not data.startswith(SSHSIG_MAGIC):
        return None
    reader = Reader(data, len(SSHSIG_MAGIC))
    try:
        found = Sshsig(reader.text(), reader.string(), reader.text(), reader.string())
        reader.end()
    except ProtocolError:
        return None
    return found


def read_certificate(data: bytes) -> certificates.Body | None:
    """Read the part of a certificate that its authority signs, all but the signature, or None."""
    reader = Reader(data)
    try:
        body = certificates.read_body(reader)
        reader.end()
    except ProtocolError:
        return None
    return body


@dataclass(frozen=True, slots=True)
class Sudo:
    """What pam_ssh_agent_auth has signed: who becomes whom, by which service, on which host."""

    user: str
    service: str
    host: str


def read_sudo(data: bytes) -> Sudo | None:
    """Read pam_ssh_agent_auth's request (its pamsshagentauth_session_id2_gen), or return None."""
    reader = Reader(data)
    try:
        session = reader.reader()
        message, _ruser, method_of = reader.u8(), reader.text(), reader.text()
        reader.text()  # "publickey"
        reader.u8()
        reader.text(), reader.string()  # algorithm and key
        reader.end()
        version, _cookie = session.u32(), session.string()
        user, _ruser, service = session.text(), session.text(), session.text()
        session.text()  # working directory
        session.string()  # the command
        host = session.text()
        session.u64()  # time
        session.end()
    except ProtocolError:
        return None
    if message != SSH2_MSG_USERAUTH_TRUST_REQUEST or method_of != PAM_SSH_AGENT_AUTH:
        return None
    return Sudo(user, service, host) if version == PAM_SSH_AGENT_AUTH_REQUESTV1 else None


# -- other protocols -------------------------------------------------------------------------


def is_one_der_value(data: bytes) -> bool:
    """Whether `data` is exactly one DER SET or SEQUENCE: a mail's signed attributes, a certificate.

    Readers of BER are lenient, so lengths that DER forbids (too long, indefinite) count as well.
    """
    if data[:1] not in (DER_SET, DER_SEQUENCE) or len(data) < DER_HEADER:
        return False
    first, body = data[1], data[DER_HEADER:]
    if first == LONG_FORM:
        return body.endswith(b"\0\0")
    if first < LONG_FORM:
        return len(body) == first
    size = first - LONG_FORM
    return len(body) == size + int.from_bytes(body[:size], "big")


def is_mail(data: bytes) -> bool:
    """Whether `data` is a MIME entity: a header of text, the empty line, anything; or text alone.

    CMS without signed attributes signs the content itself (RFC 5652, section 5.4). Random data is
    no mail: one in a million begins with a whole field and another one or the empty line after it.
    What only lenient readers take for a mail counts as unknown data.
    """
    if data.startswith((b"\n", b"\r\n")):
        return CONTROL.search(data) is None
    at = 0
    if data.startswith((b"From ", b">From ")):
        at = data.find(b"\n") + 1
    first = HEADER_FIELD.match(data, at)
    if first is None:
        return False
    rest = data[first.end() :]
    return (
        not rest
        or rest.startswith((b"\n", b"\r\n"))
        or any(following.match(rest) for following in (HEADER_FIELD, CONTINUED))
    )


def ends_as_openpgp(data: bytes) -> bool:
    """Whether `data` is what an OpenPGP signature of version 4 to 6 over its beginning hashes."""
    for mark, size in OPENPGP_TRAILERS:
        before = len(data) - size - len(mark)
        if before >= 0 and data.startswith(mark, before):
            return int.from_bytes(data[before + 2 :], "big") <= before
    return False
