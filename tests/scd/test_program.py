"""The program hsmagent-scd, as GnuPG's agent speaks to it: commands, and what is none."""

import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hsmagent.mail import keygrip
from hsmagent.scd.card import SERIAL
from hsmagent.scd.errors import Code
from tests.daemon.conftest import Start, module_config
from tests.parts.agent.daemon import AgentProcess
from tests.parts.agent.scd import AssuanClient, Reply, Scd, scd, sockets_of
from tests.parts.desktop.desk import Desk
from tests.parts.mail.gnupg import version
from tests.parts.mail.people import root
from tests.parts.token.softhsm import PIN, SoftHsm
from tests.parts.until import until
from tests.scd.conftest import KINDS, allowing, owner, token_of

SHA256 = bytes.fromhex("3031300d060960864801650304020105000420")
SHA384 = bytes.fromhex("3041300d060960864801650304020205000430")
DIGEST = hashlib.sha256(b"a message").digest()
INFO = (SHA256 + DIGEST).hex().upper()
GRIPS = {kind: keygrip.of(owner(kind).key) for kind in KINDS}
# What a client is to be unable to start by accident.
NO_REAL = "/nonexistent/scdaemon"


@pytest.fixture(scope="module")
def program(agent: AgentProcess) -> Iterator[Scd]:
    with scd(agent.environment, "--scdaemon", NO_REAL) as running:
        yield running


@pytest.fixture
def client(program: Scd) -> AssuanClient:
    program.client.call("RESTART")
    return program.client


def ref(kind: str) -> str:
    return f"HSMAGENT.{GRIPS[kind]}"


# -- looking ---------------------------------------------------------------------------------


def test_the_card_is_learned(client: AssuanClient) -> None:
    learned = client.call("LEARN --force")
    assert learned.error == 0
    lines = [line.split() for line in learned.status]
    assert lines[:2] == [["SERIALNO", SERIAL], ["APPTYPE", "hsmagent"]]
    assert len(SERIAL) % 2 == 0
    pairs = {line[1]: line[2:] for line in lines if line[0] == "KEYPAIRINFO"}
    assert pairs == {GRIPS[kind]: [ref(kind), "sce"] for kind in KINDS}
    kinds = {line[2]: line[1] for line in lines if line[0] == "CERTINFO"}
    certificates = {client.call(f"READCERT {name}").data: kind for name, kind in kinds.items()}
    assert certificates == {root().der: "111", **{owner(kind).der: "100" for kind in KINDS}}
    assert client.longest <= 1000


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_is_read_by_either_name(client: AssuanClient, kind: str) -> None:
    found = client.call(f"READKEY -- {GRIPS[kind]}").data
    assert client.call(f"READKEY {ref(kind)}").data == found
    public = owner(kind).private.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        n = public.public_numbers().n
        assert found == b"(10:public-key(3:rsa(1:n257:%b)(1:e3:\1\0\1)))" % n.to_bytes(257, "big")
    else:
        point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        name = {"p256": b"NIST P-256", "p384": b"NIST P-384"}[kind]
        q = b"(1:q%d:%b)" % (len(point), point)
        assert found == b"(10:public-key(3:ecc(5:curve10:%b)%b))" % (name, q)
    info = client.call(f"READKEY --info {GRIPS[kind]}")
    assert (info.status, info.data) == ([f"KEYPAIRINFO {GRIPS[kind]} {ref(kind)} sce"], found)
    assert client.call(f"READCERT {ref(kind)}").data == owner(kind).der


def test_what_is_told_of_keys(client: AssuanClient) -> None:
    line = f"KEYINFO {GRIPS['rsa']} T {SERIAL} {ref('rsa')} sce"
    assert client.call(f"KEYINFO {GRIPS['rsa']}").status == [line]
    assert client.call(f"KEYINFO --data {GRIPS['rsa']}").data.decode() == line[8:] + "\n"
    assert len(client.call("KEYINFO --list").status) == 3
    assert client.call("KEYINFO --list=auth").status == []
    assert len(client.call("KEYINFO --list=encr").status) == 3


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("SERIALNO", f"SERIALNO {SERIAL}"),
        ("SERIALNO --all", f"SERIALNO {SERIAL}"),
        (f"SERIALNO --demand={SERIAL}", f"SERIALNO {SERIAL}"),
        (f"SWITCHCARD {SERIAL}", f"SERIALNO {SERIAL}"),
        ("GETATTR SERIALNO", f"SERIALNO {SERIAL}"),
        ("GETATTR $DISPSERIALNO", "$DISPSERIALNO hsmagent"),
        ("GETATTR $DISPSERIALNO GRIP", "$DISPSERIALNO hsmagent"),
        ("GETINFO card_list", f"SERIALNO {SERIAL}"),
    ],
)
def test_the_card_has_one_number(client: AssuanClient, line: str, status: str) -> None:
    assert client.call(line.replace("GRIP", GRIPS["rsa"])).status == [status]


@pytest.mark.parametrize(
    "line", ["NOP", "LOCK", "UNLOCK --force", "CHECKPIN x", "RESET", "OPTION event-signal=12"]
)
def test_what_there_is_nothing_to_do_for(client: AssuanClient, line: str) -> None:
    assert client.call(line) == Reply()


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("HELLO", Code.ASS_UNKNOWN_CMD),
        ("D 1234", Code.ASS_UNKNOWN_CMD),
        (b"\xff\xfe", Code.ASS_UNKNOWN_CMD),
        ("GETINFO nothing", Code.ASS_PARAMETER),
        ("GETINFO", Code.ASS_PARAMETER),
        ("GETATTR KEY-ATTR", Code.NOT_SUPPORTED),
        ("GETATTR $AUTHKEYID", Code.NOT_SUPPORTED),
        ("READKEY $SIGNKEYID", Code.NOT_FOUND),
        ("READKEY", Code.NOT_FOUND),
        ("READCERT", Code.NOT_FOUND),
        ("KEYINFO", Code.NOT_FOUND),
        ("GENKEY 1", Code.NOT_SUPPORTED),
        ("WRITEKEY x", Code.NOT_SUPPORTED),
        ("WRITECERT x", Code.NOT_SUPPORTED),
        ("SETATTR x", Code.NOT_SUPPORTED),
        ("PASSWD 1", Code.NOT_SUPPORTED),
        ("APDU 00A40400", Code.NOT_SUPPORTED),
        (b"PKSIGN HSMAGENT.GRIP", Code.NO_DATA),
        (b"PKDECRYPT HSMAGENT.GRIP", Code.NO_DATA),
        ("PKSIGN", Code.CARD_NOT_PRESENT),
        (f"PKSIGN HSMAGENT.{'0' * 40}", Code.CARD_NOT_PRESENT),
        ("SETDATA", Code.INV_VALUE),
        ("SETDATA 0G", Code.INV_VALUE),
        ("SETDATA é", Code.INV_VALUE),
        # no real scdaemon
        ("SERIALNO openpgp", Code.ENODEV),
        ("SERIALNO --demand=D2760001240103040006", Code.ENODEV),
        ("READKEY OPENPGP.1", Code.ENODEV),
        (f"PKSIGN {'0' * 40}", Code.ENODEV),
    ],
)
def test_what_is_refused(client: AssuanClient, line: bytes | str, code: Code) -> None:
    sent = line.encode() if isinstance(line, str) else line
    assert client.call(sent.replace(b"GRIP", GRIPS["rsa"].encode())).error == code
    assert client.call("NOP") == Reply()


# -- signing ---------------------------------------------------------------------------------


def check(kind: str, signature: bytes) -> None:
    public = owner(kind).private.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        public.verify(signature, DIGEST, padding.PKCS1v15(), Prehashed(hashes.SHA256()))
        return
    half = len(signature) // 2
    r, s = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
    public.verify(encode_dss_signature(r, s), DIGEST, ec.ECDSA(Prehashed(hashes.SHA256())))


@pytest.mark.parametrize("kind", KINDS)
def test_a_digest_is_signed(client: AssuanClient, kind: str) -> None:
    for name in (ref(kind), GRIPS[kind], GRIPS[kind].lower()):
        assert client.call(f"SETDATA {INFO}").error == 0
        signed = client.call(f"PKSIGN --hash=sha256 {name}")
        assert signed.error == 0, signed.text
        check(kind, signed.data)
    client.call(f"SETDATA {INFO[:20]}")
    client.call(f"SETDATA --append {INFO[20:]}")
    check(kind, client.call(f"PKSIGN --hash=sha256 {ref(kind)}").data)
    assert client.call(f"PKSIGN --hash=sha256 {ref(kind)}").error == Code.NO_DATA, "it serves once"


def test_an_rsa_signature_is_as_long_as_the_modulus(client: AssuanClient) -> None:
    """Whether it begins with a zero or with a bit that a signed number would have for its sign."""
    private, made = owner("rsa").private, dict[bytes, bytes]()
    while not any(signature[0] == 0 for signature in made):
        digest = hashlib.sha256(bytes(len(made))).digest()
        made[private.sign(digest, padding.PKCS1v15(), Prehashed(hashes.SHA256()))] = digest
    for signature in (min(made), max(made)):
        client.call(f"SETDATA {(SHA256 + made[signature]).hex()}")
        assert client.call(f"PKSIGN --hash=sha256 {ref('rsa')}").data == signature


def test_halves_of_a_signature_are_written_as_they_are(start: Start, tmp_path: Path) -> None:
    """By GnuPG's agent, as DER; a zero in front that is not needed makes that invalid."""
    agent = start(module_config(token_of(tmp_path, {"p521": "01"}), allowing("gnupg")))
    assert agent.unlock(PIN).returncode == 0
    info = bytes.fromhex("3051300d060960864801650304020305000440") + bytes(64)
    with scd(agent.environment, "--scdaemon", NO_REAL) as running:
        for _ in range(16):
            running.client.call(f"SETDATA {info.hex()}")
            signed = running.client.call(
                f"PKSIGN --hash=sha512 {keygrip.of(owner('p521').key)}"
            ).data
            for half in (signed[:66], signed[66:]):
                assert half[0] or half[1] & 0x80


@pytest.mark.parametrize(
    ("info", "named", "code"),
    [
        (SHA256 + DIGEST, "sha384", Code.INV_VALUE),
        (SHA384 + DIGEST + bytes(16), "sha256", Code.INV_VALUE),
        (SHA256 + DIGEST[1:], "sha256", Code.INV_VALUE),
        (SHA256 + DIGEST + b"\0", "sha256", Code.INV_VALUE),
        (DIGEST, "sha256", Code.INV_VALUE),
        (b"\0\1" + b"\xff" * 202 + b"\0" + SHA256 + DIGEST, "sha256", Code.INV_VALUE),
        (SHA256 + DIGEST, "sha1", Code.DIGEST_ALGO),
        (SHA256 + DIGEST, "md5", Code.DIGEST_ALGO),
        (bytes.fromhex("3021300906052b0e03021a05000414") + bytes(20), "sha1", Code.DIGEST_ALGO),
        (bytes(36), "tls-md5sha1", Code.DIGEST_ALGO),
        (bytes(36), "", Code.DIGEST_ALGO),
        (bytes.fromhex("3021300906052b0e03021a05000414") + bytes(20), "", Code.DIGEST_ALGO),
    ],
)
@pytest.mark.parametrize("kind", ["rsa", "p256"])
def test_prefix_name_and_length_must_agree(
    client: AssuanClient, kind: str, info: bytes, named: str, code: Code
) -> None:
    client.call(f"SETDATA {info.hex()}")
    option = f"--hash={named} " if named else ""
    assert client.call(f"PKSIGN {option}{ref(kind)}").error == code


def test_what_is_to_be_used_is_bounded(client: AssuanClient) -> None:
    piece = "00" * 400
    for count in range(10):
        assert client.call(f"SETDATA {'--append ' if count else ''}{piece}").error == 0
    assert client.call(f"SETDATA --append {piece}").error == Code.INV_VALUE


def test_a_key_authenticates_only_where_allow_names_ssh(
    client: AssuanClient, start: Start, people_token: SoftHsm
) -> None:
    client.call(f"SETDATA {INFO}")
    assert client.call(f"PKAUTH {ref('rsa')}").error == Code.FORBIDDEN
    agent = start(module_config(people_token, allowing("gnupg", "ssh")))
    assert agent.unlock(PIN).returncode == 0
    with scd(agent.environment, "--scdaemon", NO_REAL) as other:
        pairs = other.client.call("LEARN").status
        assert f"KEYPAIRINFO {GRIPS['rsa']} {ref('rsa')} scae" in pairs
        assert len(other.client.call("KEYINFO --list=auth").status) == 3
        [name] = other.client.call("GETATTR $AUTHKEYID").status
        other.client.call(f"SETDATA {INFO}")
        kind = next(kind for kind in KINDS if ref(kind) == name.split()[1])
        check(kind, other.client.call(f"PKAUTH {ref(kind)}").data)


# -- decrypting ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [16, 19, 24, 32, 35])
@pytest.mark.parametrize("front", ["", "00"])
def test_an_rsa_message_comes_out(client: AssuanClient, size: int, front: str) -> None:
    key = os.urandom(size)
    encrypted = owner("rsa").private.public_key().encrypt(key, padding.PKCS1v15())
    client.call(f"SETDATA {front}{encrypted.hex()}")
    found = client.call(f"PKDECRYPT {ref('rsa')}")
    assert (found.status, found.data) == (["PADDING 0"], key)


def test_a_wrong_ciphertext_gives_the_same_bytes_each_time(client: AssuanClient) -> None:
    wrong = (bytes(1) + os.urandom(255)).hex()
    answers = []
    for _ in range(2):
        client.call(f"SETDATA {wrong}")
        answers.append(client.call(f"PKDECRYPT {ref('rsa')}"))
    assert answers[0] == answers[1]
    assert answers[0].error == 0


@pytest.mark.parametrize("kind", ["p256", "p384"])
def test_the_shared_x_comes_out(client: AssuanClient, kind: str) -> None:
    public = owner(kind).private.public_key()
    ours = ec.generate_private_key(public.curve)
    point = ours.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    client.call(f"SETDATA {point.hex()}")
    found = client.call(f"PKDECRYPT {GRIPS[kind]}")
    assert found.data == ours.exchange(ec.ECDH(), public)
    for wrong in (point[:-1] + bytes((point[-1] ^ 1,)), point[1:], b"\4" + bytes(64)):
        client.call(f"SETDATA {wrong.hex()}")
        refused = client.call(f"PKDECRYPT {GRIPS[kind]}")
        assert (refused.error != 0, refused.data) == (True, b"")


# -- conversations ---------------------------------------------------------------------------


def test_each_conversation_has_its_own_data(program: Scd, client: AssuanClient) -> None:
    others = [program.more() for _ in range(3)]
    client.call(f"SETDATA {INFO}")
    for other in others:
        assert other.call(f"PKSIGN --hash=sha256 {ref('rsa')}").error == Code.NO_DATA
    check("rsa", client.call(f"PKSIGN --hash=sha256 {ref('rsa')}").data)
    assert others[0].call("BYE") == Reply()
    with pytest.raises(EOFError):
        others[0].call("NOP")
    assert others[1].call("RESTART") == Reply()


def test_the_socket_is_for_its_user_alone_and_goes_with_the_program(agent: AgentProcess) -> None:
    before = set(sockets_of(agent.runtime))
    with scd(agent.environment) as running:
        [path] = set(sockets_of(agent.runtime)) - before
        assert path.stat().st_mode & 0o777 == 0o600
        other = running.more()
        assert running.client.call("KILLSCD") == Reply()
        assert running.process.wait(30) == 0
        with pytest.raises(EOFError):
            other.call("NOP")
    assert set(sockets_of(agent.runtime)) == before
    with scd(agent.environment) as running:
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(30) == 0
    assert set(sockets_of(agent.runtime)) == before


def test_it_is_as_new_as_gnupg_itself(client: AssuanClient) -> None:
    assert client.call("GETINFO version").data.decode() == ".".join(map(str, version()))


def test_too_long_a_line_ends_that_conversation_alone(program: Scd, client: AssuanClient) -> None:
    other = program.more()
    other.send(b"NOP " + b"x" * 5000)
    with pytest.raises((EOFError, ConnectionError)):
        other.call("NOP")
    assert client.call("NOP") == Reply()


_WORDS = st.sampled_from(
    [
        *("SERIALNO", "LEARN", "READCERT", "READKEY", "KEYINFO", "SETDATA", "PKSIGN", "PKDECRYPT"),
        *("PKAUTH", "GETATTR", "GETINFO", "OPTION", "RESET", "INQUIRE", "END", "CAN", "OK", "ERR"),
        *("--force", "--append", "--hash=sha256", "--", "--list", GRIPS["rsa"], ref("p256"), INFO),
        *("HSMAGENT.", "HSMAGENT-CERT.0", "%00", "%", "$AUTHKEYID", "00", "é"),
    ]
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(_WORDS, max_size=5).map(" ".join).map(str.encode)
    | st.binary(max_size=900).filter(lambda line: b"\n" not in line)
)
def test_hostile_lines(client: AssuanClient, line: bytes) -> None:
    if line.strip() == b"" or line[:1] == b"#" or line[:3].upper() == b"BYE":
        return
    reply = client.call(line)
    assert "Traceback" not in reply.text
    assert client.call("NOP") == Reply()


def test_a_question_goes_with_its_client(
    start: Start, people_token: SoftHsm, tmp_path: Path
) -> None:
    desk = Desk(tmp_path / "desk")
    order = '[prompt]\norder = ["askpass"]\n'
    config = order + allowing("gnupg") + module_config(people_token)
    agent = start(config, **desk.environment)
    with scd(agent.environment) as running:
        for client in (running.more(), running.client):
            client.call(f"SETDATA {INFO}")
            client.send(f"PKSIGN --hash=sha256 {ref('rsa')}")
            until(lambda: desk.askers)
            client.close()
            until(lambda: not desk.askers)
        assert running.process.wait(30) == 0
