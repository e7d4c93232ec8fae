"""Work that would block the loop, on one thread beside it: one piece after the other."""

import asyncio
from collections.abc import Callable
from functools import cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor


async def aside(work: Callable[[], bytes]) -> bytes:
    """Do work on that thread, and return its result."""
    return await asyncio.get_running_loop().run_in_executor(_thread(), work)


@cache
def _thread() -> "ThreadPoolExecutor":
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="aside")
