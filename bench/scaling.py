"""What keys, tokens and open connections cost, beside OpenSSH's agent."""

import resource
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import load, rivals
from bench.agents import in_turn
from bench.load import EC
from bench.result import Part, Plot, Scale, Series
from bench.rivals import Rival
from tests.parts.token.softhsm import SoftHsm

_NAMES = ("ssh-agent: list", "ssh-agent: sign", "hsmagent: list", "hsmagent: sign")
Points = dict[str, list[tuple[float, float]]]


def measure(scale: Scale) -> Part:
    """Return a plot over keys, over tokens and over connections."""
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
        open_now = 1  # the load generator's own
        for count in scale.connections:
            while open_now < count:
                open_now += 1
                for agent in agents:
                    sock = stack.enter_context(load.connected(agent.path))
                    sock.sendall(load.LIST)
                    load.answer(sock)
            _note(points, count, agents, scale)
    return points
