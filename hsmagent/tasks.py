"""Work in the background, kept until it ends: asyncio itself would let go of a running task."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

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
