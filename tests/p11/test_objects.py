"""What is shown of tokens, and by which numbers it is known."""

from dataclasses import replace
from typing import Any

import pytest

from hsmagent.control.values import of_record, to_base64
from hsmagent.errors import UsageError
from hsmagent.model import Key, PurposeKind
from hsmagent.p11.objects import tokens_of
from hsmagent.p11.slots import Slots
from hsmagent.worker import spec
from tests.parts.mail.people import person, root

ALL = ("pkcs11-message", "pkcs11-digest", "pkcs11-decrypt")


def token(label: str, *keys: Key, present: bool = True, allowed: tuple[str, ...] = ALL) -> Any:
    return {
        "uri": f"pkcs11:token={label}",
        "label": label,
        "serial": "1",
        "model": "model",
        "manufacturer": "maker",
        "present": present,
        "keys": [of_record(key) | {"allowed": list(allowed)} for key in keys],
        "certificates": [{"certificate": to_base64(root().der), "label": "", "id": ""}],
    }


def shown(*tokens: Any) -> Slots:
    slots = Slots()
    slots.show(tokens_of({"tokens": list(tokens)}))
    return slots


def classes(slots: Slots, number: int = 1) -> list[object]:
    slot = slots.get(number)
    assert slot is not None
    return [each.attributes[spec.CKA_CLASS] for each in slot.objects.values()]


def test_a_key_its_certificate_and_the_ca() -> None:
    slots = shown(token("work", person("rsa").key))
    assert classes(slots) == [
        spec.CKO_CERTIFICATE,
        spec.CKO_PUBLIC_KEY,
        spec.CKO_PRIVATE_KEY,
        spec.CKO_CERTIFICATE,
    ]
    slot = slots.get(1)
    assert slot is not None
    mine, public, private, ca = slot.objects.values()
    # Programs pair them by CKA_ID, which a key may lack.
    ids = {each.attributes[spec.CKA_ID] for each in (mine, public, private)}
    assert len(ids) == 1
    assert all(ids)
    assert ca.attributes[spec.CKA_ID] not in ids
    assert public.attributes[spec.CKA_SUBJECT] == mine.attributes[spec.CKA_SUBJECT]
    assert ca.attributes[spec.CKA_LABEL]


def test_what_a_key_may_do_is_what_it_says() -> None:
    def uses(kind: str, *allowed: str) -> tuple[object, ...]:
        slot = shown(token("work", person(kind).key, allowed=allowed)).get(1)
        assert slot is not None
        (private,) = (each for each in slot.objects.values() if each.key)
        asked = (spec.CKA_SIGN, spec.CKA_DECRYPT, spec.CKA_DERIVE)
        return tuple(private.attributes[number] for number in asked)

    assert uses("rsa", "pkcs11-message") == (True, False, False)
    assert uses("rsa", "pkcs11-decrypt") == (False, True, False)
    assert uses("p256", "pkcs11-digest") == (True, False, False)
    assert uses("p256", "pkcs11-decrypt") == (False, False, True)
    assert set(ALL) == {kind for kind in PurposeKind if kind.startswith("pkcs11")}


def test_keys_that_no_mechanism_serves_are_not_shown() -> None:
    assert shown(token("work", person("ed25519").key)).numbers(present=False) == (1,)


def test_a_certificate_that_cannot_be_read_hides_nothing_else() -> None:
    key = replace(person("p256").key, certificates=(b"no certificate",))
    assert spec.CKO_PRIVATE_KEY in classes(shown(token("work", key)))


def test_a_daemon_that_answers_nonsense_is_an_error() -> None:
    answers: tuple[dict[str, Any], ...] = (
        {},
        {"tokens": 1},
        {"tokens": [{}]},
        {"tokens": [{"label": "a", "keys": [{}]}]},
    )
    for answer in answers:
        with pytest.raises(UsageError):
            tokens_of(answer)


# -- numbers ---------------------------------------------------------------------------------


def test_numbers_stay_whatever_comes_and_goes() -> None:
    rsa, p256 = person("rsa").key, person("p256").key
    slots = shown(token("one", rsa), token("two", p256))
    before = {number: dict(slot.objects) for number in (1, 2) if (slot := slots.get(number))}
    slots.show(())
    assert slots.numbers(present=True) == ()
    assert slots.numbers(present=False) == (1, 2, 3)
    slots.show(tokens_of({"tokens": [token("three", p256), token("two", p256)]}))
    assert slots.numbers(present=True) == (2, 3)
    slots.show(tokens_of({"tokens": [token("two", p256), token("one", rsa)]}))
    assert slots.numbers(present=False) == (1, 2, 3, 4), "the last is empty"
    after = {number: dict(slot.objects) for number in (1, 2) if (slot := slots.get(number))}
    assert {n: list(each) for n, each in after.items()} == {n: list(e) for n, e in before.items()}


def test_each_insertion_is_another_one_and_each_look_is_not() -> None:
    key = person("p256").key
    slots = shown(token("work", key))
    slot = slots.get(1)
    assert slot is not None
    first = slot.insertion
    slots.show(tokens_of({"tokens": [token("work", key)]}))
    assert slot.insertion == first
    slots.show(tokens_of({"tokens": [token("work", key, present=False)]}))
    assert (slot.insertion, slot.objects) == (0, {})
    slots.show(tokens_of({"tokens": [token("work", key)]}))
    assert slot.insertion > first
