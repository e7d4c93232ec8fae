"""Constraints of an added key (RFC 9987, section 5.3.6; OpenSSH's PROTOCOL.agent): bytes → values.

A constraint that is unknown, given twice or out of place refuses the whole key: a constraint that
we do not understand we could not enforce.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace

from hsmagent.errors import ProtocolError
from hsmagent.ssh import certificates, keys
from hsmagent.ssh.wire import Reader

SSH_AGENT_CONSTRAIN_LIFETIME = 1
SSH_AGENT_CONSTRAIN_CONFIRM = 2
SSH_AGENT_CONSTRAIN_EXTENSION = 255

RESTRICT_DESTINATION = "restrict-destination-v00@openssh.com"
ASSOCIATED_CERTS = "associated-certs-v00@openssh.com"
SK_PROVIDER = "sk-provider@openssh.com"

MAX_DESTINATIONS = 1024
MAX_CERTIFICATES = 1024
MAX_USER = 256


@dataclass(frozen=True, slots=True)
class HostKey:
    """A host key's blob, or that of an authority for host certificates."""

    blob: bytes
    is_authority: bool


@dataclass(frozen=True, slots=True)
class Hop:
    """One end of a permitted way. With an empty host and no keys it is where the agent runs."""

    user: str = ""
    host: str = ""
    keys: tuple[HostKey, ...] = ()

    @property
    def is_origin(self) -> bool:
        """Whether this is the machine on which the agent runs."""
        return not self.host and not self.keys


@dataclass(frozen=True, slots=True)
class Way:
    """From one hop to the next; `target.user` "" permits every user, else it is a pattern."""

    origin: Hop
    target: Hop


@dataclass(frozen=True, slots=True)
class Constraints:
    """What a key was added under. `lifetime` in seconds, 0: none. `ways` empty: to anywhere.

    sk_provider: the library that speaks to a FIDO key's authenticator, as the client named it.
    certificates: their blobs, of which nothing is verified yet. size: how many bytes they took.
    """

    lifetime: int = 0
    confirm: bool = False
    ways: tuple[Way, ...] = ()
    certificates: tuple[bytes, ...] = ()
    certs_only: bool = False
    sk_provider: str = ""
    size: int = field(default=0, compare=False)


NONE = Constraints()


def read(reader: Reader, *, smartcard: bool) -> Constraints:
    """Read constraints to the end of the message. smartcard: of message 26, not of message 25.

    Raises ProtocolError.
    """
    found = Constraints(size=reader.left)
    seen: set[int | str] = set()
    while reader.left:
        kind: int | str = reader.u8()
        if kind == SSH_AGENT_CONSTRAIN_EXTENSION:
            kind = reader.text()
        if kind in seen:
            raise ProtocolError("a constraint is given twice")
        seen.add(kind)
        match kind:
            case int(number) if number == SSH_AGENT_CONSTRAIN_LIFETIME:
                found = replace(found, lifetime=_lifetime(reader))
            case int(number) if number == SSH_AGENT_CONSTRAIN_CONFIRM:
                found = replace(found, confirm=True)
            case str(name) if name == RESTRICT_DESTINATION:
                found = replace(found, ways=_ways(reader.reader()))
            case str(name) if name == ASSOCIATED_CERTS and smartcard:
                certs_only = reader.boolean()
                certs = tuple(_certificates(reader.reader()))
                found = replace(found, certificates=certs, certs_only=certs_only)
            case str(name) if name == SK_PROVIDER and not smartcard:
                found = replace(found, sk_provider=reader.text())
            case _:
                raise ProtocolError("a constraint is unknown, or not allowed here")
    return found


def _lifetime(reader: Reader) -> int:
    seconds = reader.u32()
    if seconds == 0:
        raise ProtocolError("a lifetime of 0 seconds")
    return seconds


def _ways(reader: Reader) -> tuple[Way, ...]:
    ways: list[Way] = []
    while reader.left:
        if len(ways) >= MAX_DESTINATIONS:
            raise ProtocolError(f"more than {MAX_DESTINATIONS} destinations")
        ways.append(_way(reader.reader()))
    if not ways:
        # An empty list would permit every destination, which nobody who constrains a key means.
        raise ProtocolError("a destination constraint without destinations")
    return tuple(ways)


def _way(reader: Reader) -> Way:
    origin, target = _hop(reader.reader()), _hop(reader.reader())
    _reserved(reader)
    reader.end()
    if origin.user or bool(origin.host) != bool(origin.keys):
        raise ProtocolError("a destination constraint has an inconsistent origin")
    if not target.host or not target.keys:
        raise ProtocolError("a destination constraint has an incomplete target")
    return Way(origin, target)


def _hop(reader: Reader) -> Hop:
    user, host = reader.text(), reader.text()
    _reserved(reader)
    if len(user) > MAX_USER:
        raise ProtocolError("a destination constraint names a user that is too long")
    return Hop(user, host, tuple(_host_keys(reader)))


def _host_keys(reader: Reader) -> Iterator[HostKey]:
    while reader.left:
        blob = reader.string()
        # Of whatever kind: a host may have keys that we cannot read (DSA, ML-DSA). They never
        # match, since no connection is bound to a key that we cannot verify with.
        keys.type_name(blob)
        yield HostKey(blob, reader.boolean())


def _reserved(reader: Reader) -> None:
    if reader.view():
        raise ProtocolError("a destination constraint has an unknown extension")


def _certificates(reader: Reader) -> Iterator[bytes]:
    count = 0
    while reader.left:
        count += 1
        if count > MAX_CERTIFICATES:
            raise ProtocolError(f"more than {MAX_CERTIFICATES} certificates")
        blob = reader.string()
        # ssh-add sends every file it was given: plain keys, and kinds that we cannot read.
        if certificates.is_certificate(keys.type_name(blob)):
            with suppress(ProtocolError):
                certificates.plain_of(blob)
                yield blob
