"""A daemon over a SoftHSM token with Alice's RSA key, for whoever signs mail by it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.parts.agent.daemon import AgentProcess
from tests.parts.mail.people import person, root
from tests.parts.token.softhsm import MODULE, PIN, SoftHsm


@contextmanager
def signing_agent(home: Path) -> Iterator[AgentProcess]:
    """Start it, unlocked; its user trusts the root that issued Alice's certificate."""
    hsm, alice = SoftHsm.create(home / "hsm"), person("rsa")
    hsm.init_token("mail")
    _, key = alice.write(home, "rsa")
    hsm.import_key("mail", Path(key), "01", "rsa")
    for name, data in (("rsa.der", alice.der), ("root.pem", root().pem)):
        (home / name).write_bytes(data)
    hsm.write("mail", "cert", home / "rsa.der", "01", "rsa")
    agent = AgentProcess(home, f'[[module]]\npath = "{MODULE}"\n', dict(hsm.env))
    agent.start()
    try:
        for done in (agent.unlock(PIN), agent.hsmagent("roots", "add", f"{home}/root.pem")):
            if done.returncode:
                raise RuntimeError(done.stderr)
        yield agent
    finally:
        agent.stop()
