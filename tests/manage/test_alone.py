"""Who else uses the card: who waits for us, for whom we wait, and where that cannot be."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from hsmagent.schsm.apdu import INS
from tests.manage.test_killed import Reached
from tests.parts.token.card import DEFAULT_PIN, DEFAULT_SO_PIN, Reader
from tests.parts.token.managed import Managed
from tests.parts.token.pkcs11_tool import pkcs11_tool

# Another program: keeps the card in a transaction, or for itself altogether, until stdin ends.
HOLDER = """
import sys
from hsmagent.worker import pcsc
pcsc._SCARD_SHARE_SHARED = {"shared": 2, "exclusive": 1}[sys.argv[1]]
with pcsc.Pcsc() as service, service.connect(service.reader_names()[0]) as card:
    with card.transaction():
        print("held", flush=True)
        sys.stdin.read()
"""


@contextmanager
def held(reader: Reader, how: str) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, how],
        env=os.environ | dict(reader.provider.environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_a_card_that_another_program_keeps_to_itself(reader: Reader, card: Managed) -> None:
    with held(reader, "exclusive"):
        said = card.fails("key", "new", secrets=(DEFAULT_PIN,))
    assert "Virtual PCD 00 00 cannot be read: another program keeps the card to itself" in said
    assert reader.card.user is not None
    assert reader.card.user.presented == 0


def test_a_transaction_of_another_program_is_waited_for(reader: Reader, card: Managed) -> None:
    with held(reader, "shared") as holder:
        ours = subprocess.Popen(
            [sys.executable, "-m", "hsmagent", "key", "test", "ssh", "--stdin"],
            env=card.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with pytest.raises(subprocess.TimeoutExpired):
            ours.wait(3)  # the holder lets go only when it is told to
        holder.kill()
        out, _ = ours.communicate(f"{DEFAULT_PIN}\n".encode(), timeout=60)
    assert ours.returncode == 0
    assert b"failed" not in out


def test_a_transaction_without_end_is_told(reader: Reader, card: Managed) -> None:
    with held(reader, "shared"):
        said = card.fails("token", "info")
    assert "did not answer in time; if another program keeps a card to itself, end that one" in said
    assert "killed" not in said


def test_a_program_that_is_logged_in_waits_and_goes_on(reader: Reader, card: Managed) -> None:
    """It holds a shared connection, as Firefox does all day."""
    with subprocess.Popen(
        [sys.executable, "-c", LOGGED_IN, reader.provider.module, DEFAULT_PIN],
        env=os.environ | dict(reader.provider.environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == b"signed\n"
        reached = Reached(reader, INS.GENERATE_KEY_PAIR)
        with subprocess.Popen(
            [sys.executable, "-m", "hsmagent", "key", "new", "--label", "x", "--stdin"],
            env=card.environment,
            stdin=subprocess.PIPE,
        ) as ours:
            assert ours.stdin is not None
            ours.stdin.write(f"{DEFAULT_PIN}\n".encode())
            ours.stdin.close()
            assert reached.event.wait(60)
            other.stdin.write(b"\n")
            other.stdin.flush()
            # OpenSC 0.26 does not give the card back, and pcscd resets it: to no applet.
            assert other.stdout.readline() in {b"signed\n", b"GeneralError\n"}
            assert ours.wait(60) == 0
        other.stdin.write(b"\n")
        other.stdin.flush()
        assert other.stdout.readline() == b"signed\n"
        other.stdin.close()
    assert len(reader.card.keys) == 4
    assert reader.card.user is not None
    assert reader.card.user.wrong == 0


LOGGED_IN = """
import sys
import pkcs11
token = next(iter(pkcs11.lib(sys.argv[1]).get_tokens()))
with token.open(user_pin=sys.argv[2]) as session:
    key = session.get_key(pkcs11.ObjectClass.PRIVATE_KEY, label="ssh")
    for _ in range(3):
        try:
            key.sign(bytes(32), mechanism=pkcs11.Mechanism.ECDSA)
            print("signed", flush=True)
        except pkcs11.exceptions.PKCS11Error as error:
            print(type(error).__name__, flush=True)
        sys.stdin.readline()
"""


@pytest.mark.parametrize("reason", ["own configuration", "another module"])
def test_where_the_login_is_everybodys_it_asks(
    reader: Reader, card: Managed, tmp_path: Path, reason: str
) -> None:
    """OpenSC takes the first block of a name; and other modules have no such wish."""
    provider = reader.provider
    if reason == "another module":
        module = tmp_path / "cards.so"
        module.symlink_to(provider.module)
        provider = replace(provider, module=str(module))
        why = "only OpenSC keeps a card to itself"
    else:
        own = tmp_path / "opensc.conf"
        own.write_text("app opensc-pkcs11 {\n\tpkcs11 {\n\t\tmax_virtual_slots = 4;\n\t}\n}\n")
        environment = {**provider.environment, "OPENSC_CONF": str(own)}
        provider = replace(provider, environment=environment)
        why = f"{own} sets pkcs11 itself; write lock_login = true; there"
    managed = Managed(provider, tmp_path)
    said = managed.fails("key", "test", "ssh", secrets=(DEFAULT_PIN,))
    assert f"Every other program can use “work” while this one is logged in to it: {why}" in said
    assert "use --yes" in said
    assert reader.card.user is not None
    assert reader.card.user.presented == 0
    ran = managed("key", "test", "ssh", "--yes", secrets=(DEFAULT_PIN,))
    assert ran.status == 0, ran.err
    assert "Every other program" not in card("key", "test", "ssh", secrets=(DEFAULT_PIN,)).err
    assert "ssh" in pkcs11_tool(provider, "-O")


# With a worker for cards that knows none of its orders.
OUT_OF_REACH = """
from hsmagent.manage import worker
worker._CARD = "hsmagent.worker.readers"
from hsmagent.cli.main import main
main()
"""


@pytest.mark.parametrize(
    "words", [("init", "--yes", "--no-backup"), ("unblock",), ("so-pin",)], ids=lambda w: w[0]
)
def test_a_card_that_only_opensc_reaches_keeps_its_pins(
    reader: Reader, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """C_InitToken would set its PIN to a piece of the SO-PIN; C_InitPIN may lose tries unseen."""
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_REACH, "token", *words, "--stdin"],
        env=Managed(reader.provider, tmp_path).environment,
        input=f"{DEFAULT_SO_PIN}\n271828\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert "answers to OpenSC and not to us" in done.stderr, done.stderr
    user, so = reader.card.user, reader.card.so
    assert user is not None
    assert so is not None
    assert (user.presented, so.presented) == (0, 0)
    assert len(reader.card.keys) == 3
