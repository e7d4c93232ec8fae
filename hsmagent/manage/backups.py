"""`key backup`, `restore`, `verify-backup`, `export`: wrapped keys in sc-hsm-tool's files."""

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
)

from hsmagent.errors import HsmAgentError, TokenError, UsageError
from hsmagent.manage import files, kept, pins, shares
from hsmagent.manage.person import confirm, wiped
from hsmagent.manage.place import Place, Token
from hsmagent.manage.shares import need_card, shown
from hsmagent.manage.worker import card_program, running
from hsmagent.model import Key, printable
from hsmagent.schsm import backup, pkcs15
from hsmagent.schsm.backup import Backup, Blob, PrivateKey, WrongDkek
from hsmagent.schsm.card import END_ENTITY, PRIVATE_KEY, PRIVATE_KEY_DESCRIPTION, free_number
from hsmagent.schsm.cvc import PublicKey
from hsmagent.schsm.dkek import Dkek
from hsmagent.schsm.pkcs15 import KeyDescription
from hsmagent.worker.messages import Done
from hsmagent.worker.orders import CardInfo, CardKey, UnwrapKeys, WrapKeys, WrappedKey, WrappedKeys

SUFFIX = ".wrapped"
_SECONDS = 300.0
_SHORTEST = 10  # characters of a passphrase around a bare private key


@dataclass(frozen=True, slots=True)
class _File:
    """A backup that was read. blob: the wrapped key; said: what the backup says of the key."""

    path: Path
    content: Backup
    blob: Blob
    said: KeyDescription

    @property
    def name(self) -> str:
        """What to call its key."""
        return f"“{printable(self.said.label)}”" if self.said.label else "a key without a label"


def _read(path: Path) -> _File:
    try:
        content = backup.read(files.read(path))
        blob = backup.blob(content.blob)
        none = KeyDescription("", b"", 0)
        said = pkcs15.key_description(content.description) if content.description else none
    except ValueError as error:
        raise UsageError(f"{path} is no backup of a key: {error}") from None
    return _File(path, content, blob, said)


# -- from a card to files ------------------------------------------------------------------------


async def save(place: Place, names: list[str], folder: Path) -> None:
    """`key backup`: a file for each key, named for its label."""
    files.need_folder(folder)
    found = [await place.key(name) for name in names]
    token = found[0][0]
    if any(other.id != token.id for other, _ in found):
        raise UsageError("these keys are not all on one token")
    card = need_card(token)
    kcv = _usable(token, card)
    wanted = {
        number_of(key, card): (key, _path(folder, key.label or key.id.hex())) for _, key in found
    }
    paths = [path for _, path in wanted.values()]
    for path in paths:
        files.need_new(path)
    if len(set(paths)) < len(found):
        raise UsageError("two of these keys would get one file: rename one")
    pins.expect_login(place, token)
    with wiped(pins.present_pin(place, token, by_card=True)) as pin:
        async with place.let_go(token), running(card_program(token.module)) as worker:
            order = WrapKeys(card.serial, pin, tuple(wanted))
            answer = await worker.ask(order, WrappedKeys, _SECONDS)
    for wrapped in answer.keys:
        key, path = wanted[wrapped.number]
        content = Backup(wrapped.blob, wrapped.description, wrapped.certificate)
        files.create(path, content.encode())
        if _read(path).blob.kcv != kcv:
            raise TokenError(f"{path} was wrapped with another DKEK than the card's")
        place.person.say(f"{path} holds {_read(path).name}; check value {shown(kcv)}")
        with suppress(OSError):  # without this note `key delete` will not know of the backup
            kept.remember(key, path)


def known(key: Key) -> str:
    """Return a sentence on the backup of a key: where it is, and whether it still is the key's."""
    made = kept.backups_of(key)
    for entry in made:
        with suppress(HsmAgentError):
            file = _read(entry.path)
            public = _public(file)
            if public is not None and _spki(public) == key.spki:
                return (
                    f"Its backup of {entry.day} is in {entry.path}, for a card whose DKEK has the"
                    f" check value {shown(file.blob.kcv)}."
                )
    if made:
        return f"The backup that was made of it here is no longer in {made[0].path}."
    return "No backup of it was made here."


def _usable(token: Token, card: CardInfo) -> bytes:
    """Return the check value of the card's DKEK. Raises UsageError when it has none."""
    if card.dkek is None:
        raise UsageError(
            f"{token.name} was initialised without a DKEK: its keys can never be backed up"
        )
    if card.dkek.missing:
        raise UsageError(
            f"{token.name} still waits for {card.dkek.missing} DKEK shares:"
            " `hsmagent token share import FILE`"
        )
    return card.dkek.kcv


def number_of(key: Key, card: CardInfo) -> int:
    """Return the number that a key has on its card. Raises TokenError."""
    numbers = [each.number for each in card.keys if each.id == key.id]
    if len(numbers) != 1:
        raise TokenError("the key cannot be found on the card by its id")
    return numbers[0]


def _path(folder: Path, label: str) -> Path:
    """Return the file for a key; no character of a label leads out of the folder."""
    return folder / (re.sub(r"[^\w.@-]+", "_", label).lstrip(".") + SUFFIX)


# -- from files to a card ------------------------------------------------------------------------


async def restore(place: Place, paths: list[Path]) -> None:
    """`key restore`: each key gets its old number on the card, or else a free one."""
    read = [_read(path) for path in paths]
    token = await place.token()
    card = need_card(token)
    kcv = _usable(token, card)
    for file in read:
        if file.blob.kcv != kcv:
            raise UsageError(
                f"{file.path} needs the DKEK with the check value {shown(file.blob.kcv)};"
                f" {token.name} has {shown(kcv)}"
            )
        if any(key.id == file.said.id for key in card.keys if key.id):
            raise UsageError(f"{token.name} has {file.name} already")
    keys = _placed(card, read)
    pins.expect_login(place, token)
    with wiped(pins.present_pin(place, token, by_card=True)) as pin:
        async with place.let_go(token), running(card_program(token.module)) as worker:
            await worker.ask(UnwrapKeys(card.serial, pin, keys), Done, _SECONDS)
    now = need_card(await place.again(token))
    for key, file in zip(keys, read, strict=True):
        if CardKey(key.number, file.said.label, file.said.id, _certified(file)) not in now.keys:
            raise TokenError(f"{token.name} said yes, but does not show {file.name}")
        place.person.say(f"{file.name} is on {token.name} again")


def _certified(file: _File) -> bool:
    return file.content.certificate[:1] == b"\x30"


def _placed(card: CardInfo, read: list[_File]) -> tuple[WrappedKey, ...]:
    """Give each key its old number if that is free, and write the number into its description."""
    taken, keys = list(card.objects), []
    for file in read:
        content, number = file.content, file.said.reference
        highs = (PRIVATE_KEY, PRIVATE_KEY_DESCRIPTION, END_ENTITY)
        if number not in range(1, 0x100) or any(high << 8 | number in taken for high in highs):
            number = free_number(tuple(taken))
        if not number:
            raise UsageError("the card has no place left for a key")
        if content.description and number != file.said.reference:
            description = pkcs15.renumbered(content.description, number)
            content = replace(content, description=description)
        taken.append(PRIVATE_KEY << 8 | number)
        keys.append(WrappedKey(number, content.blob, content.description, content.certificate))
    return tuple(keys)


# -- without the card ----------------------------------------------------------------------------


def verify(place: Place, paths: list[Path], share_files: list[Path], split: int) -> str:
    """`key verify-backup`: a line on what each backup holds, and with shares, whether it is whole.

    Needs no card. The private key is in memory only while it is compared.
    """
    read = [_read(path) for path in paths]
    lines = [
        f"{f.path}: {f.name}, {f.blob.kind.name}, check value {shown(f.blob.kcv)}" for f in read
    ]
    if not share_files:
        return "\n".join([*lines, "Only its form was looked at: --share FILE opens it."])
    dkek = shares.whole_dkek(place, share_files, split)
    for index, file in enumerate(read):
        private = _open(file, dkek)
        public = _public(file)
        if public is None:
            lines[index] += "; whole, but no certificate to compare the key with"
        elif _spki(private.public_key()) != _spki(public):
            raise HsmAgentError(f"{file.path}: the private key is not that of its certificate")
        else:
            lines[index] += "; whole, and the key is that of its certificate or request"
    return "\n".join(lines)


def _open(file: _File, dkek: Dkek) -> PrivateKey:
    try:
        return backup.decrypt(file.blob, dkek)
    except WrongDkek:
        if file.blob.kcv != dkek.kcv:
            raise HsmAgentError(
                f"{file.path} needs the check value {shown(file.blob.kcv)};"
                f" these shares make {shown(dkek.kcv)}"
            ) from None
        raise HsmAgentError(f"{file.path} is damaged, or somebody has changed it") from None
    except ValueError as error:
        raise HsmAgentError(f"{file.path} cannot be opened: {error}") from None


def _public(file: _File) -> PublicKey | None:
    try:
        return file.content.public_key()
    except ValueError as error:
        raise HsmAgentError(f"{file.path}: its certificate cannot be read: {error}") from None


def _spki(public: PublicKey) -> bytes:
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def export(place: Place, path: Path, share_files: list[Path], split: int, out: Path) -> None:
    """`key export`: the private key out of a backup, in PKCS #8 under a passphrase."""
    file = _read(path)
    files.need_new(out)
    warning = (
        f"This writes the private key {file.name} to {out}. From then on it is only as safe as that"
        " file and its passphrase; the token protects it no more."
    )
    confirm(place.person, warning, file.said.label or "export")
    dkek = shares.whole_dkek(place, share_files, split)
    private = _open(file, dkek)
    asked = place.person.secret("Passphrase for the file", again="The passphrase again")
    with wiped(asked) as passphrase:
        if len(passphrase) < _SHORTEST:
            raise UsageError(f"the passphrase must have {_SHORTEST} characters or more")
        content = private.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(bytes(passphrase))
        )
    files.create(out, content)
    place.person.say(f"{file.name} is in {out}")
