import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from hypothesis import given
from hypothesis import strategies as st

from hsmagent.ssh import private_der, wire


def magnitude(number: int) -> memoryview:
    return wire.Reader(wire.mpint(number)).mpint_view()


@given(st.integers(1, 2**80).map(lambda half: 2 * half + 1), st.integers(2, 2**64))
def test_the_exponent_is_the_inverse(prime: int, e: int) -> None:
    try:
        expected = pow(e, -1, prime - 1)
    except ValueError:
        with pytest.raises(ValueError, match="not invertible"):
            private_der.crt_exponent(magnitude(prime), e)
        return
    found = private_der.crt_exponent(magnitude(prime), e)
    assert found == magnitude(expected)


@pytest.mark.parametrize(("e", "bits"), [(3, 1024), (65537, 1024), (65537, 2048), (65537, 3072)])
def test_an_rsa_key_is_byte_for_byte_what_openssl_writes(e: int, bits: int) -> None:
    private = rsa.generate_private_key(e, bits)
    numbers = private.private_numbers()
    values = map(magnitude, (numbers.d, numbers.iqmp, numbers.p, numbers.q))
    der = private_der.rsa(numbers.public_numbers, *values)
    # OpenSSL chooses a d below lcm(p - 1, q - 1), and so do its dmp1 and dmq1.
    assert der == private.private_bytes(
        Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()
    )


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
@pytest.mark.parametrize("value", [1, 255, 1 << 247, (1 << 255) + 5])
def test_an_ec_key_of_any_length(curve: ec.EllipticCurve, value: int) -> None:
    size = (curve.key_size + 7) // 8
    loaded = load_der_private_key(private_der.ecdsa(magnitude(value), size), None)
    assert isinstance(loaded, ec.EllipticCurvePrivateKey)
    assert loaded.private_numbers() == ec.derive_private_key(value, curve).private_numbers()


def test_an_ec_key_that_is_too_long() -> None:
    with pytest.raises(ValueError, match="longer"):
        private_der.ecdsa(magnitude(1 << 264), 32)
