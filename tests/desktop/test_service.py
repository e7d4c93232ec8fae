"""Our service, seen by another program on the bus and by the real busctl."""

import asyncio
import os
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import Any

import pytest

from hsmagent.bus import PROPERTIES, Bus, BusError, Match, Message, Variant, errors
from hsmagent.desktop.service import (
    AGENT,
    MAX_UNLOCKS,
    NAME,
    OBJECT_MANAGER,
    PATH,
    REFUSED,
    TOKEN,
    TOKENS,
    Agent,
    Caller,
    Service,
    token_path,
)
from hsmagent.errors import Cancelled
from hsmagent.model import PinState, TokenId, TokenStatus
from tests.parts import values
from tests.parts.desktop.bus import PrivateBus
from tests.parts.until import async_until

WORK = replace(values.TOKEN, label="work\u202e", manufacturer="CardContact")
WORK_PATH = token_path(WORK)
LOGIN = replace(values.LOGIN, key=replace(values.KEY, token=WORK))
LOCKED = replace(values.STATUS, id=WORK, pin_state=PinState.COUNT_LOW, keys=(LOGIN.key,))
UNLOCKED = replace(LOCKED, logged_in=True, idle_left=60.0, max_left=3600.0)


@dataclass
class Tokens:
    """The agent behind the service."""

    now: list[TokenStatus] = field(default_factory=lambda: [LOCKED])
    locked: list[TokenId] = field(default_factory=list)
    asked: list[tuple[TokenId, Caller]] = field(default_factory=list)
    answer: asyncio.Future[None] | None = None

    @property
    def agent(self) -> Agent:
        return Agent(lambda: self.now, self.lock, self.unlock, lambda: 1_000_000.0)

    async def lock(self, tokens: Sequence[TokenId]) -> None:
        self.locked += tokens

    async def unlock(self, token: TokenId, caller: Caller) -> None:
        self.asked.append((token, caller))
        self.answer = asyncio.get_running_loop().create_future()
        await self.answer


@pytest.fixture
def tokens() -> Tokens:
    return Tokens()


@pytest.fixture
async def service(bus: Bus, tokens: Tokens) -> AsyncIterator[Service]:
    service = Service(bus, tokens.agent, lambda: 0.0)
    await service.start()
    yield service
    service.stop()


@dataclass
class Client:
    """Another program."""

    bus: Bus

    async def call(self, path: str, member: str, signature: str = "", *body: Any) -> list[Any]:
        interface, _, name = member.rpartition(".")
        return await self.bus.call(NAME, path, interface, name, signature, body)

    async def hear(self, interface: str, member: str) -> list[Message]:
        heard: list[Message] = []
        await self.bus.subscribe(Match(NAME, interface, member), heard.append)
        return heard


@pytest.fixture
def client(service: Service, other: Bus) -> Client:
    assert service
    return Client(other)


async def test_the_tokens_are_objects(client: Client, tokens: Tokens) -> None:
    [managed] = await client.call(PATH, f"{OBJECT_MANAGER}.GetManagedObjects")
    assert managed == {
        WORK_PATH: {
            TOKEN: {
                "Label": "work\ufffd",
                "Serial": "4711",
                "Model": "SmartCard-HSM",
                "Uri": WORK.uri,
                "Present": True,
                "Unlocked": False,
                "Expiry": 0,
                "PinState": "count-low",
                "PinPad": False,
                "Keys": 1,
            }
        }
    }
    tokens.now = [UNLOCKED]
    [expiry] = await client.call(WORK_PATH, f"{PROPERTIES}.Get", "ss", TOKEN, "Expiry")
    assert expiry == 1_000_060
    [everything] = await client.call(WORK_PATH, f"{PROPERTIES}.GetAll", "s", TOKEN)
    assert everything == managed[WORK_PATH][TOKEN] | {"Unlocked": True, "Expiry": 1_000_060}


async def test_changes_are_signalled(client: Client, service: Service, tokens: Tokens) -> None:
    changed = await client.hear(PROPERTIES, "PropertiesChanged")
    added = await client.hear(OBJECT_MANAGER, "InterfacesAdded")
    removed = await client.hear(OBJECT_MANAGER, "InterfacesRemoved")
    service.changed()
    tokens.now = [UNLOCKED]
    service.changed()
    tokens.now = [replace(UNLOCKED, idle_left=30.0)]  # a use: no signal
    service.changed()
    other = replace(LOCKED, id=replace(WORK, serial="4712"))
    tokens.now = [replace(LOCKED, present=False, pin_state=PinState.OK), other]
    service.changed()
    tokens.now = [other]
    service.changed()
    await async_until(lambda: removed)
    assert [(signal.path, list(signal.body)) for signal in changed] == [
        (WORK_PATH, [TOKEN, {"Unlocked": True}, []]),
        (WORK_PATH, [TOKEN, {"Present": False, "Unlocked": False, "PinState": "ok"}, []]),
    ]
    assert [signal.body[0] for signal in added] == [token_path(other.id)]
    assert [list(signal.body) for signal in removed] == [[WORK_PATH, [TOKEN]]]
    with pytest.raises(BusError) as caught:
        await client.call(WORK_PATH, f"{TOKEN}.Lock")
    assert caught.value.name == errors.UNKNOWN_OBJECT


async def test_a_use_is_signalled(client: Client, service: Service) -> None:
    heard = await client.hear(AGENT, "KeyUsed")
    software = replace(LOGIN, key=replace(LOGIN.key, token=None), destination=None)
    service.used(LOGIN, "used")
    service.used(software, "refused")
    await async_until(lambda: len(heard) == 2)
    assert [list(signal.body) for signal in heard] == [
        [WORK_PATH, "ssh", "ssh", "ssh ← git", "git.example.org", "used"],
        ["/", "ssh", "ssh", "ssh ← git", "", "refused"],
    ]


async def test_a_storm_of_uses_is_few_signals(client: Client, service: Service) -> None:
    heard = await client.hear(AGENT, "KeyUsed")
    for _ in range(1000):
        service.used(LOGIN, "used")
    await client.call(PATH, f"{AGENT}.LockAll")  # answered after all of them
    assert len(heard) == 20


async def test_locking(client: Client, tokens: Tokens) -> None:
    await client.call(WORK_PATH, f"{TOKEN}.Lock")
    await client.call(PATH, f"{AGENT}.LockAll")
    assert tokens.locked == [WORK, WORK]


async def test_unlock_raises_the_prompt_and_names_the_caller(
    client: Client, tokens: Tokens
) -> None:
    call = asyncio.create_task(client.call(WORK_PATH, f"{TOKEN}.Unlock"))
    await async_until(lambda: tokens.answer)
    assert tokens.asked == [(WORK, Caller(os.getpid(), os.getuid()))]
    assert tokens.answer is not None
    tokens.answer.set_result(None)
    assert await call == []


async def test_a_refusal_says_why(client: Client, tokens: Tokens) -> None:
    call = asyncio.create_task(client.call(WORK_PATH, f"{TOKEN}.Unlock"))
    await async_until(lambda: tokens.answer)
    assert tokens.answer is not None
    tokens.answer.set_exception(Cancelled("the person said no"))
    with pytest.raises(BusError, match="the person said no") as caught:
        await call
    assert caught.value.name == REFUSED


async def test_no_pin_is_ever_taken(client: Client, tokens: Tokens) -> None:
    with pytest.raises(BusError) as caught:
        await client.call(WORK_PATH, f"{TOKEN}.Unlock", "s", "123456")
    assert caught.value.name == errors.INVALID_ARGS
    assert tokens.asked == []


async def test_a_caller_that_leaves_takes_its_dialog_along(
    private: PrivateBus, service: Service, tokens: Tokens
) -> None:
    assert service
    caller = await asyncio.create_subprocess_exec(
        *("busctl", f"--address={private.address}", "call", NAME, WORK_PATH, TOKEN),
        *("Unlock", "--timeout=60"),
    )
    await async_until(lambda: tokens.answer)
    assert tokens.asked[0][1].pid == caller.pid
    caller.kill()
    await caller.wait()
    await async_until(lambda: tokens.answer and tokens.answer.cancelled())


async def test_only_so_many_wait_for_a_dialog(client: Client, tokens: Tokens) -> None:
    calls = [
        asyncio.create_task(client.call(WORK_PATH, f"{TOKEN}.Unlock"))
        for _ in range(MAX_UNLOCKS + 1)
    ]
    done, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    [refused] = done
    error = refused.exception()
    assert isinstance(error, BusError)
    assert error.name == errors.LIMITS_EXCEEDED
    for call in waiting:
        call.cancel()
    await asyncio.wait(waiting)
    await async_until(lambda: len(tokens.asked) == MAX_UNLOCKS)


async def test_another_users_program_raises_no_dialog(
    client: Client, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hsmagent.desktop.service.getuid", lambda: os.getuid() + 1)
    with pytest.raises(BusError) as caught:
        await client.call(WORK_PATH, f"{TOKEN}.Unlock")
    assert caught.value.name == errors.ACCESS_DENIED
    assert tokens.asked == []


@pytest.mark.parametrize(
    ("member", "signature", "body", "name"),
    [
        (f"{PROPERTIES}.Get", "ss", (TOKEN, "Pin"), errors.UNKNOWN_PROPERTY),
        (f"{PROPERTIES}.Get", "ss", ("org.x", "Pin"), errors.UNKNOWN_INTERFACE),
        (f"{PROPERTIES}.Get", "u", (3,), errors.INVALID_ARGS),
        (
            *(f"{PROPERTIES}.Set", "ssv"),
            *((TOKEN, "Unlocked", Variant("b", value=True)), errors.PROPERTY_READ_ONLY),
        ),
        (f"{TOKEN}.Steal", "", (), errors.UNKNOWN_METHOD),
    ],
)
async def test_wrong_calls(
    client: Client, member: str, signature: str, body: tuple, name: str
) -> None:
    with pytest.raises(BusError) as caught:
        await client.call(WORK_PATH, member, signature, *body)
    assert caught.value.name == name


# -- what is written about it ----------------------------------------------------------------


def written(name: str) -> ET.Element:
    tree = ET.fromstring((files("hsmagent.desktop") / f"{name}.xml").read_text())
    [interface] = tree.findall(f"interface[@name='{name}']")
    return interface


async def test_the_xml_tells_the_properties(tokens: Tokens, service: Service) -> None:
    described = {each.get("name"): each.get("type") for each in written(TOKEN).findall("property")}
    values = service._values(tokens.now[0])
    assert described == {name: value.signature for name, value in values.items()}
    assert {each.get("name") for each in written(TOKEN).findall("method")} == {"Lock", "Unlock"}
    signal = written(AGENT).find("signal[@name='KeyUsed']")
    assert signal is not None
    assert "".join(str(arg.get("type")) for arg in signal) == "osssss"


async def busctl(private: PrivateBus, *arguments: str) -> str:
    child = await asyncio.create_subprocess_exec(
        *("busctl", f"--address={private.address}", *arguments), stdout=subprocess.PIPE
    )
    output, _ = await child.communicate()
    assert child.returncode == 0
    return output.decode()


@pytest.mark.usefixtures("client")
async def test_busctl_understands_it(private: PrivateBus) -> None:
    tree = await busctl(private, "tree", "--list", NAME)
    assert {PATH, TOKENS, WORK_PATH} <= set(tree.split())
    shown = (await busctl(private, "introspect", NAME, WORK_PATH)).splitlines()
    rows = [line.split() for line in shown]
    assert [".Unlocked", "property", "b", "false", "emits-change"] in rows
    assert [".Unlock", "method", "-", "-", "-"] in rows
    assert [PROPERTIES, "interface", "-", "-", "-"] in rows
    read = await busctl(private, "get-property", NAME, PATH, AGENT, "Version")
    assert read.startswith('s "')


async def test_it_is_there_again_after_a_restart_of_the_bus(
    private: PrivateBus, client: Client, bus: Bus, other: Bus
) -> None:
    private.stop()
    await async_until(lambda: not bus.connected)
    private.start()
    await async_until(lambda: bus.connected and other.connected)
    assert await client.call(PATH, f"{OBJECT_MANAGER}.GetManagedObjects")
