"""FIDO keys: read, described, signed with, held to their origin; certificates of them."""

from contextlib import nullcontext
from dataclasses import replace

import pytest

from hsmagent.errors import HsmAgentError, ProtocolError, Refused, TokenError
from hsmagent.model import KeyType
from hsmagent.ssh import (
    certificates,
    fido,
    keys,
    messages,
    signature,
    signed_data,
    sk_helper,
    wire,
)
from hsmagent.ssh.fido import FidoSigner
from hsmagent.ssh.options import AgentOptions
from hsmagent.ssh.wire import Reader
from tests.parts.agent.authenticator import ECDSA, ED25519, TYPES, FidoKey, new_key
from tests.parts.agent.reply import reply_of
from tests.parts.agent.ssh_agent import PEER, Parts
from tests.ssh import builders

CA = builders.ed25519_key()
KEYS = [new_key(kind) for kind in TYPES]
SITE = new_key(application="https://example.org")
SSHSIG = b"SSHSIG" + b"".join(map(wire.string, (b"file", b"", b"sha256", bytes(32))))


def added(key: FidoKey) -> fido.Added:
    return fido.read(Reader(key.private_fields + wire.text("me@home")))


def certificate(key: FidoKey) -> bytes:
    """Return a user certificate's blob for a FIDO key."""
    reader = Reader(key.blob)
    body = (
        wire.text(keys.certificate_type(reader.text()))
        + wire.string(b"nonce")
        + reader.rest()
        + bytes(8)
        + wire.u32(1)
        + wire.text("id")
        + wire.string(wire.text("alice"))
        + bytes(8)
        + b"\xff" * 8
        + b"".join(map(wire.string, (b"", b"", b"", builders.blob_of(CA))))
    )
    return body + wire.string(builders.sign(CA, body))


def certified(key: FidoKey, application: str | None = None) -> bytes:
    """Return a FIDO key and its certificate as message 17 has them."""
    blob = certificate(key)
    named = key.application if application is None else application
    public = Reader(key.blob)
    public.text()
    # What ssh-add does for one kind and not for the other.
    repeated = wire.string(public.string()) if key.kind == ED25519 else b""
    fields = wire.string(blob) + repeated + wire.text(named) + key.sk_fields
    return wire.text(keys.type_name(blob)) + fields + wire.text("me@home")


def signer(key: FidoKey, reply: bytes) -> FidoSigner:
    async def helper(request: bytearray) -> bytes:
        return reply

    found = added(key)
    return FidoSigner(found.private, found.comment, "internal", helper)


def answer(blob: bytes) -> bytes:
    return b"\5" + wire.u32(1) + wire.string(blob)


@pytest.mark.parametrize("key", KEYS, ids=TYPES)
def test_a_key_is_read_and_described(key: FidoKey) -> None:
    found = added(key)
    assert (found.blob, found.comment) == (key.blob, "me@home")
    assert found.private.encode() == key.private_fields
    shown = found.private.describe(found.comment)
    kinds = {ED25519: KeyType.ED25519_SK, ECDSA: KeyType.EC_SK}
    assert shown.key_type is kinds[key.kind]
    assert (shown.label, shown.application, shown.touch) == ("me@home", "ssh:", True)
    assert keys.blob_for(shown) == key.blob
    untouched = added(replace(key, flags=0)).private.describe("")
    assert not untouched.touch


@pytest.mark.parametrize("key", KEYS, ids=TYPES)
def test_a_certificate_is_read(key: FidoKey) -> None:
    found = fido.read(Reader(certified(key)))
    assert found.blob == certificate(key)
    assert found.private.encode() == key.private_fields, "the helper is given the plain key"
    assert certificates.plain(found.blob) == key.blob
    with pytest.raises(ProtocolError):
        fido.read(Reader(certified(key, "ssh:other")))


def test_a_certificate_of_another_kind_of_key_is_refused() -> None:
    [one, other] = KEYS
    body = wire.text(keys.certificate_type(one.kind)) + wire.string(certificate(other))
    with pytest.raises(ProtocolError):
        fido.read(Reader(body + wire.text("ssh:") + one.sk_fields + wire.text("")))


@pytest.mark.parametrize("key", KEYS, ids=TYPES)
def test_a_key_cut_short_is_refused(key: FidoKey) -> None:
    for body in (key.private_fields + wire.text("x"), certified(key)):
        for length in range(len(body)):
            with pytest.raises(HsmAgentError):
                fido.read(Reader(body[:length]))


def test_nobody_fills_our_memory_with_handles() -> None:
    added(replace(KEYS[0], handle=bytes(4096)))
    with pytest.raises(ProtocolError):
        added(replace(KEYS[0], handle=bytes(4097)))


@pytest.mark.parametrize("name", [ED25519, ECDSA, "ssh-ed25519", "ecdsa-sha2-nistp256"])
def test_types_of_certificates(name: str) -> None:
    certificate_type = keys.certificate_type(name)
    assert certificate_type.endswith("-cert-v01@openssh.com")
    assert certificate_type.count("@") == 1
    assert keys.plain_type(certificate_type) == name == keys.plain_type(name)
    assert fido.is_fido(certificate_type) is fido.is_fido(name) is name.startswith("sk-")


@pytest.mark.parametrize("key", KEYS, ids=TYPES)
def test_a_signature_holds_with_its_flags_and_counter(key: FidoKey) -> None:
    public, blob = keys.decode(key.blob), key.sign(b"data", 0x05, 0x01020304)
    assert blob[-5:] == b"\5\1\2\3\4"
    assert signature.verifies(public, blob, b"data")
    assert not signature.verifies(public, blob, b"date")
    assert not signature.verifies(public, blob[:-5] + b"\1" + blob[-4:], b"data")
    assert not signature.verifies(public, blob[:-1] + b"\5", b"data")
    other = keys.decode(replace(key, application="ssh:other").blob)
    assert not signature.verifies(other, blob, b"data")
    with pytest.raises(ProtocolError):
        signature.verifies(public, blob + b"\0", b"data")
    plain = signature.encode("ssh-ed25519", bytes(64))
    with pytest.raises(ProtocolError):
        signature.verifies(public, plain, b"data")


def test_a_signature_of_the_other_type_does_not_hold() -> None:
    [one, other] = KEYS
    assert not signature.verifies(keys.decode(one.blob), other.sign(b"data", 1), b"data")


async def test_a_reply_is_checked_before_it_leaves() -> None:
    key, other = new_key(), new_key()
    good = key.sign(b"data", 1)
    assert await signer(key, answer(good)).sign(b"data", 0) == good
    with pytest.raises(TokenError, match="not its own"):
        await signer(key, answer(other.sign(b"data", 1))).sign(b"data", 0)
    for length in range(len(answer(good))):
        with pytest.raises(TokenError):
            await signer(key, answer(good)[:length]).sign(b"data", 0)


async def test_pin_and_request_are_wiped() -> None:
    seen: list[bytearray] = []

    async def helper(request: bytearray) -> bytes:
        assert b"123456" in request
        seen.append(request)
        raise TokenError("no")

    pin = bytearray(b"123456")
    found = added(new_key())
    with pytest.raises(TokenError, match="no"):
        await FidoSigner(found.private, "", "internal", helper).sign(b"data", 0, pin)
    assert not any(pin)
    assert not any(seen[0])


def test_a_request_as_openssh_reads_it() -> None:
    request = sk_helper.Sign(b"KEY", "/usr/lib/p.so", b"DATA").encode(bytearray(b"PIN"))
    assert request == (
        b"\5"  # version
        b"\0\0\0\1"  # sign
        b"\1\0\0\0\2"  # log errors to stderr
        b"\0\0\0\3KEY"
        b"\0\0\0\x0d/usr/lib/p.so"
        b"\0\0\0\4DATA"
        b"\0\0\0\0"  # algorithm
        b"\0\0\0\0"  # compat
        b"\0\0\0\3PIN"
    )


LOGIN = builders.userauth(b"session", SITE.blob, algorithm=ED25519)


@pytest.mark.parametrize(
    ("data", "allowed"),
    [
        (LOGIN, True),
        (builders.userauth(b"session", KEYS[0].blob, algorithm=ED25519), False),
        (builders.userauth(b"session", SITE.blob), False),
        (LOGIN + b"\0", False),
        (SSHSIG, True),
        (SSHSIG + b"\0", False),
        (SSHSIG[:-1], False),
        (b"", False),
        (b'{"type":"webauthn.get","challenge":"..."}', False),
    ],
)
def test_a_key_of_a_web_site_signs_nothing_that_a_site_could_want(
    data: bytes, *, allowed: bool
) -> None:
    key, login = added(SITE).private.describe("web"), signed_data.read_userauth(data)
    refusal = pytest.raises(Refused, match=r"https://example\.org")
    with nullcontext() if allowed else refusal:
        fido.check_origin(key, SITE.blob, data, login, fido.WEBSAFE)
    fido.check_origin(key, SITE.blob, data, login, ("*",))
    fido.check_origin(key, SITE.blob, data, login, ("ssh:*", "https://*.org"))
    ours = added(KEYS[0]).private.describe("")
    fido.check_origin(ours, KEYS[0].blob, data, login, fido.WEBSAFE)


def test_a_web_sites_key_logs_in_under_its_certificate() -> None:
    blob = certificate(SITE)
    data = builders.userauth(b"session", blob, algorithm=keys.certificate_type(ED25519))
    key, login = added(SITE).private.describe("web"), signed_data.read_userauth(data)
    fido.check_origin(key, blob, data, login, fido.WEBSAFE)
    with pytest.raises(Refused):
        fido.check_origin(key, SITE.blob, data, login, fido.WEBSAFE)


# -- in the agent ----------------------------------------------------------------------------


class Holder:
    """An agent with one FIDO key's helper behind it."""

    def __init__(self, key: FidoKey, options: AgentOptions | None = None) -> None:
        self.key = key
        self.parts = Parts(options=options, sk_helper=self.helper)
        self.connection = self.parts.agent.connection(lambda: PEER)

    async def helper(self, request: bytearray) -> bytes:
        reader = Reader(request, start=1 + 4 + 1 + 4)
        reader.string(), reader.string()
        return answer(self.key.sign(reader.string(), 1))

    async def add(self, provider: str | None = None, fields: bytes = b"") -> bool:
        body = b"\x19" + (fields or self.key.private_fields) + wire.text("me@home")
        if provider is not None:
            body += builders.constraint("sk-provider@openssh.com", wire.text(provider))
        return await reply_of(self.connection, body) == messages.SUCCESS

    async def signs(self, data: bytes) -> bool:
        request = builders.sign_request(self.key.blob, data)
        reply = messages.decode(await reply_of(self.connection, request))
        if not isinstance(reply, messages.SignResponse):
            return False
        return signature.verifies(keys.decode(self.key.blob), reply.signature, data)


@pytest.mark.parametrize("key", KEYS, ids=TYPES)
async def test_an_added_key_signs_anything_for_ssh(key: FidoKey) -> None:
    holder = Holder(key)
    assert await holder.add()
    assert await holder.signs(b"data")
    [request] = holder.parts.door.requests
    assert (request.key.application, request.key.touch) == ("ssh:", True)


async def test_the_agent_holds_a_web_sites_key_to_ssh() -> None:
    holder = Holder(SITE)
    assert await holder.add("internal")
    assert not await holder.signs(b"data")
    assert holder.parts.door.requests == [], "nobody is asked"
    assert await holder.signs(SSHSIG)
    assert await holder.signs(LOGIN)
    loose = Holder(SITE, AgentOptions(websafe=("https://*",)))
    assert await loose.add()
    assert await loose.signs(b"data")


async def test_no_provider_comes_over_a_forwarded_agent() -> None:
    bind = builders.bind_request(builders.binding(CA, b"session", forwarding=True))
    library = "/usr/lib/openssh/regress/misc/sk-dummy/sk-dummy.so"
    for options, taken in ((AgentOptions(), False), (AgentOptions(allow_remote_pkcs11=True), True)):
        holder = Holder(KEYS[0], options)
        assert await holder.add(library)
        assert await reply_of(holder.connection, bind) == messages.SUCCESS
        assert await holder.add(library) is taken
        assert await holder.add("INTERNAL")


async def test_a_provider_is_for_fido_keys_and_of_the_allow_list() -> None:
    holder = Holder(KEYS[0])
    assert not await holder.add("internal", builders.private_fields(CA))
    assert not await holder.add("/etc/passwd")
    assert not await holder.add("/usr/lib/nothing.so")
    assert holder.parts.agent.identities.listed() == []
