"""PINs and SO-PINs: their form before they are sent, and `token pin`, `unblock`, `so-pin`.

A wrong PIN costs a try. So one that would fail for its form alone is refused here, and none is sent
twice.
"""

import string
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from hsmagent.errors import PinError, PinLength, TokenError, TriesLow, UsageError
from hsmagent.frame import wipe
from hsmagent.manage.person import wiped
from hsmagent.manage.place import BLANK, Place, Token, alone, logged_in
from hsmagent.manage.worker import SECONDS, SECONDS_TO_TYPE, Worker, card_program, running
from hsmagent.schsm.card import USER_PIN_LENGTHS
from hsmagent.worker import spec
from hsmagent.worker.messages import Done, Login, Logout
from hsmagent.worker.orders import ChangeCardPin, InitPin, SetPin, UnblockCard

_SO_DIGITS = 16
_LEAST = 4  # where a token states no minimum
FACTORY_PIN = b"648219"
FACTORY_SO_PIN = bytes.fromhex("3537363231383830")
_EASY = (b"123456", b"12345678", b"000000", b"111111")


def check_pin(token: Token, pin: bytearray) -> None:
    """Refuse a new PIN that the token would not take, or everybody knows. Raises PinLength."""
    limits = (
        USER_PIN_LENGTHS
        if token.card
        else range(token.info.pin_min or _LEAST, token.info.pin_max + 1)
    )
    if limits.stop > limits.start and len(pin) not in limits:
        raise PinLength(
            f"the PIN of {token.name} must have {limits.start} to {limits.stop - 1} characters;"
            " nothing was changed"
        )
    if bytes(pin) in (FACTORY_PIN, *_EASY):
        raise PinLength("this PIN is the first that a thief tries; nothing was changed")


def so_pin_of_card(typed: bytearray) -> bytearray:
    """Return a SmartCard-HSM's SO-PIN from the 16 hexadecimal digits that were typed (wiped).

    Raises PinLength.
    """
    with wiped(typed):
        digits = set(typed) <= set(string.hexdigits.encode())
        if len(typed) != _SO_DIGITS or not digits:
            raise PinLength(
                "the SO-PIN of a SmartCard-HSM is 16 hexadecimal digits; nothing was tried"
            )
        return bytearray.fromhex(typed.decode("ascii"))


def expect_login(place: Place, token: Token, *, so: bool = False) -> None:
    """Refuse a login that would fail, and say what other programs will notice of it.

    Asks for no PIN.

    Raises UsageError for a blank token, and what `need_tries` and `Place.announce` raise.
    """
    if token.blank:
        raise UsageError(f"{token.name} {BLANK}")
    need_tries(place, token, so=so)
    place.announce(token)


def present_pin(place: Place, token: Token, *, by_card: bool = False) -> bytearray | None:
    """Ask for the PIN of a token, for a login; return None where it is typed on the reader.

    by_card: the PIN is for the card's own commands, which reach the reader's PIN pad without the
    module.
    """
    if _on_reader(token, by_card=by_card):
        place.person.say(f"Type the PIN of {token.name} on the reader.")
        return None
    return place.person.secret(f"PIN of {token.name}")


def _on_reader(token: Token, *, by_card: bool) -> bool:
    return token.card.pad if by_card and token.card else token.pad


@asynccontextmanager
async def login(place: Place, token: Token) -> AsyncIterator[Worker]:
    """Ask for the PIN, have the daemon let go, and give a worker that is logged in.

    `expect_login` comes first.
    """
    pin = present_pin(place, token)
    async with place.let_go(token), logged_in(token, pin) as worker:
        yield worker


def new_pin(place: Place, token: Token) -> bytearray:
    """Ask for a new PIN, twice, and check its form."""
    pin = place.person.secret(f"New PIN for {token.name}", again="The new PIN again")
    try:
        check_pin(token, pin)
    except PinError:
        wipe(pin)
        raise
    return pin


def present_so_pin(place: Place, token: Token) -> bytearray:
    """Ask for the SO-PIN that the token has."""
    question = f"SO-PIN of {token.name}" + (" (16 hexadecimal digits)" if token.card else "")
    typed = place.person.secret(question)
    return so_pin_of_card(typed) if token.card else typed


def new_so_pin(place: Place, token: Token) -> bytearray:
    """Ask for a new SO-PIN, twice, and check its form."""
    form = " (16 hexadecimal digits)" if token.card else ""
    typed = place.person.secret(f"New SO-PIN for {token.name}{form}", again="The new SO-PIN again")
    if token.card:
        pin = so_pin_of_card(typed)
        if pin == FACTORY_SO_PIN:
            raise PinLength("this SO-PIN is the factory's; nothing was changed")
        return pin
    if len(typed) < _LEAST:
        wipe(typed)
        raise PinLength(f"the SO-PIN must have {_LEAST} characters or more; nothing was changed")
    return typed


def need_tries(place: Place, token: Token, *, so: bool) -> None:
    """Refuse to spend the last try of a PIN, or any of one that is blocked. Raises PinError.

    Raises UsageError for the SO-PIN of a token that has none, and what `Token.need_reach` does.
    """
    if so:
        token.need_reach()
    if so and token.id.in_nss:
        raise UsageError(
            f"{token.name} is NSS's and has no SO-PIN: `certutil -N` makes a database anew, and a"
            " forgotten password is lost with its keys"
        )
    name, left = ("SO-PIN" if so else "PIN"), None
    if token.card:
        left = (token.card.so if so else token.card.user).left
    elif not so and token.info.flags & spec.CKF_USER_PIN_LOCKED:
        left = 0
    elif not so and token.info.flags & spec.CKF_USER_PIN_FINAL_TRY:
        left = 1
    if left == 0:
        remedy = "" if so else "; `hsmagent token unblock` sets a new one"
        raise PinError(f"the {name} of {token.name} is blocked{remedy}")
    if left == 1 and not place.last_try:
        raise TriesLow(
            f"one try is left for the {name} of {token.name}: a wrong one blocks it;"
            " add --last-try if you are sure"
        )


# -- the commands ----------------------------------------------------------------------------


async def change_pin(place: Place) -> None:
    """`token pin`: a new PIN for the old one."""
    token = await place.token()
    expect_login(place, token)
    if _on_reader(token, by_card=True):
        place.person.say(f"Type the PIN of {token.name} on the reader, and a new one twice.")
        async with place.let_go(token):
            await _change(token, None, None, so=False)
    else:
        await _change_typed(place, token)
    place.person.say(f"{token.name} has a new PIN")


async def _change_typed(place: Place, token: Token) -> None:
    with (
        wiped(place.person.secret(f"PIN of {token.name}")) as old,
        wiped(new_pin(place, token)) as new,
    ):
        async with place.let_go(token):
            await _change(token, old, new, so=False)
            await prove(token, new)


async def change_so_pin(place: Place) -> None:
    """`token so-pin`: a new SO-PIN for the old one."""
    token = await place.token()
    expect_login(place, token, so=True)
    with wiped(present_so_pin(place, token)) as old, wiped(new_so_pin(place, token)) as new:
        async with place.let_go(token):
            await _change(token, old, new, so=True)
    place.person.say(f"{token.name} has a new SO-PIN; without it nothing can be unblocked: keep it")


async def _change(token: Token, old: bytearray | None, new: bytearray | None, *, so: bool) -> None:
    seconds = SECONDS_TO_TYPE if old is None else SECONDS
    if token.card:
        async with running(card_program(token.module)) as worker:
            await worker.ask(ChangeCardPin(token.card.serial, so, old, new), Done, seconds)
        return
    async with alone(token) as worker:
        await worker.ask(SetPin(token.slot, token.info.identity, so, old, new), Done, seconds)


async def prove(token: Token, pin: bytearray) -> None:
    """See that the token takes this PIN now, since some modules say OK and change nothing.

    Raises TokenError.
    """
    async with alone(token) as worker:
        try:
            await worker.ask(Login(token.slot, token.info.identity, bytearray(pin)), Done)
        except TokenError as error:
            raise TokenError(
                f"the token said yes, but does not take the new PIN: {error}"
            ) from None
        with suppress(TokenError):
            await worker.ask(Logout(token.slot), Done)


async def unblock(place: Place) -> None:
    """`token unblock`: a new PIN by the SO-PIN; keys and everything else stay."""
    token = await place.token()
    expect_login(place, token, so=True)
    with wiped(present_so_pin(place, token)) as so_pin, wiped(new_pin(place, token)) as pin:
        async with place.let_go(token):
            if token.card:
                async with running(card_program(token.module)) as worker:
                    await worker.ask(UnblockCard(token.card.serial, so_pin, pin), Done)
            else:
                async with alone(token) as worker:
                    await worker.ask(InitPin(token.slot, token.info.identity, so_pin, pin), Done)
            await prove(token, pin)
    place.person.say(f"{token.name} has a new PIN, with all its tries")
