"""Where management works: the modules, and their tokens as they are now, by name."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from hsmagent.control.client import NONE_PRESENT
from hsmagent.control.names import find_key, names_key
from hsmagent.errors import ConfigError, TokenError, TokenGone, UsageError
from hsmagent.manage.person import Person, confirm, waiting, wiped
from hsmagent.manage.worker import Worker, card_program, module_program, running
from hsmagent.model import Key, ModuleSpec, TokenId, printable
from hsmagent.token import exclusive
from hsmagent.token.objects import keys_of
from hsmagent.uri import SCHEME, parse
from hsmagent.worker import spec
from hsmagent.worker.messages import Done, Login, Logout, Look, Slots, TokenInfo
from hsmagent.worker.orders import CardInfo, Cards, ListCards

_CARD_MAKER = b"www.CardContact.de"
_SLOT_NAME = 64  # bytes of CK_SLOT_INFO's description
_SELECT_SECONDS = 5.0  # another program may keep the card, which then has selected it itself
_USER_PIN = " (UserPIN)"  # OpenSC puts it behind a card's label
BLANK = "has no PIN yet; `hsmagent token init` makes it usable"  # a token


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is now.

    removable: it can be taken out, as a card can. The login of such a token is shared: every
    program that reaches it is logged in, too. card: what a SmartCard-HSM says by its own commands.
    """

    module: ModuleSpec
    slot: int
    info: TokenInfo
    removable: bool = False
    card: CardInfo | None = None

    @property
    def id(self) -> TokenId:
        """Its identity, for URIs and names."""
        words = (self.info.label, self.info.serial, self.info.model, self.info.manufacturer)
        return TokenId(self.module.path, *(word.decode(errors="replace") for word in words))

    @property
    def label(self) -> str:
        """The label that the person gave the token, without what OpenSC appends."""
        return self.card.label if self.card else self.id.label.removesuffix(_USER_PIN)

    @property
    def name(self) -> str:
        """What to call it in a sentence."""
        if self.label:
            return f"“{printable(self.label)}”"
        serial = printable(self.id.serial)
        kind = "SmartCard-HSM" if self.card else Path(self.module.path).name
        return (
            f"the token {serial} of {kind}" if serial.strip("0") else f"the blank token of {kind}"
        )

    @property
    def blank(self) -> bool:
        """Whether it was never initialised, or cannot be told apart for want of a label."""
        if self.card:
            return not self.card.so.is_set or not self.card.user.is_set
        return not self.info.flags & spec.CKF_TOKEN_INITIALIZED or not self.info.label

    def need_reach(self) -> None:
        """Refuse a SmartCard-HSM that its own commands do not reach. Raises TokenError.

        By PKCS#11 alone its PIN would become a piece of the SO-PIN, and tries would be lost unseen.
        """
        if self.card is None and self.info.manufacturer == _CARD_MAKER:
            raise TokenError(
                f"{self.name} is a SmartCard-HSM that answers to OpenSC and not to us; if another"
                " program keeps it busy, end that one"
            )

    @property
    def fixed(self) -> bool:
        """Whether nothing can be written to it: NSS has such a token beside its database."""
        return bool(self.info.flags & spec.CKF_WRITE_PROTECTED)

    @property
    def pad(self) -> bool:
        """Whether its PIN is typed on the reader."""
        return bool(self.info.flags & spec.CKF_PROTECTED_AUTHENTICATION_PATH)

    @property
    def keys(self) -> tuple[Key, ...]:
        """Its keys, as far as they show without a PIN."""
        return keys_of(self.id, self.info.objects, complete=self.info.complete).keys


class Beside(Protocol):
    """The daemon beside us, which may be logged in to the token; or there is no daemon."""

    def foretell(self, token: Token) -> None:
        """Say which logins `let_go` will end. Raises Refused where the daemon would not let go."""

    def let_go(self, token: Token) -> AbstractAsyncContextManager[None]:
        """Have the daemon let go of a token's module, for as long as the context lasts."""


@dataclass(frozen=True, slots=True)
class Place:
    """The modules, the person, and the daemon beside us.

    on: the name of the token on the command line; "" for the only one there is. last_try: the
    person said to go on although one more wrong PIN blocks the token.
    """

    modules: tuple[ModuleSpec, ...]
    person: Person
    beside: Beside
    on: str = ""
    last_try: bool = False

    async def tokens(self) -> tuple[Token, ...]:
        """Look at every token of every module, each in a worker of its own.

        A module that fails, and that the configuration does not name, is told of only where no
        token is found.
        """
        found: list[Token] = []
        left_out: list[str] = []
        for module in self.modules:
            try:
                async with waiting(self.person, f"Reading the tokens of {Path(module.path).name}"):
                    tokens = await look(module)
                if not tokens and exclusive.is_opensc(module.path):
                    for note in (await _cards(module)).notes:
                        self.person.say(note)
            except TokenError as error:
                note = f"{module.path} is left out: {error}"
                if module.named:
                    self.person.say(note)
                else:
                    left_out.append(note)
            else:
                found += tokens
        for note in () if found else left_out:
            self.person.say(note)
        return tuple(found)

    async def token(self, *, blank: bool = False) -> Token:
        """Return the token that was named: by label, serial number, URI; or the only one there is.

        blank: without a name, the only blank one is meant, if there is one. Raises UsageError,
        TokenGone where there is none at all.
        """
        name = self.on
        tokens = await self.tokens()
        if name:
            found = _named(name, tokens)
        else:
            writable = [token for token in tokens if not token.fixed]
            usable = [token for token in writable if token.blank is blank]
            found = usable or [token for token in writable if not token.blank]
        if len(found) == 1:
            return found[0]
        choice = ", ".join(_choice(token) for token in found or tokens)
        if not tokens:
            raise TokenGone(NONE_PRESENT)
        if not found and not name:
            blank_one = next((token.name for token in tokens if token.blank), None)
            raise UsageError(
                f"{blank_one} {BLANK}" if blank_one else f"nothing can be written to {choice}"
            )
        if not found:
            raise UsageError(f"no token is named {printable(name)!r}; present: {choice}")
        raise UsageError(f"which token? Name one: {choice}")

    async def chosen(self) -> tuple[Token, ...]:
        """Return the token that was named, or all. Raises as `token`."""
        return (await self.token(),) if self.on else await self.tokens()

    async def key(self, name: str) -> tuple[Token, Key]:
        """Return the key of that name and its token. Raises UsageError."""
        tokens = await self.chosen()
        wanted = parse(name) if name.startswith(SCHEME) else name
        found = [token for token in tokens if any(names_key(wanted, key) for key in token.keys)]
        if len(found) > 1:
            choice = ", ".join(map(_choice, found))
            raise UsageError(
                f"{len(found)} tokens have a key {printable(name)!r}; say --token: {choice}"
            )
        key = find_key(name, [key for token in found for key in token.keys])
        return found[0], key

    def announce(self, token: Token) -> None:
        """Say, before anything is asked for, what others will notice of a login to the token.

        Raises Refused where the daemon does not let go of it, Cancelled where others could use the
        login and the person does not want that.
        """
        self.beside.foretell(token)
        with tempfile.TemporaryDirectory(prefix="hsmagent-") as folder:
            try:
                if token.removable:
                    exclusive.alone(token.module, Path(folder))
            except ConfigError as error:
                warning = (
                    f"Every other program can use {token.name} while this one is logged in to it:"
                    f" {error}."
                )
                confirm(self.person, warning, "yes")

    def let_go(self, token: Token) -> AbstractAsyncContextManager[None]:
        """Have the daemon let go of a token, for as long as the context lasts."""
        return self.beside.let_go(token)

    async def again(self, token: Token) -> Token:
        """Look at a token anew. Raises TokenError when it is not there any more."""
        async with waiting(self.person, f"Reading {token.name}"):
            tokens = await look(token.module)
        for other in tokens:
            if other.id.serial == token.id.serial and other.label == token.label:
                return other
        raise TokenError(f"{token.name} is not there any more")


def _named(name: str, tokens: tuple[Token, ...]) -> list[Token]:
    if name.startswith(SCHEME):
        wanted = parse(name)
        return [token for token in tokens if wanted.matches_token(token.id)]
    found = [t for t in tokens if name in (t.label, t.id.label, t.id.serial)]
    # A blank token has no name of its own: that of its module serves.
    return found or [t for t in tokens if t.blank and name in Path(t.module.path).name]


def _choice(token: Token) -> str:
    if token.blank and not token.card:
        return f"{Path(token.module.path).name} (blank)"
    return (
        f"{printable(token.label)} ({printable(token.id.serial)})"
        if token.label
        else token.id.serial
    )


async def look(module: ModuleSpec) -> list[Token]:
    """Return a module's tokens as they are now. Raises TokenError."""
    async with running(module_program(module), module) as worker:
        slots = (await worker.ask(Look(objects=True), Slots)).slots
    tokens = [
        Token(module, slot.slot, slot.token, removable=bool(slot.flags & spec.CKF_REMOVABLE_DEVICE))
        for slot in slots
        if slot.token is not None
    ]
    # OpenSC 0.26 does not recognise a card that has no PIN; the card itself says more.
    unknown = {slot.name: slot for slot in slots if slot.rv == spec.CKR_TOKEN_NOT_RECOGNIZED}
    if not unknown and not any(token.info.manufacturer == _CARD_MAKER for token in tokens):
        return tokens
    cards: dict[str, CardInfo] = {}
    with suppress(TokenError):  # then it is a token like others
        cards = {card.serial: card for card in (await _cards(module)).cards}
    found = [replace(token, card=cards.pop(token.id.serial, None)) for token in tokens]
    for card in cards.values():
        slot = unknown.get(card.reader.encode()[:_SLOT_NAME].rstrip())
        if slot is not None:
            found.append(Token(module, slot.slot, _described(card), removable=True, card=card))
    return found


def _described(card: CardInfo) -> TokenInfo:
    """Return what the module would say of a card, if it recognised the card."""
    serial = card.serial.encode()
    return TokenInfo(b"", _CARD_MAKER, b"", serial, 0, pin_min=0, pin_max=0, complete=False)


async def _cards(module: ModuleSpec) -> Cards:
    async with running(card_program(module)) as worker:
        return await worker.ask(ListCards(), Cards)


@asynccontextmanager
async def alone(token: Token) -> AsyncIterator[Worker]:
    """Start a worker for a token's module that keeps a card to itself while it is logged in.

    Where that cannot be, `Place.announce` has asked.
    """
    with tempfile.TemporaryDirectory(prefix="hsmagent-") as folder:
        module = token.module
        with suppress(ConfigError):
            module = exclusive.alone(module, Path(folder))
        async with running(module_program(module)) as worker:
            yield worker


@asynccontextmanager
async def logged_in(token: Token, pin: bytearray | None) -> AsyncIterator[Worker]:
    """Start a worker, log in with the PIN that was typed (wiped), once; log out at the end."""
    try:
        with ExitStack() as secret:
            secret.enter_context(wiped(pin))
            async with alone(token) as worker:
                await worker.ask(Login(token.slot, token.info.identity, pin), Done)
                secret.close()
                try:
                    yield worker
                finally:
                    with suppress(TokenError):
                        await worker.ask(Logout(token.slot), Done)
    finally:
        if token.card:
            await _select(token)


async def _select(token: Token) -> None:
    """Select the card's applet, for other programs that are logged in to it.

    With OpenSC 0.26 a card stays ours through C_Logout, and pcscd resets it when the worker ends.
    Another program's OpenSC would then speak to no applet, and fail until somebody selects it.
    """
    with suppress(TokenError):
        async with running(card_program(token.module)) as worker:
            await worker.ask(ListCards(), Cards, _SELECT_SECONDS)


async def objects_now(worker: Worker, token: Token) -> Token:
    """Look at a token again in the same worker, private objects included where logged in."""
    for slot in (await worker.ask(Look(objects=True), Slots)).slots:
        if slot.slot == token.slot and slot.token is not None:
            return replace(token, info=slot.token)
    raise TokenError(f"{token.name} is not there any more")
