"""How quick signing and decrypting mail is, beside OpenSSL and a bare interpreter, in one run.

usage: python -m bench.mail [--rounds N]

Whole processes are timed, in turn, and the quickest run of each counts: what else the machine does
can only make one slower.
"""

import argparse
import base64
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from tests.parts.agent.daemon import PROGRAM, AgentProcess
from tests.parts.mail.people import person
from tests.parts.token.softhsm import MODULE, PIN, SoftHsm

HEAD = b"From: alice@example.org\nSubject: Hi\nContent-Type: text/plain\n\n"
SMALL, LARGE = 7_500, 37_500_000  # base64 makes 10 KB and 50 MB of them


def agent_with_key(home: Path) -> AgentProcess:
    """Start a daemon over a SoftHSM token with an RSA key, unlocked."""
    hsm = SoftHsm.create(home / "hsm")
    hsm.init_token("mail")
    _, key = person("rsa").write(home, "rsa")
    hsm.import_key("mail", Path(key), "01", "rsa")
    (home / "rsa.der").write_bytes(person("rsa").certificate.public_bytes(Encoding.DER))
    hsm.write("mail", "cert", home / "rsa.der", "01", "rsa")
    agent = AgentProcess(home, f'[[module]]\npath = "{MODULE}"\n', dict(hsm.env))
    agent.start()
    agent.unlock(PIN)
    return agent


def quickest(
    agent: AgentProcess, commands: dict[str, tuple[Sequence[str], str]], rounds: int
) -> dict[str, float]:
    """Return the shortest time of each command, in milliseconds; they take turns."""
    best = dict.fromkeys(commands, float("inf"))
    for _ in range(rounds):
        for name, (command, source) in commands.items():
            with (agent.home / source).open("rb") as stdin:
                started = time.perf_counter()
                subprocess.run(
                    command,
                    stdin=stdin,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=agent.environment,
                    cwd=Path(__file__).parents[1],
                    check=True,
                )
                best[name] = min(best[name], time.perf_counter() - started)
    return {name: seconds * 1000 for name, seconds in best.items()}


def told(found: dict[str, float], name: str, against: str) -> str:
    """Return a line of the table: both times, and their ratio."""
    ratio = found[name] / found[against]
    return f"{name:<18}{found[name]:6.0f} ms {against:>24}{found[against]:6.0f} ms {ratio:6.2f}"


def mail_of(size: int) -> bytes:
    """Return a mail of `size` random bytes in base64."""
    return HEAD + base64.encodebytes(os.urandom(size))


def rounds_asked() -> int:
    """Return how often each command is to be run, as the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=10)
    rounds: int = parser.parse_args().rounds
    return rounds


def main() -> None:
    """Measure and print."""
    rounds = rounds_asked()
    with tempfile.TemporaryDirectory(prefix="m", dir="/tmp") as folder:
        agent = agent_with_key(Path(folder))
        try:
            measure(agent, rounds)
        finally:
            agent.stop()


def measure(agent: AgentProcess, rounds: int) -> None:
    """Print a line for each row of the table."""
    home = agent.home
    for name, size in (("small", SMALL), ("large", LARGE)):
        (home / name).write_bytes(mail_of(size))
    files = ["-signer", f"{home}/rsa.crt", "-inkey", f"{home}/rsa.key"]
    own = [*PROGRAM, "smime"]
    encrypt = ["openssl", "cms", "-encrypt", "-aes256", "-in", f"{home}/large"]
    subprocess.run([*encrypt, "-out", f"{home}/encrypted", f"{home}/rsa.crt"], check=True)
    decrypt = ["-recip", f"{home}/rsa.crt", "-inkey", f"{home}/rsa.key"]
    found = quickest(
        agent,
        {
            "import asn1crypto.cms": ([sys.executable, "-c", "import asn1crypto.cms"], "small"),
            "sign 10 KB": ([*own, "sign"], "small"),
            "openssl sign 50 MB": (["openssl", "cms", "-sign", *files], "large"),
            "sign 50 MB": ([*own, "sign"], "large"),
            "openssl decrypt 50 MB": (["openssl", "cms", "-decrypt", *decrypt], "encrypted"),
            "decrypt 50 MB": ([*own, "decrypt"], "encrypted"),
        },
        rounds,
    )
    for name, against in (
        ("sign 10 KB", "import asn1crypto.cms"),
        ("sign 50 MB", "openssl sign 50 MB"),
        ("decrypt 50 MB", "openssl decrypt 50 MB"),
    ):
        print(told(found, name, against))


if __name__ == "__main__":
    main()
