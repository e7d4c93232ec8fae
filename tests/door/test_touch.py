"""Keys that no token holds and that want a person: a PIN for one use, a touch (FIDO)."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from hsmagent.door.gate import Gate, Wants
from hsmagent.door.policy import Policy
from hsmagent.errors import PinIncorrect, PinNeeded, Refused, TimedOut
from hsmagent.model import Key, KeyType, Request
from hsmagent.prompt.base import Prompter
from tests.door.doubles import RIGHT, FakePerson, FakeToken, request

FIDO = Key(b"fido", KeyType.ED25519_SK, 256, label="me@home", application="ssh:", touch=True)


class Scene:
    """A gate, and a FIDO key that may want a PIN; what waits for a touch holds until `touched`."""

    def __init__(self, prompter: Prompter, pin: bytes = b"") -> None:
        self.wanted = pin
        self.tried: list[bytes | None] = []
        self.pins: list[bytearray] = []
        self.shown: list[str] = []  # programs that a touch is asked for, as of now
        self.touched = asyncio.Event()
        self.touched.set()
        self.log: list[tuple[str, str]] = []
        self.gate = Gate(
            tokens=lambda _token: FakeToken(),
            policy=Policy((), lambda _key, _entry: True, lambda: 0.0),
            prompter=prompter,
            record=lambda _request, outcome, reason: self.log.append((outcome, reason)),
            timeout=60.0,
            waiting=self.waiting,
        )

    @contextmanager
    def waiting(self, request: Request) -> Iterator[None]:
        self.shown.append(request.peer.process.program)
        try:
            yield
        finally:
            self.shown.remove(request.peer.process.program)

    async def _operate(self, pin: bytearray | None) -> bytes:
        self.tried.append(None if pin is None else bytes(pin))
        await self.touched.wait()
        if self.wanted and pin is None:
            raise PinNeeded("the FIDO key wants its PIN")
        if pin is not None:
            self.pins.append(pin)
            if bytes(pin) != self.wanted:
                raise PinIncorrect("the PIN of the FIDO key is wrong")
        return b"signed"

    async def sign(self, program: str = "ssh", key: Key = FIDO) -> bytes:
        return await self.gate.perform(request(key, program=program), self._operate)


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0)


async def test_a_key_that_wants_no_pin_is_asked_none() -> None:
    person = FakePerson()
    scene = Scene(person)
    assert await scene.sign() == b"signed"
    assert (person.shown, scene.tried, scene.log) == ([], [None], [("used", "")])


async def test_the_pin_is_asked_for_once_and_for_one_use() -> None:
    person = FakePerson([RIGHT, RIGHT])
    scene = Scene(person, RIGHT)
    assert await scene.sign() == b"signed"
    [text] = person.shown
    assert text.message == "Enter the PIN of the FIDO key “me@home” and touch it"
    assert "ssh ← git wants to log in as alice at git.example.org" in text.description
    assert "me@home (Ed25519-SK)" in text.description
    assert not any(scene.pins[0]), "wiped"
    assert await scene.sign() == b"signed"
    assert len(person.shown) == 2
    assert scene.tried == [None, RIGHT] * 2


async def test_who_waits_for_a_touch_or_a_yes_is_told() -> None:
    person = FakePerson()
    person.hold = asyncio.Event()
    scene = Scene(person)
    scene.touched.clear()
    asking = replace(request(FIDO), confirm=True)
    signing = asyncio.ensure_future(scene.gate.perform(asking, scene._operate))
    await until(scene.gate.pending)
    assert [each.wants for each in scene.gate.pending()] == [Wants.YES]
    person.hold.set()
    await until(lambda: scene.shown)
    assert [each.wants for each in scene.gate.pending()] == [Wants.TOUCH]
    scene.touched.set()
    assert await signing == b"signed"
    assert scene.gate.pending() == ()


async def test_a_wrong_pin_is_tried_once() -> None:
    person = FakePerson([b"111111", RIGHT])
    scene = Scene(person, RIGHT)
    with pytest.raises(PinIncorrect):
        await scene.sign()
    assert len(person.shown) == 1
    assert scene.tried == [None, b"111111"]
    assert scene.log == [("failed", "the PIN of the FIDO key is wrong")]


@pytest.mark.parametrize("answer", [b"", TimedOut("nobody answered the prompt in time"), None])
async def test_without_a_pin_nothing_is_tried(answer: bytes | TimedOut | None) -> None:
    scene = Scene(FakePerson([] if answer is None else [answer]), RIGHT)
    with pytest.raises(Refused):
        await scene.sign()
    assert scene.tried == [None]
    [(outcome, _)] = scene.log
    assert outcome == "refused"


async def test_a_locked_screen_asks_for_no_pin() -> None:
    person = FakePerson([RIGHT])
    scene = Scene(person, RIGHT)
    scene.gate.close("the screen is locked")
    with pytest.raises(Refused, match="the screen is locked"):
        await scene.sign()
    assert person.shown == []


async def test_a_touch_is_asked_for_one_request_at_a_time() -> None:
    scene = Scene(FakePerson())
    scene.touched.clear()
    signing = [asyncio.ensure_future(scene.sign(program)) for program in ("ssh", "git")]
    await until(lambda: scene.shown)
    for _ in range(10):
        await asyncio.sleep(0)
    assert scene.shown == ["ssh"], "what is touched is what was shown"
    # Who leaves makes room for the next one; a key that wants no touch waits for nobody.
    signing[0].cancel()
    await until(lambda: scene.shown == ["git"])
    untouched = asyncio.ensure_future(scene.sign("scp", replace(FIDO, touch=False)))
    await until(lambda: len(scene.tried) == 3)
    assert scene.shown == ["git"]
    scene.touched.set()
    assert (await signing[1], await untouched) == (b"signed", b"signed")
    assert scene.shown == []
