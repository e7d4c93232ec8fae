"""Work that would hold the loop up, done beside it: one piece after the other, on one thread."""

import asyncio
from collections.abc import Callable
from functools import cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor


async def aside(work: Callable[[], bytes]) -> bytes:
    """Do work on the thread that is for such."""
    return await asyncio.get_running_loop().run_in_executor(_thread(), work)


@cache
def _thread() -> "ThreadPoolExecutor":
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="aside")
