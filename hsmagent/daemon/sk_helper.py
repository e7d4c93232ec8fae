"""Runs OpenSSH's ssh-sk-helper: a process of its own for each FIDO signature, with a deadline.

It talks to the authenticator by libfido2, or by a provider that the key names: foreign code, near
the hardware, that waits for a person. So it has a process of its own, as in OpenSSH.
"""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

from hsmagent import frame
from hsmagent.errors import ProtocolError, TokenError, Unavailable
from hsmagent.prompt.child import Child, running
from hsmagent.tasks import in_a_task

# libfido2 waits for a touch for 30 seconds.
SECONDS = 60.0
MAX_FRAME = 256 * 1024  # ssh-sk-helper's own limit
RECEIVE = 4096

NAME = "ssh-sk-helper"
VARIABLE = "SSH_SK_HELPER"
# Where distributions have it, beside the bin/ of their ssh: Debian; Fedora; Arch and Alpine;
# openSUSE; OpenSSH itself, BSDs and Nix; Gentoo.
PLACES = (
    *("lib/openssh", "libexec/openssh", "lib/ssh"),
    *("libexec/ssh", "libexec", "lib/misc", "lib64/misc"),
)


class SkHelper:
    """Implements `ssh.sk_helper.Helper`. environment: of the programs; seconds: the deadline."""

    def __init__(self, environment: Mapping[str, str], seconds: float = SECONDS) -> None:
        self._environment = environment
        self._seconds = seconds
        # Two that look for an authenticator at once would find it busy.
        self._turn = asyncio.Lock()

    async def __call__(self, request: bytearray) -> bytes:
        """Hand a request to a new process, return its reply. Raises TokenError."""
        await in_a_task()  # which the deadline needs
        # LD_* would have the helper load other libraries than its own.
        environment = {
            name: value for name, value in self._environment.items() if not name.startswith("LD_")
        }
        async with self._turn:
            try:
                async with (
                    asyncio.timeout(self._seconds),
                    running([find(environment)], environment, our_stderr=True) as child,
                ):
                    return await _converse(child, request)
            except TimeoutError:
                raise TokenError(
                    f"{NAME} did not answer within {self._seconds:g} seconds, and was ended"
                ) from None
            except Unavailable as error:
                raise TokenError(str(error)) from None
            except ProtocolError as error:
                raise TokenError(f"{NAME} talks nonsense: {error}") from None


def find(environment: Mapping[str, str]) -> str:
    """Return the program's path. Raises Unavailable."""
    named = environment.get(VARIABLE, "")
    if named:
        return named
    from shutil import which  # with every archive's compression

    ssh = which("ssh", path=environment.get("PATH"))
    prefixes = [Path("/usr")]
    if ssh is not None:
        prefixes.insert(0, Path(ssh).resolve().parent.parent)
    for prefix in prefixes:
        for place in PLACES:
            path = prefix / place / NAME
            if os.access(path, os.X_OK):
                return str(path)
    raise Unavailable(
        f"{NAME}, by which FIDO keys sign, is not installed; OpenSSH 8.3 and later bring it, and "
        f"{VARIABLE} can name it"
    )


async def _converse(child: Child, request: bytearray) -> bytes:
    message = bytearray(len(request).to_bytes(frame.HEADER, "big")) + request
    try:
        await child.write(message)
    finally:
        frame.wipe(message)
    reader, buffer = frame.Reader(MAX_FRAME), bytearray(RECEIVE)
    while (reply := reader.next_frame()) is None:
        count = await child.read_into(memoryview(buffer))
        if not count:
            status = await child.exit_status()
            raise TokenError(
                f"{NAME} ended without an answer ({_ending(status)}); one of another OpenSSH "
                "release may do so"
            )
        reader.feed(memoryview(buffer)[:count])
    status = await child.exit_status()
    if status:
        raise TokenError(f"{NAME} failed after its answer ({_ending(status)})")
    return bytes(reply)


def _ending(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"
