"""Work in the background that somebody has to end."""

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any

import pytest

from hsmagent.tasks import Errand, Reply, Tasks, in_a_task
from tests.parts.until import async_until


async def test_what_nobody_holds_goes_on_and_is_counted_until_it_ends() -> None:
    tasks, done = Tasks(), asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0)
        done.set()

    tasks.start(work())
    assert len(tasks) == 1
    gc.collect()
    await done.wait()
    await async_until(lambda: not tasks)


async def test_all_of_it_is_cancelled_and_waited_for() -> None:
    tasks, why = Tasks(), []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            await asyncio.sleep(0)  # to clean up takes its time
            why.append(str(error))
            raise

    async def fail() -> None:
        raise RuntimeError

    for each in (work, work, fail):
        tasks.start(each())
    await asyncio.sleep(0)
    tasks.cancel("the screen is locked")
    await tasks.ended()
    assert why == ["the screen is locked"] * 2
    assert not tasks


# -- errands ---------------------------------------------------------------------------------


@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_an_errand_lets_go_of_what_it_holds_however_early_it_is_cancelled(turns: int) -> None:
    """In the turn in which it became a task, it kept its locks for ever."""
    outcome, lock, ended = Outcome(), asyncio.Lock(), []

    async def work() -> None:
        async with lock:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(turns)

    errand = Errand(work(), outcome.take)
    errand.go_on()
    for _ in range(turns):
        await asyncio.sleep(0)
    assert lock.locked()
    errand.cancel()
    await async_until(lambda: ended)
    assert not lock.locked()
    assert outcome.told == []


async def test_an_errand_tells_nobody_what_it_comes_to_once_it_is_cancelled() -> None:
    outcome, ready = Outcome(), asyncio.Event()

    async def work() -> bytes:
        await ready.wait()
        return b"too late"

    errand = Errand(work(), outcome.take)
    errand.go_on()
    await asyncio.sleep(0)
    ready.set()
    errand.cancel()
    assert errand.task is not None
    await asyncio.wait([errand.task])
    await asyncio.sleep(0)
    assert outcome.told == []


class Outcome:
    """What an errand came to."""

    def __init__(self) -> None:
        self.told: list[tuple[object, BaseException | None]] = []

    def take(self, result: object, error: BaseException | None) -> None:
        self.told.append((result, error))


async def begun(
    work: Coroutine[Any, Any, int], outcome: Outcome, *, in_task: bool = False
) -> Errand[int]:
    """Begin an errand where the daemon does: in the loop, and in nobody's task."""
    errand = Errand(_in_a_task(work) if in_task else work, outcome.take)
    asyncio.get_running_loop().call_soon(errand.go_on)
    await asyncio.sleep(0)
    return errand


async def _in_a_task(work: Coroutine[Any, Any, int]) -> int:
    await in_a_task()
    assert asyncio.current_task() is not None
    await in_a_task()
    return await work


async def wait_for(*replies: Reply[int]) -> int:
    return sum([await reply for reply in replies])


async def test_an_errand_goes_on_in_the_call_that_brings_its_reply() -> None:
    first, second, outcome = Reply[int](), Reply[int](), Outcome()
    errand = await begun(wait_for(first, second), outcome)
    told: list[object] = []

    def arrived() -> None:
        first.settle(1)
        assert not outcome.told
        second.settle(2)
        told.extend(outcome.told)

    asyncio.get_running_loop().call_soon(arrived)
    await asyncio.sleep(0)
    assert told == [(3, None)]
    assert errand.task is None


async def test_a_reply_that_a_task_brings_runs_nobody_inside_it() -> None:
    reply, outcome = Reply[int](), Outcome()
    await begun(wait_for(reply), outcome)
    reply.set_result(1)
    assert not outcome.told
    await async_until(lambda: outcome.told == [(1, None)])


async def test_a_reply_that_is_there_already_is_not_waited_for() -> None:
    reply, outcome = Reply[int](), Outcome()
    reply.set_result(7)
    await begun(wait_for(reply), outcome)
    assert outcome.told == [(7, None)]


@pytest.mark.parametrize("in_task", [False, True])
async def test_an_errand_that_waits_for_something_else_is_a_task(*, in_task: bool) -> None:
    reply, event, outcome = Reply[int](), asyncio.Event(), Outcome()

    async def work() -> int:
        await event.wait()
        async with asyncio.timeout(20):
            await asyncio.sleep(0)
        return int(await reply)

    errand = await begun(work(), outcome, in_task=in_task)
    assert errand.task is not None
    event.set()
    await asyncio.sleep(0.01)
    reply.set_result(5)
    await async_until(lambda: outcome.told == [(5, None)])


@pytest.mark.parametrize("in_task", [False, True])
async def test_what_fails_is_told(*, in_task: bool) -> None:
    reply, outcome, error = Reply[int](), Outcome(), ValueError("no")
    await begun(wait_for(reply), outcome, in_task=in_task)
    reply.set_exception(error)
    assert not outcome.told
    await async_until(lambda: outcome.told == [(None, error)])


@pytest.mark.parametrize("in_vain", ["reply", "sleep"])
@pytest.mark.parametrize("in_task", [False, True])
async def test_a_cancelled_errand_ends_and_nobody_waits(in_vain: str, *, in_task: bool) -> None:
    reply, outcome = Reply[int](), Outcome()
    started, ended = asyncio.Event(), asyncio.Event()

    async def work() -> int:
        started.set()
        try:
            if in_vain == "sleep":
                await asyncio.sleep(3600)
            return int(await reply)
        finally:
            ended.set()

    errand = await begun(work(), outcome, in_task=in_task)
    await started.wait()
    await asyncio.sleep(0)
    errand.cancel()
    await ended.wait()
    await async_until(lambda: reply.done() or in_vain == "sleep")
    assert not outcome.told


async def test_an_errand_that_is_cancelled_after_its_reply_failed_does_not_go_on() -> None:
    reply, outcome = Reply[int](), Outcome()
    errand = await begun(wait_for(reply), outcome)
    reply.set_exception(ValueError("no"))
    errand.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not outcome.told


async def test_many_that_fail_at_once_do_not_pile_up() -> None:
    replies = [Reply[int]() for _ in range(3000)]

    async def fail_the_next(number: int) -> int:
        try:
            return int(await replies[number])
        finally:
            replies[number - 1].set_exception(ValueError())

    outcomes = [Outcome() for _ in replies]
    for number, outcome in enumerate(outcomes):
        await begun(fail_the_next(number), outcome)
    replies[-1].set_exception(ValueError())
    await async_until(lambda: all(outcome.told for outcome in outcomes))
