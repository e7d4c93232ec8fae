"""`key test`: tries each thing that a key can do, and checks the result by its public half."""

import secrets
from collections.abc import AsyncIterator, Awaitable

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from hsmagent.errors import TokenError
from hsmagent.manage import pins
from hsmagent.manage.place import Place, Token, objects_now
from hsmagent.manage.worker import Worker
from hsmagent.model import Key, KeyType, Scheme, printable
from hsmagent.token.check import Checker
from hsmagent.token.schemes import prepare
from hsmagent.worker import spec
from hsmagent.worker.messages import Action, Done, KeyUse, Operate

_SCHEMES = {
    KeyType.RSA: (Scheme.RSA_PKCS1_SHA256, Scheme.RSA_PKCS1_SHA512, Scheme.RSA_PSS_SHA256),
    KeyType.EC: (Scheme.ECDSA_SHA256, Scheme.ECDSA_SHA384),
    KeyType.ED25519: (Scheme.ED25519,),
}
_KEY_TYPES = {
    KeyType.RSA: spec.CKK_RSA,
    KeyType.EC: spec.CKK_EC,
    KeyType.ED25519: spec.CKK_EC_EDWARDS,
}
_MESSAGE = 100  # bytes


async def sign(worker: Worker, token: Token, key: Key, scheme: Scheme, data: bytes) -> bytes:
    """Sign with a key under a login, and check it. RSA: one block; ECDSA: r‖s.

    Raises TokenError.
    """
    prepared = prepare(key, scheme, data)
    what = Action.SIGN, prepared.mechanism
    signature = await _operate(worker, token, key, what, prepared.data, prepared.parameter)
    if not Checker(key).holds(scheme, prepared.digest, signature):
        raise TokenError("the signature does not hold under the public key")
    return signature


async def prove_signature(worker: Worker, token: Token, key: Key) -> None:
    """See that a key signs, once. Raises TokenError."""
    await sign(worker, token, key, _SCHEMES[key.key_type][0], secrets.token_bytes(_MESSAGE))


async def _operate(
    worker: Worker, token: Token, key: Key, what: tuple[Action, int], *data_and_parameter: bytes
) -> bytes:
    """Use a key: an action with its mechanism, the data, and perhaps a mechanism parameter."""
    data, parameter = (*data_and_parameter, b"")[:2]
    number = _KEY_TYPES[key.key_type]
    label = key.label.encode()
    action, mechanism = what
    use = KeyUse(action, number, mechanism, key.id, label, parameter)
    return (await worker.ask(Operate(token.slot, use, data), Done)).value


async def try_out(place: Place, name: str) -> str:
    """`key test`: a line for each thing that was tried. Raises TokenError if one failed."""
    token, key = await place.key(name)
    pins.expect_login(place, token)
    lines, failed = [], 0
    async with pins.login(place, token) as worker:
        now = await objects_now(worker, token)
        key = next((k for k in now.keys if k.spki == key.spki), key)
        async for what, done in _tries(worker, token, key):
            try:
                await done
            except TokenError as error:
                failed += 1
                lines.append(f"{what:22} failed: {error}")
            else:
                lines.append(f"{what:22} ok")
    if failed:
        place.person.say("\n".join(lines))
        raise TokenError(f"“{printable(key.label)}” failed {failed} of {len(lines)} tests")
    return "\n".join(lines)


async def _tries(
    worker: Worker, token: Token, key: Key
) -> AsyncIterator[tuple[str, Awaitable[object]]]:
    data = secrets.token_bytes(_MESSAGE)
    if key.can_sign:
        for scheme in _SCHEMES[key.key_type]:
            yield f"sign {scheme}", sign(worker, token, key, scheme, data)
    public = load_der_public_key(key.spki)
    if isinstance(public, rsa.RSAPublicKey) and key.can_decrypt:
        yield "decrypt", _decrypt(worker, token, key, public)
    if isinstance(public, ec.EllipticCurvePublicKey) and key.can_derive:
        yield "derive (ECDH)", _derive(worker, token, key, public)


async def _decrypt(worker: Worker, token: Token, key: Key, public: rsa.RSAPublicKey) -> None:
    secret = secrets.token_bytes(32)
    encrypted = public.encrypt(secret, padding.PKCS1v15())
    plain = await _operate(worker, token, key, (Action.DECRYPT, spec.CKM_RSA_PKCS), encrypted)
    if plain != secret:
        raise TokenError("what comes out is not what went in")


async def _derive(
    worker: Worker, token: Token, key: Key, public: ec.EllipticCurvePublicKey
) -> None:
    other = ec.generate_private_key(public.curve)
    point = other.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    shared = await _operate(worker, token, key, (Action.DERIVE, spec.CKM_ECDH1_DERIVE), point)
    if shared != other.exchange(ec.ECDH(), public):
        raise TokenError("the shared secret is another one")
