"""What one program sees and does, over its socket, with the daemon and a SoftHSM behind it."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsmagent.p11.calls import Call
from hsmagent.p11.mechanisms import MECHANISMS
from hsmagent.p11.rpc import CANCEL, Attribute, Mechanism, Room
from hsmagent.worker import spec
from tests.p11.conftest import Holder
from tests.parts.agent.pkcs11 import FaceProcess
from tests.parts.token.p11_rpc import RpcClient, Rv, u32

DATA = b"what is signed"
DIGESTS = {
    "sha256": (hashes.SHA256(), spec.CKM_SHA256, spec.CKG_MGF1_SHA256, 32),
    "sha384": (hashes.SHA384(), spec.CKM_SHA384, spec.CKG_MGF1_SHA384, 48),
    "sha512": (hashes.SHA512(), spec.CKM_SHA512, spec.CKG_MGF1_SHA512, 64),
}
DIGEST_INFO = {
    "sha256": "3031300d060960864801650304020105000420",
    "sha384": "3041300d060960864801650304020205000430",
    "sha512": "3051300d060960864801650304020305000440",
}


@pytest.fixture(params=[False, True], ids=["0.24.1", "0.25.6"])
def client(face: FaceProcess, request: pytest.FixtureRequest) -> Iterator[RpcClient]:
    """Connect as an older and as a newer p11-kit does."""
    made = RpcClient(face.socket, version=int(request.param), newer=request.param).initialize()
    yield made
    made.close()


def key_of(client: RpcClient, session: int, number: str, kind: int = spec.CKO_PRIVATE_KEY) -> int:
    template = Attribute(spec.CKA_CLASS, kind), Attribute(spec.CKA_ID, bytes.fromhex(number))
    (found,) = client.find(session, *template)
    return found


def digest(name: str, data: bytes = DATA) -> bytes:
    context = hashes.Hash(DIGESTS[name][0])
    context.update(data)
    return context.finalize()


def sign(client: RpcClient, number: str, mechanism: Mechanism, data: bytes = DATA) -> bytes:
    session = client.open()
    client.call(Call.C_SignInit, session, mechanism, key_of(client, session, number))
    (size,) = client.call(Call.C_Sign, session, data, 0)
    (signature,) = client.call(Call.C_Sign, session, data, size)
    client.call(Call.C_CloseSession, session)
    assert len(signature) == size
    return bytes(signature)


def refused(client: RpcClient, call: Call, *values: Any) -> int:
    with pytest.raises(Rv) as failed:
        client.call(call, *values)
    return failed.value.rv


# -- what there is ---------------------------------------------------------------------------


def test_a_token_that_wants_no_login(client: RpcClient) -> None:
    ((slot,),) = client.call(Call.C_GetSlotList, 1, 4)
    assert client.call(Call.C_GetSlotList, 0, 0) == (2,), "and an empty one"
    description, maker, flags, _, _ = client.call(Call.C_GetSlotInfo, slot)
    assert (len(description), maker.rstrip()) == (64, b"hsmagent")
    assert flags & spec.CKF_TOKEN_PRESENT
    info = client.call(Call.C_GetTokenInfo, slot)
    assert [len(text) for text in info[:4]] == [32, 32, 16, 16]
    assert info[0].rstrip() == b"work"
    assert not info[4] & spec.CKF_LOGIN_REQUIRED
    assert client.call(Call.C_GetMechanismList, slot, 64) == (MECHANISMS,)
    for mechanism in MECHANISMS:
        client.call(Call.C_GetMechanismInfo, slot, mechanism)
    assert refused(client, Call.C_GetMechanismInfo, slot, spec.CKM_RSA_X_509) == 0x70
    assert refused(client, Call.C_GetSlotInfo, 99) == spec.CKR_SLOT_ID_INVALID


def test_an_empty_slot_waits_for_the_next_token(client: RpcClient) -> None:
    ((_, empty),) = client.call(Call.C_GetSlotList, 0, 4)
    description, _, flags, _, _ = client.call(Call.C_GetSlotInfo, empty)
    assert description.rstrip() == b"hsmagent: empty"
    assert not flags & spec.CKF_TOKEN_PRESENT
    for call in ((Call.C_GetTokenInfo, empty), (Call.C_OpenSession, empty, 4)):
        assert refused(client, *call) == spec.CKR_TOKEN_NOT_PRESENT


def test_keys_and_certificates_with_what_programs_ask_for(
    client: RpcClient, holder: Holder
) -> None:
    session = client.open()
    rsa = client.values(
        session,
        key_of(client, session, "01"),
        *(spec.CKA_KEY_TYPE, spec.CKA_MODULUS, spec.CKA_SIGN, spec.CKA_DECRYPT),
        *(spec.CKA_ALWAYS_AUTHENTICATE, spec.CKA_EXTRACTABLE, spec.CKA_PRIVATE),
    )
    numbers = holder.people["rsa"].private.public_key().public_numbers()
    assert rsa == {
        spec.CKA_KEY_TYPE: spec.CKK_RSA,
        spec.CKA_MODULUS: numbers.n.to_bytes(256, "big"),
        spec.CKA_SIGN: 1,
        spec.CKA_DECRYPT: 1,
        spec.CKA_ALWAYS_AUTHENTICATE: 0,
        spec.CKA_EXTRACTABLE: 0,
        spec.CKA_PRIVATE: 0,
    }
    point = (
        holder.people["p256"]
        .private.public_key()
        .public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    )
    for kind in (spec.CKO_PRIVATE_KEY, spec.CKO_PUBLIC_KEY):
        curve = client.values(
            session, key_of(client, session, "02", kind), spec.CKA_EC_POINT, spec.CKA_EC_PARAMS
        )
        assert curve[spec.CKA_EC_POINT] == b"\x04\x41" + point
        assert curve[spec.CKA_EC_PARAMS].hex() == "06082a8648ce3d030107"
    certificate = key_of(client, session, "01", spec.CKO_CERTIFICATE)
    told = client.values(session, certificate, spec.CKA_VALUE, spec.CKA_LABEL)
    assert told == {spec.CKA_VALUE: holder.people["rsa"].der, spec.CKA_LABEL: b"rsa"}
    assert len(client.find(session, Attribute(spec.CKA_CLASS, spec.CKO_CERTIFICATE))) == 3
    assert client.find(session, Attribute(spec.CKA_CLASS, 0xCE534353)) == ()


def test_one_unknown_attribute_does_not_spoil_the_others(client: RpcClient) -> None:
    session = client.open()
    key = key_of(client, session, "01")
    wanted = tuple(
        Room(number, size)
        for number, size in (
            *((spec.CKA_LABEL, 64), (0x80000001, 64), (spec.CKA_PRIVATE_EXPONENT, 999)),
            *((spec.CKA_ID, 0), (spec.CKA_MODULUS, 3), (0x40000211, 48), (spec.CKA_CLASS, 8)),
        )
    )
    told, rv = client.call(Call.C_GetAttributeValue, session, key, wanted)
    assert [each.type for each in told] == [each.type for each in wanted]
    assert [each.value for each in told] == [b"rsa", None, None, b"\0", None, None, 3]
    assert rv != 0


def test_handles_are_those_of_other_programs_too(face: FaceProcess, client: RpcClient) -> None:
    other = RpcClient(face.socket).initialize()
    mine, theirs = client.open(), other.open()
    assert client.find(mine) == other.find(theirs)
    other.call(Call.C_CloseAllSessions, other.call(Call.C_GetSlotList, 1, 4)[0][0])
    assert refused(other, Call.C_GetSessionInfo, theirs) == spec.CKR_SESSION_HANDLE_INVALID
    assert client.call(Call.C_GetSessionInfo, mine)
    other.close()


def test_logins_are_taken_for_made(client: RpcClient) -> None:
    session = client.open()
    assert client.call(Call.C_GetSessionInfo, session)[1] == spec.CKS_RO_PUBLIC_SESSION
    assert client.call(Call.C_Login, session, 1, b"no PIN at all") == ()
    assert refused(client, Call.C_Login, session, 1, None) == spec.CKR_USER_ALREADY_LOGGED_IN
    assert client.call(Call.C_GetSessionInfo, session)[1] == spec.CKS_RO_USER_FUNCTIONS
    assert client.call(Call.C_Logout, session) == ()
    assert refused(client, Call.C_Login, session, 0, b"officer") == spec.CKR_USER_TYPE_INVALID


def test_unknown_calls_are_answered(client: RpcClient) -> None:
    for number in (*range(66), 69, 89, 200, 2**32 - 1):
        if number in set(Call):
            continue
        client.send_body(u32(number) + u32(0))
        _, body = client.next_reply()
        assert body.hex() == "0000000000000001750000000000000054", number


def test_nothing_is_written(client: RpcClient) -> None:
    session = client.open()
    key = key_of(client, session, "01")
    assert refused(client, Call.C_DestroyObject, session, key) == spec.CKR_ACTION_PROHIBITED
    assert key_of(client, session, "01") == key


def test_a_handshake_of_something_else_is_refused(face: FaceProcess) -> None:
    client = RpcClient(face.socket)
    assert refused(client, Call.C_Initialize, b"SOMETHING-ELSE", 0, b"\0") == 7
    client.close()


# -- signing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DIGESTS)
def test_rsa_signs_messages_and_digests(client: RpcClient, holder: Holder, name: str) -> None:
    public = holder.people["rsa"].private.public_key()
    kind, number, mgf, size = DIGESTS[name]
    step = {"sha256": 0, "sha384": 1, "sha512": 2}[name]
    info = bytes.fromhex(DIGEST_INFO[name]) + digest(name)
    for signature in (
        sign(client, "01", Mechanism(spec.CKM_SHA256_RSA_PKCS + step)),
        sign(client, "01", Mechanism(spec.CKM_RSA_PKCS), info),
    ):
        public.verify(signature, DATA, padding.PKCS1v15(), kind)
    pss = padding.PSS(padding.MGF1(kind), size)
    parameters = (number, mgf, size)
    for signature in (
        sign(client, "01", Mechanism(spec.CKM_SHA256_RSA_PKCS_PSS + step, parameters)),
        sign(client, "01", Mechanism(spec.CKM_RSA_PKCS_PSS, parameters), digest(name)),
    ):
        public.verify(signature, DATA, pss, kind)


@pytest.mark.parametrize("name", DIGESTS)
def test_ecdsa_signs_messages_and_digests(client: RpcClient, holder: Holder, name: str) -> None:
    public = holder.people["p256"].private.public_key()
    step = {"sha256": 0, "sha384": 1, "sha512": 2}[name]
    kind = DIGESTS[name][0]
    for signature in (
        sign(client, "02", Mechanism(spec.CKM_ECDSA_SHA256 + step)),
        sign(client, "02", Mechanism(spec.CKM_ECDSA), digest(name)),
    ):
        half = len(signature) // 2
        r, s = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
        public.verify(encode_dss_signature(r, s), digest(name), ec.ECDSA(Prehashed(kind)))


def test_a_message_in_parts(client: RpcClient, holder: Holder) -> None:
    session = client.open()
    mechanism = Mechanism(spec.CKM_SHA256_RSA_PKCS)
    client.call(Call.C_SignInit, session, mechanism, key_of(client, session, "01"))
    for part in (DATA[:3], DATA[3:9], DATA[9:]):
        client.call(Call.C_SignUpdate, session, part)
    assert refused(client, Call.C_Sign, session, b"other", 256) == spec.CKR_OPERATION_ACTIVE
    assert client.call(Call.C_SignFinal, session, 12) == (256,), "too little room: the size"
    (signature,) = client.call(Call.C_SignFinal, session, 256)
    holder.people["rsa"].private.public_key().verify(
        signature, DATA, padding.PKCS1v15(), hashes.SHA256()
    )
    assert refused(client, Call.C_SignFinal, session, 256) == spec.CKR_OPERATION_NOT_INITIALIZED


@pytest.mark.parametrize(
    ("number", "mechanism", "data", "rv"),
    [
        ("01", Mechanism(spec.CKM_RSA_X_509), bytes(256), spec.CKR_MECHANISM_INVALID),
        ("01", Mechanism(spec.CKM_RSA_PKCS), bytes(36), spec.CKR_DATA_INVALID),
        ("01", Mechanism(spec.CKM_RSA_PKCS), b"any text", spec.CKR_DATA_INVALID),
        (
            *("01", Mechanism(spec.CKM_RSA_PKCS)),
            bytes.fromhex("3021300906052b0e03021a05000414") + bytes(20),
            spec.CKR_DATA_INVALID,
        ),
        (
            *("01", Mechanism(spec.CKM_RSA_PKCS)),
            bytes.fromhex(DIGEST_INFO["sha256"]) + bytes(33),
            spec.CKR_DATA_INVALID,
        ),
        (
            *("01", Mechanism(spec.CKM_RSA_PKCS_PSS, (spec.CKM_SHA256, 2, 20)), bytes(32)),
            spec.CKR_MECHANISM_PARAM_INVALID,
        ),
        (
            *("01", Mechanism(spec.CKM_SHA384_RSA_PKCS_PSS, (spec.CKM_SHA256, 2, 32)), b"x"),
            spec.CKR_MECHANISM_PARAM_INVALID,
        ),
        (
            *("01", Mechanism(spec.CKM_RSA_PKCS_PSS, (spec.CKM_SHA256, 2, 32)), bytes(48)),
            spec.CKR_DATA_LEN_RANGE,
        ),
        ("02", Mechanism(spec.CKM_ECDSA), bytes(20), spec.CKR_DATA_LEN_RANGE),
        ("02", Mechanism(spec.CKM_RSA_PKCS), bytes(20), spec.CKR_KEY_TYPE_INCONSISTENT),
        ("02", Mechanism(0x1042), bytes(20), spec.CKR_MECHANISM_INVALID),
    ],
)
def test_what_is_not_signed(
    client: RpcClient, number: str, mechanism: Mechanism, data: bytes, rv: int
) -> None:
    with pytest.raises(Rv) as failed:
        sign(client, number, mechanism, data)
    assert failed.value.rv == rv


def test_an_operation_is_cancelled(client: RpcClient) -> None:
    session = client.open()
    key = key_of(client, session, "02")
    begin = Call.C_SignInit, session, Mechanism(spec.CKM_ECDSA), key
    client.call(*begin)
    assert refused(client, *begin) == spec.CKR_OPERATION_ACTIVE
    client.call(Call.C_SignInit, session, CANCEL, key)
    client.call(*begin)
    client.call(Call.C_SessionCancel, session, spec.CKF_MECHANISM_SIGN)
    rv = refused(client, Call.C_Sign, session, bytes(32), 64)
    assert rv == spec.CKR_OPERATION_NOT_INITIALIZED


def test_a_megabyte_is_not_gathered(client: RpcClient) -> None:
    session = client.open()
    mechanism = Mechanism(spec.CKM_SHA256_RSA_PKCS)
    client.call(Call.C_SignInit, session, mechanism, key_of(client, session, "01"))
    client.call(Call.C_SignUpdate, session, bytes(1 << 20))
    rv = refused(client, Call.C_SignUpdate, session, b"x")
    assert rv == spec.CKR_DATA_LEN_RANGE


# -- decrypting and deriving -----------------------------------------------------------------


def decrypt(client: RpcClient, mechanism: Mechanism, data: bytes, room: int = 256) -> Any:
    session = client.open()
    client.call(Call.C_DecryptInit, session, mechanism, key_of(client, session, "01"))
    (plain,) = client.call(Call.C_Decrypt, session, data, room)
    if isinstance(plain, int):
        (plain,) = client.call(Call.C_Decrypt, session, data, plain)
    return plain


@pytest.mark.parametrize("room", [0, 1, 5, 256])
def test_pkcs1_decrypts(client: RpcClient, holder: Holder, room: int) -> None:
    public = holder.people["rsa"].private.public_key()
    sent = public.encrypt(b"content key", padding.PKCS1v15())
    assert decrypt(client, Mechanism(spec.CKM_RSA_PKCS), sent, room) == b"content key"


@pytest.mark.parametrize("label", [b"", b"label"])
@pytest.mark.parametrize(
    "hashed", [(0x220, 1, hashes.SHA1()), (0x250, 2, hashes.SHA256())], ids=["sha1", "sha256"]
)
def test_oaep_decrypts(
    client: RpcClient, holder: Holder, label: bytes, hashed: tuple[int, int, Any]
) -> None:
    number, mgf, kind = hashed
    public = holder.people["rsa"].private.public_key()
    sent = public.encrypt(b"content key", padding.OAEP(padding.MGF1(kind), kind, label or None))
    mechanism = Mechanism(spec.CKM_RSA_PKCS_OAEP, (number, mgf, 1, label))
    assert decrypt(client, mechanism, sent) == b"content key"


def test_a_wrong_padding_gives_the_same_bytes_each_time(client: RpcClient) -> None:
    first, again, other = (
        decrypt(client, Mechanism(spec.CKM_RSA_PKCS), bytes(255) + last)
        for last in (b"\2", b"\2", b"\3")
    )
    assert first == again != other


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_secret_is_derived_and_ends_with_its_session(
    client: RpcClient, holder: Holder, wrapped: bool
) -> None:
    theirs = ec.generate_private_key(ec.SECP256R1())
    point = theirs.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    sent = b"\x04\x41" + point if wrapped else point
    mechanism = Mechanism(spec.CKM_ECDH1_DERIVE, (spec.CKD_SHA256_KDF, b"info", sent))
    template = (
        Attribute(spec.CKA_CLASS, spec.CKO_SECRET_KEY),
        Attribute(spec.CKA_VALUE_LEN, 32),
        Attribute(spec.CKA_TOKEN, 0),
    )
    session, other = client.open(), client.open()
    key = key_of(client, session, "02")
    (secret,) = client.call(Call.C_DeriveKey, session, mechanism, key, template)
    shared = theirs.exchange(ec.ECDH(), holder.people["p256"].private.public_key())
    wanted = X963KDF(hashes.SHA256(), 32, b"info").derive(shared)
    told = client.values(other, secret, spec.CKA_VALUE, spec.CKA_SENSITIVE)
    assert told == {spec.CKA_VALUE: wanted, spec.CKA_SENSITIVE: 0}
    client.call(Call.C_CloseSession, session)
    room = (Room(spec.CKA_VALUE, 32),)
    rv = refused(client, Call.C_GetAttributeValue, other, secret, room)
    assert rv == spec.CKR_OBJECT_HANDLE_INVALID


def test_a_raw_secret_never_leaves(client: RpcClient) -> None:
    session = client.open()
    mechanism = Mechanism(spec.CKM_ECDH1_DERIVE, (1, b"", b"\4" + bytes(64)))
    values = session, mechanism, key_of(client, session, "02"), (Attribute(spec.CKA_VALUE_LEN, 32),)
    assert refused(client, Call.C_DeriveKey, *values) == spec.CKR_MECHANISM_PARAM_INVALID


# -- threads ---------------------------------------------------------------------------------


def test_threads_of_one_program_are_answered_by_their_codes(client: RpcClient) -> None:
    sessions = [client.open() for _ in range(40)]  # more than wait at once
    for session in sessions:
        mechanism = Mechanism(spec.CKM_SHA256_RSA_PKCS)
        client.call(Call.C_SignInit, session, mechanism, key_of(client, session, "01"))
    uses = {client.send(Call.C_Sign, session, DATA, 256) for session in sessions}
    look = client.send(Call.C_GetInfo)
    assert {client.next_reply()[0] for _ in range(41)} == uses | {look}


def test_a_hundred_programs_at_once(face: FaceProcess, holder: Holder) -> None:
    public = holder.people["rsa"].private.public_key()
    failures: list[BaseException] = []

    def use() -> None:
        try:
            client = RpcClient(face.socket).initialize()
            signature = sign(client, "01", Mechanism(spec.CKM_SHA256_RSA_PKCS))
            public.verify(signature, DATA, padding.PKCS1v15(), hashes.SHA256())
            client.close()
        except BaseException as failure:  # noqa: BLE001 - told by the thread that asserts
            failures.append(failure)

    threads = [threading.Thread(target=use) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
