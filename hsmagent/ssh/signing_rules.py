"""The one rule of what a token's key signs over the ssh socket: freely, after a yes, or never.

A token's key serves mail and other things as well as ssh, and whoever reaches the socket (a host
that the agent is forwarded to) chooses the bytes. So what is signed freely is held field by field
to what its format needs, and no field takes text: what is left for an attacker to choose is told
in docs/ssh-signing.md. Everything else is of a kind that the door asks about
("ssh-cert", "unknown"), or has a `Doubt`.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from hsmagent.errors import Refused
from hsmagent.model import Doubt, Key, KeyType, Purpose, PurposeKind, fingerprint, printable
from hsmagent.ssh import certificates, keys, signature, signed_data
from hsmagent.ssh.bindings import Binding
from hsmagent.ssh.signed_data import UserAuth

# Names in a summary are short: many principals must not push the question out of the window.
SHOWN = 60
LONG = 300

# Of the hashes that key exchanges use: SHA-1, SHA-224, SHA-256, SHA-384, SHA-512.
SESSION_ID_SIZES = (20, 28, 32, 48, 64)
DIGEST_SIZES = {"sha256": 32, "sha512": 64}  # PROTOCOL.sshsig
MAX_NAME = 128  # bytes of a user's name, and of a namespace
# No digest holds so much text: of a million random strings of 64 bytes, fewer than one does.
TEXT = re.compile(rb"[\t\n\r -~]{20}")

# Kinds of host keys whose holder cannot choose their bytes.
WITHOUT_A_CHOICE = (keys.SSH_ED25519, *(keys.ECDSA + curve for curve in keys.CURVES))

# What a user's name may hold to be shown without quotes; not "git at git.example.org".
PLAIN_USER = re.compile(r"[A-Za-z0-9._@+\\-]+")

ELSEWHERE = "they may be good as a mail or a certificate"


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the rule looks at beside the data.

    blob: the signing key's own, not a certificate's; flags: the request's; bound: the newest
    binding of the connection that was verified; offers: whether the agent lists the key under this
    certificate; knows_host: whether known_hosts has this host key, or this authority of its.
    """

    key: Key
    blob: bytes
    flags: int
    bound: Binding | None
    offers: Callable[[bytes], bool]
    knows_host: Callable[[bytes, bytes], bool]

    @property
    def algorithm(self) -> str:
        """The algorithm that the signature will have: the key's type, but for RSA's hashes."""
        kind = _kind(self.blob)
        return signature.choose(self.key, self.flags)[0] if kind == keys.SSH_RSA else kind


def judge(data: bytes, login: UserAuth | None, here: Circumstances) -> Purpose:
    """Say what signing `data` is for, and why a person must agree to it first, if so.

    login: what `signed_data.read_userauth` read of the data. Raises Refused for what a token's key
    never signs here. Other keys sign whatever they are given, as ssh-agent's do.
    """
    in_token = here.key.token is not None
    # A login begins with zero bytes, as neither mail nor DER does, so that it need not be checked.
    if login is None and in_token and _is_elsewheres(data):
        raise Refused("a token's key signs no mail and no certificate over the ssh socket")
    if signed_data.ends_as_openpgp(data):
        return _unknown(data, "an OpenPGP signature")
    if login is not None:
        purpose = _login(login, here)
    else:
        purpose = _sshsig(data) or _certificate(data, here) or _sudo(data)
    if purpose is None:
        return _unknown(data)
    may_be_sha_1 = in_token and here.key.key_type is KeyType.RSA
    if may_be_sha_1 and here.algorithm == keys.SSH_RSA and purpose.kind is not PurposeKind.UNKNOWN:
        summary = f"{purpose.summary}, with SHA-1 (the signature may be good for something else)"
        return Purpose(PurposeKind.UNKNOWN, summary)
    return purpose


def _is_elsewheres(data: bytes) -> bool:
    return signed_data.is_one_der_value(data) or signed_data.is_mail(data)


def _unknown(data: bytes, as_what: str = "") -> Purpose:
    elsewhere = f"they may be good as {as_what}" if as_what else ELSEWHERE
    summary = f"sign {len(data)} bytes of unknown data ({elsewhere})"
    return Purpose(PurposeKind.UNKNOWN, summary)


# -- logins ----------------------------------------------------------------------------------


def _login(login: UserAuth, here: Circumstances) -> Purpose | None:
    """Return the purpose of data that is a login in every field; None if a field is not right."""
    own = login.key_blob == here.blob
    algorithm = here.algorithm if own else keys.certificate_type(here.algorithm)
    is_one = (
        len(login.session_id) in SESSION_ID_SIZES
        and not TEXT.search(login.session_id)
        and login.algorithm == algorithm
        and (own or certificates.plain(login.key_blob) == here.blob)
    )
    purpose = _log_in_as(login.user) if is_one and len(login.user) <= MAX_NAME else None
    if purpose is None:
        return None
    certificate = None if own else _about_certificate(login, here)
    doubts = list(filter(None, (certificate, _about_host(login, here))))
    if not doubts:
        return purpose
    summary = " ".join((purpose.summary, *(said for said, _ in doubts)))
    subject = " ".join(subject for _, subject in doubts)
    return Purpose(PurposeKind.SSH, summary, Doubt(PurposeKind.UNKNOWN, subject))


@lru_cache(maxsize=64)
def _log_in_as(user: str) -> Purpose | None:
    """Return the purpose of a login that nothing is to be said against; None for no user's name."""
    return Purpose(PurposeKind.SSH, f"log in as {_user(user)}") if _is_name(user) else None


def _about_certificate(login: UserAuth, here: Circumstances) -> tuple[str, str] | None:
    """Return a clause on a certificate that the agent does not list, and what a yes holds for.

    Whoever issues a certificate chooses its contents.
    """
    blob = login.key_blob
    if here.offers(blob):
        return None
    key_id = printable(certificates.parse(blob).body.key_id, SHOWN)
    name = fingerprint(blob)
    return f"with the certificate {key_id!r} ({name}), unknown here", f"certificate {name}"


def _about_host(login: UserAuth, here: Circumstances) -> tuple[str, str] | None:
    """Return a clause on a host key whose bytes could be chosen, and what a yes holds for.

    With an Ed25519 or ECDSA key that signed the session nobody had a choice of the key's bytes.
    Half of an RSA modulus can be chosen, and most of a certificate.
    """
    host_key, bound = login.host_key, here.bound
    if host_key is None:
        return None
    lacks = ""
    if bound is None or bound.host_key != host_key or bound.session_id != login.session_id:
        lacks = "could not be verified"
    elif _kind(host_key) not in WITHOUT_A_CHOICE and not here.knows_host(
        host_key, _authority(host_key)
    ):
        lacks = "is not in known_hosts"
    if not lacks:
        return None
    name = fingerprint(host_key)
    return f"to a host whose key ({name}) {lacks}", f"host {name}"


@lru_cache(maxsize=256)
def _kind(blob: bytes) -> str:
    """Return a key blob's type; it has been read before."""
    return keys.type_name(blob)


def _authority(host_key: bytes) -> bytes:
    """Return who certified a host key that was verified; b"" for a plain one."""
    if not certificates.is_certificate(keys.type_name(host_key)):
        return b""
    body = certificates.parse(host_key).body
    return body.authority if body.is_host else b""


def _is_name(name: str) -> bool:
    size = len(name.encode("utf-8", "surrogateescape"))
    return 0 < size <= MAX_NAME and name.isprintable() and " " not in name


def _user(name: str) -> str:
    """Return a user's name; in quotes when it could be read as more than a name."""
    shown = printable(name, SHOWN)
    return shown if PLAIN_USER.fullmatch(shown) else repr(shown)


# -- the others ------------------------------------------------------------------------------


def _sshsig(data: bytes) -> Purpose | None:
    found = signed_data.read_sshsig(data)
    if (
        found is None
        or found.reserved
        or not _is_name(found.namespace)
        or DIGEST_SIZES.get(found.hash_name) != len(found.digest)
        or TEXT.search(found.digest)
    ):
        return None
    if found.namespace == "git":
        return Purpose(PurposeKind.GIT, f"sign a git commit or tag ({found.hash_name})")
    shown = f"{printable(found.namespace, SHOWN)!r} ({found.hash_name})"
    return Purpose(PurposeKind.SSHSIG, f"sign a message for {shown}")


def _certificate(data: bytes, here: Circumstances) -> Purpose | None:
    body = signed_data.read_certificate(data)
    if body is None or body.authority != here.blob:
        return None
    kind = "host" if body.is_host else "user"
    names = ", ".join(body.principals) or "anyone"
    until = "for ever"
    if body.valid_before < certificates.FOREVER:
        until = f"until {_date(body.valid_before)}"
    since = f", from {_date(body.valid_after)}" if body.valid_after else ""
    summary = (
        f"certify the {kind} key {printable(body.key_id, SHOWN)!r} for {printable(names, SHOWN)}, "
        f"valid {until} ({fingerprint(keys.encode(body.key))}{since})"
    )
    return Purpose(PurposeKind.SSH_CERT, printable(summary, LONG))


def _date(seconds: int) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return "the distant future"


def _sudo(data: bytes) -> Purpose | None:
    """pam_ssh_agent_auth: whoever it lets in becomes root, so that no `allow` frees it."""
    found = signed_data.read_sudo(data)
    if found is None:
        return None
    service, host = printable(found.service, SHOWN), printable(found.host, SHOWN)
    return Purpose(PurposeKind.UNKNOWN, f"let {_user(found.user)} use {service} on {host}", Doubt())
