"""The whole way: mail and git through the daemon to keys on a SoftHSM token, one PIN for all."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.store import Store
from tests.parts.agent.daemon import PROGRAM, AgentProcess
from tests.parts.mail.people import ca_file, person, root
from tests.parts.mail.pki import Person
from tests.parts.token.softhsm import MODULE, PIN, SoftHsm

KINDS = ("rsa", "p256", "p384", "ed25519")
LABEL = "mail"
BODY = "Content-Type: text/plain\n\nHello\n"


def who(kind: str) -> Person:
    return person(kind, f"{kind}@example.org", f"Person {kind}")


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    home = tmp_path_factory.mktemp("t")
    hsm = SoftHsm.create(home / "hsm")
    hsm.init_token(LABEL)
    for number, kind in enumerate(KINDS, 1):
        _, key = who(kind).write(home, kind)
        der = home / f"{kind}.der"
        der.write_bytes(who(kind).certificate.public_bytes(Encoding.DER))
        name = f"{number:02x}"
        if kind.startswith("p"):  # softhsm2-util makes EC keys that must not derive
            private = home / f"{kind}.private"
            private.write_bytes(key_der(who(kind)))
            more = ("--usage-sign", "--usage-derive")
            hsm.write(LABEL, "privkey", private, name, kind, *more)
        else:
            hsm.import_key(LABEL, Path(key), name, kind)
        hsm.write(LABEL, "cert", der, name, kind)
    agent = AgentProcess(
        home,
        f'[[module]]\npath = "{MODULE}"\n[prompt]\norder = []\ntimeout = "5s"\n'
        f'[mail]\nsendmail = ["/usr/bin/tee", "{home}/sent"]\n',
        {**dict(hsm.env), "XDG_DATA_HOME": str(home / "data"), "GIT_CONFIG_NOSYSTEM": "1"},
    )
    Store(home / "data/hsmagent").add(Certificate(root().der), root=True)
    agent.start()
    assert agent.unlock(PIN).returncode == 0
    yield agent
    agent.stop()


def key_der(whose: Person) -> bytes:
    command = ["openssl", "pkcs8", "-topk8", "-nocrypt", "-outform", "DER"]
    return subprocess.run(command, input=whose.key_pem, capture_output=True, check=True).stdout


@pytest.mark.parametrize("kind", KINDS)
def test_sign_and_verify(agent: AgentProcess, kind: str) -> None:
    signed = agent.hsmagent("smime", "sign", stdin=f"From: {kind}@example.org\n{BODY}")
    assert (signed.returncode, signed.stderr) == (0, "")
    verified = agent.hsmagent("smime", "verify", "--json", stdin=signed.stdout)
    assert verified.returncode == 0, verified.stdout
    if kind == "ed25519":
        return
    (agent.home / "mail").write_text(signed.stdout)
    done = agent.run(
        ["openssl", "cms", "-verify", "-CAfile", ca_file(agent.home), "-in", f"{agent.home}/mail"]
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("cipher", ["-aes256", "-aes-256-gcm"])
@pytest.mark.parametrize("kind", ["rsa", "p256", "p384"])
def test_decrypt_what_openssl_encrypted(agent: AgentProcess, kind: str, cipher: str) -> None:
    command = ["openssl", "cms", "-encrypt", cipher, f"{agent.home}/{kind}.crt"]
    encrypted = agent.run(command, stdin=BODY)
    done = agent.hsmagent("smime", "decrypt", stdin="Subject: Hi\n" + encrypted.stdout)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Subject: Hi\nMIME-Version: 1.0\n" + BODY


def test_oaep(agent: AgentProcess) -> None:
    options = ["-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256"]
    command = ["openssl", "cms", "-encrypt", "-recip", f"{agent.home}/rsa.crt", *options]
    done = agent.hsmagent("smime", "decrypt", stdin=agent.run(command, stdin=BODY).stdout)
    assert done.stdout.endswith("Hello\n"), done.stderr


def test_sign_then_encrypt_to_ourselves_and_back(agent: AgentProcess) -> None:
    message = f"From: rsa@example.org\nTo: p256@example.org\nSubject: Hi\n{BODY}"
    assert agent.hsmagent("contacts", "add", f"{agent.home}/p256.crt").returncode == 0
    encrypted = agent.hsmagent("smime", "encrypt", "--sign", "--cipher", "gcm", stdin=message)
    assert encrypted.returncode == 0, encrypted.stderr
    done = agent.hsmagent("smime", "decrypt", "--all", stdin=encrypted.stdout)
    assert done.returncode == 0, done.stderr
    assert "Good signature by Person rsa <rsa@example.org>" in done.stderr
    assert done.stdout == message.replace("Hi\n", "Hi\nMIME-Version: 1.0\n")


@pytest.mark.parametrize("kind", ["rsa", "p384"])
def test_files(agent: AgentProcess, kind: str) -> None:
    """The log names the file that a key was used for."""
    data, address = agent.home / f"{kind}.data", f"{kind}@example.org"
    data.write_bytes(bytes(range(256)))
    names = {what: f"{agent.home}/{kind}.{what}" for what in ("p7m", "p7s", "again")}
    for command in (
        ("encrypt", str(data), "--to", address, "-o", names["p7m"]),
        ("decrypt", names["p7m"], "-o", names["again"]),
        ("sign", str(data), "--key", address, "-o", names["p7s"]),
        ("verify", names["p7s"], str(data)),
    ):
        done = agent.hsmagent("file", *command)
        assert (done.returncode, done.stderr) == (0, ""), command
    assert Path(names["again"]).read_bytes() == data.read_bytes()
    log = agent.hsmagent("log").stdout
    assert f"a file “{kind}.data”" in log
    assert f"a file “{kind}.p7m”" in log


def test_keys_are_found_by_every_name(agent: AgentProcess) -> None:
    key = next(key for key in agent.json("keys")["keys"] if key["label"] == "p256")
    fingerprint = Certificate(who("p256").der).fingerprint
    for name in (key["uri"], key["fingerprint"], "p256", "p256@example.org", fingerprint):
        done = agent.hsmagent("smime", "sign", "--key", name, stdin=BODY)
        assert done.returncode == 0, (name, done.stderr)
    done = agent.hsmagent("smime", "sign", stdin=f"From: eve@example.org\n{BODY}")
    assert done.returncode == 1
    assert "there are keys for ed25519@example.org; p256@" in done.stderr
    assert done.stdout == ""


def test_git_through_the_program(agent: AgentProcess) -> None:
    work = agent.home / "work"
    program = agent.home / "hsmagent-gpgsm"
    program.write_text(
        f"#!/bin/sh\ncd {Path(__file__).parents[2]} && exec {sys.executable} -c "
        "'import sys; from hsmagent.cli.mail_programs import gpgsm; sys.exit(gpgsm())' \"$@\"\n"
    )
    program.chmod(0o755)
    git = ["git", "-C", str(work), "-c", "user.name=P", "-c", "user.email=p384@example.org"]
    git += ["-c", "gpg.format=x509", "-c", f"gpg.x509.program={program}"]
    agent.run(["git", "init", "-q", str(work)])
    made = agent.run([*git, "commit", "-q", "-S", "--allow-empty", "-m", "First"])
    assert made.returncode == 0, made.stderr
    assert agent.run([*git, "log", "-1", "--format=%G? %GS"]).stdout == "G Person p384\n"
    assert "First" in agent.hsmagent("log").stdout


SENDMAIL = "import sys; from hsmagent.cli.mail_programs import sendmail; sys.exit(sendmail())"


def test_sendmail_says_by_its_status_what_is_in_the_way(agent: AgentProcess) -> None:
    """Of what may pass later it says so: sysexits.h has EX_TEMPFAIL for that."""
    message = f"From: p256@example.org\nTo: bob@example.org\n{BODY}"
    command = [sys.executable, "-c", SENDMAIL, f"{agent.home}/arguments"]
    assert agent.hsmagent("lock").returncode == 0
    nobody_gives_the_pin = agent.run(command, stdin=message)
    assert nobody_gives_the_pin.returncode == os.EX_TEMPFAIL, nobody_gives_the_pin.stderr
    assert agent.unlock(PIN).returncode == 0
    no_daemon = agent.run(["env", f"XDG_RUNTIME_DIR={agent.home}", *command], stdin=message)
    assert no_daemon.returncode == os.EX_UNAVAILABLE, no_daemon.stderr


def test_sendmail_through_the_program(agent: AgentProcess) -> None:
    """The real program is tee here: what it is given as arguments are files that it writes."""
    message = f"From: p256@example.org\nTo: bob@example.org\n{BODY}"
    command = [sys.executable, "-c", SENDMAIL, "-oi", f"{agent.home}/arguments"]
    done = agent.run(command, stdin=message)
    assert done.returncode == 0, done.stderr
    sent = (agent.home / "sent").read_text()
    verified = agent.hsmagent("smime", "verify", stdin=sent)
    assert verified.returncode == 0, verified.stdout
    assert (agent.home / "arguments").read_text() == sent
    before = agent.config.read_text()
    agent.configure('[mail]\nsign = "sometimes"\n')
    wrong = agent.run(command, stdin=message)
    agent.config.write_text(before)
    assert wrong.returncode == os.EX_CONFIG
    assert "sometimes" in wrong.stderr


def test_locked_token_and_no_daemon(agent: AgentProcess) -> None:
    message = f"From: rsa@example.org\n{BODY}"
    assert agent.hsmagent("lock").returncode == 0
    done = agent.hsmagent("smime", "sign", stdin=message)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 2  # that it waits, and how that ended
    assert agent.unlock(PIN).returncode == 0
    away = {**agent.environment, "XDG_RUNTIME_DIR": str(agent.home)}
    command = [*PROGRAM, "smime", "sign"]
    nobody = subprocess.run(
        command, input=message, env=away, capture_output=True, text=True, check=False
    )
    assert nobody.returncode == 1
    assert "no daemon answers" in nobody.stderr


@pytest.mark.parametrize(
    "command",
    [
        [*PROGRAM, "smime", "sign"],
        [*PROGRAM, "file", "sign", "--key", "rsa"],
        [sys.executable, "-m", "hsmagent.cli.gpgsm", "-bsau", "rsa@example.org"],
        [sys.executable, "-m", "hsmagent.cli.sendmail", "p256@example.org"],
    ],
    ids=["smime", "file", "gpgsm", "sendmail"],
)
def test_a_mail_program_says_that_it_waits(agent: AgentProcess, command: list[str]) -> None:
    """Where no window can ask: at once, once, and not in the middle of the message."""
    if command[2].startswith("hsmagent.cli"):
        name = command[2].rpartition(".")[2]
        call = f"import sys; from hsmagent.cli.mail_programs import {name}; sys.exit({name}())"
        command = [sys.executable, "-c", call, *command[3:]]
    agent.hsmagent("lock")
    with subprocess.Popen(
        command,
        env=agent.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        cwd=agent.home,
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        assert client.stderr is not None
        client.stdin.write(f"From: rsa@example.org\nTo: p256@example.org\n{BODY}")
        client.stdin.close()
        said = client.stderr.readline()
        assert agent.unlock(PIN).returncode == 0
        client.stdout.read()
        rest = client.stderr.read()
    assert client.returncode == 0, said + rest
    assert said == (
        "hsmagent: waiting for the PIN of “mail”, which no window can ask for; "
        "run `hsmagent unlock mail`\n"
    )
    assert "waiting" not in rest
