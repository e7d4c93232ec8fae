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

    It is not searched for some, neither while it is imported nor ever after. And what libraries do
    without where it is missing is missing: asyncio comes without TLS, a megabyte with its library,
    which no socket of ours speaks, and cryptography without bcrypt, which only key files need.
    """
    gc.disable()
    try:
        with _without("ssl", "bcrypt"), late("asyncio.sslproto"):
            yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def _without(*names: str) -> Iterator[None]:
    """Within the block, have modules missing that nobody has imported yet."""
    missing = [name for name in names if name not in sys.modules]
    for name in missing:
        sys.modules[name] = None  # type: ignore[assignment]  # "The import system", 5.3.1
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]
