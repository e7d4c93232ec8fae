"""`share …`: the shares of a SmartCard-HSM's DKEK, in sc-hsm-tool's files."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hsmagent.errors import HsmAgentError, TokenError, UsageError
from hsmagent.frame import wipe
from hsmagent.manage import files
from hsmagent.manage.person import wiped
from hsmagent.manage.place import Place, Token
from hsmagent.manage.worker import card_program, running
from hsmagent.schsm import backup, dkek, passwords
from hsmagent.schsm.dkek import Dkek, WrongPassword
from hsmagent.schsm.passwords import Part
from hsmagent.worker.messages import Done
from hsmagent.worker.orders import CardDkek, CardInfo, ImportShare

_SHORTEST = 8  # characters of a password


def expected(text: str) -> bytes:
    """Return the check value that a text names: 16 digits, or the path of a backup that has it.

    The digits may have colons between them.

    Raises UsageError for what is neither, HsmAgentError for a file that cannot be read.
    """
    try:
        value = bytes.fromhex(text.replace(":", ""))
    except ValueError:
        value = b""
    if len(value) == dkek.KCV:
        return value
    path = Path(text)
    if not path.exists():
        raise UsageError("a check value is 16 hexadecimal digits, or the backup of a key")
    try:
        return backup.blob(backup.read(files.read(path)).blob).kcv
    except ValueError as error:
        raise UsageError(f"{path} is no backup of a key: {error}") from None


def shown(kcv: bytes) -> str:
    """Return a check value as every command shows it."""
    return kcv.hex().upper()


async def make(place: Place, path: Path, split: tuple[int, int] | None) -> None:
    """`share make`: a new share in a new file, under a password or one in parts.

    Needs no card. split: how many of how many parts give the password back.
    """
    files.need_new(path)
    parts: tuple[Part, ...] = ()
    if split is None:
        password = _new_password(place)
    else:
        threshold, total = split
        password = bytearray(passwords.new_password())
        try:
            parts = passwords.split(bytes(password), threshold, total)
        except ValueError as error:
            raise UsageError(str(error)) from None
    with wiped(password), place.person.progress("Protecting the share") as progress:
        content = dkek.encrypt_share(dkek.make_share(), password, progress)
    files.create(path, content)
    place.person.say(f"The share is in {path}. Without it no backup can be restored: keep copies.")
    for part in parts:
        _show_part(place, part, len(parts))


def _new_password(place: Place) -> bytearray:
    password = place.person.secret("Password for the share", again="The password again")
    if len(password) < _SHORTEST:
        wipe(password)
        raise UsageError(f"the password must have {_SHORTEST} characters or more")
    return password


def _show_part(place: Place, part: Part, total: int) -> None:
    """Show one keeper's part until it is noted: the next keeper must not see it."""
    place.person.shows_once(
        f"Part {part.id} of {total}; its keeper notes all three:\n"
        f"  Prime  {_colons(part.prime)}\n  Id     {part.id}\n  Value  {_colons(part.value)}"
    )


def _colons(number: int) -> str:
    return number.to_bytes(passwords.SIZE, "big").hex(":")


# -- reading -----------------------------------------------------------------------------------


def open_share(place: Place, path: Path, split: int) -> bytearray:
    """Return the share in a file. Asks for its password, or for `split` parts of it.

    Raises HsmAgentError when the password is wrong, UsageError for what is no share.
    """
    content = files.read(path)
    try:
        dkek.check_file(content)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None
    password = _parts(place, split) if split else place.person.secret(f"Password of {path}")
    try:
        with wiped(password), place.person.progress(f"Opening {path}") as progress:
            return bytearray(dkek.decrypt_share(content, password, progress))
    except WrongPassword:
        raise HsmAgentError(f"the password does not open {path}") from None


@contextmanager
def _opened(place: Place, paths: list[Path], split: int) -> Iterator[list[bytearray]]:
    """Give the shares in these files, and wipe them at the end of the block."""
    with ExitStack() as secrets:
        yield [secrets.enter_context(wiped(open_share(place, path, split))) for path in paths]


def _parts(place: Place, split: int) -> bytearray:
    person, parts = place.person, list[Part]()
    prime = 0
    for number in range(1, split + 1):
        if not prime:
            prime = _number(person.secret("Prime (hexadecimal)"), 16)
        part_id = _number(person.secret(f"Id of part {number}"), 10)
        parts.append(Part(prime, part_id, _number(person.secret(f"Value of part {number}"), 16)))
    try:
        return bytearray(passwords.join(parts))
    except (ValueError, IndexError):
        raise UsageError("the parts do not belong together") from None


def _number(typed: bytearray, base: int) -> int:
    try:
        with wiped(typed):
            return int(typed.decode("ascii").replace(":", "").strip(), base)
    except ValueError:
        raise UsageError("this is no number of a part") from None


def need_card(token: Token) -> CardInfo:
    """Return what a SmartCard-HSM says of itself. Raises UsageError for any other token."""
    if token.card is None:
        raise UsageError(f"{token.name} is no SmartCard-HSM: it has no DKEK and no backup")
    return token.card


async def put(place: Place, paths: list[Path], *, expect: bytes = b"", split: int = 0) -> None:
    """`share import`: gives the card shares; its check value tells whether they are right.

    expect: the check value that must come out, or b"". split: as `open_share` has it.
    """
    token = await place.token()
    card = need_card(token)
    if card.dkek is None:
        raise UsageError(
            f"{token.name} was initialised without a DKEK: only another `hsmagent token init"
            " --backup-shares N`, which erases it, changes that"
        )
    if len(paths) > card.dkek.missing:
        missing = card.dkek.missing
        raise UsageError(f"{token.name} takes {missing or 'no'} more DKEK shares, not {len(paths)}")
    place.announce(token)
    with _opened(place, paths, split) as shares:
        if len({bytes(share) for share in shares}) < len(shares):
            raise UsageError("one share is given twice: together they would be none")
        whole = card.dkek.missing == card.dkek.shares == len(shares)
        made = dkek.combine(map(bytes, shares)).kcv
        if whole and expect and made != expect:
            raise HsmAgentError(
                f"these shares make the check value {shown(made)}, not {shown(expect)};"
                " the card was not touched"
            )
        async with place.let_go(token), running(card_program(token.module)) as worker:
            for share in shares:
                await worker.ask(ImportShare(card.serial, share), Done)
    now = need_card(await place.again(token)).dkek
    _say(place, token, now, expect)
    if now is not None and whole and now.kcv != made:
        raise TokenError(f"{token.name} shows another check value than its shares make")


def _say(place: Place, token: Token, now: CardDkek | None, expect: bytes) -> None:
    if now is None:
        raise TokenError(f"{token.name} shows no DKEK any more")
    if now.missing:
        place.person.say(f"{token.name} waits for {now.missing} of {now.shares} shares")
        return
    place.person.say(f"{token.name} can back up its keys. Check value: {shown(now.kcv)}")
    if expect and now.kcv != expect:
        raise TokenError(
            f"the check value is not {shown(expect)}: a share was wrong, and only"
            " `hsmagent token init` can take that back"
        )


def whole_dkek(place: Place, paths: list[Path], split: int) -> Dkek:
    """Return the DKEK of all these share files."""
    with _opened(place, paths, split) as shares:
        return dkek.combine(map(bytes, shares))
