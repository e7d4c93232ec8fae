"""Length-prefixed frames: `uint32 length, length bytes`, big-endian.

The ssh-agent protocol (RFC 9987, section 3), the control protocol and the token workers all
speak in them. This module does no I/O: bytes in, frames out.
"""

from hsmagent.errors import ProtocolError

HEADER = 4

# OpenSSH answers a frame of 262144 bytes and hangs up on a longer one.
SSH_MAX_FRAME = 262_144


def encode(body: bytes | bytearray) -> bytes:
    """Return `body` with its length in front."""
    return len(body).to_bytes(HEADER, "big") + body


class Reader:
    """Cuts a byte stream into frames.

    `feed` takes what arrived; `next_frame` gives one body at a time. Bodies are bytearrays that
    belong to the caller, so that one which holds a PIN can be wiped; the reader keeps no copy of
    a frame that it has handed out.

    `next_frame` raises ProtocolError for a frame of length zero or above `limit` (bytes). Nothing
    that follows can be read then: hang up. pending: bytes that are fed but not yet handed out.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self.pending = 0

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Add what arrived."""
        self._buffer += data
        self.pending += len(data)

    def move(self, data: memoryview) -> None:
        """Add what arrived, and overwrite it with zeros where it was: it may hold a PIN."""
        self._buffer += data
        size = len(data)
        self.pending += size
        data[:] = bytes(size)

    def next_frame(self) -> bytearray | None:
        """Return the next whole body; None if more has to be fed first. Raises ProtocolError."""
        buffer = self._buffer
        if self.pending < HEADER:
            return None
        length = int.from_bytes(buffer[:HEADER], "big")
        if not 0 < length <= self._limit:
            raise ProtocolError(f"a frame of {length} bytes; 1 to {self._limit} are allowed")
        end = HEADER + length
        if self.pending < end:
            return None
        if self.pending == end:  # as a rule: it is given away as it is
            self._buffer = bytearray()
            self.pending = 0
            del buffer[:HEADER]
            return buffer
        body = buffer[HEADER:end]
        buffer[:end] = bytes(end)
        del buffer[:end]
        self.pending -= end
        return body


def wipe(secret: bytearray | memoryview) -> None:
    """Overwrite a secret with zeros, in place."""
    secret[:] = bytes(len(secret))
