"""PINs kept in the desktop's keyring, for tokens whose owner wants that.

This is the only module that imports keyring. Each rule here saves a PIN try:

- A stored PIN is used only while the token's PIN state is OK, never near its last try.
- Before it is used a mark is written, and removed once the outcome is known. A mark that is found
  means that the last try's outcome is unknown: the PIN is forgotten and a person is asked.
- A wrong PIN is forgotten at once.
- A keyring that is locked, absent or hanging counts as empty, and raises no dialog.

The keyring's library handles PINs as `str`, which cannot be wiped.
"""

import asyncio
import hashlib
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from hsmagent.bus import Bus, BusError
from hsmagent.errors import Unavailable
from hsmagent.model import PinState, TokenId, TokenStatus, uri_quote

_log = logging.getLogger(__name__)

T = TypeVar("T")

_ENTRY = "hsmagent"  # the keyring's "service"; the "user name" is `_name`

_SECRETS, _SECRETS_PATH = "org.freedesktop.secrets", "/org/freedesktop/secrets"
_SERVICE = "org.freedesktop.Secret.Service"
_COLLECTION = "org.freedesktop.Secret.Collection"
_NO_COLLECTION = "/"


class PinStore:
    """The stored PINs.

    bus: the session bus, the same as the process's own DBUS_SESSION_BUS_ADDRESS names.
    folder: for the marks; made when the first one is written. timeout: seconds for the keyring.
    """

    def __init__(self, bus: Bus, folder: Path, timeout: float = 5.0) -> None:
        self._bus = bus
        self._folder = folder
        self._timeout = timeout

    async def take(self, status: TokenStatus) -> bytearray | None:
        """Return the token's PIN for exactly one C_Login, or None: then a person is asked.

        Tell the outcome with `keep` or `forget`.
        """
        if status.pin_state is not PinState.OK or not status.id.serial:
            return None
        if self._mark(status.id).exists():
            _log.warning("a stored PIN was tried and its outcome is unknown: it is forgotten")
            await self.forget(status.id)
            return None
        try:
            pin = await self._ask(lambda keyring: keyring.get_password(_ENTRY, _name(status.id)))
        except Unavailable as error:
            _log.info("no stored PIN: %s", error)
            return None
        if not pin or not self._write_mark(status.id):
            return None
        return bytearray(pin.encode())

    def keep(self, token: TokenId) -> None:
        """Keep the PIN that `take` has returned: it was right, or was not tried."""
        self._mark(token).unlink(missing_ok=True)

    async def save(self, token: TokenId, pin: bytearray) -> bool:
        """Store a PIN that the token has just accepted. Return whether it is stored.

        The PIN of a token without a serial is not: another token could pass for it.
        """
        if not token.serial:
            _log.warning("the PIN of a token without a serial is not stored")
            return False
        try:
            text = pin.decode()
            await self._ask(lambda keyring: keyring.set_password(_ENTRY, _name(token), text))
        except (Unavailable, UnicodeDecodeError):
            _log.warning("the PIN could not be stored in the keyring")
            return False
        self.keep(token)
        return True

    async def forget(self, token: TokenId) -> bool:
        """Delete a token's PIN. Return whether it is certain that none is stored any more."""
        try:
            await self._ask(lambda keyring: _delete(keyring, token))
        except Unavailable as error:
            _log.warning("a stored PIN could not be deleted: %s", error)
            self._write_mark(token)  # so that it is not used either
            return False
        self.keep(token)
        return True

    # -- the keyring -------------------------------------------------------------------------

    async def _ask(self, question: Callable[[Any], T]) -> T:
        """Put a question to the unlocked keyring, in a thread. Raises Unavailable."""
        collection = await self._unlocked_collection()

        def ask() -> T:
            # Imported late: it is slow, and most people do not store PINs.
            from keyring.backends.SecretService import Keyring

            backend: Any = Keyring
            keyring = backend()
            keyring.preferred_collection = collection
            return question(keyring)

        try:
            async with asyncio.timeout(self._timeout):
                return await _in_thread(ask)
        except TimeoutError:
            raise Unavailable("the keyring does not answer") from None
        except Exception as error:  # noqa: BLE001 - see the next line
            # Only the kind: we cannot know what its many libraries put into their messages.
            raise Unavailable(f"the keyring failed ({type(error).__name__})") from None

    async def _unlocked_collection(self) -> str:
        """Return the default collection's path. Raises Unavailable when it is locked.

        This comes before any call of the library, which would raise the keyring's own unlock dialog
        and wait for that behind ours.
        """
        try:
            alias = await self._bus.call(
                *(_SECRETS, _SECRETS_PATH, _SERVICE, "ReadAlias", "s", ["default"]),
                returns="o",
                timeout=self._timeout,
            )
            path = str(alias[0])
            if path == _NO_COLLECTION:
                raise Unavailable("there is no default keyring")
            locked = await self._bus.get(_SECRETS, path, _COLLECTION, "Locked", self._timeout)
        except BusError as error:
            raise Unavailable(f"there is no keyring: {error}") from error
        if locked is not False:
            raise Unavailable("the keyring is locked")
        return path

    # -- marks -------------------------------------------------------------------------------

    def _mark(self, token: TokenId) -> Path:
        return self._folder / hashlib.sha256(_name(token).encode()).hexdigest()

    def _write_mark(self, token: TokenId) -> bool:
        """Write the mark so that it survives a crash. Return whether that worked."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self._mark(token), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            _log.warning("a stored PIN is not used: its mark cannot be written: %s", error)
            return False
        return True


def _name(token: TokenId) -> str:
    """Return a token's name in the keyring: its URI and module, which no other token shares."""
    return f"{token.uri}?module-path={uri_quote(token.module)}"


def _delete(keyring: Any, token: TokenId) -> None:
    # Earlier versions used the second name, without the module.
    for name in (_name(token), token.uri):
        if keyring.get_password(_ENTRY, name) is not None:
            keyring.delete_password(_ENTRY, name)


async def _in_thread(function: Callable[[], T]) -> T:
    """Run a function that may hang, in a thread that does not keep the process from exiting."""
    outcome: Future[T] = Future()
    outcome.set_running_or_notify_cancel()  # whoever awaits it may leave, but not settle it

    def run() -> None:
        try:
            outcome.set_result(function())
        except Exception as error:  # noqa: BLE001 - it is raised where it is awaited
            outcome.set_exception(error)

    threading.Thread(target=run, name="keyring", daemon=True).start()
    return await asyncio.wrap_future(outcome)
