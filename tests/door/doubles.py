"""A token and a person that do as they are told, for what no real part does on command."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from hsmagent.errors import (
    Cancelled,
    HsmAgentError,
    LoginNeeded,
    PinIncorrect,
    PinLength,
    PinLocked,
    TokenError,
    Unavailable,
)
from hsmagent.frame import wipe
from hsmagent.model import (
    Destination,
    Key,
    KeyType,
    PinState,
    Process,
    Purpose,
    PurposeKind,
    Request,
    Scheme,
    TokenId,
    TokenStatus,
)
from hsmagent.prompt.base import Answer, PinDialog, Text
from hsmagent.token.login import check_tries
from hsmagent.token.token import Token
from tests.parts.values import KEY, PEER, STATUS, TOKEN

SOFTWARE_KEY = Key(b"soft", KeyType.ED25519, 256, label="soft")
RIGHT = b"648219"


def request(
    key: Key = KEY,
    *,
    kind: PurposeKind = PurposeKind.SSH,
    program: str = "ssh",
    host: str = "git.example.org",
    forwarded: bool = False,
    confirm: bool = False,
    summary: str = "log in as alice",
) -> Request:
    peer = replace(PEER, process=Process(7, program, f"/usr/bin/{program}"))
    purpose = Purpose(kind, summary)
    return Request(key, purpose, peer, Destination(host, forwarded=forwarded), confirm)


class FakeToken(Token):
    """A token with three tries, that notes every C_Login.

    As with the real one, a login goes on when its caller gives up.
    """

    logged_in = False
    login_required = True

    def __init__(self, *, tries: int = 3, pin_pad: bool = False) -> None:
        self.id = TOKEN
        self.tries = tries
        self.pin_pad = pin_pad
        self.tried: list[bytes | None] = []
        self.last_tries = 0
        self.hold: asyncio.Event | None = None  # C_Login takes so long
        self._lock = asyncio.Lock()
        self.used_elsewhere = 0  # tries that another program used up, not seen yet
        self.fault: TokenError | None = None
        self.shows: tuple[Key, ...] = ()  # as the token shows them once it is logged in

    def status(self) -> TokenStatus:
        states = {0: PinState.LOCKED, 1: PinState.FINAL_TRY, 2: PinState.COUNT_LOW}
        return replace(
            STATUS,
            logged_in=self.logged_in,
            pin_state=states.get(self.tries, PinState.OK),
            pin_pad=self.pin_pad,
            login_required=self.login_required,
            keys=self.shows if self.logged_in else (),
        )

    async def look(self, *, objects: bool = False) -> None:
        async with self._lock:  # a worker does one thing after the other
            self._look()

    def _look(self) -> None:
        self.tries = max(0, self.tries - self.used_elsewhere)
        self.used_elsewhere = 0

    @property
    def login_calls(self) -> int:
        return len(self.tried)

    async def login(
        self, pin: bytearray | None, *, at_worst: PinState = PinState.COUNT_LOW
    ) -> bool:
        own = None if pin is None else bytearray(pin)
        if pin is not None:
            wipe(pin)
        task = asyncio.ensure_future(self._login_in_turn(own, at_worst))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    async def _login_in_turn(self, pin: bytearray | None, at_worst: PinState) -> bool:
        async with self._lock:
            await asyncio.sleep(0)
            if self.logged_in:
                return False
            self._look()
            await self._try(pin, at_worst)
            return True

    async def _try(self, pin: bytearray | None, at_worst: PinState) -> None:
        if pin is not None and not 4 <= len(pin) <= 16:
            raise PinLength("a PIN of 4 to 16 characters is needed")
        check_tries(self.status(), at_worst)
        self.tried.append(None if pin is None else bytes(pin))
        self.last_tries += self.tries == 1
        await asyncio.sleep(0)
        if self.hold is not None:
            await self.hold.wait()
        if self.fault is not None:
            raise self.fault
        if self.tries == 0:
            raise PinLocked("locked")
        if pin is not None and bytes(pin) != RIGHT:
            self.tries -= 1
            raise PinIncorrect("wrong PIN")
        self.tries = 3
        self.logged_in = True


class FakeSigner:
    """Signs when its token is logged in."""

    def __init__(self, key: Key, token: FakeToken | None) -> None:
        self.key = key
        self.token = token
        self.pins: list[bytes] = []
        self.loses_login = 0  # so many times, somebody else logs the token out

    async def sign(self, scheme: Scheme, data: bytes, pin: bytearray | None = None) -> bytes:
        await asyncio.sleep(0)
        if self.token is not None and self.loses_login:
            self.loses_login -= 1
            self.token.logged_in = False
        if self.token is not None and self.token.login_required and not self.token.logged_in:
            raise LoginNeeded("log in first")
        if self.key.always_authenticate:
            assert pin is not None
            self.pins.append(bytes(pin))
            if bytes(pin) != RIGHT:
                raise PinIncorrect("wrong PIN")
        return b"signed " + data


class FakePerson:
    """A prompter whose person types the PINs that are laid out, and says yes or no."""

    name = "fake"

    def __init__(self, pins: Sequence[bytes | HsmAgentError] = (), *, agrees: bool = True) -> None:
        self.pins = list(pins)
        self.agrees = agrees
        self.hides = False  # notices
        self.shown: list[Text] = []
        self.confirmed: list[Text] = []
        self.noticed: list[Text] = []
        self.open = 0
        self.hold: asyncio.Event | None = None
        self.on_confirm: Callable[[], None] = lambda: None

    async def ask_pin(self, dialog: PinDialog) -> None:
        self.open += 1
        try:
            while True:
                self.shown.append(dialog.text())
                await self._think()
                if not self.pins:
                    raise Cancelled("the person closed the dialog")
                pin = self.pins.pop(0)
                if isinstance(pin, HsmAgentError):
                    raise pin
                if await dialog.submit(bytearray(pin)) is not Answer.AGAIN:
                    return
        finally:
            self.open -= 1

    async def confirm(self, text: Text) -> bool:
        self.confirmed.append(text)
        self.on_confirm()
        await self._think()
        return self.agrees

    async def notice(self, text: Text) -> None:
        self.noticed.append(text)
        if not self.agrees:
            raise Cancelled("the person pressed the second button")
        if not self.hides:
            await asyncio.Event().wait()

    async def _think(self) -> None:
        await asyncio.sleep(0)
        if self.hold is not None:
            await self.hold.wait()


class FakeStore:
    """A keyring with at most one PIN."""

    def __init__(self, pin: bytes = b"") -> None:
        self.pin = pin
        self.given: list[bytes] = []
        self.kept = 0
        self.hold: asyncio.Event | None = None  # to save takes so long
        self.on_take: Callable[[], None] = lambda: None

    async def take(self, status: TokenStatus) -> bytearray | None:
        if status.pin_state is not PinState.OK or not self.pin:
            return None
        for _ in range(3):
            await asyncio.sleep(0)  # a keyring takes its time
        self.on_take()
        self.given.append(self.pin)
        return bytearray(self.pin)

    def keep(self, token: TokenId) -> None:
        self.kept += 1

    async def forget(self, token: TokenId) -> bool:
        self.pin = b""
        return True

    async def save(self, token: TokenId, pin: bytearray) -> bool:
        if self.hold is not None:
            await self.hold.wait()
        assert bytes(pin) == RIGHT  # only one that the token has accepted
        self.pin = bytes(pin)
        return True


class Nobody:
    """No prompter can be used."""

    name = "nobody"

    async def ask_pin(self, dialog: PinDialog) -> None:
        raise Unavailable("no prompter is there")

    async def confirm(self, text: Text) -> bool:
        raise Unavailable("no prompter is there")

    async def notice(self, text: Text) -> None:
        raise Unavailable("no prompter is there")
