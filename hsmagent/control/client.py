"""A client's end of the control protocol. Imports next to nothing: the quick commands use it."""

import os
import sys

from hsmagent import frame
from hsmagent.errors import ProtocolError, Unavailable, of_kind
from hsmagent.folders import changeable_by_others, runtime_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable
    from typing import Any, Self

CONTROL_MAX_FRAME = 1 << 24

# The roles, each with a socket of its own: for a person's commands, for mail programs, and for our
# processes that serve PKCS#11 programs and GnuPG.
CONTROL, MAIL, FACE = "control", "mail", "face"

NONE_PRESENT = "no token is present; plug one in, or see `hsmagent doctor`"

# First byte of the frame that carries a PIN to the daemon.
PIN_PLAIN = 0
PIN_LAST_TRY_CONFIRMED = 1

# First byte of the frame that answers a question of ask-here. The question's number follows in four
# bytes, and the PIN where one was asked for.
ANSWER_NO = 0
ANSWER_YES = 1


class Daemon:
    """A connection to one of the daemon's sockets.

    role: CONTROL, MAIL or FACE. timeout: seconds for an answer; None where it may wait for a module
    or a person. on_wait: told when a person must do something first, in a sentence, and
    whether our terminal shows that already. A `with` block closes it. Raises Unavailable where no
    daemon answers, UsageError where none can, else the error that the daemon answers.
    """

    def __init__(
        self,
        runtime_dir: str = "",
        timeout: float | None = None,
        role: str = CONTROL,
        on_wait: "Callable[[str, bool], None]" = lambda _sentence, _on_terminal: None,
    ) -> None:
        import _socket

        self._on_wait = on_wait
        self._path = path = f"{runtime_folder(runtime_dir)}/{role}.sock"
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(path)
            check_server(self._socket, path)
        except OSError:
            self._socket.close()
            raise Unavailable(
                f"no daemon answers at {path}; start it with "
                "`systemctl --user start hsmagent` or `hsmagent daemon`"
            ) from None
        except Unavailable:
            self._socket.close()
            raise
        self._reader = frame.Reader(CONTROL_MAX_FRAME)

    def __enter__(self) -> "Self":
        return self

    def check_place(self) -> None:
        """Raise Unavailable where others could have put a socket of theirs. Call before a PIN goes.

        A socket at this path is the daemon's only if nobody else may change the folders above it.
        """
        if above := changeable_by_others(self._path):
            raise Unavailable(
                f"who answers at {self._path} may not be your daemon: "
                f"{above} may be changed by others"
            )

    def call(self, op: str, **fields: object) -> "dict[str, Any]":
        """Ask for one operation; return its answer. Binary fields are base64 text."""
        import json

        return self.exchange(bytearray(json.dumps({"op": op, **fields}).encode()))

    def exchange(self, body: bytearray) -> "dict[str, Any]":
        """Send one frame (wiped) and return the answer to it."""
        try:
            self.send(body)
            while (answer := self.next_message()) is None or "waiting" in answer:
                if answer is None:
                    self.receive()
                else:
                    self._on_wait(answer["waiting"], answer["on_terminal"])
            return result_of(answer)
        except TimeoutError:
            raise Unavailable("the daemon does not answer; start it anew") from None
        except OSError:
            raise hung_up() from None
        except (ValueError, TypeError, KeyError):
            raise unreadable() from None

    # -- for a client that the daemon tells things at any time (ask-here) --------------------

    def fileno(self) -> int:
        """Return the descriptor to wait on before `receive`."""
        return self._socket.fileno()

    def send(self, body: bytearray) -> None:
        """Send one frame (wiped). Raises OSError."""
        message = bytearray(frame.encode(body))
        frame.wipe(body)
        try:
            self._socket.sendall(message)
        finally:
            frame.wipe(message)

    def receive(self) -> None:
        """Read what has come. Raises OSError."""
        data = self._socket.recv(65536)
        if not data:
            raise OSError
        self._reader.feed(data)

    def next_message(self) -> "dict[str, Any] | None":
        """Return the next message that has come whole, or None. Raises ValueError."""
        import json

        body = self._reader.next_frame()
        message: dict[str, Any] | None = None if body is None else json.loads(body)
        return message

    def close(self, *_: object) -> None:
        """Hang up."""
        self._socket.close()

    __exit__ = close


def check_server(connected: "socket", path: str) -> None:
    """Raise Unavailable unless a process of this user listens where we are connected."""
    import _socket

    raw = connected.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)  # struct ucred
    uid = int.from_bytes(raw[4:8], sys.byteorder)
    if uid != os.getuid():
        raise Unavailable(f"no daemon of yours answers at {path}, but one of uid {uid}")


def result_of(answer: "dict[str, Any]") -> "dict[str, Any]":
    """Return what an operation gave. Raises the error that it answers.

    Raises ValueError, TypeError or KeyError for what is no answer.
    """
    if "error" in answer:
        raise of_kind(answer["error"]["kind"], answer["error"]["message"])
    result: dict[str, Any] = answer["ok"]
    return result


def hung_up() -> Unavailable:
    """Return the error for a connection that the daemon has closed."""
    return Unavailable("the daemon hung up; its log says why")


def unreadable() -> ProtocolError:
    """Return the error for an answer that breaks the protocol."""
    return ProtocolError("the daemon's answer cannot be read; is the daemon an older one?")
