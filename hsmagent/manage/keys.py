"""`key new`, `rename` and `delete`: each reads back what became of it."""

import secrets
import shlex
from dataclasses import dataclass

from hsmagent.errors import TokenError, UsageError
from hsmagent.mail.cms import certificates
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.manage import backups, certs, kinds, pins
from hsmagent.manage.kinds import MAIL, Kind
from hsmagent.manage.person import confirm, waiting, wiped
from hsmagent.manage.place import BLANK, Place, Token, logged_in, objects_now
from hsmagent.manage.proof import prove_signature
from hsmagent.manage.tokens import kinds_of
from hsmagent.manage.worker import ModuleSaid, Worker, card_program, running
from hsmagent.model import Key, printable
from hsmagent.schsm.card import END_ENTITY, PRIVATE_KEY, PRIVATE_KEY_DESCRIPTION, file_id
from hsmagent.ssh.keys import authorized_key, blob_of
from hsmagent.worker import spec
from hsmagent.worker.messages import Done
from hsmagent.worker.orders import CardInfo, Change, DeleteFiles, Destroy, Generate

_ID = 8  # bytes of a new CKA_ID; OpenSC cannot change one cheaply
_MAKING = 570.0  # seconds; RSA-4096 takes a card minutes, and the daemon waits for ten
_WORTH_SAYING = 10  # seconds: the person is told of a key that takes longer to make
_CLASSES = (spec.CKO_PRIVATE_KEY, spec.CKO_PUBLIC_KEY, spec.CKO_CERTIFICATE)


@dataclass(frozen=True, slots=True)
class Wish:
    """The command line of `key new`. kind or label "": it names none."""

    kind: str
    label: str
    uses: tuple[str, ...]


async def new(place: Place, wish: Wish) -> str:
    """`key new`: returns the key's line for authorized_keys, or its URI where ssh needs none."""
    kind = kinds.kind_of(wish.kind)
    label = wish.label or "-".join(wish.uses)
    if printable(label) != label:
        raise UsageError("the label has characters that do not show")
    token = await place.token()
    await _check(token, kind, label)
    pins.expect_login(place, token)
    key_id = secrets.token_bytes(_ID)
    public, private = kinds.templates(kind, key_id, label, wish.uses)
    async with pins.login(place, token) as worker:
        if token.card and kind.seconds > _WORTH_SAYING:
            place.person.say(f"The card makes the key: about {kind.seconds} seconds.")
        order = Generate(token.slot, kind.mechanism, public, private)
        try:
            # How long another token takes is not known.
            async with waiting(place.person, "Making the key", kind.seconds if token.card else 0):
                await worker.ask(order, Done, _MAKING)
        except ModuleSaid as error:
            raise TokenError(f"{token.name} did not make the {kind.name} key: {error}") from None
        key = _made(await objects_now(worker, token), key_id)
        await prove_signature(worker, token, key)
    place.person.say(f"The {kind.name} key “{label}” is on {token.name}.")
    if MAIL in wish.uses:
        command = shlex.join(("hsmagent", "cert", "request", label, "--email"))
        place.person.say(f"For mail it needs a certificate: `{command} ADDRESS`.")
    blob = b"" if wish.uses == (MAIL,) else blob_of(key.spki)
    return authorized_key(blob, label) if blob else key.uri


async def _check(token: Token, kind: Kind, label: str) -> None:
    """Refuse a key that cannot be made, and a label that another key has. Raises UsageError."""
    if token.blank:
        raise UsageError(f"{token.name} {BLANK}")
    if any(key.label == label for key in token.keys):
        raise UsageError(f"there is a key “{label}” on {token.name} already: give a --label")
    able = await kinds_of(token)
    if kind.name not in able:
        raise UsageError(f"{token.name} does not make {kind.name} keys, but: {', '.join(able)}")


def _made(token: Token, key_id: bytes) -> Key:
    for key in token.keys:
        if key.id == key_id:
            return key
    raise TokenError(f"{token.name} said that it made the key, but does not show it")


def _alone(token: Token, key: Key) -> None:
    """Refuse to touch a key that shares its CKA_ID, by which its objects are found."""
    if not key.id or sum(other.id == key.id for other in token.keys) > 1:
        raise UsageError("the key has no id of its own, by which its objects could be found")


async def rename(place: Place, name: str, label: str) -> None:
    """`key rename`: key, public key and certificates get the label."""
    if not label or printable(label) != label:
        raise UsageError("the label must have characters, and all must show")
    token, key = await place.key(name)
    _alone(token, key)
    if any(other.label == label for other in token.keys):
        raise UsageError(f"there is a key “{label}” on {token.name} already")
    pins.expect_login(place, token)
    async with pins.login(place, token) as worker:
        # On a card OpenSC gives public key and certificate the label of the private key, and
        # changes no other.
        for number in _CLASSES[:1] if token.card else _CLASSES:
            attributes = ((spec.CKA_LABEL, label.encode()),)
            await worker.ask(Change(token.slot, _matching(number, key), attributes), Done)
    now = _made(await place.again(token), key.id)
    if now.label != label:
        raise TokenError(f"{token.name} said yes, but still calls it “{printable(now.label)}”")
    place.person.say(f"“{printable(key.label)}” is now “{label}”")


def _matching(number: int, key: Key) -> tuple[tuple[int, bytes], ...]:
    return ((spec.CKA_CLASS, spec.ulong(number)), (spec.CKA_ID, key.id))


async def delete(place: Place, name: str, *, with_certificate: bool) -> None:
    """`key delete`: the key, its public half and what goes with it."""
    token, key = await place.key(name)
    _alone(token, key)
    if key.certificates and not with_certificate:
        raise UsageError(
            f"“{printable(key.label)}” has a certificate, which would be lost or of no use without"
            " it: `hsmagent cert export` keeps a copy; add --with-cert to delete both"
        )
    pins.expect_login(place, token)
    confirm(place.person, _loss(token, key), key.label or key.id.hex())
    pin = pins.present_pin(place, token, by_card=True)
    async with place.let_go(token):
        if token.card:
            await _delete_from_card(token, token.card, key, pin)
        else:
            async with logged_in(token, pin) as worker:
                await _delete(worker, token, key)
        now = await place.again(token)
    if any(other.id == key.id for other in now.keys):
        raise TokenError(f"{token.name} said yes, but the key still shows")
    place.person.say(f"“{printable(key.label)}” is deleted")


def _loss(token: Token, key: Key) -> str:
    """Return what a person should know before a key is deleted.

    What goes with it, what could bring it back, and what stays behind.
    """
    said = [f"This deletes the key “{printable(key.label)}” on {token.name} for good."]
    if key.opens:
        said.append("Mail and files encrypted for it, if there are any, can be read no more.")
    said.append(backups.known(key))
    own = [Certificate(each) for each in key.certificates]
    if own:
        said.append("Its certificate goes with it.")
        there = certs.in_token(token)
        above = {each.issuer for one in own for each in certificates.chain(one, there)}
        issuers = {each.name for each in there if each.subject in above and each not in own}
        if issuers:
            names = ", ".join(sorted(map(printable, issuers)))
            said.append(f"The certificates of its authorities stay: {names}.")
    return " ".join(said)


async def _delete(worker: Worker, token: Token, key: Key) -> None:
    for number in _CLASSES:
        await worker.ask(Destroy(token.slot, _matching(number, key)), Done)


async def _delete_from_card(token: Token, card: CardInfo, key: Key, pin: bytearray | None) -> None:
    """Delete by APDU: OpenSC leaves the certificate's file, which then bars the key's place."""
    number = backups.number_of(key, card)
    files = tuple(
        file_id(high, number) for high in (PRIVATE_KEY, PRIVATE_KEY_DESCRIPTION, END_ENTITY)
    )
    with wiped(pin):
        async with running(card_program(token.module)) as worker:
            await worker.ask(DeleteFiles(card.serial, pin, files), Done)
