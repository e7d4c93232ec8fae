"""How quick signing and decrypting mail is, beside OpenSSL, gpgsm and a bare interpreter.

Whole processes, in turn. Large mails by the clock, as OpenSSL is a single thread and we are not;
small ones by what they take of a processor.
"""

import base64
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from bench import commits
from bench.result import Part, Row, Scale
from bench.runs import Pair, Program, in_turn
from tests.parts.agent.daemon import AgentProcess
from tests.parts.mail.signing import signing_agent

HEAD = b"From: alice@example.org\nSubject: Hi\nContent-Type: text/plain\n\n"
SMALL, LARGE = 7_500, 37_500_000  # base64 makes 10 KB and 50 MB of them
OURS = str(Path(sys.executable).with_name("hsmagent"))


def mail_of(size: int) -> bytes:
    """Return a mail of `size` random bytes in base64."""
    return HEAD + base64.encodebytes(os.urandom(size))


def measure(scale: Scale) -> Part:
    """Return the rows about mail."""
    with (
        tempfile.TemporaryDirectory(prefix="m", dir="/tmp") as folder,
        signing_agent(Path(folder)) as agent,
    ):
        shown = commits.measure(agent, scale.processes)
        rows = (
            *_mails(agent, scale.processes),
            replace(
                _by_cpu(commits.NAME, "gpgsm", shown, 1.5),
                missed=commits.missed(agent, shown, scale.processes),
            ),
        )
    return Part(rows)


def _mails(agent: AgentProcess, rounds: int) -> list[Row]:
    home = agent.home
    for name, size in (("small", SMALL), ("large", LARGE)):
        (home / name).write_bytes(mail_of(size))
    openssl, who = ["openssl", "cms"], f"{home}/rsa.crt"
    encrypt = [*openssl, "-encrypt", "-aes256", "-in", f"{home}/large"]
    subprocess.run([*encrypt, "-out", f"{home}/sealed", who], check=True)
    small, large, sealed = home / "small", home / "large", home / "sealed"
    key = ["-inkey", f"{home}/rsa.key"]

    def beside(verb: str, source: Path, *other: str) -> Pair:
        ours = Program([OURS, "smime", verb], source)
        return in_turn(ours, Program(other, source), agent.environment, rounds)

    return [
        _by_cpu(
            "sign 10 KB",
            "import asn1crypto.cms",
            beside("sign", small, sys.executable, "-c", "import asn1crypto.cms"),
            1.1,
        ),
        _by_clock(
            "sign 50 MB",
            "openssl cms",
            beside("sign", large, *openssl, "-sign", "-signer", who, *key),
            1.4,
        ),
        _by_clock(
            "decrypt 50 MB",
            "openssl cms",
            beside("decrypt", sealed, *openssl, "-decrypt", "-recip", who, *key),
            1.0,
        ),
    ]


def _by_cpu(name: str, against: str, pair: Pair, goal: float) -> Row:
    ours, theirs, ratio = pair.cpu
    told = f"{ours * 1000:.0f} ms", f"{against} {theirs * 1000:.0f} ms"
    return Row(f"{name}, processor time", *told, ratio, goal)


def _by_clock(name: str, against: str, pair: Pair, goal: float) -> Row:
    ours, theirs, ratio = pair.wall
    cpu = f" ({pair.cpu[2]:.2f} in processor time)"
    told = f"{ours * 1000:.0f} ms{cpu}", f"{against} {theirs * 1000:.0f} ms"
    return Row(name, *told, ratio, goal)
