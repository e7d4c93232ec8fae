"""A password in parts, any `threshold` of which give it back (Shamir 1979), as sc-hsm-tool does it.

The password is a number of 8 bytes below a 64-bit prime. Each keeper of a part writes three numbers
down: the prime, which all parts share, the part's id, and its value.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

SIZE = 8  # bytes of a password
FEWEST, MOST = 2, 255
_WITNESSES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)  # enough below 2^64 (Sorenson, Webster)


@dataclass(frozen=True, slots=True)
class Part:
    """One keeper's part. Its repr() does not show its value."""

    prime: int
    id: int
    value: int = field(repr=False)


def new_password() -> bytes:
    """Return a password that can be split.

    Its top bit is clear, so that a prime above it has 64 bits; its first byte is not zero, since
    sc-hsm-tool loses one that is.
    """
    return bytes([secrets.randbelow(0x7F) + 1]) + secrets.token_bytes(SIZE - 1)


def split(password: bytes, threshold: int, total: int) -> tuple[Part, ...]:
    """Return `total` parts, any `threshold` of which give the password. Raises ValueError."""
    secret = int.from_bytes(password, "big")
    if not FEWEST <= threshold <= total <= MOST:
        raise ValueError(f"parts must be {FEWEST} to {MOST}, and no more needed than there are")
    prime = _prime_above(secret)
    curve = [secret, *(secrets.randbelow(prime) for _ in range(threshold - 1))]
    return tuple(
        Part(prime, x, sum(c * pow(x, i, prime) for i, c in enumerate(curve)) % prime)
        for x in range(1, total + 1)
    )


def join(parts: Sequence[Part]) -> bytes:
    """Return the password of enough parts; of too few or wrong ones, another password.

    Raises ValueError when they cannot belong together.
    """
    prime = parts[0].prime
    ids = {part.id for part in parts}
    if len(ids) < len(parts) or any(part.prime != prime for part in parts):
        raise ValueError("the parts do not belong together")
    secret = 0
    for part in parts:
        above = below = 1
        for other in ids - {part.id}:
            above = above * -other % prime
            below = below * (part.id - other) % prime
        secret += part.value * above * pow(below, -1, prime)
    try:
        return (secret % prime).to_bytes(SIZE, "big")
    except OverflowError:
        raise ValueError("the parts do not belong together") from None


def _prime_above(secret: int) -> int:
    """Return a random 64-bit prime p above `secret` for which (p - 1) / 2 is prime too."""
    while True:
        prime = secrets.randbits(64) | 1 << 63 | 3  # 3 modulo 4: the half is odd
        if prime > secret and is_prime(prime) and is_prime(prime // 2):
            return prime


def is_prime(number: int) -> bool:
    """Miller and Rabin's test; certain below 2^64."""
    if number < FEWEST:
        return False
    for small in _WITNESSES:
        if number % small == 0:
            return number == small
    twos = (number - 1 & 1 - number).bit_length() - 1
    odd = number - 1 >> twos
    return all(
        pow(witness, odd, number) == 1
        or any(pow(witness, odd << i, number) == number - 1 for i in range(twos))
        for witness in _WITNESSES
    )
