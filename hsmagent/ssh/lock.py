"""The agent's lock (messages 22 and 23): a passphrase kept as a salted hash, with a growing delay.

OpenSSH sleeps after a wrong passphrase, and all its clients with it. Here an attempt that comes
before the delay is over is refused unread, on whatever connection it comes: nobody else waits,
and many connections do not guess faster than one.
"""

import hashlib
import hmac
import os

from hsmagent.errors import Refused
from hsmagent.frame import wipe
from hsmagent.model import Clock

STEP = 0.1  # seconds of delay more with each wrong passphrase
LONGEST = 10.0
SALT = 16


class Lock:
    """The state of one agent's lock, and the delay after wrong passphrases."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._salt = b""
        self._hash = b""
        self._failures = 0
        self._not_before = 0.0

    @property
    def locked(self) -> bool:
        """Whether the agent is locked: its keys are hidden and cannot be used."""
        return self._hash != b""

    def lock(self, passphrase: bytearray) -> None:
        """Lock. Raises Refused when already locked. Wipes the passphrase."""
        try:
            if self.locked:
                raise Refused("the agent is locked already")
            if not passphrase:
                raise Refused("an empty passphrase cannot lock the agent")
            self._salt = os.urandom(SALT)
            self._hash = _scrypt(passphrase, self._salt)
        finally:
            wipe(passphrase)

    def unlock(self, passphrase: bytearray) -> None:
        """Unlock. Raises Refused when not locked, wrong, or too soon. Wipes the passphrase."""
        try:
            if not self.locked:
                raise Refused("the agent is not locked")
            if self._clock() < self._not_before:
                raise Refused("too soon after a wrong passphrase; try again in a few seconds")
            if not hmac.compare_digest(_scrypt(passphrase, self._salt), self._hash):
                self._failures += 1
                self._not_before = self._clock() + min(self._failures * STEP, LONGEST)
                raise Refused("the passphrase does not unlock the agent")
            self._hash = b""
            self._failures = 0
        finally:
            wipe(passphrase)


def _scrypt(passphrase: bytearray, salt: bytes) -> bytes:
    """Hash a passphrase in about a millisecond.

    More would serve nobody. On the socket the delay is what makes guesses slow; the hash itself is
    only in the memory of a process that cannot be dumped, and whoever reads that has the keys. But
    everyone waits while we work it out, and a client may send lock and unlock without end.
    """
    return hashlib.scrypt(passphrase, salt=salt, n=1 << 9, r=8, p=1)
