"""Who asks and where a signature goes, found out when a field of either is first looked at.

Finding it out takes longer than the rest of the daemon's work for a signature. So it is done while
the token signs, unless a rule or a person has to know before: whoever looks at a field gets its
value, which is then kept.
"""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from hsmagent.model import Destination, Peer
from hsmagent.ssh.bindings import Binding, Bindings
from hsmagent.ssh.certificates import plain
from hsmagent.ssh.signed_data import UserAuth

# The host's name for a connection whose bindings we could not verify.
UNVERIFIED = "an unknown host"


class _Late:
    """A frozen value whose fields are found out when one is first read, except the `known` ones.

    A slot without a value raises AttributeError, and Python turns to `__getattr__`.
    """

    __slots__ = ()
    _find_out: Callable[[], Any] | None

    def __init__(self, find_out: Callable[[], Any], **known: Any) -> None:
        object.__setattr__(self, "_find_out", find_out)
        for name, value in known.items():
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        self.read()
        return object.__getattribute__(self, name)

    @property
    def unread(self) -> bool:
        """Whether the fields are not found out yet."""
        return self._find_out is not None

    def read(self) -> None:
        """Find the fields out, unless that was done."""
        if self._find_out is None:
            return
        value = self._find_out()
        for each in fields(value):
            object.__setattr__(self, each.name, getattr(value, each.name))
        object.__setattr__(self, "_find_out", None)


class LatePeer(_Late, Peer):
    """A peer that is looked up in /proc late. find_out: returns the whole Peer."""

    __slots__ = ("_find_out",)


class LateDestination(_Late, Destination):
    """A destination whose host's name is found late. find_out: returns the whole Destination."""

    __slots__ = ("_find_out",)


_What = tuple[bytes, bool, bool]
"""A host's key; whether the signature goes somewhere beyond that host; whether it was forwarded."""


class Places:
    """Where the signatures of one connection go. describe: returns a plain host key's name."""

    def __init__(self, bindings: Bindings, describe: Callable[[bytes], str]) -> None:
        self._bindings = bindings
        self._describe = describe
        self._what: _What = (b"", False, False)
        self.last: LateDestination | None = None

    def of(self, login: UserAuth | None, bound: Binding | None) -> Destination | None:
        """Return where a signature goes, or None. login: what is signed, if that is a login.

        bound: the newest binding.

        The host key in the signed data counts most: the signature is good at that host only.
        """
        forwarded = self._bindings.forwarded
        host_key = login.host_key if login is not None else None
        beyond = False
        if host_key is None:
            if bound is None:
                return Destination(UNVERIFIED, forwarded=True) if forwarded else None
            host_key = bound.host_key
            # A host to which the agent is forwarded may bind what it likes. Only a login for the
            # session that was bound is surely for the host that signed that session's id.
            beyond = login is None or login.session_id != bound.session_id
        what = host_key, beyond, forwarded
        if self.last is None or self._what != what:
            self.last, self._what = self._late(plain(host_key), what), what
        return self.last

    def _late(self, shown: bytes, what: _What) -> LateDestination:
        host_key, beyond, forwarded = what

        def find_out() -> Destination:
            name = self._describe(shown)
            name = f"somewhere beyond {name}" if beyond else name
            return Destination(name, host_key, forwarded)

        return LateDestination(find_out, host_key=host_key, forwarded=forwarded)
