"""The data types of RFC 4251, section 5, read with strict bounds and written.

Whatever the sender does wrong is a ProtocolError: a length that runs past the end, an mpint that is
negative or not minimal, bytes left over.
"""

from hsmagent.errors import ProtocolError

UINT32 = 4
UINT64 = 8
CUT_SHORT = "a field runs past the end of its message"
# OpenSSH's SSHBUF_MAX_BIGNUM: no key that we serve comes near.
MPINT_LIMIT = 16384 // 8 + 1


class Reader:
    """Takes values off the front of a buffer, which may be a bytearray with secrets in it."""

    def __init__(self, data: bytes | bytearray | memoryview, start: int = 0) -> None:
        self._data = memoryview(data)
        self._at = start

    @property
    def left(self) -> int:
        """How many bytes are not read yet."""
        return len(self._data) - self._at

    def raw(self, length: int) -> memoryview:
        """Read exactly `length` bytes."""
        start = self._at
        end = start + length
        if end > len(self._data):
            raise ProtocolError(CUT_SHORT)
        self._at = end
        return self._data[start:end]

    def u8(self) -> int:
        """Read a byte."""
        return self.raw(1)[0]

    def boolean(self) -> bool:
        """Read a boolean; all but zero is true."""
        return self.raw(1)[0] != 0

    def u32(self) -> int:
        """Read a uint32."""
        return int.from_bytes(self.raw(UINT32), "big")

    def u64(self) -> int:
        """Read a uint64."""
        return int.from_bytes(self.raw(UINT64), "big")

    def view(self) -> memoryview:
        """Read a string without copying it."""
        start = self._at + UINT32
        # Of a length that is cut short, `start` alone lies beyond the end.
        end = start + int.from_bytes(self._data[self._at : start], "big")
        if end > len(self._data):
            raise ProtocolError(CUT_SHORT)
        self._at = end
        return self._data[start:end]

    def string(self) -> bytes:
        """Read a string."""
        return bytes(self.view())

    def secret(self) -> bytearray:
        """Read a string into a buffer that the caller wipes."""
        return bytearray(self.view())

    def text(self) -> str:
        """Read a string that is a name or a comment. Raises ProtocolError for a NUL in it.

        Bytes that are not UTF-8 become surrogates, so that `text` can write them again.
        """
        text = str(self.view(), "utf-8", "surrogateescape")
        if "\0" in text:
            raise ProtocolError("a text holds a zero byte")
        return text

    def mpint(self) -> int:
        """Read an mpint that is not negative; one with needless zeros in front is refused."""
        return int.from_bytes(self.mpint_view(), "big")

    def mpint_view(self) -> memoryview:
        """Read an mpint, as `mpint` does, without making an int of a secret number."""
        data = self.view()
        if len(data) > MPINT_LIMIT:
            raise ProtocolError("a number is too large")
        if data and data[0] & 0x80:
            raise ProtocolError("a number is negative")
        if data and data[0] == 0 and (len(data) == 1 or not data[1] & 0x80):
            raise ProtocolError("a number has needless zeros in front")
        return data

    def reader(self) -> "Reader":
        """Read a string that holds further values."""
        return Reader(self.view())

    def rest(self) -> bytes:
        """Read all that is left."""
        return bytes(self.raw(self.left))

    def end(self) -> None:
        """Check that nothing is left."""
        left = len(self._data) - self._at
        if left:
            raise ProtocolError(f"{left} bytes too many at the end of a message")


def u32(value: int) -> bytes:
    """Write a uint32."""
    return value.to_bytes(UINT32, "big")


def string(value: bytes | bytearray | memoryview) -> bytes:
    """Write a string."""
    return len(value).to_bytes(UINT32, "big") + value


def text(value: str) -> bytes:
    """Write a text; the surrogates of `Reader.text` become the bytes that they stand for."""
    return string(value.encode("utf-8", "surrogateescape"))


def mpint(value: int) -> bytes:
    """Write a number that is not negative: minimal, with a zero in front of a set top bit."""
    size = (value.bit_length() + 8) // 8 if value else 0
    return size.to_bytes(UINT32, "big") + value.to_bytes(size, "big")
