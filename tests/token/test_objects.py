import struct
import subprocess
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from hsmagent.control.values import of_record, to_key
from hsmagent.mail.cms.der import octets
from hsmagent.model import Key, KeyType, TokenId
from hsmagent.token.curves import CURVES, curve_spelled_out
from hsmagent.token.objects import Listing, key_of, keys_of
from hsmagent.worker import spec
from hsmagent.worker.messages import RawObject
from tests.parts.mail.pki import authority
from tests.parts.token.card.furnished import certificate as issued

TOKEN = TokenId("/module.so", "work", "1", "model")
P256 = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)
SHORT = rsa.generate_private_key(65537, 1024)
ED = ed25519.Ed25519PrivateKey.generate()
P256_PARAMS = bytes.fromhex("06082a8648ce3d030107")
ED_PARAMS = b"\x13\x0cedwards25519"


def ulong(number: int) -> bytes:
    return struct.pack("@L", number)


def raw(kind: int, **attributes: bytes) -> RawObject:
    values = [(getattr(spec, f"CKA_{name}"), value) for name, value in attributes.items()]
    return RawObject(((spec.CKA_CLASS, ulong(kind)), *values))


def point_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def spki_of(key: Any) -> bytes:
    der: bytes = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return der


def ec_public(key: ec.EllipticCurvePrivateKey, number: bytes = b"\1", **more: bytes) -> RawObject:
    values = {"KEY_TYPE": ulong(spec.CKK_EC), "EC_PARAMS": P256_PARAMS, "ID": number}
    values["EC_POINT"] = b"\x04\x41" + point_of(key)
    return raw(spec.CKO_PUBLIC_KEY, **(values | more))


NAMES = {"secp256r1": "prime256v1"}  # by openssl


def explicit(curve: str, form: str = "uncompressed") -> bytes:
    """Return CKA_EC_PARAMS as libykcs11 gives them: the numbers of the curve, and not its name."""
    command = ["openssl", "ecparam", "-name", curve, "-param_enc", "explicit", "-outform", "DER"]
    return subprocess.run([*command, "-conv_form", form], check=True, capture_output=True).stdout


def rsa_numbers(key: rsa.RSAPrivateKey) -> dict[str, bytes]:
    numbers = key.public_key().public_numbers()
    return {
        "MODULUS": numbers.n.to_bytes(key.key_size // 8, "big"),
        "PUBLIC_EXPONENT": numbers.e.to_bytes(3, "big"),
    }


def private(kind: int, number: bytes = b"\1", **more: bytes) -> RawObject:
    values = {"SIGN": b"\1"} | more
    return raw(spec.CKO_PRIVATE_KEY, KEY_TYPE=ulong(kind), ID=number, **values)


def certificate(key: Any, number: bytes = b"\1", **more: bytes) -> RawObject:
    return raw(
        spec.CKO_CERTIFICATE,
        CERTIFICATE_TYPE=ulong(0),
        ID=number,
        VALUE=issued(key, "someone", OTHER),
        **more,
    )


def listed(*objects: RawObject, complete: bool = False) -> Listing:
    return keys_of(TOKEN, objects, complete=complete)


def one(*objects: RawObject, complete: bool = False) -> Key:
    listing = listed(*objects, complete=complete)
    assert listing.notes == ()
    (key,) = listing.keys
    return key


@pytest.mark.parametrize("wrap", [b"", b"\x04\x41"])
def test_an_ec_point_raw_or_in_der(wrap: bytes) -> None:
    key = one(ec_public(P256, EC_POINT=wrap + point_of(P256), LABEL=b"ssh"))
    assert key == Key(
        spki_of(P256), KeyType.EC, 256, "secp256r1", "ssh", TOKEN, b"\1", can_derive=True
    )


@pytest.mark.parametrize(
    "params", [ED_PARAMS, bytes.fromhex("06032b6570"), bytes.fromhex("06092b06010401da470f01")]
)
@pytest.mark.parametrize("wrap", [b"", b"\x04\x20"])
def test_ed25519_however_it_is_spelled(params: bytes, wrap: bytes) -> None:
    point = wrap + ED.public_key().public_bytes_raw()
    key = one(
        raw(
            spec.CKO_PUBLIC_KEY,
            KEY_TYPE=ulong(spec.CKK_EC_EDWARDS),
            EC_PARAMS=params,
            EC_POINT=point,
        )
    )
    assert (key.spki, key.key_type, key.bits, key.id) == (spki_of(ED), KeyType.ED25519, 256, b"")


@pytest.mark.parametrize("form", ["uncompressed", "compressed"])
@pytest.mark.parametrize("curve", CURVES.values(), ids=lambda curve: curve.name)
def test_a_curve_that_is_spelled_out(curve: ec.EllipticCurve, form: str) -> None:
    point = ec.generate_private_key(curve)
    parameters = explicit(NAMES.get(curve.name, curve.name), form)
    for encode in (bytes, octets):
        listing = listed(ec_public(point, EC_PARAMS=parameters, EC_POINT=encode(point_of(point))))
        assert listing.notes == ()
        (key,) = listing.keys
        assert (key.spki, key.curve) == (spki_of(point), curve.name)


@pytest.mark.parametrize("what", [b"\x02\x21", b"\x04\x41", b"\x02\x21\x00\xff\xff\xff\xff\x00"])
def test_a_curve_that_is_almost_one_of_ours_is_none(what: bytes) -> None:
    """Its prime, its base point or its order is another."""
    parameters = explicit("prime256v1")
    start = parameters.index(what) + len(what) + 1
    for at in range(start, start + 24):
        changed = bytearray(parameters)
        changed[at] ^= 1
        assert curve_spelled_out(bytes(changed)) is None
        assert curve_spelled_out(parameters[:at]) is None


def test_what_is_odd_for_one_reason_is_said_once_and_nothing_is_to_be_imported() -> None:
    numbers = rsa_numbers(SHORT)
    listing = listed(
        certificate(SHORT),
        raw(spec.CKO_PUBLIC_KEY, KEY_TYPE=ulong(spec.CKK_RSA), ID=b"\1", **numbers),
        private(spec.CKK_RSA, **numbers),
        ec_public(P256, b"\2", EC_PARAMS=bytes.fromhex("06052b81040021")),
        private(spec.CKK_EC, b"\2"),
        complete=True,
    )
    assert listing.keys == ()
    assert len(listing.notes) == 2
    assert not any("import" in note for note in listing.notes)


def test_an_object_and_its_certificate_are_one_key() -> None:
    key = one(certificate(P256), ec_public(P256, LABEL=b"ssh"))
    assert key.label == "ssh"
    assert len(key.certificates) == 1


def test_a_certificate_alone_makes_a_key() -> None:
    assert one(certificate(RSA, LABEL=b"mail")).key_type is KeyType.RSA


def test_an_rsa_private_key_alone_makes_a_key() -> None:
    key = one(
        private(spec.CKK_RSA, LABEL=b"mail", DECRYPT=b"\1", **rsa_numbers(RSA)), complete=True
    )
    assert (key.spki, key.can_sign, key.can_decrypt) == (spki_of(RSA), True, True)


def test_what_has_no_private_half_is_left_out_once_that_is_known() -> None:
    objects = (ec_public(P256), ec_public(OTHER, b"\2"), private(spec.CKK_EC))
    assert len(listed(*objects[:2]).keys) == 2
    listing = listed(*objects, complete=True)
    assert [key.spki for key in listing.keys] == [spki_of(P256)]
    assert listing.orphans == {spki_of(OTHER)}


def test_a_private_key_of_another_kind_is_no_partner() -> None:
    listing = listed(ec_public(P256), private(spec.CKK_RSA), complete=True)
    assert listing.keys == ()
    assert "has no public key" in listing.notes[0]


def test_a_private_key_with_another_modulus_is_no_partner() -> None:
    other = rsa.generate_private_key(65537, 2048)
    numbers = {"MODULUS": rsa_numbers(other)["MODULUS"]}
    listing = listed(certificate(RSA), private(spec.CKK_RSA, **numbers), complete=True)
    assert listing.keys == ()


def test_several_keys_under_one_id_are_noted() -> None:
    listing = listed(ec_public(P256), ec_public(OTHER))
    assert len(listing.keys) == 2
    assert "several keys share the id 01" in listing.notes[0]


def test_one_public_key_under_two_ids_shows_once() -> None:
    assert one(certificate(P256, b""), certificate(P256, b"\2")).id == b"\2"


def test_the_private_half_tells_what_a_key_may() -> None:
    key = one(
        ec_public(P256),
        private(spec.CKK_EC, SIGN=b"\0", DERIVE=b"\1", ALWAYS_AUTHENTICATE=b"\1", LABEL=b"x"),
        complete=True,
    )
    assert (key.can_sign, key.can_derive, key.always_authenticate) == (False, True, True)
    assert key.label == "x"


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        (raw(spec.CKO_PUBLIC_KEY, LABEL=b"a\xff"), "does not tell its type"),
        (raw(spec.CKO_PUBLIC_KEY, KEY_TYPE=ulong(0x80000001)), "type 0x80000001"),
        (ec_public(P256, EC_POINT=b"\x04" + b"\1" * 64), "not on its curve"),
        (ec_public(P256, EC_POINT=b""), "not on its curve"),
        (ec_public(P256, EC_PARAMS=bytes.fromhex("06052b81040021")), "the curve 06052b81040021"),
        (ec_public(P256, EC_PARAMS=b"\x30\x82"), "a curve of its own"),
        (ec_public(P256, EC_PARAMS=explicit("secp224r1")), "a curve of its own"),
        (ec_public(P256, KEY_TYPE=ulong(spec.CKK_EC_EDWARDS)), "other than Ed25519"),
        (
            raw(spec.CKO_PUBLIC_KEY, KEY_TYPE=ulong(spec.CKK_RSA), **rsa_numbers(SHORT)),
            "1024 bits is not used",
        ),
        (raw(spec.CKO_PUBLIC_KEY, KEY_TYPE=ulong(spec.CKK_RSA)), "0 bits"),
        (raw(spec.CKO_CERTIFICATE, VALUE=b"\x30\x03\2\1\1"), "cannot be read"),
        (raw(spec.CKO_CERTIFICATE, CERTIFICATE_TYPE=ulong(2)), "not X.509"),
        (certificate(SHORT), "1024 bits is not used"),
        (private(0x13), "a private key of type 0x13"),
    ],
)
def test_what_is_odd_is_noted_and_hides_nothing(odd: RawObject, why: str) -> None:
    listing = listed(odd, ec_public(P256, b"\7", LABEL=b"fine"))
    assert [key.label for key in listing.keys] == ["fine"]
    (note,) = listing.notes
    assert why in note
    assert note.isprintable()


@given(
    st.lists(
        st.builds(
            lambda kind, attributes: RawObject(((spec.CKA_CLASS, ulong(kind)), *attributes)),
            st.integers(0, 8),
            st.lists(
                st.tuples(
                    st.sampled_from(
                        [number for numbers in spec.READ.values() for number in numbers]
                    ),
                    st.binary(max_size=80)
                    | st.sampled_from([P256_PARAMS, point_of(P256), ulong(0), ulong(3), b"\1"]),
                ),
                max_size=8,
            ),
        ),
        max_size=5,
    ),
    st.booleans(),
)
def test_nothing_a_token_says_raises(objects: list[RawObject], complete: bool) -> None:
    listing = keys_of(TOKEN, [*objects, ec_public(P256, b"\x99")], complete=False)
    assert spki_of(P256) in {key.spki for key in listing.keys}
    keys_of(TOKEN, objects, complete=complete)


def test_a_key_from_its_spki() -> None:
    assert key_of(TOKEN, spki_of(RSA)).bits == 2048
    for bad in (b"", spki_of(SHORT), spki_of(ec.generate_private_key(ec.SECP224R1()))):
        with pytest.raises(ValueError, match=r"."):
            key_of(TOKEN, bad)


@pytest.mark.parametrize("complete", [False, True])
def test_the_authorities_of_a_token_go_with_its_certified_keys(complete: bool) -> None:
    """Whole chains lie on cards; who verifies a mail needs the ones between."""
    root = authority("Root")
    ca = root.authority("Sub")
    who = ca.issue("p256")
    plain = ec.generate_private_key(ec.SECP256R1())
    objects = [
        ec_public(who.private, b"\1"),
        ec_public(plain, b"\2"),
        *(raw(spec.CKO_CERTIFICATE, VALUE=one.der) for one in (root, ca)),
        raw(spec.CKO_CERTIFICATE, VALUE=who.der, ID=b"\1"),
        private(spec.CKK_EC, b"\1"),
        private(spec.CKK_EC, b"\2"),
    ]
    found = {key.id: key for key in listed(*objects, complete=complete).keys}
    assert found.keys() == {b"\1", b"\2"}
    assert set(found[b"\1"].authorities) == {root.der, ca.der}
    assert found[b"\2"].authorities == ()
    assert to_key(of_record(found[b"\1"])) == found[b"\1"]
