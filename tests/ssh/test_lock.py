import time

import pytest

from hsmagent.errors import Refused
from hsmagent.ssh.lock import Lock


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def test_the_same_passphrase_unlocks_and_is_wiped() -> None:
    lock = Lock(Clock())
    first, second = bytearray(b"open sesame"), bytearray(b"open sesame")
    lock.lock(first)
    assert lock.locked
    lock.unlock(second)
    assert not lock.locked
    assert first == second == bytes(11)


def test_states_that_refuse() -> None:
    lock = Lock(Clock())
    with pytest.raises(Refused):
        lock.unlock(bytearray(b"x"))
    with pytest.raises(Refused):
        lock.lock(bytearray())
    lock.lock(bytearray(b"x"))
    with pytest.raises(Refused):
        lock.lock(bytearray(b"x"))
    assert lock.locked


def test_the_delay_grows_and_ends_with_success() -> None:
    clock = Clock()
    lock = Lock(clock)
    lock.lock(bytearray(b"right"))
    for delay in (0.1, 0.2, 0.3):
        with pytest.raises(Refused, match="does not unlock"):
            lock.unlock(bytearray(b"wrong"))
        clock.now += delay - 0.01
        with pytest.raises(Refused, match="too soon"):
            lock.unlock(bytearray(b"right"))
        clock.now += 0.02
    lock.unlock(bytearray(b"right"))
    lock.lock(bytearray(b"right"))
    with pytest.raises(Refused):
        lock.unlock(bytearray(b"wrong"))
    clock.now += 0.11
    lock.unlock(bytearray(b"right"))


def test_the_delay_has_an_end() -> None:
    clock = Clock()
    lock = Lock(clock)
    lock.lock(bytearray(b"right"))
    lock._failures = 10_000
    with pytest.raises(Refused):
        lock.unlock(bytearray(b"wrong"))
    clock.now += 10.01
    lock.unlock(bytearray(b"right"))


def test_locking_holds_nobody_up() -> None:
    lock = Lock(Clock())
    took = []
    for _ in range(5):
        started = time.process_time()
        lock.lock(bytearray(b"secret"))
        lock.unlock(bytearray(b"secret"))
        took.append(time.process_time() - started)
    assert min(took) < 0.02, "two hashes take about two milliseconds"
