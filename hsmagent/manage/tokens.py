"""`token info`: what a token is and can do, without a PIN."""

from hsmagent.control.client import NONE_PRESENT
from hsmagent.errors import TokenGone
from hsmagent.manage.kinds import made_by
from hsmagent.manage.place import Place, Token
from hsmagent.manage.shares import shown
from hsmagent.manage.worker import module_program, running
from hsmagent.model import printable
from hsmagent.schsm.card import key_numbers
from hsmagent.worker import spec
from hsmagent.worker.orders import CardInfo, ListMechanisms, Mechanisms, Tries


async def info(place: Place) -> str:
    """`token info`: lines such as "Model: …", for the token that was named, or for each."""
    tokens = await place.chosen()
    if not tokens:
        raise TokenGone(NONE_PRESENT)
    return "\n\n".join([await _about(token) for token in tokens])


async def _about(token: Token) -> str:
    rows = [
        ("Token", token.name.strip("“”")),
        ("Serial number", printable(token.id.serial)),
        ("Model", printable(f"{token.id.model}, {token.id.manufacturer}")),
        ("Module", token.module.path),
        ("URI", token.id.uri),
    ]
    rows += (
        _card(token.card)
        if token.card
        else [("PIN", _pin(token.info.flags)), ("Keys", str(len(token.keys)))]
    )
    if token.blank:
        rows.append(("Remedy", "it is blank; `hsmagent token init` makes it usable"))
    else:
        rows.append(("Makes", ", ".join(await kinds_of(token)) or "no keys"))
    return "\n".join(f"{what + ':':15} {said}" for what, said in rows)


def _card(card: CardInfo) -> list[tuple[str, str]]:
    rows = [
        ("Reader", printable(card.reader)),
        ("Version", card.version),
        ("Free memory", f"{card.free_memory} bytes"),
        ("PIN", _tries(card.user)),
        ("SO-PIN", _tries(card.so)),
        ("Keys", str(len(key_numbers(card.objects)))),
    ]
    if not card.user.is_set:
        return [*rows, ("Backup", "possible if it is initialised with DKEK shares")]
    if card.dkek is None:
        return [*rows, ("Backup", "not possible: it was initialised without DKEK shares")]
    shares, missing = card.dkek.shares, card.dkek.missing
    if missing:
        return [*rows, ("Backup", f"{missing} of {shares} DKEK shares are missing")]
    return [
        *rows,
        ("Backup", f"possible, with {shares} DKEK {'share' if shares == 1 else 'shares'}"),
        ("Check value", shown(card.dkek.kcv)),
    ]


def _tries(pin: Tries) -> str:
    if not pin.is_set:
        return "not set"
    if pin.left is None:
        return "set; somebody is logged in with it"
    if not pin.left:
        return "blocked"
    return f"set; {pin.left} {'try' if pin.left == 1 else 'tries'} left"


def _pin(flags: int) -> str:
    if not flags & spec.CKF_USER_PIN_INITIALIZED:
        return "not set"
    if flags & spec.CKF_USER_PIN_LOCKED:
        return "blocked"
    if flags & spec.CKF_USER_PIN_FINAL_TRY:
        return "set; one try left"
    if flags & spec.CKF_USER_PIN_COUNT_LOW:
        return "set; a wrong one was given last"
    return "set"


async def kinds_of(token: Token) -> list[str]:
    """Return the kinds of key that a token can make, as far as it says."""
    async with running(module_program(token.module)) as worker:
        listed = await worker.ask(ListMechanisms(token.slot), Mechanisms)
    return [kind.name for kind in made_by(listed.mechanisms)]
