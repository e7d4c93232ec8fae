from itertools import combinations

import pytest

from hsmagent.schsm import passwords
from hsmagent.schsm.passwords import Part


@pytest.mark.parametrize(("threshold", "total"), [(2, 3), (3, 5), (2, 2)])
def test_any_that_are_enough_give_the_password(threshold: int, total: int) -> None:
    password = passwords.new_password()
    parts = passwords.split(password, threshold, total)
    assert [part.id for part in parts] == list(range(1, total + 1))
    for some in combinations(parts, threshold):
        assert passwords.join(some) == password
    assert passwords.join(parts) == password


def test_too_few_give_another() -> None:
    password = passwords.new_password()
    parts = passwords.split(password, 3, 3)
    assert passwords.join(parts[:2]) != password


def test_a_worked_example() -> None:
    # f(x) = 1234 + 166 x + 94 x^2 modulo 1613, from the description on Wikipedia
    parts = [Part(1613, x, y) for x, y in ((1, 1494), (2, 329), (3, 965))]
    assert passwords.join(parts) == (1234).to_bytes(8, "big")


def test_a_password_that_the_tool_reads() -> None:
    for _ in range(100):
        password = passwords.new_password()
        assert 0 < password[0] < 0x80
        prime = passwords.split(password, 2, 3)[0].prime
        assert prime.bit_length() == 64
        assert passwords.is_prime(prime)
        assert passwords.is_prime(prime // 2)


def test_small_numbers() -> None:
    primes = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47]
    assert [n for n in range(50) if passwords.is_prime(n)] == primes
    assert not passwords.is_prime(3825123056546413051)  # a strong pseudoprime to nine bases
    assert passwords.is_prime(2**61 - 1)


@pytest.mark.parametrize(("threshold", "total"), [(1, 3), (4, 3), (2, 256)])
def test_parts_that_cannot_be(threshold: int, total: int) -> None:
    with pytest.raises(ValueError, match="parts"):
        passwords.split(bytes(8), threshold, total)


def test_parts_that_do_not_belong_together() -> None:
    one, two = (passwords.split(passwords.new_password(), 2, 2) for _ in range(2))
    for wrong in ([one[0], two[1]], [one[0], one[0]]):
        with pytest.raises(ValueError, match="together"):
            passwords.join(wrong)


def test_no_part_shows_in_a_representation() -> None:
    assert "value" not in repr(passwords.split(bytes(7) + b"\1", 2, 2)[0])
