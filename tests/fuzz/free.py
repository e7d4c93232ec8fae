"""Seeds of what a token's key signs freely, and the circumstances in which it does."""

import hashlib
from functools import cache

from cryptography.hazmat.primitives.asymmetric import ed25519

from hsmagent.model import PurposeKind
from hsmagent.ssh import wire
from hsmagent.ssh.bindings import Binding
from hsmagent.ssh.signing_rules import Circumstances
from tests.parts.agent.ssh_agent import token_signer
from tests.ssh import builders

KINDS = (PurposeKind.SSH, PurposeKind.SSHSIG, PurposeKind.GIT)
SESSION = hashlib.sha512(b"a key exchange").digest()
_KEY, _HOST, _AUTHORITY = (
    ed25519.Ed25519PrivateKey.from_private_bytes(bytes((number,)) * 32) for number in (1, 2, 3)
)
BLOB, HOST_KEY = builders.blob_of(_KEY), builders.blob_of(_HOST)
CERTIFICATE = builders.certificate(_AUTHORITY, _KEY, host=False, valid=(0, 2**64 - 1))


@cache
def circumstances() -> Circumstances:
    """Everything that may be free is."""
    return Circumstances(
        key=token_signer(_KEY).key,
        blob=BLOB,
        flags=0,
        bound=Binding(HOST_KEY, SESSION, forwarding=True),
        offers=lambda blob: blob == CERTIFICATE,
        knows_host=lambda _host_key, _authority: True,
    )


def seeds() -> list[bytes]:
    """Return logins and SSHSIGs; some end or begin nearly as other protocols' data."""
    ends = (b"", b"\x04\xff\0\0\0\x20", b"\x05\xff" + bytes(7) + b"\x20", b"\x06\xff\0\0\0\x20")
    return [
        builders.userauth(SESSION, BLOB),
        builders.userauth(SESSION[:32], BLOB, user="eyJhbGciOiJFUzI1NiJ9.e30"),
        builders.userauth(SESSION, BLOB, host_key=HOST_KEY),
        builders.userauth(SESSION, CERTIFICATE, algorithm="ssh-ed25519-cert-v01@openssh.com"),
        *(_sshsig(SESSION[: 64 - len(end)] + end) for end in ends),
    ]


def _sshsig(digest: bytes) -> bytes:
    return b"SSHSIG" + b"".join(map(wire.string, (b"file", b"", b"sha512", digest)))
