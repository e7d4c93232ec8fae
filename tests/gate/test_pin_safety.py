"""Whatever happens, C_Login is called at most once for each PIN that was typed or stored."""

import asyncio
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from hsmagent.errors import Cancelled, HsmAgentError, TimedOut, TokenError, Unavailable, WorkerDied
from hsmagent.gate import Gate
from hsmagent.model import PinState, Scheme, TokenId, TokenStatus
from hsmagent.policy import Policy
from hsmagent.prompt.base import Answer, PinDialog, Text
from tests.gate.doubles import KEY, RIGHT, TOKEN, FakeSession, FakeSigner, request

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
    typed: int = 0
    at_final_try: int = 0
    sequence: list[str] = field(default_factory=list)

    async def ask_pin(self, dialog: PinDialog) -> None:
        while True:
            dialog.text()
            await asyncio.sleep(0)
            answer = self.answers.pop(0) if self.answers else Cancelled("enough")
            if isinstance(answer, HsmAgentError):
                raise answer
            self.typed += 1
            self.sequence.append("typed")
            if await dialog.submit(bytearray(answer)) is not Answer.AGAIN:
                return

    async def confirm(self, text: Text) -> bool:
        self.sequence.append("asked twice")
        return self.agrees

    async def notice(self, text: Text) -> None:
        await asyncio.Event().wait()


class Store:
    """A keyring with at most one PIN, that counts how often it gave it."""

    def __init__(self, pin: bytes) -> None:
        self.pin = pin
        self.given = 0

    async def take(self, status: TokenStatus) -> bytearray | None:
        if status.pin_state is not PinState.OK or not self.pin:
            return None
        self.given += 1
        return bytearray(self.pin)

    def accepted(self, token: TokenId) -> None:
        pass

    async def rejected(self, token: TokenId) -> None:
        self.pin = b""

    async def save(self, token: TokenId, pin: bytearray) -> bool:
        assert bytes(pin) == RIGHT  # only one that the token has accepted
        self.pin = bytes(pin)
        return True


class WatchedSession(FakeSession):
    """Notes what was known of the PIN when C_Login was called."""

    def __init__(self, sequence: list[str]) -> None:
        super().__init__()
        self.sequence = sequence

    async def login(self, pin: bytearray | None) -> None:
        before = self.login_calls
        last = self.status().pin_state is PinState.FINAL_TRY
        try:
            await super().login(pin)
        finally:
            if self.login_calls > before and last:
                self.sequence.append("last try used")


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("sign"), st.integers(1, 4)),
        st.tuples(st.just("fault"), st.sampled_from(FAULTS)),
        st.tuples(st.just("mend"), st.none()),
        st.tuples(st.just("lose login"), st.none()),
        st.tuples(st.just("terminal pin"), st.sampled_from([RIGHT, b"222222"])),
        st.tuples(st.just("leave"), st.integers(1, 3)),
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
    store = None if stored is None else Store(stored)
    asyncio.run(play(steps, Scene(Person(list(answers), agrees), store)))


async def play(steps: list[tuple[str, object]], scene: "Scene") -> None:
    for action, argument in steps:
        await getattr(scene, action.replace(" ", "_"))(argument)
    await asyncio.wait_for(asyncio.gather(*scene.waiting, return_exceptions=True), 10)
    given = scene.store.given if scene.store is not None else 0
    assert scene.session.login_calls <= scene.person.typed + scene.terminal + given
    check_last_tries(scene.person.sequence, scene.terminal)


class Scene:
    """A gate, a token and a person, and one method for each thing that may happen."""

    def __init__(self, person: Person, store: Store | None) -> None:
        self.person = person
        self.store = store
        self.session = WatchedSession(person.sequence)
        self.signer = FakeSigner(KEY, self.session)
        self.terminal = 0
        self.waiting: list[asyncio.Task[bytes]] = []
        self.gate = Gate(
            sessions=lambda _token: self.session,
            policy=Policy((), lambda _key, _entry: False, lambda: 0.0),
            prompter=person,
            record=lambda _request, _outcome, _reason: None,
            timeout=0.001,
            store=lambda _token: self.store,
        )

    async def sign(self, count: int) -> None:
        for _ in range(count):
            wish = self.gate.sign(request(), self.signer, Scheme.ECDSA_SHA256, b"x")
            self.waiting.append(asyncio.ensure_future(wish))
        await asyncio.sleep(0)

    async def fault(self, error: TokenError) -> None:
        self.session.fault = error

    async def mend(self, _: None) -> None:
        self.session.fault = None

    async def lose_login(self, _: None) -> None:
        self.signer.loses_login = 1

    async def terminal_pin(self, pin: bytes) -> None:
        self.terminal += 1
        await asyncio.gather(self.gate.unlock(TOKEN, bytearray(pin)), return_exceptions=True)

    async def leave(self, count: int) -> None:
        for task in self.waiting[:count]:
            task.cancel()

    async def lock_screen(self, _: None) -> None:
        self.gate.close("the screen is locked")

    async def unlock_screen(self, _: None) -> None:
        self.gate.open()


def check_last_tries(sequence: list[str], terminal: int) -> None:
    """In a dialog, the last try is used only after the second question."""
    unasked = 0
    asked = False
    for event in sequence:
        if event == "asked twice":
            asked = True
        elif event == "last try used":
            unasked += not asked
            asked = False
    assert unasked <= terminal  # a terminal asks its second question itself
