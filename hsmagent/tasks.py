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


class Reply(Generic[T]):
    """What work waits for: a future, except that an errand goes on as soon as there is a result."""

    __slots__ = ("_done", "_error", "_go_on", "_value")
    _value: T

    def __init__(self) -> None:
        self._done = False
        self._error: BaseException | None = None
        self._go_on: Callable[[], None] | None = None

    def done(self) -> bool:
        """Whether it is settled, or nobody waits any more."""
        return self._done

    def set_result(self, value: T) -> None:
        """Settle it. An errand that waits goes on within this call, unless a task calls."""
        self._value, self._done = value, True
        if self._go_on is not None and asyncio.current_task() is None:
            self._go_on()
        else:
            self._go_on_soon()

    def set_exception(self, error: BaseException) -> None:
        """Fail it. Whoever waits goes on later: many may fail at once."""
        self._error, self._done = error, True
        self._go_on_soon()

    def _go_on_soon(self) -> None:
        if self._go_on is not None:
            asyncio.get_running_loop().call_soon(self._go_on)

    def when_done(self, go_on: Callable[[], None]) -> None:
        """Have `go_on` called once it is settled."""
        self._go_on = go_on

    def forget(self) -> None:
        """Let nobody wait any more."""
        self._go_on, self._done = None, True

    def __await__(self) -> Generator[Any, None, T]:
        if not self._done:
            if asyncio.current_task() is None:
                yield self
            else:
                yield from self._as_in_a_task()
        if self._error is not None:
            raise self._error
        return self._value

    def _as_in_a_task(self) -> Generator[Any, None, None]:
        settled = asyncio.Event()
        self.when_done(settled.set)
        try:
            yield from settled.wait().__await__()
        finally:
            self.forget()


class Errand(Generic[T]):
    """A coroutine that runs at once, and becomes a task when it waits for anything but a `Reply`.

    Until it first waits for something else it must do nothing that needs a task, such as
    `asyncio.timeout`. done: told the result or the exception, unless the errand was cancelled.
    """

    def __init__(
        self, work: Coroutine[Any, Any, T], done: Callable[[T | None, BaseException | None], None]
    ) -> None:
        self._work = work
        self._done = done
        self._reply: Reply[Any] | None = None
        self.task: asyncio.Task[T] | None = None

    def start(self, *, at_once: bool) -> None:
        """Begin; at_once False: as a task from the start."""
        if at_once:
            self._run()
        else:
            self._become_a_task(self._work)

    def _become_a_task(self, work: Coroutine[Any, Any, T]) -> None:
        self.task = asyncio.get_running_loop().create_task(work)
        self.task.add_done_callback(self._ended)

    def _run(self) -> None:
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
                waits.when_done(self._run)
            else:
                self._become_a_task(_taken_over(self._work, waits))

    def _ended(self, task: "asyncio.Task[T]") -> None:
        if not task.cancelled():
            error = task.exception()
            self._done(None if error else task.result(), error)

    def cancel(self) -> None:
        """End it, without a call of `done`."""
        if self.task is not None:
            self.task.cancel()
        elif self._reply is not None:
            self._reply.forget()
            with suppress(StopIteration, asyncio.CancelledError):
                self._work.throw(asyncio.CancelledError())
            self._work.close()


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
