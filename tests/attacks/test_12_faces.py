"""What a program that reaches one socket of ours tries on it, and on the keys behind it.

PKCS#11 programs and GnuPG hand over digests and want decrypted values back: what a hostile one
learns from that, and for whom a yes counts that a person gave to another.
"""

import base64
import json
import shutil
import socket
import sys
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from hsmagent import frame
from hsmagent.control.client import MAIL, Daemon
from hsmagent.control.values import of_unwrap
from hsmagent.errors import Refused, UsageError
from hsmagent.ssh import messages
from hsmagent.ssh.agent import LIST
from hsmagent.token.unwrap import decrypt, unwrap
from hsmagent.unwraps import RsaUnwrap
from tests.daemon.conftest import Start, module_config
from tests.parts.agent.daemon import AgentProcess
from tests.parts.agent.face import CONNECTS, FaceClient, program
from tests.parts.agent.hostile import Client
from tests.parts.mail.people import person
from tests.parts.mail.pki import SoftwareDecrypter
from tests.parts.token.softhsm import PIN, SoftHsm
from tests.parts.until import until

ENABLED = "[pkcs11]\nenabled = true\n"
EVERYTHING = (
    '[[key]]\nmatch = "pkcs11:"\nconfirm = "never"\nallow = ["ssh", "mail", "pkcs11-message",'
    ' "pkcs11-digest", "pkcs11-decrypt", "gnupg"]\n'
)


@pytest.fixture
def agent(start: Start, furnished: SoftHsm) -> AgentProcess:
    agent = start(module_config(furnished, ENABLED + EVERYTHING))
    assert agent.unlock(PIN).returncode == 0
    return agent


@pytest.fixture
def handed() -> Iterator[Callable[[AgentProcess], FaceClient]]:
    with ExitStack() as stack:

        def begin(agent: AgentProcess) -> FaceClient:
            face = stack.enter_context(closing(FaceClient(agent.face_socket)))
            ours, theirs = socket.socketpair()
            stack.enter_context(theirs)
            with ours:
                face.client(ours)
            return face

        yield begin


# -- another socket's operation ----------------------------------------------------------------

OF = {
    "control": ("status", "log", "unlock", "lock", "refresh", "forget_pin", "let_go", "take_back"),
    "mail": ("sign_attributes", "unwrap"),
    "face": (
        *("client", "tokens", "changed", "missed"),
        *("sign_message", "sign_digest", "decrypt", "derive"),
    ),
}


@pytest.mark.parametrize("reached", OF)
def test_another_sockets_operation_is_unknown(agent: AgentProcess, reached: str) -> None:
    """With every field that the operation would want."""
    fields = {
        name: base64.b64encode(b"1\0").decode()
        for name in ("key", "message", "attributes", "digest", "encrypted", "point")
    }
    for role, operations in OF.items():
        for operation in operations if role != reached else ():
            with (
                closing(Daemon(str(agent.runtime), 30, reached)) as daemon,
                pytest.raises(UsageError, match="knows no operation"),
            ):
                daemon.call(operation, **fields, **{"for": "pkcs11"}, scheme="ecdsa-sha256")


@pytest.mark.parametrize("role", OF)
def test_the_ssh_socket_knows_none_and_no_other_knows_ssh(agent: AgentProcess, role: str) -> None:
    with closing(Client(agent.ssh_socket)) as ssh:
        for operation in OF[role]:
            assert ssh.ask(json.dumps({"op": operation}).encode()) == messages.FAILURE
    with socket.socket(socket.AF_UNIX) as other:
        other.settimeout(30)
        other.connect(str(agent.runtime / f"{role}.sock"))
        other.sendall(frame.encode(LIST))
        answer = json.loads(other.recv(65536)[frame.HEADER :])
    assert answer["error"]["kind"] == "UsageError"


def test_a_key_for_pkcs11_is_none_for_gnupg_nor_the_other_way(
    start: Start, furnished: SoftHsm, handed: Callable[[AgentProcess], FaceClient]
) -> None:
    config = ENABLED + "".join(
        f'[[key]]\nmatch = "pkcs11:object={label}"\nconfirm = "never"\nallow = ["{word}"]\n'
        for label, word in (("rsa", "pkcs11-decrypt"), ("ec", "gnupg"), ("ed", "mail"))
    )
    agent = start(module_config(furnished, config))
    assert agent.unlock(PIN).returncode == 0
    spki = {key["label"]: key["spki"] for key in agent.json("keys")["keys"]}
    with closing(FaceClient(agent.face_socket)) as gnupg:
        gnupg.client(None, "gnupg")
        pkcs11 = handed(agent)
        assert (list(pkcs11.keys()), list(gnupg.keys())) == (["rsa"], ["ec"])
        for face, label in ((pkcs11, "ec"), (pkcs11, "ed"), (gnupg, "rsa"), (gnupg, "ed")):
            digest = {"digest": bytes(32), "scheme": "ecdsa-sha256"}
            with pytest.raises(Refused, match="does not allow"):
                face.call("sign_digest", key=spki[label], **digest)
            with pytest.raises(Refused, match="does not allow"):
                face.call("decrypt", key=spki[label], encrypted=bytes(256), padding="pkcs1")
        with pytest.raises(Refused, match="does not allow"):
            pkcs11.call("sign_digest", key=spki["rsa"], digest=bytes(32), scheme="rsa-pkcs1-sha256")
    [refusal, *_] = [each for each in agent.json("log")["entries"] if each["outcome"] == "refused"]
    assert refusal["purpose"].startswith(("pkcs11-", "gnupg"))


# -- the padding -------------------------------------------------------------------------------

KEY = bytes(range(1, 33))
SIZE = 256
WRONG = {
    "block type 1": b"\0\1" + b"\x55" * 221 + b"\0" + KEY,
    "no zero": b"\0\2" + b"\x55" * 254,
    "short padding": b"\0\2" + b"\x55" * 7 + b"\0" + b"\7" * 246,
    "leading byte": b"\1\2" + b"\x55" * 221 + b"\0" + KEY,
    "all zero": bytes(256),
}
RIGHT = b"\0\2" + b"\x55" * 221 + b"\0" + KEY


def raw(public: rsa.RSAPublicKey, block: bytes) -> bytes:
    numbers = public.public_numbers()
    return pow(int.from_bytes(block, "big"), numbers.e, numbers.n).to_bytes(SIZE, "big")


def test_all_that_decrypts_gives_one_answer_to_a_wrong_padding(
    agent: AgentProcess, handed: Callable[[AgentProcess], FaceClient]
) -> None:
    """By mail's `unwrap` of any length, PKCS#11's `decrypt` and GnuPG's: no two to compare."""
    face = handed(agent)
    spki = face.keys()["rsa"]
    public = load_der_public_key(spki)
    assert isinstance(public, rsa.RSAPublicKey)
    with (
        closing(FaceClient(agent.face_socket)) as gnupg,
        closing(Daemon(str(agent.runtime), 30, MAIL)) as mail,
    ):
        gnupg.client(None, "gnupg")

        def plain(face: FaceClient, encrypted: bytes) -> bytes:
            answer = face.call("decrypt", key=spki, encrypted=encrypted, padding="pkcs1")
            return b64decode(answer["plain"])

        def unwrapped(encrypted: bytes, length: int) -> bytes:
            recipient = of_unwrap(RsaUnwrap(encrypted, "pkcs1"))
            key = base64.b64encode(spki).decode()
            answer = mail.call("unwrap", key=key, recipient=recipient, length=length, context={})
            return b64decode(answer["key"])

        assert plain(face, raw(public, RIGHT)) == unwrapped(raw(public, RIGHT), 32) == KEY
        for name, block in WRONG.items():
            encrypted = raw(public, block)
            answers = {plain(each, encrypted) for each in (face, gnupg, face, gnupg)}
            assert len(answers) == 1, f"{name}: stable, and one for all"
            [answer] = answers
            if len(answer) in (16, 24, 32):
                assert unwrapped(encrypted, len(answer)) == answer, name
            *_, last = lengths = sorted({16, 24, 32} - {len(answer)})
            for length in lengths:
                assert unwrapped(encrypted, length) not in answer
            assert unwrapped(encrypted, last) == unwrapped(encrypted, last)


async def test_a_substitute_of_one_length_is_the_same_by_every_way() -> None:
    """For a ciphertext is right or wrong for all: two substitutes to compare would tell which."""
    who = person("rsa")
    signer = SoftwareDecrypter(who.key, who.private)
    public = who.private.public_key()
    lengths, compared = set(), 0
    for number in range(2000):
        block = b"\0\1" + number.to_bytes(254, "big")
        what = RsaUnwrap(raw(public, block), "pkcs1")
        answer = await decrypt(signer, what)
        lengths.add(len(answer))
        assert len(answer) <= SIZE - 11
        if len(answer) in (16, 24, 32):
            assert await unwrap(signer, what, len(answer)) == answer
            compared += 1
        if compared and len(lengths) > 20:
            break
    else:
        pytest.fail(f"{compared} compared, of the lengths {sorted(lengths)}")


@pytest.mark.parametrize("form", ["pkcs1", "oaep"])
async def test_a_right_message_is_told_from_no_wrong_one_by_its_form(form: str) -> None:
    who = person("rsa")
    signer = SoftwareDecrypter(who.key, who.private)
    right = who.private.public_key().encrypt(KEY, padding.PKCS1v15())
    for encrypted in (right, b"", b"\xff" * SIZE, bytes(SIZE), right[1:], right + b"\0"):
        what = RsaUnwrap(encrypted, form)
        answers = {await decrypt(signer, what) for _ in range(3)}
        assert len(answers) == 1
        assert (answers == {KEY}) is (encrypted == right and form == "pkcs1")


# -- whose yes it is -----------------------------------------------------------------------------

ONCE = EVERYTHING.replace('confirm = "never"\n', "")
YES = "#!/bin/sh\necho asked >>{log}\necho yes\n"


@pytest.fixture
def asking(start: Start, furnished: SoftHsm, tmp_path: Path) -> tuple[AgentProcess, Path]:
    """Start a daemon whose person says yes to each question, and counts them."""
    log, askpass = tmp_path / "asked", tmp_path / "askpass"
    log.touch()
    askpass.write_text(YES.format(log=log))
    askpass.chmod(0o755)
    config = module_config(furnished, ENABLED + ONCE + '[prompt]\norder = ["askpass"]\n')
    agent = start(config, SSH_ASKPASS=str(askpass), DISPLAY=":nowhere")
    assert agent.unlock(PIN).returncode == 0
    return agent, log


def use(agent: AgentProcess, folder: Path, *command: str) -> None:
    """Sign a digest for a program that is run, once per connection that it makes."""
    with program(folder, command) as asks, closing(FaceClient(agent.face_socket)) as face:
        face.client(asks.connection)
        spki = face.keys()["ec"]
        for _ in range(2):
            face.call("sign_digest", key=spki, scheme="ecdsa-sha256", digest=bytes(32))


def questions(log: Path) -> int:
    return len(log.read_text().splitlines())


def test_an_interpreters_yes_is_not_used_by_another_script(
    asking: tuple[AgentProcess, Path], tmp_path: Path
) -> None:
    agent, log = asking
    for number, name in enumerate(("good.py", "evil.py", "good.py"), 1):
        script = tmp_path / name
        script.write_text(CONNECTS)
        use(agent, tmp_path, sys.executable, str(script))
        assert questions(log) == number


def test_a_program_in_another_mount_namespace_is_another_program(
    asking: tuple[AgentProcess, Path], tmp_path: Path
) -> None:
    """`unshare` needs no rights: within it, a program is whatever file one wants."""
    agent, log = asking
    good = shutil.copy(sys.executable, tmp_path / "thunderbird")
    use(agent, tmp_path, str(good), "-c", CONNECTS)
    use(agent, tmp_path, str(good), "-c", CONNECTS)
    assert questions(log) == 1, "a program of its own is asked about once"
    use(agent, tmp_path, "unshare", "-rm", str(good), "-c", CONNECTS)
    assert questions(log) == 2
    evil = shutil.copy(sys.executable, tmp_path / "evil")
    inside = f'mount --bind {evil} {good} && exec "$@"'
    use(agent, tmp_path, "unshare", "-rm", "sh", "-c", inside, "sh", str(good), "-c", CONNECTS)
    assert questions(log) == 3


@pytest.mark.parametrize("said", ["", 'confirm = "always"\n', 'confirm = "remember"\n'])
def test_a_question_says_what_a_yes_is_for(
    start: Start, furnished: SoftHsm, tmp_path: Path, said: str
) -> None:
    """In the window for the PIN as well as in the one for a yes."""
    shown, askpass = tmp_path / "shown", tmp_path / "askpass"
    answer = f'[ -n "$SSH_ASKPASS_PROMPT" ] && echo yes || echo {PIN}'
    askpass.write_text(f'#!/bin/sh\nprintf "%s\\n---\\n" "$1" >>{shown}\n{answer}\n')
    askpass.chmod(0o755)
    config = ENABLED + EVERYTHING.replace('confirm = "never"\n', said)
    config = module_config(furnished, config + '[prompt]\norder = ["askpass"]\n')
    agent = start(config, SSH_ASKPASS=str(askpass), DISPLAY=":nowhere")
    for name in ("one.py", "two.py"):
        script = tmp_path / name
        script.write_text(CONNECTS)
        with program(tmp_path, (sys.executable, str(script))) as asks:
            face = FaceClient(agent.face_socket)
            with closing(face):
                face.client(asks.connection)
                spki = face.keys()["ec"]
                face.call("sign_digest", key=spki, scheme="ecdsa-sha256", digest=bytes(32))
    pin, yes, _ = shown.read_text().split("---\n")
    assert "wants to sign something it does not describe" in pin
    assert "two.py" in yes
    for text in (pin, yes):
        assert "ec (ECDSA P-256)" in text
        assert ("may use this key unasked" in text) is (said != 'confirm = "always"\n')


def test_the_question_is_taken_back_when_the_program_hangs_up(
    start: Start, furnished: SoftHsm, tmp_path: Path
) -> None:
    pid, askpass = tmp_path / "pid", tmp_path / "askpass"
    askpass.write_text(f"#!/bin/sh\necho $$ >{pid}.new\nmv {pid}.new {pid}\nexec sleep 1000\n")
    askpass.chmod(0o755)
    config = module_config(furnished, ENABLED + ONCE + '[prompt]\norder = ["askpass"]\n')
    agent = start(config, SSH_ASKPASS=str(askpass), DISPLAY=":nowhere")
    assert agent.unlock(PIN).returncode == 0
    talks = CONNECTS.replace("s.recv", "s.send(b'hello'); s.recv")
    with (
        program(tmp_path, (sys.executable, "-c", talks)) as asks,
        closing(FaceClient(agent.face_socket)) as face,
    ):
        face.client(asks.connection)
        spki = face.keys()["ec"]
        face.send("sign_digest", key=spki, scheme="ecdsa-sha256", digest=bytes(32))
        until(pid.exists)
        question = Path("/proc", pid.read_text().strip())
        assert question.exists()
        asks.end()
        until(lambda: not question.exists())
        assert face.socket.recv(1) == b"", "nobody is left to answer"
        assert asks.connection.recv(9) == b"hello", "what it says is none of the daemon's business"
