"""What `git log --show-signature` costs with hsmagent-gpgsm, beside gpgsm."""

import sys
from pathlib import Path

from bench.runs import Pair, Program, in_turn
from tests.parts.agent.daemon import AgentProcess
from tests.parts.mail.peers import Gpgsm
from tests.parts.mail.people import root

COMMITS = 10
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
    try:
        return in_turn(
            Program([*ours, "log", "--show-signature"]),
            Program([*git, "log", "--show-signature"], environment={"GNUPGHOME": str(gnupg)}),
            agent.environment,
            rounds,
        )
    finally:
        other.close()
