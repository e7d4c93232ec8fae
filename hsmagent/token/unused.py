"""Why a token is not used: one sentence for each slot that needs one, with the remedy."""

from collections.abc import Iterator

from hsmagent.model import quoted
from hsmagent.worker import spec
from hsmagent.worker.messages import CardReader, SlotInfo

_WITHHELD = {
    "exclusive": (
        "is kept by another program to itself: end that one (GnuPG's scdaemon by"
        " `gpgconf --kill scdaemon`), or wait until it has done"
    ),
    "mute": "does not answer: put it in the other way round, or clean it",
}


def notes(slots: tuple[SlotInfo, ...], used: frozenset[int]) -> tuple[str, ...]:
    """Return the notes on slots that are not among the `used` ones (slot ids).

    A module for software tokens always offers a blank token, which is noted only if it is alone.
    """
    return tuple(
        note
        for slot in slots
        if slot.slot not in used
        for note in _notes(slot, alone=not used and len(slots) == 1)
    )


def _notes(slot: SlotInfo, *, alone: bool) -> Iterator[str]:
    place = _place(slot)
    token = slot.token
    if slot.rv == spec.CKR_TOKEN_NOT_RECOGNIZED:
        yield (
            f"what is in {place} is not known to the module ({spec.rv_name(slot.rv)}):"
            " it may be no token, or want another module; a new SmartCard-HSM is made usable by"
            " `hsmagent token init`"
        )
    elif slot.rv:
        yield (
            f"what is in {place} cannot be read: {spec.rv_meaning(slot.rv)}; if another program"
            " keeps it to itself, end that one, else take it out and put it in again"
        )
    elif token is None:
        return
    elif not token.flags & spec.CKF_TOKEN_INITIALIZED:
        if slot.hardware or alone:
            yield (
                f"the token in {place} is not initialised: `hsmagent token init` makes it usable"
            )
    elif not token.label:
        yield (
            f"the token in {place} has no label and is not used:"
            " `hsmagent token init --label LABEL` gives it one, and erases it"
        )
    else:
        yield (
            f"a second token {quoted(token.label.decode(errors='replace'))} with the same serial"
            f" number, in {place}, is not used: give it another label"
        )


def withheld(readers: tuple[CardReader, ...], slots: tuple[SlotInfo, ...]) -> tuple[str, ...]:
    """Return the notes on cards that pcscd sees and the module does not.

    To the module their readers seem empty. slots: the module's; empty while its worker is ended.
    """
    ours = [slot.name for slot in slots if slot.token is not None and slot.name]
    return tuple(
        f"the card in {quoted(reader.name.decode(errors='replace'))} {_WITHHELD[kept]}"
        for reader in readers
        if (kept := _kept(reader)) and not any(reader.name.startswith(name) for name in ours)
    )


def _kept(reader: CardReader) -> str:
    return "exclusive" if reader.exclusive else "mute" if reader.mute else ""


def _place(slot: SlotInfo) -> str:
    name = slot.name.decode(errors="replace")
    return f"{quoted(name)} (slot {slot.slot})" if name else f"slot {slot.slot}"
