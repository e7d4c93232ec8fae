"""`token init`: erases a token or begins a blank one, and gives it a label and a PIN."""

from contextlib import ExitStack
from dataclasses import dataclass, replace

from hsmagent.errors import HsmAgentError, PinIncorrect, PinLocked, TokenError, UsageError
from hsmagent.manage import pins
from hsmagent.manage.person import confirm, wiped
from hsmagent.manage.place import Place, Token, alone, look
from hsmagent.manage.worker import card_program, running
from hsmagent.model import printable
from hsmagent.schsm.card import key_numbers
from hsmagent.worker import spec
from hsmagent.worker.messages import Done
from hsmagent.worker.orders import CardInfo, InitializeCard, InitPin, InitToken

LONGEST_LABEL = 32  # bytes (CK_TOKEN_INFO)
_CARD_TRIES = 3
_MOST_SHARES = 255
NO_BACKUP = 0


@dataclass(frozen=True, slots=True)
class Wish:
    """The command line. backup_shares: how many, NO_BACKUP, or None where it was not said."""

    label: str
    backup_shares: int | None


async def init(place: Place, wish: Wish) -> None:
    """Carry out `token init`. Raises HsmAgentError."""
    token = await place.token(blank=True)
    label = wish.label or token.label
    _check_label(token, label)
    token.need_reach()
    place.announce(token)
    if token.card:
        await _init_card(place, token, token.card, replace(wish, label=label))
    else:
        await _init_token(place, token, label, wish)


def _check_label(token: Token, label: str) -> None:
    if not label:
        raise UsageError(f"give {token.name} a label to call it by: --label LABEL")
    if len(label.encode()) > LONGEST_LABEL:
        raise UsageError(f"the label is longer than {LONGEST_LABEL} bytes")
    if printable(label) != label:
        raise UsageError("the label has characters that do not show")


def _agree(place: Place, token: Token) -> None:
    """Name the keys that will be lost, and ask. Raises Cancelled."""
    keys = token.card.keys if token.card else token.keys
    names = [printable(key.label) or "a key without a label" for key in keys]
    lost = ", ".join(names) if names else "no key that shows without its PIN"
    warning = f"This erases {token.name} for good. On it: {lost}."
    confirm(place.person, warning, token.label or token.id.serial)


# -- a SmartCard-HSM ---------------------------------------------------------------------------


async def _init_card(place: Place, token: Token, card: CardInfo, wish: Wish) -> None:
    shares = _shares(place, wish)
    present = card.so.is_set
    if present:
        pins.need_tries(place, token, so=True)
    if not token.blank:
        _agree(place, token)
    with ExitStack() as secrets:
        so_pin = secrets.enter_context(wiped(_so_pin(place, token, present=present)))
        new_so_pin = bytearray()
        if so_pin == pins.FACTORY_SO_PIN:
            place.person.say("This SO-PIN is the factory's, which everybody knows: choose another.")
            new_so_pin = secrets.enter_context(wiped(pins.new_so_pin(place, token)))
        pin = secrets.enter_context(wiped(pins.new_pin(place, token)))
        async with place.let_go(token), running(card_program(token.module)) as worker:
            order = InitializeCard(
                *(card.serial, so_pin, new_so_pin, pin),
                tries=_CARD_TRIES,
                shares=shares or None,
                label=wish.label,
            )
            try:
                await worker.ask(order, Done)
            except PinIncorrect as error:
                raise PinIncorrect(f"{error}; {await _tries_left(token)}") from None
    await _read_back_card(place, token, wish.label, shares)


def _so_pin(place: Place, token: Token, *, present: bool) -> bytearray:
    return pins.present_so_pin(place, token) if present else pins.new_so_pin(place, token)


async def _tries_left(token: Token) -> str:
    """Return how many tries the SO-PIN has left, which the answer to INITIALIZE does not tell."""
    now = next((t for t in await look(token.module) if t.id.serial == token.id.serial), None)
    left = now.card.so.left if now and now.card else None
    if left is None:
        return "how many tries are left, it does not say"
    return "one try is left" if left == 1 else f"{left} tries are left"


async def _read_back_card(place: Place, token: Token, label: str, shares: int) -> None:
    now = next((t for t in await look(token.module) if t.id.serial == token.id.serial), None)
    card = now.card if now else None
    if card is None or card.label != label or not card.user.is_set or key_numbers(card.objects):
        raise TokenError(f"{token.name} was initialised, but does not show as it should")
    if bool(shares) != (card.dkek is not None):
        raise TokenError(f"“{printable(label)}” was initialised, but not with the backup as asked")
    place.person.say(f"“{printable(label)}” is ready, and empty.")
    if shares:
        which = "DKEK share:" if shares == 1 else f"{shares} DKEK shares; for each,"
        place.person.say(
            f"Its keys can be backed up once it has its {which}"
            " `hsmagent token share make FILE`, then `hsmagent token share import FILE`."
        )
    else:
        place.person.say("Its keys can never be backed up.")


def _shares(place: Place, wish: Wish) -> int:
    """Return how many DKEK shares the card is to have. No later command can change the number."""
    shares = wish.backup_shares
    if shares is None:
        answer = place.person.asks(
            "Keys on a SmartCard-HSM can be backed up only if this is decided now. How many shares"
            " is the backup key to have (1 is usual, 0: no backup, ever)?"
        )
        if not answer.isascii() or not answer.isdecimal():
            raise UsageError("give a number of shares: --backup-shares N or --no-backup")
        shares = int(answer)
    if not NO_BACKUP <= shares <= _MOST_SHARES:
        raise UsageError(f"a SmartCard-HSM takes 1 to {_MOST_SHARES} shares")
    return shares


# -- any other token ---------------------------------------------------------------------------


async def _init_token(place: Place, token: Token, label: str, wish: Wish) -> None:
    if wish.backup_shares:
        raise UsageError(f"{token.name} has no DKEK shares: only a SmartCard-HSM has them")
    present = bool(token.info.flags & spec.CKF_TOKEN_INITIALIZED) and not token.blank
    if present and token.id.in_tpm:
        raise UsageError(
            f"{token.name} cannot be initialised again: remove it with `tpm2_ptool rmtoken`"
        )
    if not present and any(t.label == label for t in await look(token.module)):
        raise UsageError(f"there is a token “{printable(label)}” already; choose another label")
    if present:
        pins.need_tries(place, token, so=True)
        if token.info.flags & spec.CKF_SO_PIN_LOCKED:
            raise PinLocked(f"the SO-PIN of {token.name} is blocked")
        _agree(place, token)
    with (
        wiped(_so_pin(place, token, present=present)) as so_pin,
        wiped(pins.new_pin(place, token)) as pin,
    ):
        async with place.let_go(token):
            async with alone(token) as worker:
                await worker.ask(InitToken(token.slot, so_pin, label.encode()), Done)
            made = await _made(token, label)
            async with alone(made) as worker:
                await worker.ask(InitPin(made.slot, made.info.identity, so_pin, pin), Done)
            await pins.prove(made, pin)
    place.person.say(f"“{printable(label)}” is ready, and empty.")


async def _made(token: Token, label: str) -> Token:
    """Return the token that was made, which SoftHSM moves to another slot."""
    for other in await look(token.module):
        if other.label == label:
            return other
    raise HsmAgentError(f"{token.name} was initialised, but does not show under its new label")
