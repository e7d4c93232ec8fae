"""Reading TOML tables strictly: what nobody asked for is an error, and so is a wrong value."""

import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TypeVar

from hsmagent.config.duration import seconds
from hsmagent.errors import ConfigError
from hsmagent.model import printable

T = TypeVar("T")


class Expected(ValueError):
    """What a reader wants to see instead of the value that it got."""


class Table:
    """One TOML table; remembers which keys were asked for, so that `end` can name the others."""

    def __init__(self, values: Mapping[str, object], file: str, name: str) -> None:
        self._values = values
        self._file = file
        self._name = name
        self._known: list[str] = []

    def take(
        self,
        key: str,
        reader: Callable[[object], T],
        default: T | None = None,
        *,
        secret: bool = False,
    ) -> T:
        """Return the key's value as `reader` makes it. Without a default the key must be there.

        secret: the value may hold a secret, so an error must not repeat it. Raises ConfigError.
        """
        self._known.append(key)
        if key not in self._values:
            if default is None:
                raise self.error(f"{key} is missing")
            return default
        value = self._values[key]
        try:
            return reader(value)
        except Expected as expected:
            shown = key if secret else f"{key} = {printable(repr(value))}"
            raise self.error(f"{shown}: must be {expected}") from None

    def table(self, key: str, reader: "Callable[[Table], T]") -> T:
        """Return what `reader` makes of the sub-table `[key]`, empty when it is not there."""
        self._known.append(key)
        return self._sub(self._values.get(key, {}), f"[{key}]", reader)

    def tables(self, key: str, reader: "Callable[[Table], T]") -> tuple[T, ...]:
        """Return what `reader` makes of each `[[key]]`, numbered from 1 in errors."""
        self._known.append(key)
        values = self._values.get(key, [])
        if not isinstance(values, list):
            raise self.error(f"{key} must be written with double brackets, as [[{key}]]")
        return tuple(
            self._sub(value, f"[[{key}]] {n}", reader) for n, value in enumerate(values, 1)
        )

    def _sub(self, values: object, name: str, reader: "Callable[[Table], T]") -> T:
        if not isinstance(values, dict):
            raise self.error(f"{name} must be a table")
        table = Table(values, self._file, name)
        found = reader(table)
        table.end()
        return found

    def end(self) -> None:
        """Raise ConfigError if a key is left that nobody asked for."""
        for key in self._values:
            if key not in self._known:
                raise self.error(f"unknown key {printable(key)!r}; known: {', '.join(self._known)}")

    def error(self, sentence: str) -> ConfigError:
        """Return the error, with file and table in front."""
        return ConfigError(": ".join(filter(None, (self._file, self._name, sentence))))


# -- readers: they take a TOML value, and return ours or raise Expected ------------------------


def text(value: object) -> str:
    """Read a string without control characters."""
    if not isinstance(value, str) or not value.isprintable():
        raise Expected("a string without control characters")
    return value


def boolean(value: object) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise Expected("true or false")
    return value


def whole(low: int, high: int) -> Callable[[object], int]:
    """Return a reader of whole numbers from `low` to `high`."""

    def reader(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise Expected(f"a whole number from {low} to {high}")
        return value

    return reader


def choice(*allowed: str) -> Callable[[object], str]:
    """Return a reader of one of the words `allowed`."""

    def reader(value: object) -> str:
        if value not in allowed or not isinstance(value, str):
            raise Expected("one of " + ", ".join(f'"{word}"' for word in allowed))
        return value

    return reader


def many(reader: Callable[[object], T]) -> Callable[[object], tuple[T, ...]]:
    """Return a reader of lists of what `reader` reads."""

    def read_all(value: object) -> tuple[T, ...]:
        try:
            if isinstance(value, list):
                return tuple(map(reader, value))
        except Expected as expected:
            raise Expected(f"a list, each entry {expected}") from None
        raise Expected("a list")

    return read_all


def duration(value: object) -> float:
    """Read "90s", "15m", "1h30m", "2d", "1w" or "0"; return seconds."""
    if value == "0":
        return 0.0
    with suppress(ValueError):
        return float(seconds(text(value)))
    raise Expected('a duration such as "30s", "15m", "8h" or "1h30m"')


def path(value: object) -> str:
    """Read a path; `~` is the home directory."""
    return os.path.expanduser(text(value))  # noqa: PTH111 - patterns with * are no Path


def absolute_path(value: object) -> str:
    """Read a path that begins with / or ~."""
    full = path(value)
    if not full.startswith("/"):
        raise Expected("an absolute path")
    return full


def program(value: object) -> str:
    """Read a program: a name, to be looked for on PATH, or an absolute path."""
    return absolute_path(value) if "/" in text(value) else text(value)


def environment(value: object) -> tuple[tuple[str, str], ...]:
    """Read a table of environment variables. LD_* would run foreign code in the worker.

    A value that begins with ~ is a path below the home folder, as a shell would have it.
    """
    if not isinstance(value, dict):
        raise Expected('a table such as { NAME = "value" }')
    for name, content in value.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or name.startswith("LD_"):
            raise Expected("a table of environment variables, LD_* not among them")
        text(content)
    return tuple((name, path(content)) for name, content in value.items())
