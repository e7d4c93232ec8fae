"""Mail with keys on the card: signed and decrypted there, judged by OpenSSL."""

from collections.abc import Iterator

import pytest

from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.store import Store
from hsmagent.schsm.apdu import INS
from tests.parts.agent.daemon import AgentProcess
from tests.parts.agent.ssh_login import started
from tests.parts.mail.people import ca_file, person, root
from tests.parts.mail.pki import Person
from tests.parts.token.card import DEFAULT_PIN, Card, Reader, inserted
from tests.parts.until import until

KINDS = ("rsa", "p256", "brainpool")
BODY = "Content-Type: text/plain\n\nHello\n"


def who(kind: str) -> Person:
    return person(kind, f"{kind}@example.org", f"Person {kind}")


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    """Give a reader with a card of three people's keys, and their authority's certificate."""
    card = Card(label="mail")
    for number, kind in enumerate(KINDS, 1):
        card.add_key(who(kind).private, kind, number, who(kind).der)
    card.add_certificate(root().der, "root", 1)
    with inserted(card) as reader:
        yield reader


@pytest.fixture(scope="module")
def agent(reader: Reader, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    folder = tmp_path_factory.mktemp("m")
    with started(reader.provider, folder, '[prompt]\norder = []\ntimeout = "5s"\n') as agent:
        data = agent.home / "data"
        agent.environment["XDG_DATA_HOME"] = str(data)
        Store(data / "hsmagent").add(Certificate(root().der), root=True)
        for kind in KINDS:
            who(kind).write(agent.home, kind)
        assert agent.unlock(DEFAULT_PIN).returncode == 0
        yield agent


@pytest.mark.parametrize("kind", KINDS)
def test_signs(agent: AgentProcess, kind: str) -> None:
    signed = agent.hsmagent("smime", "sign", stdin=f"From: {kind}@example.org\n{BODY}")
    assert (signed.returncode, signed.stderr) == (0, "")
    mail = agent.home / "mail"
    mail.write_text(signed.stdout)
    verify = ["openssl", "cms", "-verify", "-CAfile", ca_file(agent.home), "-in", str(mail)]
    done = agent.run(verify)
    assert done.returncode == 0, done.stderr
    assert "Hello" in done.stdout


def test_signs_with_pss(agent: AgentProcess) -> None:
    message = f"From: rsa@example.org\n{BODY}"
    signed = agent.hsmagent("smime", "sign", "--pss", stdin=message)
    verified = agent.hsmagent("smime", "verify", stdin=signed.stdout)
    assert verified.returncode == 0, verified.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_decrypts(agent: AgentProcess, kind: str) -> None:
    encrypt = ["openssl", "cms", "-encrypt", "-aes256", f"{agent.home}/{kind}.crt"]
    encrypted = agent.run(encrypt, stdin=BODY)
    done = agent.hsmagent("smime", "decrypt", stdin=encrypted.stdout)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("Hello\n")


def test_decrypts_oaep(agent: AgentProcess) -> None:
    options = ["-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256"]
    encrypt = ["openssl", "cms", "-encrypt", "-recip", f"{agent.home}/rsa.crt", *options]
    done = agent.hsmagent("smime", "decrypt", stdin=agent.run(encrypt, stdin=BODY).stdout)
    assert done.stdout.endswith("Hello\n"), done.stderr


def test_unplugged_while_it_signs(agent: AgentProcess, reader: Reader) -> None:
    assert reader.card.user is not None
    before = reader.card.user.presented
    reader.card.knobs.unplug_at[INS.SIGN] = 1
    message = f"From: p256@example.org\n{BODY}"
    failed = agent.hsmagent("smime", "sign", stdin=message)
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert failed.stderr.count("\n") == 1
    reader.plug()
    until(lambda: agent.unlock(DEFAULT_PIN).returncode == 0)
    assert agent.hsmagent("smime", "sign", stdin=message).returncode == 0
    assert reader.card.user.presented == before + 1


def test_one_pin_for_all(reader: Reader) -> None:
    assert reader.card.user is not None
    assert reader.card.user.wrong == 0
