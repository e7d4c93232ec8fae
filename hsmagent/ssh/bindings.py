"""Session bindings of one connection (session-bind@openssh.com), and what they permit.

ssh tells us over which ssh session a connection is used: the host's key, the session id, the
host's signature over that id, and whether the agent is forwarded there or used to log in. A key
with destination constraints is usable only where every hop so far is permitted. The rules are
OpenSSH's (PROTOCOL.agent, and identity_permitted in its ssh-agent.c).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from hsmagent.errors import ProtocolError, Refused
from hsmagent.ssh import certificates, keys, signature
from hsmagent.ssh.constraints import Hop, Way
from hsmagent.ssh.patterns import matches
from hsmagent.ssh.signed_data import UserAuth, names_key
from hsmagent.ssh.wire import Reader

MAX_SESSION_ID = 128
MAX_BINDINGS = 16


@dataclass(frozen=True, slots=True)
class Binding:
    """One session: the host's key blob (or certificate), the id, and whether it forwards us."""

    host_key: bytes
    session_id: bytes
    forwarding: bool


class Bindings:
    """What was bound on one connection.

    attempted: whether there was an attempt, a failed one, too. forwarded: whether requests may come
    over a hop that forwards us. A binding that we cannot verify counts as one that forwards, since
    a host may choose a kind of key that we cannot read.
    """

    def __init__(self) -> None:
        self.attempted = False
        self.forwarded = False
        self._bound: list[Binding] = []

    @property
    def last(self) -> Binding | None:
        """The newest binding."""
        return self._bound[-1] if self._bound else None

    def bind(self, contents: bytes) -> None:
        """Take a session-bind extension's contents. Raises ProtocolError when it is not valid."""
        self.attempted = True
        try:
            self._bind(contents)
        except ProtocolError:
            self.forwarded = True
            raise

    def _bind(self, contents: bytes) -> None:
        reader = Reader(contents)
        host_key, session_id, signed = reader.string(), reader.string(), reader.string()
        new = Binding(host_key, session_id, reader.boolean())
        reader.end()
        if not 0 < len(session_id) <= MAX_SESSION_ID:
            raise ProtocolError("a session id has a length that is not allowed")
        if not signature.verifies(certificates.public_key(host_key), signed, session_id):
            raise ProtocolError("a session binding is not signed by its host key")
        if not self._is_known(new):
            if len(self._bound) >= MAX_BINDINGS:
                raise ProtocolError(f"more than {MAX_BINDINGS} session bindings")
            self._bound.append(new)
            self.forwarded = self.forwarded or new.forwarding

    def _is_known(self, new: Binding) -> bool:
        for old in self._bound:
            if not old.forwarding:
                raise ProtocolError("a session binding after one that was for a login")
            if old.session_id == new.session_id:
                if old.host_key != new.host_key:
                    raise ProtocolError("a session id is bound to another host key")
                return True
        return False

    # -- what they permit --------------------------------------------------------------------

    def may_see(self, ways: Sequence[Way]) -> bool:
        """Whether a key under these constraints may be listed, replaced or removed here."""
        return not ways or self._permitted(ways, None)

    def check_use(self, ways: Sequence[Way], login: UserAuth | None, key_blob: bytes) -> None:
        """Raise Refused unless a key under these constraints may sign `login`."""
        if not ways:
            return
        last = self.last
        if last is None:
            raise Refused("a key for certain destinations is used on a connection without binding")
        if login is None or not names_key(login, key_blob):
            raise Refused("a key for certain destinations signs nothing but its own logins")
        if not self._permitted(ways, login.user):
            raise Refused("this key is not permitted to log in there")
        if login.session_id != last.session_id:
            raise Refused("a login is for another session than the one bound last")
        if login.host_key is None and len(self._bound) > 1:
            raise Refused("a login over a forwarded agent does not name its host key")
        if login.host_key not in (None, last.host_key):
            raise Refused("a login is for another host key than the one bound last")

    def _permitted(self, ways: Sequence[Way], user: str | None) -> bool:
        """Check each hop; `user` None: may it be seen, else: may it log in as `user`."""
        if not self._bound:
            return not self.attempted
        *before, last = self._bound  # those before the last all forward: bind() saw to that
        if last.forwarding and user is not None:
            return False
        hops = [None, *(binding.host_key for binding in self._bound)]
        users = [None] * len(before) + [user]
        for (origin, target), name in zip(pairwise(hops), users, strict=True):
            if not any(_permits(way, origin, target, name) for way in ways):
                return False
        if last.forwarding:
            # Hide keys that may be used to reach this host, but not from it.
            return any(_permits(way, last.host_key, None, None) for way in ways)
        return True


def _permits(way: Way, origin: bytes | None, target: bytes | None, user: str | None) -> bool:
    """Whether one way leads from `origin` (None: here) to `target` (None: anywhere)."""
    if origin is None:
        if not way.origin.is_origin:
            return False
    elif not _is_at(way.origin, origin):
        return False
    if target is not None and not _is_at(way.target, target):
        return False
    return user is None or not way.target.user or matches(user, way.target.user)


def _is_at(hop: Hop, host_key: bytes) -> bool:
    """Whether a host that shows this key is the host of the hop."""
    if not certificates.is_certificate(keys.type_name(host_key)):
        return any(key.blob == host_key and not key.is_authority for key in hop.keys)
    shown = certificates.parse(host_key)
    return any(
        key.is_authority
        and key.blob == shown.body.authority
        and shown.names_host(hop.host, time.time())
        for key in hop.keys
    )
