"""Work in the background that somebody has to end."""

import asyncio
import gc

from hsmagent.tasks import Tasks
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
