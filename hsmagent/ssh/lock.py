"""The agent's lock (messages 22 and 23): a passphrase kept as a salted hash, with a growing delay.

OpenSSH's agent sleeps after a wrong passphrase, and all its clients wait. Here only attempts wait,
in a row: each is looked at when the delay of the one before it is over, and a wrong one is answered
after its own delay. So many connections do not guess faster than one; and since no process has two
attempts in the row, a loop of wrong ones does not keep the right one out.
"""

import hashlib
import hmac
import os
from collections.abc import Awaitable, Callable

from hsmagent.errors import Refused
from hsmagent.frame import wipe
from hsmagent.model import Clock

STEP = 0.1  # seconds by which the delay grows with each wrong passphrase
LONGEST = 10.0
PAUSE = 0.02  # seconds after a right one: hashing keeps everyone waiting for a millisecond or two
SALT = 16

Sleep = Callable[[float], Awaitable[None]]
"""Waits so many seconds, while others go on: asyncio.sleep, or a test's own."""


class Lock:
    """The state of one agent's lock, and the delay after wrong passphrases."""

    def __init__(self, clock: Clock, sleep: Sleep) -> None:
        self._clock = clock
        self._sleep = sleep
        self._salt = b""
        self._hash = b""
        self._failures = 0
        self._next_turn = 0.0
        self._in_row: set[int] = set()

    @property
    def locked(self) -> bool:
        """Whether the keys are hidden and cannot be used."""
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

    async def unlock(self, passphrase: bytearray, process: int) -> None:
        """Unlock, in turn. Wipes the passphrase. process: the id of the process that asks.

        Raises Refused when the agent is not locked or the passphrase is wrong.
        """
        if process in self._in_row:
            wipe(passphrase)
            raise Refused("another attempt of this process to unlock the agent is not answered yet")
        self._in_row.add(process)
        try:
            await self._unlock(passphrase)
        finally:
            wipe(passphrase)
            self._in_row.discard(process)

    async def _unlock(self, passphrase: bytearray) -> None:
        turn = max(self._clock(), self._next_turn)
        delay = min((self._failures + len(self._in_row)) * STEP, LONGEST)
        self._next_turn = turn + delay
        while (left := turn - self._clock()) > 0:
            await self._sleep(left)
        if not self.locked:
            raise Refused("the agent is not locked")
        if hmac.compare_digest(_scrypt(passphrase, self._salt), self._hash):
            self._hash = b""
            self._failures = 0
            self._next_turn = self._clock() + PAUSE
            return
        self._failures += 1
        await self._sleep(delay)
        raise Refused("the passphrase does not unlock the agent")


def _scrypt(passphrase: bytearray, salt: bytes) -> bytes:
    """Hash a passphrase in about a millisecond.

    A slower hash would protect nothing. On the socket it is the delay that makes guesses slow; the
    hash itself is only in the memory of a process that cannot be dumped, and whoever can read that
    has the keys, too. But everyone waits while we hash, and a client may lock and unlock in a loop.
    """
    return hashlib.scrypt(passphrase, salt=salt, n=1 << 9, r=8, p=1)
