"""How quick the agent is, beside OpenSSH's ssh-agent with the same SoftHSM token.

Both hold the same keys and answer the same requests from the same load generator. They take turns,
a fraction of a second each, so that the ratios say something where absolute times do not. What an
answer takes of a processor, in all processes of an agent, says more still on a busy machine.
"""

import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from bench import load, rivals
from bench.load import EC, RSA, Run
from bench.processes import processor_microseconds
from bench.result import AT_LEAST, AT_MOST, Part, Plot, Row, Scale, Series, shown
from bench.rivals import Rival

Generator = Callable[[Path, bytes, int, float], Run]


@dataclass(frozen=True, slots=True)
class Load:
    """One row: which key (none: list), how many clients, which figure of a Run, and the goal."""

    name: str
    key: str
    clients: int
    figure: str
    goal: float
    generator: Generator = load.load
    better: str = AT_MOST
    missed: str = ""


_LOGIN_MISSED = """\
a new connection has its program, that program's parents and their command lines read from /proc
before anybody can be asked about it: while the token signs, unless a rule or a question depends on
it."""
_SIGNATURE_MISSED = """\
every signature is checked before it leaves, which takes the daemon some 75 µs, and ssh-agent checks
none: how near to the goal any agent of two Python processes comes that checks, the limits below
tell. Of the rest, the module takes some 70 µs, to send and to wake 100, Python 100: 150 calls in
the daemon and nine in the worker, all of them cold after a sleep. Neither fewer garbage
collections nor huge pages nor spinning before a wait nor a core for each brought much. To begin the
next signature (C_SignInit) while one is checked would take a twelfth off; it is left out, since
what was begun may outlive the key."""
_LIST_MISSED = """\
nearly all of it is the kernel's, for both: to wake a process on a processor that sleeps. Where one
is busy anyway, a list takes 16 µs and ssh-agent's 41. A loop of Python's that waits, receives and
sends a constant comes no nearer to the goal than the limits below tell."""
LOADS = (
    Load(
        "a whole login: fork, connect, list, sign; p50",
        EC,
        1,
        "p50",
        1.0,
        generator=load.logins,
        missed=_LOGIN_MISSED.replace("\n", " "),
    ),
    Load(
        "P-256 signature, 1 client, p50",
        EC,
        1,
        "p50",
        0.6,
        missed=_SIGNATURE_MISSED.replace("\n", " "),
    ),
    Load("P-256 signatures a second, 8 clients", EC, 8, "rate", 2.5, better=AT_LEAST),
    Load("P-256 signature, 64 clients, p99", EC, 64, "p99", 0.2),
    Load("list of identities, p50", "", 1, "p50", 0.5, missed=_LIST_MISSED.replace("\n", " ")),
    Load("RSA-2048 signatures a second, 8 clients", RSA, 8, "rate", 1.8, better=AT_LEAST),
)
WARM_SECONDS = 0.2


def measure(scale: Scale) -> Part:
    """Return the rows, and the plot of latency over clients."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="b", dir="/tmp")))
        token = rivals.hsm(folder / "hsm")
        token.generate("bench", "EC:prime256v1", "01", "ec")
        token.generate("bench", "rsa:2048", "02", "rsa")
        theirs = stack.enter_context(rivals.openssh(folder, token))
        # A second worker serves clients that ask at once; one asks quicker of a single one.
        one, two = (
            stack.enter_context(rivals.ours(folder / f"h{count}", token, ["bench"], count))
            for count in (1, 2)
        )
        rows = [_row(each, one if each.clients == 1 else two, theirs, scale) for each in LOADS]
        return Part(tuple(rows), (_over_clients(one, two, theirs, scale),))


def in_turn(
    agents: Sequence[Rival], key: str, clients: int, scale: Scale, generator: Generator = load.load
) -> list[list[Run]]:
    """Put the same load on each of these agents in turn. Return the runs of each."""
    requests = [load.request_for(agent.path, key) for agent in agents]
    found: list[list[Run]] = [[] for _ in agents]
    for agent, request in zip(agents, requests, strict=True):
        generator(agent.path, request, clients, WARM_SECONDS)
    for _ in range(scale.rounds):
        for runs, agent, request in zip(found, agents, requests, strict=True):
            before = processor_microseconds(agent.pid)
            run = generator(agent.path, request, clients, scale.seconds)
            used = processor_microseconds(agent.pid) - before
            runs.append(replace(run, cpu=used / run.count))
    return found


def _row(each: Load, agent: Rival, other: Rival, scale: Scale) -> Row:
    ours, theirs = in_turn((agent, other), each.key, each.clients, scale, each.generator)
    pairs = zip(ours, theirs, strict=True)
    ratio = statistics.median(getattr(a, each.figure) / getattr(b, each.figure) for a, b in pairs)
    unit = "" if each.figure == "rate" else " µs"
    mine, others = (
        f"{load.median(runs, each.figure):.0f}{unit}, processor {load.median(runs, 'cpu'):.0f} µs"
        for runs in (ours, theirs)
    )
    if each.figure == "p99":
        fair = statistics.median(run.p99 * run.rate / each.clients / 1e6 for run in ours)
        mine += f" ({shown(fair)} of {each.clients}/rate)"
    others = f"ssh-agent {others}"
    return Row(each.name, mine, others, ratio, each.goal, each.better, missed=each.missed)


def _over_clients(one: Rival, two: Rival, theirs: Rival, scale: Scale) -> Plot:
    names = ("ssh-agent", "hsmagent, one worker", "hsmagent, two workers")
    points: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for clients in scale.clients:
        found = in_turn((theirs, one, two), EC, clients, scale)
        for name, runs in zip(names, found, strict=True):
            points[name].append((clients, load.least(runs, "p50") / 1000))
    return Plot(
        "latency-clients",
        "P-256 signature: p50 over clients that ask without a pause",
        "clients",
        "milliseconds",
        tuple(Series(name, tuple(line)) for name, line in points.items()),
    )
