"""The PIN store on a real gnome-keyring."""

import logging
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from hsmagent.bus import Bus
from hsmagent.model import PinState
from hsmagent.prompt.pin_store import PinStore
from tests.parts.desktop.bus import PrivateBus
from tests.parts.desktop.keyring import gnome_keyring
from tests.parts.until import async_until
from tests.parts.values import STATUS, TOKEN

PIN = bytearray(b"123456")
SECRETS = "org.freedesktop.secrets"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "pins"


async def has_keyring(bus: Bus) -> None:
    owners: list[str] = []
    undo = await bus.watch_owner(SECRETS, owners.append)
    await async_until(lambda: owners[-1])
    undo()


@pytest.fixture
async def store(
    private: PrivateBus, bus: Bus, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[PinStore]:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", private.address)
    with gnome_keyring(private, tmp_path):
        await has_keyring(bus)
        yield PinStore(bus, folder, 20)


async def test_a_pin_is_kept_given_and_forgotten(store: PinStore) -> None:
    assert await store.take(STATUS) is None
    assert await store.save(TOKEN, PIN)
    for _ in range(2):
        assert await store.take(STATUS) == PIN
        store.keep(TOKEN)
    other = replace(STATUS, id=replace(TOKEN, serial="0002"))
    assert await store.take(other) is None
    same_words = replace(STATUS, id=replace(TOKEN, module="/usr/lib/another.so"))
    assert await store.take(same_words) is None, "a look-alike behind another module"
    assert await store.forget(TOKEN)
    assert await store.take(STATUS) is None
    assert await store.forget(TOKEN)


async def test_no_pin_of_a_token_without_a_serial_is_kept(store: PinStore) -> None:
    nameless = replace(TOKEN, serial="")
    assert not await store.save(nameless, PIN)
    assert await store.take(replace(STATUS, id=nameless)) is None


async def test_a_wrong_pin_is_forgotten(store: PinStore) -> None:
    await store.save(TOKEN, PIN)
    assert await store.take(STATUS)
    assert await store.forget(TOKEN)
    assert await store.take(STATUS) is None


async def test_a_try_whose_outcome_is_unknown_is_the_last(
    store: PinStore, bus: Bus, folder: Path
) -> None:
    await store.save(TOKEN, PIN)
    assert await store.take(STATUS)
    after_a_crash = PinStore(bus, folder, 20)
    assert await after_a_crash.take(STATUS) is None
    assert await after_a_crash.take(STATUS) is None


@pytest.mark.parametrize("state", [state for state in PinState if state is not PinState.OK])
async def test_no_stored_pin_near_the_last_try(store: PinStore, state: PinState) -> None:
    await store.save(TOKEN, PIN)
    assert await store.take(replace(STATUS, pin_state=state)) is None
    assert await store.take(STATUS) == PIN


def put_in_the_way(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("no folder")


async def test_no_mark_no_pin(store: PinStore, folder: Path) -> None:
    await store.save(TOKEN, PIN)
    put_in_the_way(folder)
    assert await store.take(STATUS) is None


def modes(folder: Path) -> list[int]:
    return [path.stat().st_mode & 0o777 for path in (folder, *folder.iterdir())]


async def test_a_mark_is_private(store: PinStore, folder: Path) -> None:
    await store.save(TOKEN, PIN)
    await store.take(STATUS)
    assert modes(folder) == [0o700, 0o600]


async def test_a_locked_keyring_is_left_alone(
    store: PinStore, bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await store.save(TOKEN, PIN)
    path = "/org/freedesktop/secrets"
    service = "org.freedesktop.Secret.Service"
    (collection,) = await bus.call(SECRETS, path, service, "ReadAlias", "s", ["default"])
    await bus.call(SECRETS, path, service, "Lock", "ao", [[collection]])
    assert await store.take(STATUS) is None
    assert await store.save(TOKEN, bytearray(b"654321")) is False
    assert await store.forget(TOKEN) is False
    assert "the keyring is locked" in caplog.text
    assert "123456" not in caplog.text


async def test_what_could_not_be_deleted_is_not_used(store: PinStore, bus: Bus) -> None:
    await store.save(TOKEN, PIN)
    assert await PinStore(Bus(lambda: ""), store._folder).forget(TOKEN) is False
    assert await store.take(STATUS) is None


async def test_a_pin_that_is_no_text_is_not_kept(store: PinStore) -> None:
    assert await store.save(TOKEN, bytearray(b"\xff\xfe")) is False


async def test_no_bus_and_no_keyring(bus: Bus, folder: Path) -> None:
    for store in (PinStore(bus, folder), PinStore(Bus(lambda: ""), folder)):
        assert await store.take(STATUS) is None
        assert await store.save(TOKEN, bytearray(b"1234")) is False


async def test_a_keyring_that_hangs_costs_its_deadline(
    store: PinStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    released = threading.Event()
    monkeypatch.setattr(
        "keyring.backends.SecretService.Keyring.get_password",
        lambda *_arguments: released.wait(20),
    )
    store._timeout = 0.2
    assert await store.take(STATUS) is None
    assert "does not answer" in caplog.text
    released.set()


async def test_what_a_keyring_says_when_it_fails_is_not_logged(
    store: PinStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    def fail(*arguments: object) -> None:
        raise ValueError(f"cannot store {arguments}")

    monkeypatch.setattr("keyring.backends.SecretService.Keyring.set_password", fail)
    assert await store.save(TOKEN, PIN) is False
    assert "123456" not in caplog.text
