"""Work under way: in the background, and errands that need no task as long as all goes well.

asyncio itself would let go of a running task, so that `Tasks` keeps them. A task takes two turns of
the loop for what waits but once; an `Errand` takes none while it waits for a `Reply`.
"""

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Tasks:
    """The tasks that somebody has started and that have not ended yet. `len` counts them."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin a piece of work in the running loop."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def cancel(self, why: str | None = None) -> None:
        """Cancel all of it; `why` goes to whoever awaits a task."""
        for task in tuple(self._tasks):
            task.cancel(why)

    async def ended(self) -> None:
        """Wait until all of it has ended, however it does."""
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Reply(asyncio.Future[T]):
    """What work waits for: a future, except that an errand goes on as soon as there is a result."""

    go_on: Callable[[], None] | None = None

    def settle(self, value: T) -> None:
        """Set the result, outside any task; an errand that waits goes on within this call."""
        super().set_result(value)
        if self.go_on is not None:
            self.go_on()

    def set_result(self, value: T) -> None:
        """Set the result. An errand that waits goes on later: a task may call."""
        super().set_result(value)
        self._go_on_soon()

    def set_exception(self, error: type | BaseException) -> None:
        """Fail it. An errand that waits goes on later: many may fail at once."""
        super().set_exception(error)
        self._go_on_soon()

    def _go_on_soon(self) -> None:
        if self.go_on is not None:
            self.get_loop().call_soon(self._go_on_if_wanted)

    def _go_on_if_wanted(self) -> None:
        if self.go_on is not None:  # else the errand was cancelled meanwhile
            self.go_on()


class Errand(Generic[T]):
    """A coroutine that runs at once, and becomes a task when it waits for anything but a `Reply`.

    What needs a task, such as `asyncio.timeout`, awaits `in_a_task` before. done: told the result
    or the exception, unless the errand was cancelled.
    """

    def __init__(
        self, work: Coroutine[Any, Any, T], done: Callable[[T | None, BaseException | None], None]
    ) -> None:
        self._work = work
        self._done = done
        self._reply: Reply[Any] | None = None
        self.task: asyncio.Task[T] | None = None

    def go_on(self) -> None:
        """Run until it waits, or to its end."""
        self._reply = None
        try:
            waits = self._work.send(None)
        except StopIteration as stop:
            self._done(stop.value, None)
        except BaseException as error:  # noqa: BLE001 - as a task keeps it
            self._done(None, error)
        else:
            if waits.__class__ is Reply:
                self._reply = waits
                waits.go_on = self.go_on
            else:
                work = _taken_over(self._work, waits)
                self.task = asyncio.get_running_loop().create_task(work)
                self.task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[T]") -> None:
        if not task.cancelled():
            error = task.exception()
            self._done(None if error else task.result(), error)

    def cancel(self) -> None:
        """End it, without a call of `done`."""
        if self.task is not None:
            self._done = _to_nobody
            # A task that is cancelled before its first step never comes to the work, which would
            # keep what it holds, and who waits for that would wait for ever. So that step is first.
            asyncio.get_running_loop().call_soon(self.task.cancel)
        elif self._reply is not None:
            self._reply.go_on = None
            self._reply.cancel()
            with suppress(StopIteration, asyncio.CancelledError):
                self._work.throw(asyncio.CancelledError())
            self._work.close()


def _to_nobody(_result: object, _error: BaseException | None) -> None:
    """Take what a cancelled errand comes to."""


@types.coroutine
def in_a_task() -> Generator[None, None, None]:
    """Go on in a task: where an errand has come so far without one, it becomes one."""
    if asyncio.current_task() is None:
        yield


async def _taken_over(work: Coroutine[Any, Any, T], waits: Any) -> T:
    """Go on, in a task, with a coroutine that waits for something already."""
    return await _rest(work, waits)  # since Python 3.12 a generator is no task's work


@types.coroutine
def _rest(work: Coroutine[Any, Any, T], waits: Any) -> Generator[Any, Any, T]:
    while True:
        thrown: BaseException | None = None
        try:
            yield waits
        except BaseException as error:  # noqa: BLE001 - it is the coroutine's to handle
            thrown = error
        try:
            waits = work.send(None) if thrown is None else work.throw(thrown)
        except StopIteration as stop:
            result: T = stop.value
            return result
