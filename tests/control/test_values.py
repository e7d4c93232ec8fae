"""What goes to JSON comes back as it was."""

import json
from dataclasses import fields
from typing import Any

import pytest

from hsmagent.control import values
from hsmagent.control.values import Fields
from hsmagent.errors import UsageError
from hsmagent.model import Key, KeyType, TokenId
from hsmagent.unwraps import EcdhUnwrap, RsaUnwrap, Unwrap

TOKEN = TokenId("/usr/lib/m.so", "büro", "0001", "SmartCard-HSM", "CardContact")
KEY = Key(
    b"\x30\x00",
    KeyType.EC,
    256,
    "secp256r1",
    "mail",
    TOKEN,
    b"\x00\xff",
    (b"one", b"two"),
    always_authenticate=True,
    can_sign=False,
    can_decrypt=True,
    can_derive=True,
    application="ssh:",
    touch=True,
)
RSA = RsaUnwrap(b"\x00\xfe", "oaep", "sha256", "sha1", b"label")
ECDH = EcdhUnwrap(b"\x00", b"\x04", "sha512", 192, b"\x30", cofactor=True)


def sent(value: Any) -> Any:
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("key", [KEY, Key(b"spki", KeyType.RSA, 2048)])
def test_keys(key: Key) -> None:
    assert values.to_key(sent(values.of_record(key))) == key


def test_every_field_of_a_key_and_a_token_travels() -> None:
    assert set(values.of_record(KEY)) == {field.name for field in fields(Key)}
    assert set(values.of_record(TOKEN)) == {field.name for field in fields(TokenId)}


@pytest.mark.parametrize("what", [RSA, ECDH])
def test_unwraps(what: Unwrap) -> None:
    assert values.to_unwrap(Fields(sent(values.of_unwrap(what)))) == what


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "dsa"},
        {"kind": None},
        {"encrypted_key": "!"},
        {"encrypted_key": 1},
        {"label": None},
        {"padding": 1},
    ],
)
def test_a_wrong_unwrap_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        values.to_unwrap(Fields(values.of_unwrap(RSA) | change))


@pytest.mark.parametrize("bits", [127, 257, True, "128", 128.0, None])
def test_a_wrong_number_is_refused(bits: object) -> None:
    with pytest.raises(UsageError, match="from 128 to 256"):
        values.to_unwrap(Fields(values.of_unwrap(ECDH) | {"wrap_bits": bits}))


@pytest.mark.parametrize("value", [None, [], "x", 1])
def test_only_an_object_has_fields(value: object) -> None:
    with pytest.raises(UsageError, match="not a JSON object"):
        Fields(value)
