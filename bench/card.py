"""How quick signing a mail is with a card at a card's speed, beside OpenSSL's engine.

The card is virtual and takes the time of a real one; pcscd and OpenSC, which both programs use,
are real. OpenSSL's engine opens the card, looks through it and logs in for every mail.
"""

import statistics
import tempfile
from pathlib import Path

from bench.mail import OURS, SMALL, mail_of
from bench.result import Part, Row, Scale
from bench.runs import Program, cost
from tests.parts.agent.ssh_login import started
from tests.parts.mail.people import person
from tests.parts.token.card import DEFAULT_PIN, Card, inserted


def genuine_card() -> Card:
    """Return a card with one P-256 key and its certificate, as slow as a real one."""
    who = person("p256")
    card = Card(label="mail")
    card.add_key(who.private, "mail", 1, who.der)
    card.knobs.genuine_speed()
    return card


def measure(scale: Scale) -> Part:
    """Return the row about a card."""
    with (
        tempfile.TemporaryDirectory(prefix="c", dir="/tmp") as folder,
        inserted(genuine_card()) as reader,
        started(reader.provider, Path(folder)) as agent,
    ):
        agent.unlock(DEFAULT_PIN)
        mail = agent.home / "small"
        mail.write_bytes(mail_of(SMALL))
        certificate, _ = person("p256").write(agent.home, "p256")
        provider = reader.provider
        key = f"pkcs11:object=mail;type=private;pin-value={provider.pin}"
        engine = ["-engine", "pkcs11", "-keyform", "engine", "-inkey", key]
        module = {**provider.environment, "PKCS11_MODULE_PATH": provider.module}
        ours, theirs = (
            # One after the other: OpenSSL's logout would cost us a login for every mail.
            statistics.median(cost(program, agent.environment).wall for _ in range(scale.processes))
            for program in (
                Program([OURS, "smime", "sign"], mail),
                Program(["openssl", "cms", "-sign", "-signer", certificate, *engine], mail, module),
            )
        )
    told = f"{ours * 1000:.0f} ms", f"openssl's engine {theirs * 1000:.0f} ms"
    return Part((Row("sign a mail with a card", *told, ours / theirs, 0.5),))
