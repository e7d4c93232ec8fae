"""`hsmagent-sendmail`: a stand-in for sendmail that signs, and encrypts where it is asked to.

All messages are made before the first one is handed to the real sendmail: when anything goes
wrong before that, nothing has been sent, and the status (sysexits.h) and one line say why.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hsmagent.cli.sendmail_args import Arguments, parse
from hsmagent.config.mail import Settings, When
from hsmagent.errors import HsmAgentError, Refused, TokenError, UsageError
from hsmagent.mail import address, canonical, encrypt, identity, layers, mime, sign, store
from hsmagent.mail.cms.ber import Malformed
from hsmagent.mail.encrypt import NoCertificate
from hsmagent.mail.headers import REQUEST
from hsmagent.mail.keys import KeysFactory
from hsmagent.mail.mime import Entity
from hsmagent.mail.spool import CHUNK, Region, Spool, fill
from hsmagent.mail.stdio import source
from hsmagent.model import printable

PROGRAM = "hsmagent-sendmail"


class KeyIsGone(HsmAgentError):
    """An address that has signed before has no key now."""


# The first class that fits an error gives the status. TEMPFAIL: the message may pass later, as when
# the token is plugged in again.
_STATUS: tuple[tuple[type[HsmAgentError], int], ...] = (
    (KeyIsGone, os.EX_TEMPFAIL),
    (Malformed, os.EX_DATAERR),
    (NoCertificate, os.EX_NOUSER),
    (UsageError, os.EX_USAGE),
    (Refused, os.EX_TEMPFAIL),
    (TokenError, os.EX_TEMPFAIL),
    (HsmAgentError, os.EX_UNAVAILABLE),
)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message for the real sendmail, with its arguments."""

    arguments: tuple[str, ...]
    message: Region


def main(argv: Sequence[str], keys: KeysFactory, settings: Settings) -> int:
    """Send what is on stdin; the real sendmail's status, or one of sysexits.h."""
    try:
        arguments = parse(argv)
        with Spool(sealed=True) as spool:
            _read(spool, dot_ends=arguments.dot_ends)
            region = canonical.sendable(Region.whole(spool))
            return _send(prepare(region, arguments, keys, settings), settings)
    except HsmAgentError as error:
        return _fail(next(s for kind, s in _STATUS if isinstance(error, kind)), error)
    except OSError as error:
        return _fail(os.EX_OSERR, f"{error.filename or 'the message'}: {error.strerror}")


def prepare(
    region: Region, arguments: Arguments, keys: KeysFactory, settings: Settings
) -> list[Outgoing]:
    """Return what is to be sent, complete; raises without anything sent."""
    entity = mime.read(region)
    asked = _asked(entity)
    # Without -t nobody else would take the Bcc out.
    dropped = {REQUEST} if arguments.from_header else {REQUEST, "bcc", "resent-bcc"}
    plain = _without(entity, dropped) if any(f.name in dropped for f in entity.fields) else region
    here = Outgoing(_passed(arguments, arguments.recipients, header=arguments.from_header), plain)
    layer = layers.find(entity)
    if layer is not None and layer.is_encrypted:
        return [here]
    if settings.encrypt is When.NEVER and "encrypt" in asked:
        raise UsageError('encryption is asked for, but [mail] encrypt is "never"')
    if layer is None:
        signed = _signed(plain, keys, settings, asked)
    else:
        signed = plain
        _compare_signer(entity, layer)
    must = settings.encrypt is When.ALWAYS or "encrypt" in asked
    if must or settings.encrypt is When.POSSIBLE:
        try:
            return _encrypted(signed, entity, arguments, keys)
        except NoCertificate:
            if must:
                raise
    return [Outgoing(here.arguments, signed)]


def _signed(region: Region, keys: KeysFactory, settings: Settings, asked: frozenset[str]) -> Region:
    """Return the message signed, if the From has a key and the settings agree; else as it is."""
    kept, entity = store.default(), mime.read(region)
    must = settings.sign is When.ALWAYS or "sign" in asked
    if "unsigned" in asked:
        for sender in address.own_addresses(entity.one("from")):
            kept.signs_no_more(sender)
        return region
    if settings.sign is When.NEVER or (settings.sign is When.ASKED and not must):
        return region
    options = sign.Options(
        datetime.now(UTC),
        files=kept.certificates(),
        program=PROGRAM,
        leads_to_root=kept.leads_to_root,
    )
    held = keys()
    try:
        who = sign.who_signs(entity, held, options)
    except identity.NoKey as error:
        if must:
            raise
        _goes_unsigned(entity, kept, error)
        return region
    out = Spool(sealed=True)
    for warning in sign.message(region, out, held, options):
        _say(warning)
    for sender in address.own_addresses(entity.one("from"))[:1]:
        if address.folded(sender) in map(address.folded, who.certificate.addresses):
            kept.signs_as(sender)
    return Region.whole(out)


def _goes_unsigned(entity: Entity, kept: store.Store, why: identity.NoKey) -> None:
    """Say that a message goes unsigned. Raises KeyIsGone for an address that has signed before."""
    for sender in address.own_addresses(entity.one("from")):
        if kept.has_signed(sender):
            raise KeyIsGone(
                f"{why}, and {printable(sender)} has signed before: nothing was sent. Plug the "
                'token in, or send it with a field "X-HSMAgent: unsigned"'
            )
    _say(f"the message goes out unsigned: {why}")


def _compare_signer(entity: Entity, layer: layers.Layer) -> None:
    """Warn of a message that was signed already, by somebody else than its From."""
    if not layer.is_signed:
        return
    senders = address.own_addresses(entity.one("from"))
    signer = sign.signer_of(layer.cms)
    if signer is not None and senders and not set(senders) <= set(signer.addresses):
        by = ", ".join(signer.addresses) or signer.name
        _say(printable(f"the From is {', '.join(senders)}, but the message is signed by {by}", 400))


def _encrypted(
    region: Region, original: Entity, arguments: Arguments, keys: KeysFactory
) -> list[Outgoing]:
    """Return one message for the recipients in To and Cc, and one for each Bcc recipient alone."""
    now, kept = datetime.now(UTC), store.default()
    named = encrypt.addressees(original)
    hidden = encrypt.addressees(original, ("bcc",)) if arguments.from_header else ()
    to = _addresses(arguments.recipients)
    if arguments.from_header:
        to = tuple(dict.fromkeys((*to, *named)))
    else:  # a recipient whom the header does not name is a Bcc
        hidden, to = tuple(a for a in to if a not in named), tuple(a for a in to if a in named)
    own = encrypt.own_entry(original, kept, "", now)
    if own is None:
        own = identity.for_encryption(keys().keys(), original.one("from"), now)
    find = identity.finder(keys, now)
    own, made = identity.ours(own, keys), []
    for group in (to, *((one,) for one in hidden if one not in to)):
        if group:
            out = Spool(sealed=True)
            options = encrypt.Options(now, to=group, own=(own,), find_own=find)
            encrypt.message(region, out, kept, options)
            made.append(Outgoing(_passed(arguments, group, header=False), Region.whole(out)))
    if not made:
        raise UsageError("the message has no recipients")
    return made


def _addresses(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(a for word in words for a in address.mailboxes(word))


def _asked(entity: Entity) -> frozenset[str]:
    words = frozenset(",".join(entity.all(REQUEST)).replace(",", " ").lower().split())
    if words - {"sign", "encrypt", "unsigned"} or words >= {"sign", "unsigned"}:
        raise UsageError("X-HSMAgent takes the words encrypt, and sign or unsigned")
    return words


def _without(entity: Entity, names: Collection[str]) -> Region:
    """Return the message without these fields."""
    out = Spool(sealed=True)
    out.write(b"".join(field.raw for field in entity.fields if field.name not in names))
    out.write(entity.newline)
    out.writelines(entity.body.chunks())
    return Region.whole(out)


def _passed(arguments: Arguments, recipients: Sequence[str], *, header: bool) -> tuple[str, ...]:
    """Return the arguments for the real sendmail. -i: we have seen to a dot alone on a line."""
    to = ("--", *recipients) if recipients else ()
    return ("-i", *(("-t",) if header else ()), *arguments.passed, *to)


def _read(spool: Spool, *, dot_ends: bool) -> None:
    """Read stdin; without -i a line that holds only a dot ends the message."""
    if not dot_ends:
        fill(spool, source())
        return
    starts = True  # a longer line comes in pieces
    for piece in iter(lambda: source().readline(CHUNK), b""):
        if starts and piece in {b".\n", b".\r\n"}:
            return
        spool.write(piece)
        starts = piece.endswith(b"\n")


def _send(messages: Sequence[Outgoing], settings: Settings) -> int:
    """Hand the messages over, one after the other; stop at the first that is not taken."""
    real = settings.sendmail[0]
    if Path(shutil.which(real) or real).resolve().name == PROGRAM:
        raise UsageError(f"[mail] sendmail must name the real one, not {PROGRAM}")
    for number, outgoing in enumerate(messages):
        command = (*settings.sendmail, *outgoing.arguments)
        try:
            status = _run(command, outgoing.message)
        except FileNotFoundError:
            return _fail(os.EX_UNAVAILABLE, f"there is no {command[0]}; set [mail] sendmail")
        if status:
            if number:
                said = f"{number} of {len(messages)} copies were sent, the next one was not taken"
                return _fail(status, said)
            return status
    return os.EX_OK


def _run(command: Sequence[str], message: Region) -> int:
    with subprocess.Popen(command, stdin=subprocess.PIPE) as real:
        try:
            if real.stdin is not None:
                real.stdin.writelines(message.chunks())
                real.stdin.close()
        except BrokenPipeError:
            pass  # its status says why it stopped reading
    return real.returncode if real.returncode >= 0 else os.EX_TEMPFAIL


def _say(sentence: object) -> None:
    sys.stderr.write(f"{PROGRAM}: {sentence}\n")


def _fail(status: int, sentence: object) -> int:
    _say(sentence)
    return status
