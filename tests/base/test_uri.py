import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmagent import uri
from hsmagent.errors import UsageError
from hsmagent.model import Key, KeyType, TokenId

TOKEN = TokenId("/usr/lib/libsofthsm2.so", "my token; 100%", "01/2", "SoftHSM v2", "SoftHSM")
KEY = Key(b"spki", KeyType.EC, 256, "secp256r1", "büro key", TOKEN, b"\x00\xff\x3b")


def test_our_own_uris_are_read_back() -> None:
    parsed = uri.parse(KEY.uri)
    assert parsed.matches_key(KEY)
    assert parsed.token == "my token; 100%"
    assert parsed.id == b"\x00\xff\x3b"
    assert parsed.type == "private"


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("pkcs11:", True),
        ("pkcs11:serial=01%2F2", True),
        ("pkcs11:serial=01", False),
        ("pkcs11:token=my%20token%3B%20100%25;object=b%C3%BCro%20key", True),
        ("pkcs11:object=other", False),
        ("pkcs11:id=%00%ff%3b", True),
        ("pkcs11:id=%00", False),
        ("pkcs11:?module-path=/usr/lib/libsofthsm2.so", True),
        ("pkcs11:?module-path=/usr/lib/other.so", False),
        ("pkcs11:?module-name=softhsm", True),
        ("pkcs11:slot-id=4", True),
    ],
)
def test_what_a_uri_matches(text: str, matches: bool) -> None:
    assert uri.parse(text).matches_key(KEY) is matches


def test_a_software_key_matches_no_uri() -> None:
    assert not uri.parse("pkcs11:").matches_key(Key(b"spki", KeyType.RSA, 2048))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("http://x", "must begin with pkcs11:"),
        ("pkcs11:colour=red", "unknown attribute 'colour'"),
        ("pkcs11:token", "unknown attribute 'token'"),
        ("pkcs11:token=a;token=b", "given twice"),
        ("pkcs11:token=%ff", "not UTF-8"),
        ("pkcs11:?pin-value=1234", "pin-value is refused"),
        ("pkcs11:pin-source=/etc/pin", "pin-source is refused"),
    ],
)
def test_what_is_wrong_is_named(text: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as caught:
        uri.parse(text)
    assert "1234" not in str(caught.value)


@given(
    st.builds(TokenId, st.text(), st.text(), st.text(), st.text(), st.text()),
    st.text(),
    st.binary(),
)
def test_any_key_is_found_by_its_uri(token: TokenId, label: str, key_id: bytes) -> None:
    key = Key(b"spki", KeyType.RSA, 2048, label=label, token=token, id=key_id)
    assert uri.parse(key.uri).matches_key(key)
