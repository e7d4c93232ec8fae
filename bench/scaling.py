"""What keys, tokens and open connections cost, beside OpenSSH's agent."""

import resource
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from bench import load, rivals
from bench.agents import in_turn
from bench.load import EC
from bench.processes import forked
from bench.result import Part, Plot, Scale, Series
from bench.rivals import Rival
from tests.parts.token.softhsm import SoftHsm

_NAMES = ("ssh-agent: list", "ssh-agent: sign", "hsmagent: list", "hsmagent: sign")
_MOST_EACH = 200  # connections of one process: the daemon admits 256
Points = dict[str, list[tuple[float, float]]]


def measure(scale: Scale) -> Part:
    """Return a plot over keys, over tokens and over connections."""
    scale = replace(scale, rounds=(scale.rounds + 1) // 2)
    return Part(
        plots=(
            _plot(
                "cost-keys",
                "List and P-256 signature, p50, over keys on a token",
                "keys",
                _over_keys(scale),
            ),
            _plot(
                "cost-tokens",
                "List and P-256 signature, p50, over tokens of one key",
                "tokens",
                _over_tokens(scale),
            ),
            _plot(
                "cost-connections",
                "List and P-256 signature, p50, over idle connections",
                "connections",
                _over_connections(scale),
            ),
        )
    )


def _plot(file: str, title: str, x: str, points: Points) -> Plot:
    lines = tuple(Series(name, tuple(line)) for name, line in points.items())
    return Plot(file, title, x, "microseconds", lines)


def _note(points: Points, at: int, agents: Sequence[Rival], scale: Scale) -> None:
    lists, signs = in_turn(agents, "", 1, scale), in_turn(agents, EC, 1, scale)
    for name, runs in zip(_NAMES, (lists[0], signs[0], lists[1], signs[1]), strict=True):
        points[name].append((at, load.least(runs, "p50")))


@contextmanager
def _both(folder: Path, token: SoftHsm, labels: Sequence[str]) -> Iterator[tuple[Rival, Rival]]:
    with rivals.openssh(folder, token) as theirs, rivals.ours(folder, token, labels) as ours:
        yield theirs, ours


def _stepwise(counts: Sequence[int], scale: Scale, add: Callable[[SoftHsm, int], str]) -> Points:
    """Measure at each of these counts; `add` makes what is counted and returns its token."""
    points: Points = {name: [] for name in _NAMES}
    with tempfile.TemporaryDirectory(prefix="b", dir="/tmp") as name:
        token, labels, made = SoftHsm.create(Path(name) / "hsm"), dict[str, None](), 0
        for count in counts:
            while made < count:
                made += 1
                labels[add(token, made)] = None
            home = Path(name) / str(count)
            home.mkdir()
            with _both(home, token, list(labels)) as agents:
                _note(points, count, agents, scale)
    return points


def _over_keys(scale: Scale) -> Points:
    def add(token: SoftHsm, number: int) -> str:
        if number == 1:
            token.init_token("bench")
        token.generate("bench", "EC:prime256v1", f"{number:04x}", f"key {number}")
        return "bench"

    return _stepwise(scale.keys, scale, add)


def _over_tokens(scale: Scale) -> Points:
    def add(token: SoftHsm, number: int) -> str:
        label = f"bench{number}"
        token.init_token(label)
        token.generate(label, "EC:prime256v1", "01", label)
        return label

    return _stepwise(scale.tokens, scale, add)


def _over_connections(scale: Scale) -> Points:
    points: Points = {name: [] for name in _NAMES}
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="b", dir="/tmp") as name, ExitStack() as stack:
        token = rivals.hsm(Path(name) / "hsm")
        token.generate("bench", "EC:prime256v1", "01", "ec")
        agents = stack.enter_context(_both(Path(name), token, ["bench"]))
        held = 1  # the load generator's own
        for count in scale.connections:
            while held < count:
                more = min(_MOST_EACH, count - held)
                stack.enter_context(_holding(agents, more))
                held += more
            _note(points, count, agents, scale)
    return points


@contextmanager
def _holding(agents: Sequence[Rival], count: int) -> Iterator[None]:
    """Keep `count` connections to each agent in a process of its own; each has listed once."""
    ours, theirs = socket.socketpair()

    def work() -> None:
        sockets = []
        for agent in agents:
            for _ in range(count):
                sockets.append(load.connected(agent.path))
                sockets[-1].sendall(load.LIST)
                load.answer(sockets[-1])
        theirs.sendall(b"x")
        signal.pause()

    with ours, theirs, forked(work):
        ours.settimeout(60)
        ours.recv(1)
        yield
