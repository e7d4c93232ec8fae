"""Whatever happens, C_Login is called at most once for each PIN that was typed or stored."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from hsmagent.door.gate import Gate
from hsmagent.door.policy import Policy
from hsmagent.errors import Cancelled, HsmAgentError, TimedOut, TokenError, Unavailable, WorkerDied
from hsmagent.model import Scheme
from hsmagent.prompt.base import Answer, PinDialog, Text
from tests.door.doubles import (
    RIGHT,
    FakeSigner,
    FakeStore,
    FakeToken,
    request,
)
from tests.parts.values import KEY, TOKEN

FAULTS = (
    WorkerDied("the module crashed"),
    WorkerDied("the module hung"),
    TokenError("CKR_DEVICE_ERROR", 0x30),
)
# What a person does at a dialog: types a PIN, or ends it in one of the ways there are.
ANSWERS = st.one_of(
    st.just(RIGHT),
    st.sampled_from([b"000000", b"111111", b"", b"1", b"9" * 40]),
    st.sampled_from([Cancelled("no"), TimedOut("nobody came"), Unavailable("the prompter died")]),
)


@dataclass
class Person:
    """Answers dialogs as laid out, and counts the PINs it typed that could be tried."""

    answers: list[bytes | HsmAgentError]
    agrees: bool
    name: str = "person"
    typed: list[bytes] = field(default_factory=list)
    agreed: int = 0

    async def ask_pin(self, dialog: PinDialog) -> None:
        while True:
            dialog.text()
            await asyncio.sleep(0)
            answer = self.answers.pop(0) if self.answers else Cancelled("enough")
            if isinstance(answer, HsmAgentError):
                raise answer
            self.typed.append(answer)
            if await dialog.submit(bytearray(answer)) is not Answer.AGAIN:
                return

    async def confirm(self, text: Text) -> bool:
        await asyncio.sleep(0)
        self.agreed += self.agrees
        return self.agrees

    async def notice(self, text: Text) -> None:
        await asyncio.Event().wait()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("sign"), st.integers(1, 4)),
        st.tuples(st.just("fault"), st.sampled_from(FAULTS)),
        st.tuples(st.just("mend"), st.none()),
        st.tuples(st.just("lose login"), st.none()),
        st.tuples(st.just("terminal pin"), st.sampled_from([RIGHT, b"222222"])),
        st.tuples(st.just("leave"), st.integers(1, 3)),
        st.tuples(st.just("wait"), st.integers(1, 8)),
        st.tuples(st.just("log out"), st.none()),
        st.tuples(st.just("other program"), st.integers(1, 2)),
        st.tuples(st.just("lock screen"), st.none()),
        st.tuples(st.just("unlock screen"), st.none()),
    ),
    max_size=20,
)


@settings(max_examples=300, deadline=None)
@given(
    STEPS,
    st.lists(ANSWERS, max_size=12),
    st.booleans(),
    st.sampled_from([None, b"", RIGHT, b"333333"]),
)
def test_at_most_one_try_for_each_pin(
    steps: list[tuple[str, object]],
    answers: list[bytes | HsmAgentError],
    agrees: bool,
    stored: bytes | None,
) -> None:
    store = None if stored is None else FakeStore(stored)
    asyncio.run(play(steps, Scene(Person(list(answers), agrees), store)))


async def play(steps: list[tuple[str, object]], scene: "Scene") -> None:
    for action, argument in steps:
        await getattr(scene, action.replace(" ", "_"))(argument)
    await asyncio.wait_for(asyncio.gather(*scene.waiting, return_exceptions=True), 10)
    await asyncio.gather(*scene.typing, return_exceptions=True)
    stored = scene.store.given if scene.store is not None else []
    given = Counter(scene.person.typed) + Counter(scene.terminal) + Counter(stored)
    assert Counter(scene.token.tried) <= given
    # The last try is used only after the second question, and by no stored PIN.
    assert scene.token.last_tries <= scene.person.agreed


class Scene:
    """A gate, a token and a person, and one method for each thing that may happen."""

    def __init__(self, person: Person, store: FakeStore | None) -> None:
        self.person = person
        self.store = store
        self.token = FakeToken()
        self.signer = FakeSigner(KEY, self.token)
        self.terminal: list[bytes] = []
        self.typing: list[asyncio.Task[None]] = []
        self.waiting: list[asyncio.Task[bytes]] = []
        self.gate = Gate(
            tokens=lambda _token: self.token,
            policy=Policy((), lambda _key, _entry: False, lambda: 0.0),
            prompter=person,
            record=lambda _request, _outcome, _reason: None,
            timeout=0.001,
            store=lambda _token: self.store,
        )

    async def sign(self, count: int) -> None:
        for _ in range(count):
            wish = self.gate.perform(
                request(), lambda pin: self.signer.sign(Scheme.ECDSA_SHA256, b"x", pin)
            )
            self.waiting.append(asyncio.ensure_future(wish))
        await asyncio.sleep(0)

    async def fault(self, error: TokenError) -> None:
        self.token.fault = error

    async def mend(self, _: None) -> None:
        self.token.fault = None

    async def lose_login(self, _: None) -> None:
        self.signer.loses_login = 1

    async def terminal_pin(self, pin: bytes) -> None:
        self.terminal.append(pin)
        self.typing.append(asyncio.ensure_future(self.gate.unlock(TOKEN, bytearray(pin))))

    async def leave(self, count: int) -> None:
        for task in self.waiting[:count]:
            task.cancel()

    async def wait(self, turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)

    async def log_out(self, _: None) -> None:
        self.token.logged_in = False

    async def other_program(self, tries: int) -> None:
        self.token.used_elsewhere += min(tries, self.token.tries)

    async def lock_screen(self, _: None) -> None:
        self.gate.close("the screen is locked")

    async def unlock_screen(self, _: None) -> None:
        self.gate.open()
