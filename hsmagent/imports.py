"""How to import what stays in memory all day without what is never used of it."""

import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType


class _Finder:
    """Does what a MetaPathFinder does. To import that class takes a megabyte of memory."""

    def __init__(self, prefixes: tuple[str, ...]) -> None:
        self._prefixes = prefixes

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not name.startswith(self._prefixes):
            return None
        found = PathFinder.find_spec(name, path, target)
        if found is not None and found.loader is not None:
            found.loader = LazyLoader(found.loader)
        return found


@contextmanager
def late(*prefixes: str) -> Iterator[None]:
    """Within the block, have modules whose names begin so imported when they are first used.

    Only whole modules that are imported once can be (importlib.util.LazyLoader): `from x import y`
    uses x, and so does a second `import x`.
    """
    finder = _Finder(prefixes)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


@contextmanager
def to_stay() -> Iterator[None]:
    """Within the block, import what stays as long as the process: that is no garbage.

    It is not searched for some, neither while it is imported nor ever after. And asyncio comes
    without TLS, which is a megabyte with its library, and which no socket of ours speaks.
    """
    gc.disable()
    try:
        with _without("ssl"), late("asyncio.sslproto"):
            yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def _without(name: str) -> Iterator[None]:
    """Within the block, have a module missing for whoever can do without, if nobody has it yet."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # so "The import system" has it, 5.3.1
    try:
        yield
    finally:
        del sys.modules[name]
