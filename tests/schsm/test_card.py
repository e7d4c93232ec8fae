"""Our commands on the virtual card, byte by byte in between; sc-hsm-tool is asked in test_tool."""

import pytest

from hsmagent.schsm import backup, dkek, pkcs15
from hsmagent.schsm.apdu import INS, SW
from hsmagent.schsm.card import (
    END_ENTITY,
    PRIVATE_KEY,
    PRIVATE_KEY_DESCRIPTION,
    SO_PIN,
    TOKEN_INFO,
    USER_PIN,
    CardError,
    Initialization,
    PinStatus,
    SmartCardHsm,
    file_id,
    free_number,
    key_numbers,
)
from tests.parts.token.card import DEFAULT_PIN, DEFAULT_SO_PIN, Card, furnished
from tests.parts.token.card.domain import Domain
from tests.parts.token.card.furnished import P256, RSA


def opened(card: Card) -> SmartCardHsm:
    ours = SmartCardHsm(lambda raw: card.transmit(bytes(raw)))
    ours.select()
    return ours


def pin(text: str = DEFAULT_PIN) -> bytearray:
    return bytearray(text.encode())


def so_pin() -> bytearray:
    return bytearray.fromhex(DEFAULT_SO_PIN)


def test_reads_what_the_card_is() -> None:
    ours = SmartCardHsm(lambda raw: furnished().transmit(bytes(raw)))
    assert ours.select().version == (3, 5)
    ours = opened(furnished())
    assert ours.serial() == "DENK0100001"
    assert pkcs15.token_label(ours.read(TOKEN_INFO)) == "work"
    assert ours.free_memory() == 65536
    assert ours.dkek() is None
    assert key_numbers(ours.objects()) == (1, 2, 3)
    assert free_number(ours.objects()) == 4


def test_another_card_is_told_apart() -> None:
    with pytest.raises(CardError) as failed:
        SmartCardHsm(lambda _: b"\x6a\x82").select()
    assert failed.value.sw == SW.FILE_NOT_FOUND


def test_the_tries_of_both_pins() -> None:
    card = furnished()
    ours = opened(card)
    assert ours.pin_status(USER_PIN) == PinStatus(is_set=True, tries=3)
    assert ours.pin_status(SO_PIN) == PinStatus(is_set=True, tries=15)
    for left in (2, 1, 0):
        with pytest.raises(CardError):
            ours.verify(pin("000000"))
        assert ours.pin_status(USER_PIN).tries == left
    ours.unblock(so_pin(), pin("654321"))
    ours.verify(pin("654321"))
    assert ours.pin_status(USER_PIN) == PinStatus(is_set=True, logged_in=True)
    ours.change(USER_PIN, pin("654321"), pin("765432"))
    ours.change(SO_PIN, so_pin(), bytearray(8))
    ours.verify(pin("765432"))
    ours.select()
    assert not card.logged_in


def test_a_blank_card_has_no_pins() -> None:
    ours = opened(Card.blank())
    assert ours.pin_status(USER_PIN) == PinStatus(is_set=False)
    assert ours.pin_status(SO_PIN) == PinStatus(is_set=False)


def test_initialize_says_what_the_tool_says() -> None:
    sent: list[bytes] = []

    def transmit(raw: bytearray) -> bytes:
        sent.append(bytes(raw))
        return b"\x90\x00"

    SmartCardHsm(transmit).initialize(Initialization(pin(), so_pin(), 3, 1))
    # As sc-hsm-tool sent it for this PIN and SO-PIN.
    told = "80020001 8106363438323139 82083537363231383830 910103 920101"
    assert sent[0] == bytes.fromhex("805000001C" + told)


def test_nothing_of_a_pin_stays_in_the_commands() -> None:
    sent: list[bytearray] = []

    def transmit(raw: bytearray) -> bytes:
        sent.append(raw)
        return b"\x90\x00"

    ours = SmartCardHsm(transmit)
    ours.verify(pin())
    ours.unblock(so_pin(), pin())
    ours.initialize(Initialization(pin(), so_pin(), 3, None))
    assert not any(any(raw) for raw in sent)


def test_initialize_erases_and_wants_the_present_so_pin() -> None:
    card = furnished()
    ours = opened(card)
    with pytest.raises(CardError) as failed:
        ours.initialize(Initialization(pin(), bytearray(8), 3, 0))
    assert failed.value.sw == SW.CONDITIONS_NOT_MET
    assert ours.pin_status(SO_PIN).tries == 14
    assert card.keys
    ours.initialize(Initialization(pin("1234567"), so_pin(), 5, 0))
    assert not card.keys
    assert ours.pin_status(USER_PIN).tries == 5
    state = ours.dkek()
    assert state is not None
    assert (state.shares, state.missing) == (0, 0)
    assert state.kcv != bytes(8)


def test_shares_are_counted_down_to_the_check_value() -> None:
    card = Card.blank()
    ours = opened(card)
    ours.initialize(Initialization(pin(), so_pin(), 3, 2))
    one, two = dkek.make_share(), dkek.make_share()
    state = ours.import_share(bytearray(one))
    assert state is not None
    assert (state.shares, state.missing, state.kcv) == (2, 1, bytes(8))
    state = ours.import_share(bytearray(two))
    assert state is not None
    assert (state.missing, state.kcv) == (0, dkek.combine([one, two]).kcv)
    with pytest.raises(CardError) as failed:
        ours.import_share(bytearray(one))
    assert failed.value.sw == SW.CONDITIONS_NOT_MET


@pytest.mark.parametrize("size", [0, 1, 199, 200, 201, 256, 512, 5000])
def test_files_of_any_length(size: int) -> None:
    card = furnished()
    ours = opened(card)
    ours.verify(pin())
    content = bytes(range(256)) * 20
    where = file_id(END_ENTITY, 9)
    ours.write(where, content)
    ours.write(where, content[:size])
    assert card.files.content[where] == content[:size]
    assert ours.read(where) == content[:size]
    assert ours.delete(where)
    assert not ours.delete(where)


@pytest.mark.parametrize("number", [P256, RSA])
def test_a_key_leaves_and_comes_back(number: int) -> None:
    card = furnished()
    ours = opened(card)
    key, content = card.keys[number], dict(card.files.content)
    assert ours.dkek() is None
    with pytest.raises(CardError):
        ours.wrap(number)
    card.domain = Domain.of(0)
    ours.verify(pin())
    blob = ours.wrap(number)
    with pytest.raises(CardError) as failed:
        ours.unwrap(number, blob)
    assert failed.value.sw == SW.EXISTS
    for high in (PRIVATE_KEY, PRIVATE_KEY_DESCRIPTION, END_ENTITY):
        assert ours.delete(file_id(high, number))
    assert number not in card.keys
    assert free_number(ours.objects()) == number
    with pytest.raises(CardError) as failed:
        ours.unwrap(number, blob[:-1] + bytes([blob[-1] ^ 1]))
    assert failed.value.sw == SW.WRONG_DATA
    ours.unwrap(number, blob)
    assert card.keys[number].private_numbers() == key.private_numbers()
    assert backup.blob(blob).kcv == card.domain.dkek.kcv
    assert file_id(PRIVATE_KEY, number) in content


def test_looking_disturbs_no_login() -> None:
    card = furnished()
    ours = opened(card)
    ours.verify(pin())
    ours.pin_status(USER_PIN)
    ours.objects()
    ours.dkek()
    ours.free_memory()
    assert card.logged_in
    assert card.knobs.count()[INS.SELECT] == 1
