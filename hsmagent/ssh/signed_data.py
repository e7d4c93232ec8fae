"""Reads what is to be signed, so that a person can be told and constraints can be checked.

What is recognised: a login (RFC 4252, section 7, and OpenSSH's hostbound variant), SSHSIG
(PROTOCOL.sshsig), an SSH certificate (PROTOCOL.certkeys). All else is "unknown data".
"""

import re
import time
from dataclasses import dataclass

from hsmagent.errors import ProtocolError
from hsmagent.model import Purpose, PurposeKind, printable
from hsmagent.ssh import certificates, keys
from hsmagent.ssh.wire import Reader

SSH2_MSG_USERAUTH_REQUEST = 50
PUBLICKEY = "publickey"
HOSTBOUND = "publickey-hostbound-v00@openssh.com"
SSHSIG_MAGIC = b"SSHSIG"
# Names in a summary are short: many principals must not push the question out of the window.
SHOWN = 60

DER_SET = b"\x31"
DER_SEQUENCE = b"\x30"
DER_HEADER = 2  # a tag and the first byte of the length
LONG_FORM = 0x80

# What a user's name may hold to be shown without quotes; not "git at git.example.org".
PLAIN_USER = re.compile(r"[A-Za-z0-9._@+\\-]+")

# A field's name, a colon, and the line to its end without control characters (RFC 5322, 2.2).
HEADER_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f\n]*\n")
# Readers of mail take control characters, too.
FIELD_NAME = re.compile(rb"[!-9;-~]+[ \t]*:")


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
    reader = Reader(data)
    try:
        session_id = reader.string()
        message, user, service = reader.u8(), reader.text(), reader.text()
        method, signed = reader.text(), reader.u8()
        algorithm, blob = reader.text(), reader.string()
        host_key = reader.string() if method == HOSTBOUND else None
        reader.end()
    except ProtocolError:
        return None
    if not session_id or message != SSH2_MSG_USERAUTH_REQUEST or signed != 1:
        return None
    if service != "ssh-connection" or method not in (PUBLICKEY, HOSTBOUND):
        return None
    return UserAuth(session_id, user, algorithm, blob, host_key)


def purpose_of(data: bytes, login: UserAuth | None) -> Purpose:
    """Say what `data` is, in one printable clause; `login` is what read_userauth made of it."""
    if login is not None:
        return Purpose(PurposeKind.SSH, f"log in as {_user(login.user)}")
    return _sshsig(data) or _certificate(data) or _unknown(data)


def _user(name: str) -> str:
    """Return a user's name; in quotes when it could be read as more than a name."""
    shown = printable(name, SHOWN)
    return shown if PLAIN_USER.fullmatch(shown) else repr(shown)


def _unknown(data: bytes) -> Purpose:
    return Purpose(
        PurposeKind.UNKNOWN,
        f"sign {len(data)} bytes of unknown data (they may be good as a mail or a certificate)",
    )


def _sshsig(data: bytes) -> Purpose | None:
    found = read_sshsig(data)
    if found is None:
        return None
    hash_name = printable(found.hash_name, SHOWN)
    if found.namespace == "git":
        return Purpose(PurposeKind.GIT, f"sign a git commit or tag ({hash_name})")
    shown = f"{printable(found.namespace, SHOWN)!r} ({hash_name})"
    return Purpose(PurposeKind.SSHSIG, f"sign a message for {shown}")


@dataclass(frozen=True, slots=True)
class Sshsig:
    """SSHSIG's data to be signed: what the message is for, and its digest."""

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


def _certificate(data: bytes) -> Purpose | None:
    """Read the part of a certificate that its authority signs: all but the signature."""
    try:
        reader = Reader(data)
        body = certificates.read_body(reader)
        reader.end()
    except ProtocolError:
        return None
    kind = "host" if body.is_host else "user"
    names = ", ".join(body.principals) or "anyone"
    until = "for ever"
    if body.valid_before < certificates.FOREVER:
        until = f"until {_date(body.valid_before)}"
    summary = (
        f"certify the {kind} key {printable(body.key_id, SHOWN)!r} for {printable(names, SHOWN)}, "
        f"valid {until}"
    )
    return Purpose(PurposeKind.SSH_CERT, printable(summary, 240))


def _date(seconds: int) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return "the distant future"


def names_key(login: UserAuth, blob: bytes) -> bool:
    """Whether a login is for the key it is to be signed with, and with an algorithm of its type."""
    return login.key_blob == blob and _key_type(login.algorithm) == keys.type_name(blob)


def _key_type(algorithm: str) -> str:
    for name in ("rsa-sha2-256", "rsa-sha2-512"):
        if algorithm in (name, name + keys.CERTIFICATE):
            return algorithm.replace(name, keys.SSH_RSA)
    return algorithm


def belongs_elsewhere(data: bytes, *, forwarded: bool) -> bool:
    """Whether a signature over `data` would be good outside ssh: as S/MIME or X.509.

    A token's key serves mail as well as ssh; whoever may ask the ssh socket for signatures (a
    host that an agent is forwarded to) must not get one that is good as a mail. Nothing that ssh
    signs looks like either: it begins with a length below 2^24, or with "SSHSIG".

    forwarded: a hostile host may ask, so that what only lenient readers take for a mail counts.
    """
    return is_one_der_value(data) or could_be_mail(data, lenient=forwarded)


def could_be_mail(data: bytes, *, lenient: bool) -> bool:
    """Whether `data` begins as a MIME entity does: with a header field, or with the empty line.

    CMS without signed attributes signs the content itself (RFC 5652, section 5.4). lenient: with
    anything for a field's body; one in 450 random data begins so, as `ssh-add -T` and sshd (with
    HostKeyAgent) have them signed.
    """
    if data.startswith((b"\r\n", b"From ", b">From ")) or HEADER_FIELD.match(data):
        return True
    if lenient and FIELD_NAME.match(data):
        return True
    return data.startswith(b"\n") and b"\0" not in data


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
