"""How quick signing a mail is with a card at a card's speed, beside OpenSSL's engine, in one run.

usage: python -m bench.card [--rounds N]

The card is virtual and takes the time of a real one; pcscd and OpenSC, which both programs use,
are real. OpenSSL's engine opens the card, looks through it and logs in for every mail.
"""

import tempfile
from pathlib import Path

from bench.mail import SMALL, mail_of, quickest, rounds_asked, told
from tests.parts.agent.daemon import PROGRAM, AgentProcess
from tests.parts.agent.ssh_login import started
from tests.parts.mail.people import person
from tests.parts.token.card import DEFAULT_PIN, Card, inserted
from tests.parts.token.provider import Provider

SIGN, OPENSSL = "sign on a card", "openssl's engine"


def genuine_card() -> Card:
    """Return a card with one P-256 key and its certificate, as slow as a real one."""
    who = person("p256")
    card = Card(label="mail")
    card.add_key(who.private, "mail", 1, who.der)
    card.knobs.genuine_speed()
    return card


def measure(agent: AgentProcess, provider: Provider, rounds: int) -> dict[str, float]:
    """Return the shortest time of both programs in milliseconds, for a mail of 10 KB.

    One after the other: OpenSSL's logout would cost us a login for every mail.
    """
    (agent.home / "small").write_bytes(mail_of(SMALL))
    ours = quickest(agent, {SIGN: ([*PROGRAM, "smime", "sign"], "small")}, rounds)
    certificate, _ = person("p256").write(agent.home, "p256")
    agent.environment |= provider.environment
    agent.environment["PKCS11_MODULE_PATH"] = provider.module
    key = f"pkcs11:object=mail;type=private;pin-value={provider.pin}"
    engine = ["-engine", "pkcs11", "-keyform", "engine", "-inkey", key]
    sign = ["openssl", "cms", "-sign", "-signer", certificate, *engine]
    return ours | quickest(agent, {OPENSSL: (sign, "small")}, rounds)


def main() -> None:
    """Measure and print."""
    rounds = rounds_asked()
    with (
        tempfile.TemporaryDirectory(prefix="c", dir="/tmp") as folder,
        inserted(genuine_card()) as reader,
        started(reader.provider, Path(folder)) as agent,
    ):
        agent.unlock(DEFAULT_PIN)
        print(told(measure(agent, reader.provider, rounds), SIGN, OPENSSL))


if __name__ == "__main__":
    main()
