import asyncio
import time

import pytest

from hsmagent.errors import Refused
from hsmagent.ssh.lock import Lock


class Time:
    """A clock that goes on when somebody sleeps; sleepers wake in the order of their times."""

    def __init__(self) -> None:
        self.now = 50.0

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            await asyncio.sleep(0)
            self.now += 0.001


def locked(passphrase: bytes = b"right") -> tuple[Lock, Time]:
    passing = Time()
    lock = Lock(passing.clock, passing.sleep)
    lock.lock(bytearray(passphrase))
    return lock, passing


async def wrong(lock: Lock, process: int = 1) -> None:
    with pytest.raises(Refused, match="does not unlock"):
        await lock.unlock(bytearray(b"wrong"), process)


async def test_the_same_passphrase_unlocks_and_is_wiped() -> None:
    passing = Time()
    lock = Lock(passing.clock, passing.sleep)
    first, second = bytearray(b"open sesame"), bytearray(b"open sesame")
    lock.lock(first)
    assert lock.locked
    await lock.unlock(second, 1)
    assert not lock.locked
    assert first == second == bytes(11)


async def test_states_that_refuse() -> None:
    passing = Time()
    lock = Lock(passing.clock, passing.sleep)
    with pytest.raises(Refused):
        await lock.unlock(bytearray(b"x"), 1)
    with pytest.raises(Refused):
        lock.lock(bytearray())
    lock.lock(bytearray(b"x"))
    with pytest.raises(Refused):
        lock.lock(bytearray(b"x"))
    assert lock.locked


async def test_wrong_ones_are_answered_ever_later_and_success_ends_that() -> None:
    lock, passing = locked()
    for delay in (0.1, 0.2, 0.3):
        started = passing.now
        await wrong(lock)
        assert passing.now - started == pytest.approx(delay, abs=0.01)
    await lock.unlock(bytearray(b"right"), 1)
    lock.lock(bytearray(b"right"))
    started = passing.now
    await wrong(lock)
    assert passing.now - started == pytest.approx(0.1, abs=0.03)


async def test_the_delay_has_an_end() -> None:
    lock, passing = locked()
    lock._failures = 10_000
    started = passing.now
    await wrong(lock)
    assert passing.now - started == pytest.approx(10, abs=0.1)


async def test_many_connections_guess_no_faster_than_one() -> None:
    lock, passing = locked()
    started = passing.now
    await asyncio.gather(*(wrong(lock, process) for process in range(5)))
    assert passing.now - started >= sum((0.1, 0.2, 0.3, 0.4, 0.5)) - 0.01


async def test_the_right_one_has_its_turn_amid_wrong_ones() -> None:
    lock, passing = locked()

    async def loop() -> None:
        while lock.locked:
            with pytest.raises(Refused):
                await lock.unlock(bytearray(b"wrong"), 1)

    attacker = asyncio.ensure_future(loop())
    for _ in range(5):
        await asyncio.sleep(0)
    await lock.unlock(bytearray(b"right"), 2)
    assert not lock.locked
    assert passing.now < 52
    await attacker


async def test_one_attempt_of_a_process_at_a_time() -> None:
    lock, _ = locked()
    first = asyncio.ensure_future(wrong(lock))
    await asyncio.sleep(0)
    another = bytearray(b"right")
    with pytest.raises(Refused, match="not answered yet"):
        await lock.unlock(another, 1)
    assert another == bytes(5)
    await first
    await lock.unlock(bytearray(b"right"), 1)


async def test_locking_holds_nobody_up() -> None:
    passing = Time()
    lock = Lock(passing.clock, passing.sleep)
    took = []
    for _ in range(5):
        started = time.process_time()
        lock.lock(bytearray(b"secret"))
        await lock.unlock(bytearray(b"secret"), 1)
        took.append(time.process_time() - started)
    assert min(took) < 0.02, "two hashes take about two milliseconds"
