"""What `git log --show-signature` costs with hsmagent-gpgsm, beside gpgsm.

gpgsm asks gpg-agent whether a root is trusted, and that counts. Alice's certificate names no CRL,
so that there is none to look at for either. With one that cannot be had, and dirmngr asked for it,
or with the system's roots among its certificates, gpgsm takes half a millisecond more.

Ours leaves a process behind that verifies all commits of a log but the first. It is ended after
each log, so that each pays for a first one, and what it has used is counted.
"""

import statistics
import subprocess
import sys
from pathlib import Path

from bench.runs import Cost, Pair, Program, cost, in_turn
from tests.parts.agent.daemon import AgentProcess
from tests.parts.mail.peers import Gpgsm
from tests.parts.mail.people import root

COMMITS = 10
NAME = f"git log --show-signature, {COMMITS} commits"
OURS = Path(sys.executable).with_name("hsmagent-gpgsm")


def measure(agent: AgentProcess, rounds: int) -> Pair:
    """Return the costs of showing signed commits; the agent has Alice's key and trusts its root."""
    gnupg = agent.home / "gnupg"
    git, ours = _git(agent), _git(agent, f"gpg.x509.program={OURS}")
    agent.run(["git", "init", "-q", str(agent.home / "work")])
    for number in range(COMMITS):
        made = agent.run([*ours, "commit", "-q", "-S", "--allow-empty", "-m", f"Commit {number}"])
        if made.returncode:
            raise RuntimeError(made.stderr)
    alone = ["env", f"XDG_RUNTIME_DIR={agent.home}/none"]  # nobody stays behind
    shown = agent.run([*alone, *ours, "log", "--format=%G?"]).stdout.split()
    if shown != ["G"] * COMMITS:
        raise RuntimeError(f"git does not see good signatures: {shown}")
    gnupg.mkdir()
    other = Gpgsm(gnupg, root(), {})
    (gnupg / "gpgsm.conf").unlink()  # with CRLs checked, as a person has it
    try:
        seen = agent.run(["env", f"GNUPGHOME={gnupg}", *git, "log", "--format=%G?"]).stdout.split()
        if seen != shown:
            raise RuntimeError(f"gpgsm does not see good signatures: {seen}")
        return in_turn(
            _log(agent),
            Program(
                [*git, "log", "--show-signature"],
                environment={"GNUPGHOME": str(gnupg)},
                servers=[_gpg_agent(gnupg)],
            ),
            agent.environment,
            rounds,
        )
    finally:
        other.close()


def _git(agent: AgentProcess, *settings: str) -> list[str]:
    settings = ("user.name=Alice", "user.email=alice@example.org", "gpg.format=x509", *settings)
    options = [word for setting in settings for word in ("-c", setting)]
    return ["git", "-C", str(agent.home / "work"), *options]


def _log(agent: AgentProcess, commits: int = COMMITS) -> Program:
    """Return the showing of the last commits, by ours."""
    git = _git(agent, f"gpg.x509.program={OURS}")
    command = [*git, "log", "--show-signature", f"-{commits}"]
    return Program(command, servers=[agent.process.pid], stays=True)


# In milliseconds of a processor, or in shares of it; by perf, by rusage and by leaving things out.
_MISSED = """\
git runs a process for each commit, and a bare Python takes {bare:.0f} ms of a processor before it
reads a line of ours, where gpgsm and gpg-agent are done after {theirs:.1f}: no Python program
reaches the goal. The first commit of a log takes {first:.0f} ms, nine tenths of it to import
(typing, dataclasses and pathlib, cryptography, asn1crypto, pyhanko-certvalidator and, for that,
asyncio). It leaves a process behind that has all this, and each further commit takes {next:.0f} ms:
a bare Python, half a millisecond to hand over what git gave it, one for git itself, and the rest in
a fork of the one that stays. There 3.3 go into the signature, the chain and finding its root among
145; as much again and more into the 1,900 pages that it writes to, which are copied first (in
Python, to use an object is to write to it), and 2 into the fork and its end. Tried: to verify more
than once before the first fork (nothing); no event loop, and no copy of the system's roots (1.3 ms
together, kept). Left alone: one fork for all commits of a log would halve it, but a hostile
signature could then reach what is said of the next commit; to keep what a chain came to would save
2, and trust a root after it was removed."""


def missed(agent: AgentProcess, pair: Pair, rounds: int) -> str:
    """Say why the goal is missed."""
    bare = Program([sys.executable, "-I", "-c", "pass"])
    first = _median([cost(_log(agent, 1), agent.environment) for _ in range(rounds)])
    return _MISSED.format(
        bare=_median([cost(bare, agent.environment) for _ in range(rounds)]),
        theirs=pair.cpu[1] * 1000 / COMMITS,
        first=first,
        next=(pair.cpu[0] * 1000 - first) / (COMMITS - 1),
    ).replace("\n", " ")


def _median(costs: list[Cost]) -> float:
    """Return the median in milliseconds of a processor."""
    return statistics.median(each.cpu for each in costs) * 1000


def _gpg_agent(home: Path) -> int:
    """Return the process id of the gpg-agent of this home."""
    told = subprocess.run(
        ["gpg-connect-agent", "--homedir", str(home), "getinfo pid", "/bye"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return int(told.split()[1])
