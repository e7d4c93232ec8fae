"""The adapter on a real bus: what it does, and what it bears."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from hsmagent.bus import Bus, BusError, Match, Message, Variant, codec, connection, errors
from hsmagent.bus.bus import CALL_TIMEOUT
from tests.parts.desktop.bus import PrivateBus
from tests.parts.until import async_until

Join = Callable[..., Awaitable[Bus]]

PATH = "/org/hsmagent/Test"
IFACE = "org.hsmagent.Test"
DBUS = "org.freedesktop.DBus"


async def echo(call: Message) -> tuple[str, Sequence[Any]]:
    return call.signature, call.body


async def send(bus: Bus, to: Bus, member: str, *rest: Any, **named: Any) -> list[Any]:
    return await bus.call(to.unique_name, PATH, IFACE, member, *rest, **named)


async def test_values_travel(join: Join) -> None:
    server, client = await join(), await join()

    async def answer(call: Message) -> tuple[str, Sequence[Any]]:
        assert (call.sender, call.interface, call.member) == (client.unique_name, IFACE, "Ask")
        assert call.body == ["text", 7, {"key": "value", "deep": 1}, b"bytes", ["a", 1]]
        return "a{sv}b", [{"twice": Variant("v", Variant("s", "wrapped"))}, True]

    server.export(PATH, answer)
    properties = {"key": Variant("s", "value"), "deep": Variant("v", Variant("u", 1))}
    body = ["text", 7, properties, b"bytes", ["a", 1]]
    reply = await send(client, server, "Ask", "sua{sv}ay(si)", body, returns="a{sv}b")
    assert reply == [{"twice": "wrapped"}, True]


async def test_a_reply_of_another_type_is_an_error(join: Join) -> None:
    server, client = await join(), await join()
    server.export(PATH, echo)
    with pytest.raises(BusError) as caught:
        await send(client, server, "Ask", "s", ["x"], returns="u")
    assert caught.value.name == errors.INVALID_ARGS


async def test_what_cannot_be_sent_is_an_error(join: Join) -> None:
    client = await join()
    unsendable: list[tuple[str, list[Any]]] = [
        ("s", [1]),
        ("s", []),
        ("u", [-1]),
        ("s", ["\udc80"]),
        ("!", [1]),
    ]
    for signature, body in unsendable:
        with pytest.raises(BusError):
            await client.call(DBUS, "/", DBUS, "GetId", signature, body)
    assert await client.call(DBUS, "/", DBUS, "GetId", returns="s")


async def test_a_refusal_carries_its_name_and_text(join: Join) -> None:
    server, client = await join(), await join()

    async def refuse(call: Message) -> tuple[str, Sequence[Any]]:
        raise BusError(errors.ACCESS_DENIED, "not you")

    server.export(PATH, refuse)
    with pytest.raises(BusError, match="not you") as caught:
        await send(client, server, "Ask")
    assert caught.value.name == errors.ACCESS_DENIED


async def test_a_handler_that_fails_shows_no_traceback(
    join: Join, caplog: pytest.LogCaptureFixture
) -> None:
    server, client = await join(), await join()

    async def fail(call: Message) -> tuple[str, Sequence[Any]]:
        raise ValueError("secret detail")

    async def misfit(call: Message) -> tuple[str, Sequence[Any]]:
        return "u", ["not a number"]

    for handler in (fail, misfit):
        undo = server.export(PATH, handler)
        with pytest.raises(BusError) as caught:
            await send(client, server, "Ask")
        assert caught.value.name in {errors.FAILED, errors.INVALID_ARGS}
        assert "secret" not in str(caught.value)
        assert "Traceback" not in str(caught.value)
        undo()
    assert "secret detail" in caplog.text  # our own log has it
    with pytest.raises(BusError) as caught:
        await send(client, server, "Ask")
    assert caught.value.name == errors.UNKNOWN_OBJECT
    assert await client.call(server.unique_name, "/", f"{DBUS}.Peer", "Ping", returns="") == []


async def test_calls_at_one_time_are_bounded(join: Join) -> None:
    server, client = await join(), await join()
    gate = asyncio.Event()

    async def wait(call: Message) -> tuple[str, Sequence[Any]]:
        await gate.wait()
        return "", []

    server.export(PATH, wait)
    calls = [asyncio.create_task(send(client, server, "Ask")) for _ in range(70)]
    await async_until(lambda: any(call.done() for call in calls))
    refused = next(call for call in calls if call.done())
    assert isinstance(refused.exception(), BusError)
    gate.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(result == [] for result in results) == 64


async def test_a_call_has_a_deadline(join: Join) -> None:
    server, client = await join(), await join()

    async def hang(call: Message) -> tuple[str, Sequence[Any]]:
        await asyncio.Event().wait()
        raise AssertionError

    server.export(PATH, hang)
    with pytest.raises(BusError) as caught:
        await send(client, server, "Ask", timeout=0.05)
    assert caught.value.name == errors.NO_REPLY


async def test_a_bus_that_dies_fails_its_calls_and_is_rejoined(
    join: Join, private: PrivateBus
) -> None:
    server, client = await join(), await join()
    arrived = asyncio.Event()
    changes: list[bool] = []
    client.listen(lambda: changes.append(client.connected))

    async def hang(call: Message) -> tuple[str, Sequence[Any]]:
        arrived.set()
        await asyncio.Event().wait()
        raise AssertionError

    server.export(PATH, hang)
    call = asyncio.create_task(send(client, server, "Ask", timeout=60))
    await arrived.wait()
    private.stop()
    with pytest.raises(BusError) as caught:
        await call  # at once, not after its minute
    assert caught.value.name == errors.DISCONNECTED
    with pytest.raises(BusError) as caught:
        await client.call(DBUS, "/", DBUS, "GetId")
    assert caught.value.name == errors.DISCONNECTED
    client.emit(PATH, IFACE, "Changed")  # nobody hears it, and nothing happens
    private.start()
    await async_until(lambda: client.connected and server.connected)
    server.export(PATH, echo)
    assert await send(client, server, "Ask", "s", ["again"]) == ["again"]
    assert changes == [False, True]


async def test_the_bus_may_come_late(join: Join, private: PrivateBus) -> None:
    private.stop()
    bus = await join(wait=False)
    owners: list[str] = []
    signals: list[Message] = []
    await bus.watch_owner("org.hsmagent.Late", owners.append)
    await bus.subscribe(Match("org.hsmagent.Late", IFACE, "Changed"), signals.append)
    assert await bus.request_name("org.hsmagent.Early") is False
    private.start()
    await async_until(lambda: bus.connected)
    late = await join()
    assert await late.request_name("org.hsmagent.Late")
    late.emit(PATH, IFACE, "Changed", "s", ["now"])
    await async_until(lambda: signals)
    assert owners == ["", late.unique_name]
    assert not await late.request_name("org.hsmagent.Early")


async def test_who_calls_while_the_bus_is_joined_for_the_first_time_waits(
    private: PrivateBus,
) -> None:
    bus = Bus(lambda: private.address)
    running = asyncio.create_task(bus.run())
    await asyncio.sleep(0)
    assert not bus.connected
    assert await bus.call(DBUS, "/", DBUS, "GetId", returns="s")
    running.cancel()
    await asyncio.wait([running])
    with pytest.raises(BusError) as caught:
        await bus.call(DBUS, "/", DBUS, "GetId", returns="s")
    assert caught.value.name == errors.DISCONNECTED


async def test_who_calls_learns_at_once_that_there_is_no_bus(tmp_path: Path) -> None:
    bus = Bus(lambda: f"unix:path={tmp_path}/none")
    running = asyncio.create_task(bus.run())
    await asyncio.sleep(0)
    async with asyncio.timeout(CALL_TIMEOUT / 2):
        with pytest.raises(BusError) as caught:
            await bus.call(DBUS, "/", DBUS, "GetId", returns="s")
    assert caught.value.name == errors.DISCONNECTED
    running.cancel()
    await asyncio.wait([running])


async def test_owners_are_told_at_every_change(join: Join, private: PrivateBus) -> None:
    bus, other = await join(), await join()
    owners: list[str] = []
    undo = await bus.watch_owner("org.hsmagent.Other", owners.append)
    await other.request_name("org.hsmagent.Other")
    first = other.unique_name
    await async_until(lambda: owners == ["", first])
    private.stop()
    await async_until(lambda: owners == ["", first, ""])
    private.start()
    await async_until(lambda: len(owners) >= 4 and owners[-1])
    assert owners[-1] == other.unique_name
    undo()
    undo()
    await bus.call(DBUS, "/", DBUS, "GetId")
    told = len(owners)
    private.stop()
    await async_until(lambda: not bus.connected)
    assert len(owners) == told


async def test_a_signal_from_a_stranger_is_not_passed_on(join: Join) -> None:
    bus, service, stranger = await join(), await join(), await join()
    await service.request_name("org.hsmagent.Service")
    heard: list[Message] = []
    owners: list[str] = []
    await bus.subscribe(Match("org.hsmagent.Service", IFACE, "Changed", PATH), heard.append)
    await bus.watch_owner("org.hsmagent.Service", owners.append)
    # A signal that names its destination passes the bus whatever our match rules say.
    for body, interface, member, path in (
        (["lie"], IFACE, "Changed", PATH),
        (["org.hsmagent.Service", service.unique_name, ""], DBUS, "NameOwnerChanged", f"/{DBUS}"),
    ):
        message = Message(
            codec.Kind.SIGNAL,
            stranger._calls.next_serial(),
            destination=bus.unique_name,
            path=path.replace(".", "/"),
            interface=interface,
            member=member,
            signature="s" * len(body),
            body=body,
        )
        stranger._send(message)
    stranger.emit(PATH, IFACE, "Changed", "s", ["broadcast lie"])
    await stranger.call(DBUS, "/", DBUS, "GetId")  # so that they are on their way before
    service.emit("/elsewhere", IFACE, "Changed", "s", ["elsewhere"])
    service.emit(PATH, IFACE, "Changed", "s", ["truth"])
    await async_until(lambda: heard)
    assert [signal.body for signal in heard] == [["truth"]]
    assert heard[0].sender == service.unique_name
    assert owners == [service.unique_name]


async def test_a_failing_listener_stops_nobody(join: Join) -> None:
    bus, service = await join(), await join()
    heard: list[Message] = []

    def fail(signal: Message) -> None:
        raise ValueError

    await bus.subscribe(Match(service.unique_name, IFACE, "Changed"), fail)
    await bus.subscribe(Match(service.unique_name, IFACE, "Changed"), heard.append)
    service.emit(PATH, IFACE, "Changed")
    await async_until(lambda: heard)


async def test_a_frozen_bus_costs_the_caller_its_deadline_and_others_nothing(
    join: Join, private: PrivateBus
) -> None:
    bus = await join()
    with private.frozen():
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        counter = asyncio.create_task(count_turns())
        with pytest.raises(BusError) as caught:
            await bus.call(DBUS, "/", DBUS, "GetId", timeout=0.2)
        counter.cancel()
        assert caught.value.name == errors.NO_REPLY
        assert turns > 1000
    assert await bus.call(DBUS, "/", DBUS, "GetId", returns="s")


async def test_a_full_socket_is_waited_for(join: Join, private: PrivateBus) -> None:
    """EAGAIN is no reason to give the connection up."""
    bus, listener = await join(), await join()
    heard: list[Message] = []
    await listener.subscribe(Match(bus.unique_name, IFACE, "Big"), heard.append)
    with private.frozen():
        for _ in range(8):
            bus.emit(PATH, IFACE, "Big", "s", ["x" * 100_000])
        assert bus._connection is not None
        assert bus._connection._outgoing
        assert bus.connected
    await async_until(lambda: len(heard) == 8)


async def test_a_bus_that_never_reads_is_given_up(join: Join, private: PrivateBus) -> None:
    bus = await join()
    with private.frozen():
        for _ in range(30):
            bus.emit(PATH, IFACE, "Big", "s", ["x" * 100_000])
        assert not bus.connected
    await async_until(lambda: bus.connected)


async def test_too_long_a_message_is_skipped(join: Join, caplog: pytest.LogCaptureFixture) -> None:
    server, client = await join(), await join()
    server.export(PATH, echo)
    big = "x" * (connection.LARGEST_MESSAGE - 1000)
    assert await send(client, server, "Ask", "s", [big]) == [big]
    before = server.unique_name
    with pytest.raises(BusError) as caught:
        await send(client, server, "Ask", "ss", [big, "x" * 2000], timeout=0.5)
    assert caught.value.name == errors.NO_REPLY
    assert await send(client, server, "Ask", "s", ["small"]) == ["small"]
    assert server.unique_name == before
    assert "skipped" in caplog.text


async def test_leaving_closes_the_socket_at_once(private: PrivateBus) -> None:
    bus = Bus(lambda: private.address)
    task = asyncio.create_task(bus.run())
    await async_until(lambda: bus.connected)
    assert bus._connection is not None
    sock = bus._connection._socket
    assert not os.get_inheritable(sock.fileno())
    task.cancel()
    await asyncio.wait([task])
    assert sock.fileno() == -1
    assert not bus.connected


async def test_a_peer_that_goes_fails_the_call_at_once(join: Join) -> None:
    server, client = await join(), await join()

    async def leave(call: Message) -> tuple[str, Sequence[Any]]:
        server._leave("told to")
        return "", []

    server.export(PATH, leave)
    with pytest.raises(BusError) as caught:
        await send(client, server, "Ask", timeout=60)
    assert caught.value.name == errors.NO_REPLY


@pytest.mark.parametrize(
    "address", ["", "tcp:host=localhost", "unix:path=/a%00b", "unix:path=" + "x" * 200, "garbage"]
)
async def test_an_address_that_leads_nowhere_is_tried_again(
    private: PrivateBus, address: str
) -> None:
    addresses = iter([address])
    bus = Bus(lambda: next(addresses, private.address))
    task = asyncio.create_task(bus.run())
    await async_until(lambda: bus.connected)
    task.cancel()
    await asyncio.wait([task])
