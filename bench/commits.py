"""What `git log --show-signature` costs with hsmagent-gpgsm, beside gpgsm.

gpgsm asks gpg-agent whether a root is trusted, and that counts. Alice's certificate names no CRL,
so that there is none to look at for either. With one that cannot be had, and dirmngr asked for it,
or with the system's roots among its certificates, gpgsm takes half a millisecond more.
"""

import statistics
import subprocess
import sys
from pathlib import Path

from bench.runs import Pair, Program, cost, in_turn
from tests.parts.agent.daemon import AgentProcess
from tests.parts.mail.peers import Gpgsm
from tests.parts.mail.people import root

COMMITS = 10
NAME = f"git log --show-signature, {COMMITS} commits"
OURS = Path(sys.executable).with_name("hsmagent-gpgsm")


def measure(agent: AgentProcess, rounds: int) -> Pair:
    """Return the costs of showing signed commits; the agent has Alice's key and trusts its root."""
    work, gnupg = agent.home / "work", agent.home / "gnupg"
    git = ["git", "-C", str(work), "-c", "user.name=Alice", "-c", "user.email=alice@example.org"]
    git += ["-c", "gpg.format=x509"]
    ours = [*git, "-c", f"gpg.x509.program={OURS}"]
    agent.run(["git", "init", "-q", str(work)])
    for number in range(COMMITS):
        made = agent.run([*ours, "commit", "-q", "-S", "--allow-empty", "-m", f"Commit {number}"])
        if made.returncode:
            raise RuntimeError(made.stderr)
    shown = agent.run([*ours, "log", "--format=%G?"]).stdout.split()
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
            Program([*ours, "log", "--show-signature"], servers=[agent.process.pid]),
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


# Of one commit, in milliseconds of a processor; by -X importtime and by leaving things out.
_MISSED = """\
git runs a process for each commit, and a bare Python takes {bare:.0f} ms of a processor before it
reads a line of ours, where gpgsm and gpg-agent are done after {theirs:.1f}: no Python program
reaches the goal. Nearly all of the rest is imports: modules of Python's own that everything imports
(typing, dataclasses, pathlib) some 29 ms, cryptography 13, asn1crypto 18, pyhanko-certvalidator and
what it brings 50; the signature, the chain and finding its root among 145 take 6. Left alone:
cryptography's own path validation, which is there already, ignores certificate policies (a chain
whose CA requires one and that has none holds) and CRLs. Built and taken out: a process that stays
for the next commits, with which these took 24 ms. Whoever could take its place, from a sandbox that
may write to the runtime folder, would make bad signatures good for everybody, and no kernel before
Linux 6.5 tells whose place a socket's other end has taken."""


def missed(agent: AgentProcess, pair: Pair, rounds: int) -> str:
    """Say why the goal is missed."""
    bare = Program([sys.executable, "-I", "-c", "pass"])
    costs = [cost(bare, agent.environment).cpu * 1000 for _ in range(rounds)]
    each = pair.cpu[1] * 1000 / COMMITS
    return _MISSED.format(bare=statistics.median(costs), theirs=each).replace("\n", " ")


def _gpg_agent(home: Path) -> int:
    """Return the process id of the gpg-agent of this home."""
    told = subprocess.run(
        ["gpg-connect-agent", "--homedir", str(home), "getinfo pid", "/bye"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return int(told.split()[1])
