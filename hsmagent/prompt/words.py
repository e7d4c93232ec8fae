"""What a person reads: every sentence of every dialog, made from frozen values.

All foreign text passes `printable`. The lines come in the order of the questions that a person has:
which token, who asks, for what, where, with which key.
"""

from collections.abc import Sequence
from typing import Any

from hsmagent.model import (
    PKCS11_PURPOSES,
    Key,
    KeyType,
    PinState,
    PurposeKind,
    Request,
    TokenId,
    TokenStatus,
    name_of,
    printable,
    quoted,
    token_name,
)
from hsmagent.prompt.base import Text

LISTED = 4  # requests that are listed; further ones are counted, so that the window stays small

# NIST's own names, which people know; other curves have but one name.
CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}

LAST_TRY = "One try is left: another wrong PIN blocks the token."
HIDE = "Hide"  # not "OK": the button only hides the note, and the token still waits
LASTING = "Allowed once, it may use this key unasked until the login to the token ends."
FEW_LEFT = "Few tries may be left."
EACH_USE = "This key wants its PIN for each use."
TPM = "Wrong PINs count for the whole TPM: a few of them lock it for everybody for hours."


def key_line(key: Key) -> str:
    """Return a key in a few words: its label and kind."""
    return f"{_label(key)} ({key_kind(key)})"


def _label(key: Key) -> str:
    return printable(key.label, 60) or "unnamed key"


def key_kind(key: Key) -> str:
    """Return the kind of a key: "RSA 2048", "ECDSA P-256", "Ed25519"."""
    match key.key_type:
        case KeyType.RSA:
            return f"RSA {key.bits}"
        case KeyType.EC:
            return f"ECDSA {CURVES.get(key.curve, key.curve)}"
    return str(key.key_type)


def request_line(request: Request) -> str:
    """Return who asks and for what, in one clause: "ssh ← git wants to log in to host as u"."""
    line = f"{request.peer.chain} wants to {request.purpose.summary}"
    if request.destination is not None and request.destination.host:
        line += f" at {printable(request.destination.host, 80)}"
        if request.destination.forwarded:
            line += " (forwarded)"
    return line


def describe(requests: Sequence[Request]) -> str:
    """Return the lines about everyone who waits; the first one in full."""
    if not requests:
        return ""
    first, *others = requests
    lines = [request_line(first), f"Key: {key_line(first.key)}"]
    if first.key.always_authenticate:
        lines.append(EACH_USE)
    lines += filter(None, [_lasting(first)])
    if others:
        lines.append("Also waiting:")
        lines += [f"• {request_line(request)}" for request in others[: LISTED - 1]]
        if len(requests) > LISTED:
            lines.append(f"• and {len(requests) - LISTED} more")
    return "\n".join(lines)


def _lasting(request: Request) -> str:
    """Return what else a program may do after a yes, or ""."""
    doubt = request.purpose.doubt
    is_lasting = doubt is not None and doubt.subject
    return LASTING if is_lasting and request.purpose.kind in PKCS11_PURPOSES else ""


def _about(requests: Sequence[Request]) -> dict[str, Any]:
    """Return subject and request: who asks for what and where, of which token.

    For the subject neither the user of a login nor the key counts: a program that was refused one
    key goes on to the token's next.
    """
    if not requests:
        return {}
    first = requests[0]
    to = first.destination
    where = "" if to is None else f"{to.host} {to.forwarded}"
    what = "" if first.purpose.kind is PurposeKind.SSH else first.purpose.summary
    subject = f"{first.peer.chain} {first.purpose.kind} {what} {where} {first.key.token}"
    return {"subject": subject, "request": first}


def ask_pin(status: TokenStatus, requests: Sequence[Request], warning: str) -> Text:
    """Return the PIN dialog of a token, for the requests that wait for it."""
    return Text(
        title=f"Unlock {token_name(status.id)}",
        message=f"PIN for the token {name_of(status.id)}",
        description=_lines(describe(requests), tpm_note(status.id)),
        warning=_warning(status, warning),
        ok="Unlock",
        **_about(requests),
    )


def ask_pin_for_use(status: TokenStatus, requests: Sequence[Request], warning: str) -> Text:
    """Return the dialog for the PIN of one use, of a key that wants it for each.

    It sometimes follows the dialog of a login, and must not read as if that had failed.
    """
    first = requests[0]
    return Text(
        title=f"Use a key of {token_name(status.id)}",
        message=f"PIN to use the key {quoted(_label(first.key))} of {name_of(status.id)} once",
        description=_lines(describe(requests), tpm_note(status.id)),
        warning=_warning(status, warning),
        ok="Use it once",
        **_about(requests),
    )


def _warning(status: TokenStatus, warning: str) -> str:
    return " ".join(filter(None, (warning, tries(status.pin_state, just_now=bool(warning)))))


def _lines(*lines: str) -> str:
    return "\n".join(filter(None, lines))


def last_try(status: TokenStatus, requests: Sequence[Request]) -> Text:
    """Return the question before the try that may block a token."""
    return Text(
        title=f"Last try for {token_name(status.id)}",
        message=f"Really enter a PIN for {name_of(status.id)}?",
        description=describe(requests),
        warning=LAST_TRY,
        ok="Enter PIN",
        **_about(requests),
    )


def use_pin_pad(status: TokenStatus, requests: Sequence[Request]) -> Text:
    """Return the note that the reader's own keys are to be used."""
    return Text(
        title=f"Unlock {token_name(status.id)}",
        message=f"Type the PIN of {name_of(status.id)} on the reader",
        description=describe(requests),
        warning=tries(status.pin_state),
        ok=HIDE,
        **_about(requests),
    )


def ask_fido_pin(request: Request) -> Text:
    """Return the dialog for the PIN of a FIDO key, for one use of it."""
    touch = " and touch it" if request.key.touch else ""
    return Text(
        title="Use a FIDO key",
        message=f"Enter the PIN of the FIDO key {quoted(_label(request.key))}{touch}",
        description=describe([request]),
        **_about([request]),
    )


def touch(request: Request) -> Text:
    """Return the note that a FIDO key waits for a touch."""
    return Text(
        title="Use a FIDO key",
        message=f"Touch your key {quoted(_label(request.key))}",
        description=request_line(request),
        ok=HIDE,
        **_about([request]),
    )


def confirm(request: Request) -> Text:
    """Return the yes-or-no question before one use of a key."""
    lines = (request_line(request), _of_token(request.key), _lasting(request))
    return Text(
        title="Use a key",
        message=f"Allow the use of {key_line(request.key)}?",
        description=_lines(*lines),
        ok="Allow",
        **_about([request]),
    )


def _of_token(key: Key) -> str:
    return f"Token: {token_name(key.token)}" if key.token is not None else ""


def tries(state: PinState, *, just_now: bool = False) -> str:
    """Return what a person should know of the tries left, or "".

    just_now: the wrong PIN that lowered the count was given in this very dialog.
    """
    if state is PinState.FINAL_TRY:
        return LAST_TRY
    if state is PinState.COUNT_LOW:
        return FEW_LEFT if just_now else f"A wrong PIN was given before. {FEW_LEFT}"
    return ""


def tpm_note(token: TokenId) -> str:
    """Return the warning about a TPM's global lockout, or "" for another token."""
    return TPM if token.in_tpm else ""
